-- Reads which model a JSON body names, as the server will read it: in place, where nginx has it, and only as far as is
-- needed to be sure.
--
-- vLLM takes the last of two "model" keys (Python's json.loads). A body whose bytes hold "model" once and no \u006, which
-- begins each of that word's letters when it is escaped, has one such key at most. That it stands in the outermost object
-- shows in what comes before it or after it, whichever is shorter. All other bodies are read whole. A body
-- that is no JSON may be passed on by either way: its server reads all of it, and refuses it.

local base = require "resty.core.base"
local cjson = require "cjson.safe"
local ffi = require "ffi"
local pcre = require "pcre"

local C = ffi.C
local M = {}

-- A body of up to so many bytes is decoded to say what is wrong with it. Lua's tables for 8 MB of numbers took 0.1 s and
-- 190 MB of memory.
local SMALL = 64 * 1024
-- In a larger one so many levels are looked into, each of which is read once more.
local LEVELS = 4
local TOO_DEEP = "It is nested too deep"

local BLANK = [[[ \t\r\n]*+]]
-- JSON's grammar without its numbers' and words' details, nor the commas between those. Nothing is tried twice but a list
-- that begins with some of them, so that time grows with length alone.
local GRAMMAR = [[(?(DEFINE)(?<string>"(?:[^"\\\x00-\x1f]++|\\[^\x00-\x1f])*+")]] ..
  [=[(?<value>(?&string)|\{_(?:(?&member)(?:,_(?&member))*+)?+\}|\[[-+.0-9A-Za-z, \t\r\n]*+\]]=] ..
  [[|\[_(?:(?&value)_(?:,_(?&value)_)*+)?+\]|[-+.0-9A-Za-z]++)]] ..
  [[(?<member>(?&string)_:_(?&value)_))]]
-- How many groups it has.
local GROUPS = 3
-- Every way to write the word.
local KEY = [["(?:m|\\u006[dD])(?:o|\\u006[fF])(?:d|\\u0064)(?:e|\\u0065)(?:l|\\u006[cC])"]]

local function grammatical(pattern)
  return pcre.compile((string.gsub(GRAMMAR .. pattern, "_", BLANK)))
end

local SUSPECT = pcre.compile([["model"|\\u006]])
local NAME = pcre.compile([[\G[ \t\r\n]*+:[ \t\r\n]*+"([^"\\\x00-\x1f]*+)"]])
local BEFORE = grammatical([[\A_\{_(?:(?&member),_)*+\z]])
local AFTER = grammatical([[\G_(?:,_(?&member))*+\}_\z]])
-- After a mark that says UTF-8, perhaps. What a group caught last is what it gives.
local WHOLE = grammatical([[\A(?:\xef\xbb\xbf)?_\{_(?:(?:]] .. KEY ..
  [[_:_((?&value))_|(?&member))(?:,_(?!\})|(?=\})))*+\}_\z]])
local OBJECT = pcre.compile([[\A(?:\xef\xbb\xbf)?[ \t\r\n]*+\{]])
-- What is good of an object or a list, and its beginning.
local GOOD = grammatical([[\G_(?:(?&string)_:_)?(?:\{_(?:(?&member),_)*+|\[_(?:(?&value)_,_)*+)]])

-- Gives the name when the short way is sure of it.
local function quick(bytes, length)
  local at, stop = pcre.find(SUSPECT, bytes, length, 0)
  -- After a backslash it is a piece of a longer string; one of 5 bytes is an escape.
  if not at or stop - at ~= 7 or at == 0 or bytes[at - 1] == 92 then
    return nil
  end
  local _, past, from, to = pcre.find(NAME, bytes, length, stop)
  if not past or pcre.find(SUSPECT, bytes, length, stop) then
    return nil
  end
  local sure
  if at <= length - past then
    sure = pcre.find(BEFORE, bytes, at, 0)
  else
    sure = pcre.find(AFTER, bytes, length, past)
  end
  return sure and ffi.string(bytes + from, to - from) or nil
end

-- Python takes UTF-16 and UTF-32 too, which it knows by their first bytes; nothing else here does.
local function wide(bytes, length)
  for i = 0, math.min(length, 4) - 1 do
    if bytes[i] == 0 then
      return true
    end
  end
  return length >= 2 and bytes[0] + bytes[1] == 509 and bytes[0] >= 254
end

-- Says what is wrong with a body that is not one object; deep: so much of it lies within one another that it was not read.
local function wrong(bytes, length, deep)
  if length <= SMALL then
    local value, problem = cjson.decode(ffi.string(bytes, length))
    if value == nil then
      return (string.gsub(problem, "T_END", "the end"))
    end
  end
  if not pcre.find(OBJECT, bytes, length, 0) then
    return "It should be an object: {\"model\": …}"
  end
  if deep then
    return TOO_DEEP
  end
  local good = 0
  for _ = 1, LEVELS do
    local found, stop = pcre.find(GOOD, bytes, length, good)
    if not found and stop then
      return TOO_DEEP
    elseif not found then
      break
    end
    good = stop
  end
  return "What begins at character " .. good + 1 .. " is no JSON"
end

-- The name that a body's last "model" has: "" when that is null, or nil and what is wrong with it.
local function named(text)
  if text == "null" then
    return ""
  end
  local name = string.sub(text, 1, 1) == '"' and cjson.decode(text)
  if type(name) ~= "string" then
    return nil, "Its model should be a string"
  end
  return name
end

-- bytes (a pointer) and length: the name of the model, "" when it names none, or nil and what is wrong with the body.
function M.model(bytes, length)
  if length > 0 and wide(bytes, length) then
    return nil, "It should be UTF-8"
  end
  local name = length > 0 and quick(bytes, length)
  if name and name ~= "" then
    return name
  end
  local whole, deep, from, to = pcre.find(WHOLE, bytes, length, 0, GROUPS + 1)
  if not whole then
    return nil, wrong(bytes, length, deep)
  end
  if not from then
    return ""
  end
  return named(ffi.string(bytes + from, to - from))
end

local value, size, fault = ffi.new("char *[1]"), ffi.new("size_t[1]"), ffi.new("char *[1]")
local REQUEST_BODY = "request_body"
local lowered = ffi.new("char[16]")

-- What a pointer points into, until the next request: Lua would throw it away.
local kept

-- The request's body after it was read: a pointer into nginx's buffer, which lives as long as the request, and its length.
-- What resty.core does for ngx.var, without the copy that it makes.
function M.bytes()
  local found = C.ngx_http_lua_ffi_var_get(base.get_request(), REQUEST_BODY, #REQUEST_BODY, lowered, 0, value, size, fault)
  if found == 0 then
    return ffi.cast("const uint8_t *", value[0]), tonumber(size[0])
  end
  kept = ""
  -- One that is larger than nginx's buffer.
  local path = ngx.req.get_body_file()
  if path then
    local file = assert(io.open(path, "rb"))
    kept = file:read("*a")
    file:close()
  end
  return ffi.cast("const uint8_t *", kept), #kept
end

return M
