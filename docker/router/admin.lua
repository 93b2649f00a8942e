-- Says who may ask for what is not a client's business: this machine, and whoever has the admin key.

local answers = require "answers"
local same = require "same"

local KEY = "/run/secrets/admin-key"
local BIND = os.getenv("TANDEM_BIND") or ""
local M = {}

local function loopback(host)
  return host == "localhost" or host == "[::1]" or host == "::1" or string.find(host, "^127%.%d+%.%d+%.%d+$") ~= nil
end

-- Reads the key at each request: one that was changed counts at once. Also gives what kept it from being read.
local function has_key(authorization)
  local file, problem = io.open(KEY, "rb")
  local key = file and file:read("*a")
  if file then
    file:close()
  end
  if not key then
    return false, problem or "it cannot be read"
  end
  key = string.match(key, "^%s*(.-)%s*$")
  local sent = string.match(authorization or "", "^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+)%s*$")
  return key ~= "" and sent ~= nil and same.texts(sent, key)
end

-- The port is published on a loopback address, so only this machine reaches it, its containers of this project included.
-- What a browser there does for a page of somebody else's shows in Host, where the page gave this address another name, or in
-- Origin; what a proxy passes on from elsewhere, in the headers that proxies add.
local function is_local()
  local var = ngx.var
  if not loopback(BIND) or var.http_x_forwarded_for or var.http_forwarded or var.http_via then
    return false
  end
  local host, origin = var.http_host or "localhost", var.http_origin
  return loopback((string.gsub(host, ":%d+$", ""))) and (origin == nil or origin == var.scheme .. "://" .. host)
end

function M.admit()
  if is_local() then
    return
  end
  local admitted, problem = has_key(ngx.var.http_authorization)
  if admitted then
    return
  end
  if problem then
    ngx.log(ngx.ERR, "the admin key cannot be read: ", problem)
    return answers.fail(403, "admin_only",
      "The router cannot read the file with the admin key: user 1000 must be able to.")
  end
  return answers.fail(403, "admin_only", "This path is for the machine that Tandem runs on, through the loopback " ..
    "address, and for whoever sends its admin key: Authorization: Bearer KEY. The setting TANDEM_ADMIN_KEY_FILE " ..
    "names the file with the key.")
end

return M
