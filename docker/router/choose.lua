-- Chooses the server of a request by its served model name, and who gets the request: that server when its route is open,
-- else the activator.

local answers = require "answers"
local balancer = require "ngx.balancer"
local body = require "body"
local counts = require "counts"
local ffi = require "ffi"
local form = require "form"
local loaded = require "loaded"
local routes = require "routes"
local slow = require "slow"
local unknown = require "unknown"

local fail = answers.fail
local M = {}

-- `tandem_way` is who was asked, in order: the access log shows it, again() goes by it, and while it is "server" the
-- request is in that server's count.
local function to_activator(service, way)
  local var = ngx.var
  counts.stop(service)
  var.tandem_held = service
  var.tandem_way = way
end

-- A WebSocket cannot wait: nothing could be said to its client meanwhile. And a page needs no leave to have its browser ask
-- for its address (an image, say), so it brings no model up.
local function no_socket(name, service)
  ngx.header["Retry-After"] = 5
  return fail(503, "model_not_ready", "The model '" .. name .. "' is not up, and a WebSocket does not bring it up. " ..
    "'python -m orchestrator up " .. service .. "' does, and so does any other request for it.", "model")
end

-- Gives a request for a model, by the name it asked for, to its server. Where that has no open route, `shut` answers, or,
-- without it, the activator gets the request, at a location of its own.
local function to_service(name, service, shut)
  local var = ngx.var
  var.tandem_model = name
  var.tandem_service = service
  -- Counted before the look: whoever closes the route and then reads the counts misses no request.
  counts.start(service)
  var.tandem_way = "server"
  local address = routes.address(service)
  if address then
    -- nginx forgets it when it goes to another location: while it is there, the server has the request.
    ngx.ctx.open = { address = address, model = name, service = service }
  elseif shut then
    counts.stop(service)
    var.tandem_service, var.tandem_way = "", ""
    return shut(name, service)
  else
    to_activator(service, "activator")
    return ngx.exec("@activator")
  end
end

-- For a name that routes.json does not know: an adapter that a server loaded while it ran, or nothing. No server is brought
-- up for one, as it would come up without it.
local function to_loaded(name)
  local service = loaded.service(name)
  if not service then
    return unknown.fail(name)
  end
  to_service(name, service, unknown.fail)
  -- Metrics know the names that are rendered, and no others: whoever loads adapters makes up theirs.
  if ngx.ctx.open then
    ngx.ctx.open.model = routes.entry(service).id
  end
end

local function to_model(name, shut)
  local service = routes.service(name)
  if not service then
    return to_loaded(name)
  end
  return to_service(name, service, shut)
end

-- For what names no model, and needs none: vLLM answers for its own.
local function to_ready(problem)
  local ready = routes.ready()
  if #ready ~= 1 then
    return fail(400, "model_required", problem .. (#ready == 0
      and " No model is ready; those that can be are " .. routes.names() .. "."
      or " More than one model is ready: " .. table.concat(routes.ids(ready), ", ") .. "."), "model")
  end
  return to_service(ready[1].id, ready[1].service)
end

local function by(name)
  if name == "" then
    return to_ready("Name a model in the body, as in {\"model\": \"" .. routes.models[1].id .. "\"}.")
  end
  return to_model(name)
end

-- Refuses a compressed body: vLLM does not unpack it. True when it did.
local function packed()
  local encoding = ngx.var.http_content_encoding
  if not encoding or encoding == "" or string.lower(encoding) == "identity" then
    return false
  end
  fail(415, "unsupported_encoding", "Send the body as it is: Content-Encoding " .. unknown.shown(encoding) .. " is not read here.")
  return true
end

-- POST with JSON.
function M.by_body()
  if answers.refused("POST") or packed() then
    return
  end
  slow.read()
  local name, problem = body.model(body.bytes())
  if not name then
    return fail(400, "invalid_json", "The request's body is not JSON as it should be: " .. problem .. ".")
  end
  return by(name)
end

-- POST with a form.
function M.by_form()
  if answers.refused("POST") or packed() then
    return
  end
  slow.read()
  local name, problem = form.model(ngx.var.http_content_type or "", ffi.string(body.bytes()))
  if not name then
    return fail(400, "invalid_form", problem .. ".")
  end
  return by(name)
end

-- What a server knows by an id of its own, and what it says of itself.
function M.by_ready()
  if answers.refused(ngx.var.tandem_methods) then
    return
  end
  slow.read()
  return to_ready("This path is answered by the model that is ready, if it is one alone.")
end

-- A WebSocket, whose first request should have no body.
function M.by_query()
  if answers.refused("GET") then
    return
  end
  slow.read()
  local name = ngx.req.get_uri_args(0).model
  if type(name) ~= "string" or name == "" then
    return fail(400, "model_required", "Name a model once in the address: " .. ngx.var.uri .. "?model=" ..
      routes.models[1].id .. ".", "model")
  end
  return to_model(name, no_socket)
end

-- For the upstream `servers`: where the chosen one is.
function M.balance()
  local address = ngx.ctx.open.address
  assert(balancer.set_current_peer(address.host, address.port))
end

-- nginx lists a time for each connection that was tried, and - for one that failed.
local function connected()
  local last = string.match(ngx.var.upstream_connect_time or "", "([^,: ]*)$")
  return last ~= "" and last ~= "-"
end

local function broke_off(activator)
  local model = ngx.var.tandem_model
  ngx.header["Retry-After"] = 5
  if activator then
    return fail(503, "model_broke_off", "The activator ended while it held the request for '" .. model .. "'. " ..
      "'python -m orchestrator logs activator' shows why.", "model")
  end
  return fail(503, "model_broke_off", "The server of '" .. model .. "' took the request and gave no answer. " ..
    "'python -m orchestrator logs " .. ngx.var.tandem_service .. "' shows why.", "model")
end

-- The one that was asked last gave no answer. When it got nothing of the request, another may answer it.
function M.again()
  local way = ngx.var.tandem_way
  if way ~= "" and connected() then
    return broke_off(string.sub(way, -9) == "activator")
  end
  if way == "server" and ngx.var.uri == "/v1/realtime" then
    return no_socket(ngx.var.tandem_model, ngx.var.tandem_service)
  end
  if way == "server" then
    ngx.var.tandem_unreachable = "1"
    return to_activator(ngx.var.tandem_service, "server, activator")
  end
  ngx.header["Retry-After"] = 2
  return fail(503, "activator_away", "The activator, which brings models up, does not answer. It starts again by itself; " ..
    "if not, 'python -m orchestrator logs activator' shows why.")
end

-- nginx logs every request exactly once, when it is over, however it ended. Gives the model's name, a rendered one, and the
-- way.
function M.over()
  local open = ngx.ctx.open
  if open then
    counts.stop(open.service)
    return open.model, "server"
  end
  slow.over()
  loaded.over()
  local var = ngx.var
  local way, service = var.tandem_way, var.tandem_service
  if way == "server" then
    counts.stop(service)
  end
  return service == "" and var.tandem_model or routes.entry(service).id, way
end

return M
