-- Owns how many requests each server has in flight from here.

local answers = require "answers"
local workers = require "workers"

local in_flight = ngx.shared.in_flight
local mine = workers.mine
local M = {}

-- Counts a request of a server.
function M.start(service)
  in_flight:incr(mine(service), 1, 0)
end

-- Counts it off: when it is over, or another is to answer it.
function M.stop(service)
  in_flight:incr(mine(service), -1)
end

-- {service: requests}; one that never had a request is not in it.
function M.all()
  local found = {}
  workers.each(in_flight, nil, function(service, number)
    found[service] = (found[service] or 0) + number
  end, function() end)
  return found
end

-- GET /in-flight
function M.list()
  return answers.say(200, M.all())
end

return M
