-- Owns counts that belong to one worker process each, in a shared dictionary as `WHAT PID`: one that is killed takes its
-- counts with it, as it takes its connections.

local M = {}

-- {what: its name in this worker}. Made as requests come: a worker is not there yet when this is read.
local names = {}

-- The name of this worker's count of something.
function M.mine(what)
  local found = names[what]
  if not found then
    found = what .. " " .. ngx.worker.pid()
    names[what] = found
  end
  return found
end

-- Whether a worker process of this nginx still works.
local function works(pid)
  local file = io.open("/proc/" .. pid .. "/cmdline")
  if not file then
    return false
  end
  local command = file:read("*a")
  file:close()
  return string.sub(command, 1, 13) == "nginx: worker"
end

-- Goes through a dictionary's counts, all or of one thing alone: calls kept(what, number) for each of a worker that is
-- there, and lost(what, number) for each of one that is no more, which is then deleted.
function M.each(dict, only, kept, lost)
  local working = {}
  for _, name in ipairs(dict:get_keys(0)) do
    local what, pid = string.match(name, "^(.+) (%d+)$")
    if what and (not only or what == only) then
      if working[pid] == nil then
        working[pid] = works(pid)
      end
      local number = dict:get(name) or 0
      if working[pid] then
        kept(what, number)
      else
        lost(what, number)
        -- No worker but its own changes a count, so this one is nobody's.
        dict:delete(name)
      end
    end
  end
end

return M
