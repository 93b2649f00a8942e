-- Answers who collects metrics: the router's own with the activator's, a server's, and which servers there are.

local answers = require "answers"
local counts = require "counts"
local metrics = require "metrics"
local routes = require "routes"
local unknown = require "unknown"

local M = {}

local TEXT = "text/plain; version=0.0.4; charset=utf-8"
local UP = [[
# HELP tandem_router_activator_up 1 when the activator's metrics follow.
# TYPE tandem_router_activator_up gauge
tandem_router_activator_up %d
]]

-- The router's counts, then what the activator counts itself.
function M.all()
  if answers.refused("GET, HEAD") then
    return
  end
  local activator = ngx.location.capture("/-/activator/metrics")
  local up = activator.status == 200 and not activator.truncated
  ngx.header["Content-Type"] = TEXT
  ngx.print(metrics.text(counts.all()), string.format(UP, up and 1 or 0), up and activator.body or "")
end

local function not_ready(name)
  return answers.fail(503, "model_not_ready", "The server of '" .. name .. "' is not ready, and so has no metrics.", "model")
end

-- Chooses the server whose own metrics are wanted. It must be ready: no other is ever asked.
function M.choose()
  if answers.refused("GET, HEAD") then
    return
  end
  local name = ngx.var.tandem_measured
  local service = routes.service(name)
  if not service then
    return unknown.fail(name)
  end
  local address = routes.address(service)
  if not address then
    return not_ready(name)
  end
  ngx.var.tandem_address = address.host .. ":" .. address.port
end

-- It did not answer.
function M.gone()
  return not_ready(ngx.var.tandem_measured)
end

-- The servers that are ready, as Prometheus' http_sd_configs wants them.
function M.targets()
  if answers.refused("GET, HEAD") then
    return
  end
  local found = {}
  for i, model in ipairs(routes.ready()) do
    found[i] = { targets = { model.service .. ":" .. model.address.port }, labels = { model = model.id } }
  end
  -- Lua does not tell an empty list from an empty object.
  return answers.text(200, #found > 0 and answers.encode(found) or "[]")
end

return M
