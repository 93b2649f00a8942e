-- Compares secrets: it takes as long for every wrong one.

local bit = require "bit"

local M = {}

function M.digest(text)
  return ngx.sha1_bin(text)
end

-- Digests have one length, and are compared to their end.
function M.digests(a, b)
  local differ = 0
  for i = 1, #a do
    differ = bit.bor(differ, bit.bxor(string.byte(a, i), string.byte(b, i)))
  end
  return differ == 0
end

function M.texts(one, other)
  return M.digests(M.digest(one), M.digest(other))
end

return M
