-- Reads the bodies of requests, and lets go those that take too long to come.
--
-- nginx bounds the pause between two pieces of a body (client_body_timeout) and not the whole of it: a byte every 29 s
-- goes on for as long as a client likes. A bound for the whole takes a second coroutine, which costs up to a tenth of a
-- small request. So as many bodies as can hold nothing up have none, and all beyond those have one.

local answers = require "answers"
local base = require "resty.core.base"
local ffi = require "ffi"

-- How many bodies may be under way in a worker before the next ones have a bound: of any size, and of less than LARGE
-- bytes, which is what they hold of its memory. It has 16,384 connections.
local ANY, FEW, LARGE = 4, 64, 1024 * 1024
-- Seconds, and bytes a second beyond them: half of what the slowest uplinks of today's phones do.
local GRACE, RATE = 30, 16 * 1024
local UNITS = { [""] = 1, k = 1024, m = 1024 ^ 2, g = 1024 ^ 3 }

local ADDRESS = ffi.typeof("intptr_t")
local cast, get_request = ffi.cast, base.get_request
local M = {}

-- {request: true} and how many they are: bodies of this worker that are being read.
local under_way, many = {}, 0

-- What tells a request from all others while it lasts. Of all requests this is done, so it is the cheapest way.
local function this()
  return tonumber(cast(ADDRESS, get_request()))
end

local function done(request)
  if under_way[request] then
    under_way[request] = nil
    many = many - 1
  end
end

-- The bytes of the largest body that may be, for one that does not say how large it is.
local function most()
  local number, unit = string.match(ngx.var.tandem_body_limit, "^(%d+)(%a?)$")
  return number * UNITS[string.lower(unit)]
end

local function within(seconds)
  local bound = ngx.thread.spawn(function()
    ngx.sleep(seconds)
    answers.fail(408, "request_timeout", "The request's body took longer than " .. math.floor(seconds) .. " s to arrive.")
  end)
  ngx.req.read_body()
  ngx.thread.kill(bound)
end

-- Reads a body when there are more than a few.
local function read_one_more()
  local length = tonumber(ngx.var.http_content_length)
  if many <= FEW and length and length < LARGE then
    return ngx.req.read_body()
  end
  return within(GRACE + (length or most()) / RATE)
end

-- Reads the body of this request; a client that is too slow is answered here, and then this does not return.
function M.read()
  local request = this()
  under_way[request] = true
  many = many + 1
  if many <= ANY then
    ngx.req.read_body()
  else
    read_one_more()
  end
  done(request)
end

-- In the log phase, of a request that may have ended while its body was read.
function M.over()
  done(this())
end

return M
