-- Puts right what the access log says of a request: nginx writes it after log_by_lua, and has words where JSON wants a
-- number or null.

local M = {}

-- Gives the seconds to the answer's first byte, nil where none came. nginx lists a time for each server that was tried,
-- and - for one that gave no answer: the last one counts.
function M.first_byte()
  local var = ngx.var
  -- 000 and 009, of an answer that never began.
  if ngx.status < 100 then
    var.tandem_log_status = "null"
  end
  local times = var.upstream_header_time
  local first = tonumber(times)
  if first then
    return first
  end
  local last = times and string.match(times, "[0-9.]+$")
  var.tandem_log_first_byte = last or "null"
  return tonumber(last)
end

return M
