-- Answers what the router knows itself: which models there are, and whether one is ready.

local answers = require "answers"
local loaded = require "loaded"
local routes = require "routes"
local unknown = require "unknown"

local M = {}

-- The state of a service: ready when its route is open, else what the activator said last.
local function state(service, states)
  if routes.address(service) then
    return "ready"
  end
  -- Between a closed route and the activator's next word it is about to leave.
  return states[service] == "ready" and "draining" or states[service] or "unknown"
end

-- An entry of OpenAI's list as JSON, and its state: an adapter has that of its model. Lua does not tell an empty list from
-- an empty object.
local function entry(model, service, states)
  local shown = { state = state(service, states) }
  for key, value in pairs(model) do
    shown[key] = value
  end
  if #model.aliases > 0 then
    return answers.encode(shown), shown.state
  end
  shown.aliases = nil
  return string.sub(answers.encode(shown), 1, -2) .. ',"aliases":[]}', shown.state
end

-- {service: [entries]}: each model with its adapters after it, those that were loaded last.
local function by_service()
  local found = {}
  for _, model in ipairs(routes.models) do
    found[routes.service(model.id)] = { model }
  end
  for _, adapter in ipairs(routes.adapters) do
    table.insert(found[routes.service(adapter.id)], adapter)
  end
  for _, one in ipairs(loaded.all()) do
    table.insert(found[one.service], one.entry)
  end
  return found
end

-- What runs first, else in the order of models.toml.
function M.list()
  if answers.refused("GET, HEAD") then
    return
  end
  local of, states, first, rest = by_service(), routes.states(), {}, {}
  for _, model in ipairs(routes.models) do
    local service = routes.service(model.id)
    for _, one in ipairs(of[service]) do
      local shown, is = entry(one, service, states)
      local list = is == "ready" and first or rest
      list[#list + 1] = shown
    end
  end
  for _, shown in ipairs(rest) do
    first[#first + 1] = shown
  end
  return answers.text(200, '{"object":"list","data":[' .. table.concat(first, ",") .. "]}")
end

function M.one()
  if answers.refused("GET, HEAD") then
    return
  end
  local name = ngx.var.tandem_wanted
  local service = routes.service(name)
  local found = service and { service = service, entry = routes.adapter(name) or routes.entry(service) }
    or loaded.find(name)
  if not found then
    return unknown.fail(name)
  end
  return answers.text(200, (entry(found.entry, found.service, routes.states())))
end

function M.ready()
  if answers.refused("GET, HEAD") then
    return
  end
  local names = routes.ids(routes.ready())
  if #names == 0 then
    return answers.fail(503, "no_model_ready", "No model is ready. GET /v1/models lists them; asking for one brings it up.")
  end
  return answers.say(200, { status = "ready", models = names })
end

function M.health()
  if answers.refused("GET, HEAD") then
    return
  end
  return answers.say(200, { status = "ok" })
end

-- Lets the orchestrator see whether the router runs with the routes that were rendered last.
function M.digest()
  if answers.refused("GET, HEAD") then
    return
  end
  return answers.say(200, { digest = routes.digest })
end

return M
