-- Tells clients that speak TLS where plain HTTP is spoken, or the other way round, which it is.

local answers = require "answers"

local M = {}

-- http:// at a port that speaks TLS.
function M.plain()
  -- The container's own health check asks from within, where no certificate names anything.
  if ngx.var.remote_addr == "127.0.0.1" and ngx.var.request_uri == "/health" then
    return answers.say(200, { status = "ok" })
  end
  return answers.fail(400, "plain_on_tls_port", "This address speaks TLS: write https:// in place of http://.")
end

-- https:// at a port that speaks plain HTTP: true when a request is the beginning of TLS, and was answered. Its client
-- seldom shows the answer, so the log says it too.
function M.hello()
  if string.sub(ngx.var.request or "", 1, 2) ~= "\22\3" then
    return false
  end
  ngx.log(ngx.WARN, "a client spoke TLS (https://) to a port that speaks plain HTTP: it should write http://")
  answers.fail(400, "tls_on_plain_port", "This address speaks plain HTTP: write http:// in place of https://.")
  return true
end

return M
