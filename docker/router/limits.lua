-- Owns how much each key may ask for: requests in a stretch of time, and requests at once.

local answers = require "answers"
local workers = require "workers"

local dict = ngx.shared.limits
local M = {}

-- A stretch of time that slides: this stretch's requests, and of the one before as much as still counts. Gives the
-- seconds to wait, or nil when a request may pass. One that may not is not counted.
local function early(entry)
  local rate, window, now = entry.rate, entry.window, ngx.now()
  local number = math.floor(now / window)
  local passed = now / window - number
  local key = "rate " .. entry.name .. " " .. window .. " "
  local others = dict:incr(key .. number, 1, 0, 2 * window)
  if not others then
    -- The dictionary is full; to serve is better then.
    return
  end
  others = others - 1
  local before = dict:get(key .. (number - 1)) or 0
  if before * (1 - passed) + others < rate then
    return
  end
  dict:incr(key .. number, -1)
  return (others < rate and 1 - (rate - others) / before - passed or 1 - passed) * window
end

local function held(name)
  return "held " .. name
end

-- Takes away what workers held that are no more.
local function recount(name)
  if not dict:add("recount " .. name, true, 1) then
    return
  end
  workers.each(dict, held(name), function() end, function(_, number)
    dict:incr("total " .. name, -number)
  end)
end

-- When a request is over, however it ended. $tandem_key names its key where it had one, and then it was counted. Gives the
-- name, "" of one with none.
function M.ended()
  local name = ngx.var.tandem_key
  if name ~= "" then
    dict:incr(workers.mine(held(name)), -1)
    dict:incr("total " .. name, -1)
  end
  return name
end

-- Counts a request of a key from now on; true when that makes it one too many.
local function full(entry)
  local name, most = entry.name, entry.concurrent
  dict:incr(workers.mine(held(name)), 1, 0)
  local total = dict:incr("total " .. name, 1, 0)
  if not most or not total or total <= most then
    return false
  end
  recount(name)
  return (dict:get("total " .. name) or 0) > most
end

-- True when a key's request was answered here, as it is one too many.
function M.refused(entry)
  ngx.var.tandem_key = entry.name
  if full(entry) then
    ngx.header["Retry-After"] = 1
    answers.fail(429, "too_many_requests", "The key '" .. entry.name .. "' may have " .. entry.concurrent ..
      " requests at once. Wait until one of them is answered.")
    return true
  end
  local wait = entry.rate and early(entry)
  if wait then
    local seconds = math.floor(wait) + 1
    ngx.header["Retry-After"] = seconds
    answers.fail(429, "rate_limit_exceeded", "The key '" .. entry.name .. "' may send " .. entry.rate ..
      " requests in " .. entry.window .. " s. The next may come in " .. seconds .. " s.")
    return true
  end
  return false
end

return M
