-- Keeps the file of the access log small: as large as it may be, it becomes the one before, and nginx begins another.

local ffi = require "ffi"
local process = require "ngx.process"

ffi.cdef [[ int kill(int pid, int signal); ]]

local FILE = "/var/log/tandem/access.log"
local MOST = 20 * 1024 * 1024
-- Seconds between two looks: at some thousand requests a second a few MB are written meanwhile.
local OFTEN = 5
-- USR1: nginx opens its logs anew.
local REOPEN = 10

local M = {}

local function look()
  local file = io.open(FILE, "rb")
  local size = file and file:seek("end") or 0
  if file then
    file:close()
  end
  if size > MOST and os.rename(FILE, FILE .. ".1") then
    ffi.C.kill(process.get_master_pid(), REOPEN)
  end
end

-- In each worker, as it starts; one of them looks.
function M.work()
  if ngx.worker.id() == 0 then
    ngx.timer.every(OFTEN, look)
  end
end

return M
