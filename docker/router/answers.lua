-- Speaks OpenAI's error shape.

local cjson = require "cjson"
local metrics = require "metrics"

local M = {}

-- cjson writes / as \/, which is as right but no pleasure to read.
function M.encode(value)
  return (string.gsub(cjson.encode(value), "\\/", "/"))
end

-- Ends the request with an answer that is JSON already.
function M.text(status, text)
  ngx.status = status
  ngx.header["Content-Type"] = "application/json"
  ngx.header["Content-Length"] = #text + 1
  if ngx.req.get_method() == "HEAD" then
    ngx.send_headers()
  else
    ngx.print(text, "\n")
  end
  return ngx.exit(ngx.HTTP_OK)
end

-- Ends the request with a JSON answer.
function M.say(status, value)
  return M.text(status, M.encode(value))
end

-- What a client sent and a message repeats may be no UTF-8, which JSON must be.
local function clean(text)
  return ngx.re.find(text, "^", "u") and text or (string.gsub(text, "[\128-\255]", "?"))
end

local KINDS = { [401] = "authentication_error", [429] = "rate_limit_error" }

-- Ends the request with an error; the router's own ones all come this way. param names the key that is at fault.
function M.fail(status, code, message, param)
  metrics.refused(code)
  local kind = KINDS[status] or status >= 500 and "server_error" or "invalid_request_error"
  -- In the order in which OpenAI says them; a table has none. What Anthropic says besides makes it theirs as well.
  -- By what was sent too, as nginx has another address once it goes to the page of an error.
  local anthropic = string.find(ngx.var.uri, "^/v1/messages") or string.find(ngx.var.request_uri or "", "^/v1/messages")
  local theirs = anthropic and '"type":"error",' or ""
  return M.text(status, string.format('{%s"error":{"message":%s,"type":"%s","param":%s,"code":"%s"}}', theirs,
    M.encode(clean(message)), kind, M.encode(param or cjson.null), code))
end

-- Refuses every method but those of a list such as "GET, HEAD"; true when it did.
function M.refused(methods)
  local method = ngx.req.get_method()
  if method == methods then
    return false
  end
  if string.find(", " .. methods .. ",", ", " .. method .. ",", 1, true) then
    return false
  end
  ngx.header.Allow = methods
  M.fail(405, "method_not_allowed", ngx.var.uri .. " takes " .. methods .. ", not " .. method .. ".")
  return true
end

local MESSAGES = {
  [404] = { "not_found", "There is no such path here. GET /v1/models lists the models." },
  [405] = { "method_not_allowed", "This path does not take this method." },
  [408] = { "request_timeout", "The request took too long to arrive." },
  [412] = { "precondition_failed", "The router's own answers have no versions: leave out If-Match and If-Unmodified-Since." },
  [414] = { "uri_too_long", "The request's address is too long." },
  [431] = { "headers_too_large", "The request's headers are too large: 16 KB a line, 64 KB and 200 lines in all." },
  [500] = { "router_error", "The router failed; 'python -m orchestrator logs router' shows why." },
  [501] = { "not_implemented", "The router does not know this method or transfer encoding." },
  [505] = { "http_version_not_supported", "The router speaks HTTP/1.0, HTTP/1.1 and HTTP/2." },
}

-- What nginx calls its own is not for clients, and what a client did wrong is no fault of a server: they would try again.
local SHOWN = { [501] = 400, [505] = 400 }

-- Answers for nginx when it refuses a request by itself.
function M.error()
  local status = tonumber(ngx.var.status)
  if status == 413 then
    return M.fail(413, "request_too_large", "The request's body is larger than " .. ngx.var.tandem_body_limit ..
      ". TANDEM_BODY_LIMIT in .env sets how large one may be.")
  end
  local known = MESSAGES[status] or { "bad_request", "The request is not valid HTTP." }
  return M.fail(SHOWN[status] or status, known[1], known[2])
end

return M
