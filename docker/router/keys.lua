-- Says who may ask for models: whoever sends one of the keys of a file, or everybody while it holds none.
-- orchestrator/keys.py writes the file by the same rules.

local answers = require "answers"
local limits = require "limits"
local same = require "same"

local FILE = "/run/keys/keys"
-- Other machines are let in only with a key, so a file that holds none is no good one then.
local NEEDED = not string.find(os.getenv("TANDEM_BIND") or "127.0.0.1", "^127%.") and
  not string.find(os.getenv("TANDEM_BIND") or "", "^%[?::1%]?$") and os.getenv("TANDEM_BIND_WITHOUT_KEY") ~= "yes"
local LINE = "should be NAME KEY [rate=N/s, N/m or N/h] [concurrent=N], the key of 16 signs at the least"
local UNITS = { s = 1, m = 60, h = 3600 }
local kept = ngx.shared.keys
local M = {}

-- What is in force, nil when nothing was ever read, and which version of it; the text that was looked at last, and when;
-- whether the last look found no key where there were some; what kept the file from being read, as it was told.
local entries, known, seen, looked = nil, nil, nil, -1
local none, told = false, nil

local function contents()
  local file, problem, code = io.open(FILE, "rb")
  if not file then
    -- ENOENT
    return code == 2 and "" or nil, problem
  end
  local text
  text, problem = file:read("*a")
  file:close()
  return text, problem
end

-- Fills an entry's limits; gives what is wrong with a word.
local function option(entry, word)
  local number, unit = string.match(word, "^rate=([1-9]%d*)/([smh])$")
  if number and #number <= 9 and not entry.rate then
    entry.rate, entry.window = tonumber(number), UNITS[unit]
    return
  end
  number = string.match(word, "^concurrent=([1-9]%d*)$")
  if number and #number <= 6 and not entry.concurrent then
    entry.concurrent = tonumber(number)
    return
  end
  return "has words after the key that are not one rate=N/s, N/m or N/h and one concurrent=N"
end

local function read(line)
  local words = {}
  for word in string.gmatch(line, "[^ \t\r]+") do
    if string.sub(word, 1, 1) == "#" then
      break
    end
    words[#words + 1] = word
  end
  if #words == 0 then
    return
  end
  local name, key = words[1], words[2]
  if not key or not string.find(key, "^[!-~]+$") or #key < 16 or #key > 512 or #name > 64 or
    not string.find(name, "^%w[%w._-]*$") then
    return nil, LINE
  end
  local entry = { name = name, digest = same.digest(key) }
  for i = 3, #words do
    local problem = option(entry, words[i])
    if problem then
      return nil, problem
    end
  end
  return entry
end

-- Gives the entries of a text; or nil and what is wrong, which never repeats a key.
local function parse(text)
  local found, number = {}, 0
  for line in string.gmatch(string.gsub(text, "^\239\187\191", "") .. "\n", "([^\n]*)\n") do
    number = number + 1
    local entry, problem = read(line)
    for _, other in ipairs(entry and found or {}) do
      if other.name == entry.name or other.digest == entry.digest then
        problem = "has the name or the key of an earlier one"
      end
    end
    if problem then
      return nil, "line " .. number .. " " .. problem
    end
    found[#found + 1] = entry
  end
  if #found == 0 and NEEDED then
    return nil, "it holds no key, and TANDEM_BIND lets other machines in"
  end
  return found
end

-- What one worker read is in force for all, and stays so through a reload.
local function share()
  local version = kept:get("version")
  if version == known then
    return
  end
  known = version
  seen = kept:get("good")
  entries = parse(seen) or entries
end

-- Looks at the file once a second at the most. The last good one stays in force.
local function look()
  share()
  local now = ngx.now()
  if now >= looked and now < looked + 1 then
    return
  end
  looked = now
  local text, problem = contents()
  if text and text == seen then
    none = false
    return
  end
  local found
  if text then
    found, problem = parse(text)
  end
  -- A file that is written anew is empty, or gone, for a moment, in which everybody would be let in.
  if found and #found == 0 and entries and #entries > 0 and not none then
    none = true
    return
  end
  none = false
  if found then
    entries = found
    if kept:set("good", text) then
      known = kept:incr("version", 1, 0)
    end
  elseif text or problem ~= told then
    ngx.log(ngx.ERR, "the keys in ", FILE, " are not taken: ", problem, entries and "; the last good ones stay" or "")
  end
  seen, told = text, not text and problem or nil
end

-- All are compared, so that it takes as long whichever it is.
local function find(key)
  local digest, found = same.digest(key), nil
  for _, entry in ipairs(entries) do
    if same.digests(digest, entry.digest) then
      found = entry
    end
  end
  return found
end

-- Gives the entry of the key that was sent, and whether one was; ours goes no further than here.
local function sent(var)
  local bearer = string.match(var.http_authorization or "", "^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+)%s*$")
  local entry = bearer and find(bearer)
  if entry then
    ngx.req.clear_header("Authorization")
  end
  -- Anthropic's clients say it this way, and some both ways.
  local own = var.http_x_api_key
  local other = own and find(own)
  if other then
    ngx.req.clear_header("X-Api-Key")
  end
  return entry or other, bearer or own
end

local function unknown(code, challenge, message)
  ngx.header["WWW-Authenticate"] = 'Bearer realm="tandem"' .. challenge
  answers.fail(401, code, message)
end

-- Lets a request pass that may; true when it was answered here.
function M.refused()
  look()
  if entries == nil then
    ngx.header["Retry-After"] = 5
    answers.fail(503, "keys_unreadable", "The router cannot read its file of keys, so it lets nobody in. " ..
      "'python -m orchestrator logs router' shows why.")
    return true
  end
  if #entries == 0 then
    return false
  end
  local var = ngx.var
  local entry, any = sent(var)
  if entry then
    return limits.refused(entry)
  end
  if any then
    unknown("wrong_key", ', error="invalid_token"', "There is no such key here, or it was removed.")
  else
    unknown("no_key", "", "Send a key, as Authorization: Bearer KEY or as x-api-key: KEY. Who runs this router makes " ..
      "one: python -m orchestrator keys add NAME.")
  end
  return true
end

return M
