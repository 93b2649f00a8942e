-- What models there are, as rendered into routes.json, and where those are that are up.

local cjson = require "cjson"
local ffi = require "ffi"

ffi.cdef [[
  ssize_t readlink(const char *path, char *target, size_t size);
  struct tandem_time { long s; long ns; };
  int clock_gettime(int clock, struct tandem_time *time);
]]
local MONOTONIC = 1

local RENDERED = "/etc/tandem/routes.json"
-- The activator makes a link here for each model whose route is open, to the address of its server. No other server is
-- ever asked: one that sleeps hangs or dies of a request, one that is about to stop would break it off.
local OPEN = "/run/tandem/open/"
-- What it says of all of them: {service: state}.
local STATES = "/run/tandem/states.json"
-- For so many seconds a link that was there is believed to be there still: a look costs as much as all else that is done
-- here for a request. Whoever closes a route lets this pass before it reads the counts (UNSEEN in
-- orchestrator/activator/draining.py); a request that still goes by the link was counted by then.
local BELIEVED = 0.005

local M = {}
local C = ffi.C
local target = ffi.new("char[128]")
local time = ffi.new("struct tandem_time[1]")

local function read(path)
  local file, problem = io.open(path, "rb")
  if not file then
    return nil, problem
  end
  local text = file:read("*a")
  file:close()
  return text
end

-- {services: {served model name, alias or adapter: service}, models and adapters: [entries of GET /v1/models], digest}.
-- nginx reads it when it starts and when it is told to reload; one that is no JSON keeps it from doing either.
local rendered = cjson.decode(assert(read(RENDERED)))
-- A file that was rendered before there were adapters has none.
rendered.adapters = rendered.adapters or {}
local services, paths, listed, adapters = rendered.services, {}, {}, {}
for _, service in pairs(services) do
  paths[service] = OPEN .. service
end
for _, model in ipairs(rendered.models) do
  listed[services[model.id]] = model
end
for _, adapter in ipairs(rendered.adapters) do
  adapters[adapter.id] = adapter
end

M.digest = rendered.digest
M.models = rendered.models
-- Those that servers are started with, in the order of models.toml.
M.adapters = rendered.adapters

-- The service that serves a name; nil for none.
function M.service(name)
  return services[name]
end

-- The model of a service, as GET /v1/models has it.
function M.entry(service)
  return listed[service]
end

-- The adapter of such a name, as GET /v1/models has it; nil for none that routes.json knows.
function M.adapter(name)
  return adapters[name]
end

-- {target of a link: {host, port}}; few, as Docker gives the same addresses again.
local places = {}

local function place(link)
  local host, port = string.match(link, "^([^:]+):(%d+)$")
  -- A link with no address is of a server that the activator could not find by its name either: port 0 reaches nobody.
  local found = { host = host or "127.0.0.1", port = tonumber(port) or 0 }
  places[link] = found
  return found
end

-- The time itself, in seconds: ngx.now() tells when this worker last woke up, which may be long ago.
local function clock()
  C.clock_gettime(MONOTONIC, time)
  return tonumber(time[0].s) + tonumber(time[0].ns) * 1e-9
end

-- {service: {at, address}}: the last look at each that found a link, when it began.
local looks = {}

local function look(service, at)
  local length = C.readlink(paths[service], target, 128)
  if length < 0 then
    looks[service] = nil
    return nil
  end
  local link = ffi.string(target, length)
  local found = looks[service]
  if not found then
    found = {}
    looks[service] = found
  end
  found.at, found.address = at, places[link] or place(link)
  return found.address
end

-- The address of a model's server when its route is open: {host, port}. Counts of requests come before this.
function M.address(service)
  local at, last = clock(), looks[service]
  if last and at - last.at < BELIEVED then
    return last.address
  end
  return look(service, at)
end

-- The models whose routes are open, in the order of models.toml: {id, service, address}.
function M.ready()
  local found = {}
  for _, model in ipairs(rendered.models) do
    local service = services[model.id]
    local address = M.address(service)
    if address then
      found[#found + 1] = { id = model.id, service = service, address = address }
    end
  end
  return found
end

-- The names by which clients ask for some models.
function M.ids(models)
  local found = {}
  for i, model in ipairs(models) do
    found[i] = model.id
  end
  return found
end

-- {service: state}, as the activator last said; empty when it never did.
function M.states()
  local text = read(STATES)
  return text and require("cjson.safe").decode(text) or {}
end

function M.names()
  return table.concat(M.ids(rendered.models), ", ")
end

-- How many letters one has to change, add or leave out to get from one word to another.
local function distance(one, other)
  local above = {}
  for j = 0, #other do
    above[j] = j
  end
  for i = 1, #one do
    local row = { [0] = i }
    for j = 1, #other do
      local change = string.byte(one, i) == string.byte(other, j) and 0 or 1
      row[j] = math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + change)
    end
    above = row
  end
  return above[#other]
end

-- The known name that is nearest to one that nobody serves, if it is near: at most a third of it differs.
function M.nearest(name)
  local best, least = nil, math.floor(#name / 3) + 1
  if #name > 100 then
    return nil
  end
  for known in pairs(services) do
    local differs = distance(string.lower(name), string.lower(known))
    if differs < least or (differs == least and best and known < best) then
      best, least = known, differs
    end
  end
  return best
end

return M
