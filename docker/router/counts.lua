-- Owns how many requests each server has in flight from here. A count belongs to one worker process, so that one that is
-- killed takes its counts with it, as it takes its connections.

local answers = require "answers"

local in_flight = ngx.shared.in_flight
local M = {}

-- {service: its count's name in this worker}. Made as requests come: a worker is not there yet when this is read.
local keys = {}

local function key(service)
  local found = keys[service]
  if not found then
    found = service .. " " .. ngx.worker.pid()
    keys[service] = found
  end
  return found
end

-- Counts a request of a server.
function M.start(service)
  in_flight:incr(key(service), 1, 0)
end

-- Counts it off: when it is over, or another is to answer it.
function M.stop(service)
  in_flight:incr(key(service), -1)
end

-- Whether a worker process of this nginx still works.
function M.works(pid)
  local file = io.open("/proc/" .. pid .. "/cmdline")
  if not file then
    return false
  end
  local command = file:read("*a")
  file:close()
  return string.sub(command, 1, 13) == "nginx: worker"
end

-- {service: requests}; one that never had a request is not in it.
function M.all()
  local found, workers = {}, {}
  for _, name in ipairs(in_flight:get_keys(0)) do
    local service, pid = string.match(name, "^(%S+) (%d+)$")
    if workers[pid] == nil then
      workers[pid] = M.works(pid)
    end
    if workers[pid] then
      found[service] = (found[service] or 0) + (in_flight:get(name) or 0)
    else
      -- No worker but its own changes a count, so this one is nobody's.
      in_flight:delete(name)
    end
  end
  return found
end

-- GET /in-flight
function M.list()
  return answers.say(200, M.all())
end

return M
