-- Reads which model a JSON body names, as the server will read it: in place, where nginx has it, and only as far as is
-- needed to be sure.
--
-- vLLM takes the last of two "model" keys (Python's json.loads). A body whose bytes hold "model" once and no \u006, which
-- begins each of that word's letters when it is escaped, has one such key at most. That it stands in the outermost object
-- shows in what comes before it or after it, whichever is shorter. All other bodies are decoded whole. A body
-- that is no JSON may be passed on by the short way: its server reads all of it, and refuses it.

local base = require "resty.core.base"
local cjson = require "cjson.safe"
local ffi = require "ffi"
local pcre = require "pcre"

local C = ffi.C
local M = {}

local BLANK = [[[ \t\r\n]*+]]
-- JSON's grammar without its numbers' and words' details. Nothing is tried twice, so that time grows with length alone.
local GRAMMAR = [[(?(DEFINE)(?<string>"(?:[^"\\\x00-\x1f]++|\\[^\x00-\x1f])*+")]] ..
  [[(?<value>(?&string)|\{_(?:(?&member)(?:,_(?&member))*+)?+\}|\[_(?:(?&value)_(?:,_(?&value)_)*+)?+\]|[-+.0-9A-Za-z]++)]] ..
  [[(?<member>(?&string)_:_(?&value)_))]]

local function grammatical(pattern)
  return pcre.compile((string.gsub(GRAMMAR .. pattern, "_", BLANK)))
end

local SUSPECT = pcre.compile([["model"|\\u006]])
local NAME = pcre.compile([[\G[ \t\r\n]*+:[ \t\r\n]*+"([^"\\\x00-\x1f]*+)"]])
local BEFORE = grammatical([[\A_\{_(?:(?&member),_)*+\z]])
local AFTER = grammatical([[\G_(?:,_(?&member))*+\}_\z]])

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

-- The whole of it: the name, or nil and what is wrong; "" when it names none.
local function decoded(text)
  -- A mark that says UTF-8.
  local from = string.sub(text, 1, 3) == "\239\187\191" and 4 or 1
  local value, problem = cjson.decode(from == 1 and text or string.sub(text, 4))
  if value == nil then
    return nil, (string.gsub(problem, "T_END", "the end"))
  end
  if not string.find(text, "^[ \t\r\n]*{", from) then
    return nil, "It should be an object: {\"model\": …}"
  end
  local name = value.model
  if name == nil or name == cjson.null then
    return ""
  end
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
  return decoded(ffi.string(bytes, length))
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
