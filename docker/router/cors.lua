-- Says to browsers whether a page may ask. Which may is in $tandem_origin, and the headers that every
-- answer gets in nginx.conf.

local answers = require "answers"

local M = {}

local function strange()
  answers.fail(403, "origin_not_allowed", "Pages of this origin may not use the router here. " ..
    "TANDEM_CORS_ORIGINS in .env names those that may.")
end

function M.preflight()
  local var, header = ngx.var, ngx.header
  -- $tandem_origin goes by the path as it was sent, which has other spellings.
  if var.tandem_origin == "" or string.find(var.tandem_path, "^/%-") then
    return strange()
  end
  header["Access-Control-Allow-Methods"] = "GET, HEAD, POST"
  local asked = var.http_access_control_request_headers
  if asked and #asked <= 4096 and string.find(asked, "^[%w!#$%%&'*+.^_`|~, -]*$") then
    header["Access-Control-Allow-Headers"] = asked
  end
  -- Chrome asks this when a page from outside wants what is at home.
  if var.http_access_control_request_private_network == "true" then
    header["Access-Control-Allow-Private-Network"] = "true"
  end
  header["Access-Control-Max-Age"] = 7200
  return ngx.exit(204)
end

-- A page of elsewhere may not read an answer, but a browser sends without asking what is no JSON by its type, though the
-- server might take it, or a model be brought up for it; and a WebSocket it lets the page read too. JSON it asks for first,
-- but not for a page that has this very address: there is none here, so that is one whose name was made to lead here
-- (DNS rebinding). True when it was refused.
function M.refused()
  local var = ngx.var
  local origin = var.http_origin
  if not origin or var.tandem_origin ~= "" then
    return false
  end
  if string.find(string.lower(var.http_content_type or ""), "^application/json") and
    string.lower(origin) ~= var.scheme .. "://" .. string.lower(var.http_host or "") then
    return false
  end
  strange()
  return true
end

return M
