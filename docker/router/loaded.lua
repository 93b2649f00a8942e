-- Finds the adapters that servers have and routes.json does not know: those loaded while a server ran.
--
-- Only with TANDEM_LORA_LOADING=yes, and only for a name that nobody here knows: the servers that are ready are asked which
-- models they have, all at once, within the times of scrape.conf. One that does not answer has none.

local cjson = require "cjson.safe"
local counts = require "counts"
local routes = require "routes"

-- start.sh writes the location below then.
local ENABLED = os.getenv("TANDEM_LORA_LOADING") == "yes"
local LOCATION = "/-/loaded"

local M = {}

-- The models whose servers are ready, each counted as having a request: whoever closes a route waits for what is counted,
-- and no server that sleeps or stops is asked.
local function counted()
  local found = {}
  ngx.ctx.asked = found
  for _, model in ipairs(routes.models) do
    local service = routes.service(model.id)
    counts.start(service)
    local address = routes.address(service)
    -- Port 0 reaches nobody (routes.lua).
    if address and address.port > 0 then
      found[#found + 1] = { model = model, service = service, address = address }
    else
      counts.stop(service)
    end
  end
  return found
end

-- In the log phase too, of a request whose client left while servers were asked.
function M.over()
  for _, one in ipairs(ngx.ctx.asked or {}) do
    counts.stop(one.service)
  end
  ngx.ctx.asked = nil
end

-- The adapters in a server's answer; none in one that is not as vLLM's.
local function adapters(answer)
  local said = answer.status == 200 and not answer.truncated and cjson.decode(answer.body)
  local found = {}
  for _, entry in ipairs(type(said) == "table" and type(said.data) == "table" and said.data or {}) do
    if type(entry) == "table" and type(entry.id) == "string" and type(entry.parent) == "string" then
      found[#found + 1] = entry
    end
  end
  return found
end

-- As GET /v1/models shows one here.
local function shown(entry, model)
  return {
    id = entry.id, object = "model", created = 0, owned_by = "tandem", parent = model.id, aliases = {},
    root = type(entry.root) == "string" and entry.root or cjson.null, max_model_len = model.max_model_len,
  }
end

-- All of them, in the order of models.toml: {service, entry}, an entry as GET /v1/models has it. Of two with one name the
-- first counts, and a rendered name is what it was rendered for.
function M.all()
  if not ENABLED then
    return {}
  end
  local ready, requests, found, taken = counted(), {}, {}, {}
  for i, one in ipairs(ready) do
    requests[i] = { LOCATION, { args = "at=" .. one.address.host .. ":" .. one.address.port } }
  end
  local answers = #ready > 0 and { ngx.location.capture_multi(requests) } or {}
  M.over()
  for i, one in ipairs(ready) do
    for _, entry in ipairs(adapters(answers[i])) do
      if not taken[entry.id] and not routes.service(entry.id) then
        taken[entry.id] = true
        found[#found + 1] = { service = one.service, entry = shown(entry, one.model) }
      end
    end
  end
  return found
end

-- The one of such a name: {service, entry}; nil where no server that is ready has it.
function M.find(name)
  for _, one in ipairs(M.all()) do
    if one.entry.id == name then
      return one
    end
  end
end

-- The service that has it.
function M.service(name)
  local found = M.find(name)
  return found and found.service
end

return M
