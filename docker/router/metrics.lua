-- Counts requests, and prints the counts in Prometheus' text form.
--
-- Each worker adds up its own, which costs a request next to nothing, and hands them over to the shared dictionary once a
-- second, when it ends, and when it is asked for them. A worker that is killed takes at most a second's counts with it.
-- Every label's values are few: models that routes.json knows, keys of the keys file, what the router itself says.

local dict = ngx.shared.metrics
local now, started, max = ngx.now, ngx.req.start_time, math.max
local format, gsub, match = string.format, string.gsub, string.match

local M = {}

local PREFIX = "tandem_router_"
-- Seconds: from a refusal to an answer of an hour.
local LIMITS = { 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1800, 3600 }
local INFINITE = #LIMITS + 1
local FAMILIES = {
  { "requests_total", "counter", "Requests that are over, by the model they were for, how they ended and who was asked." },
  { "request_seconds", "histogram", "Seconds from a request's first byte to its answer's last." },
  { "first_byte_seconds", "histogram", "Seconds until the server, or the activator, began its answer." },
  { "request_bytes_total", "counter", "Bytes of requests, headers included." },
  { "response_bytes_total", "counter", "Bytes of answers, headers included." },
  { "refused_total", "counter", "Requests that the router answered with an error of its own, by its code." },
  { "key_requests_total", "counter", "Requests by the name of their key and how they ended." },
  { "metrics_lost_total", "counter", "Counts that were lost, as there was no memory left for another series." },
}
local LOST = "metrics_lost_total\n\n"

-- {served model name, alias or adapter: served model name}, and {service: served model name}.
local names, ids = {}, {}
-- What this worker has not handed over yet.
local mine, refused, keyed = {}, {}, {}

local function escaped(value)
  return (gsub(value, '[\\"\n]', { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }))
end

-- labels("model", "a", "status", 200) is model="a",status="200".
local function labels(...)
  local words = {}
  for i = 1, select("#", ...), 2 do
    words[#words + 1] = select(i, ...) .. '="' .. escaped(tostring((select(i + 1, ...)))) .. '"'
  end
  return table.concat(words, ",")
end

-- A series is one entry: its family, labels and, of a histogram, cell, one a line, as no label has a line break in it.
-- Nothing is ever thrown out for a new one: counters only grow.
local function add(family, of, cell, value)
  local entry = family .. "\n" .. of .. "\n" .. cell
  if dict:incr(entry, value) then
    return
  end
  local _, problem = dict:safe_add(entry, value)
  if problem == "exists" then
    dict:incr(entry, value)
  elseif problem then
    dict:incr(LOST, 1)
  end
end

local function histogram()
  local cells = { sum = 0 }
  for i = 1, INFINITE do
    cells[i] = 0
  end
  return cells
end

local function observe(cells, seconds)
  local i = 1
  while i < INFINITE and seconds > LIMITS[i] do
    i = i + 1
  end
  cells[i] = cells[i] + 1
  cells.sum = cells.sum + seconds
end

local function of_model(model)
  local counts = { requests = {}, seconds = histogram(), first = histogram(), received = 0, sent = 0 }
  mine[model] = counts
  return counts
end

local function one_more(counts, first, second)
  local inner = counts[first]
  if not inner then
    inner = {}
    counts[first] = inner
  end
  inner[second] = (inner[second] or 0) + 1
end

-- In the log phase, which each request has once, however it ended: by the name it asked for, who was asked, its key, and
-- the seconds to the first byte, if one came.
function M.count(name, way, key, first)
  local var, status = ngx.var, ngx.status
  local model = names[name] or ""
  local counts = mine[model] or of_model(model)
  one_more(counts.requests, way, status)
  observe(counts.seconds, max(now() - started(), 0))
  if first then
    observe(counts.first, first)
  end
  counts.received = counts.received + (tonumber(var.request_length) or 0)
  counts.sent = counts.sent + (tonumber(var.bytes_sent) or 0)
  if key ~= "" then
    one_more(keyed, key, status)
  end
end

-- An error that the router made itself.
function M.refused(code)
  refused[code] = (refused[code] or 0) + 1
end

local function hand_over_cells(family, of, cells)
  for cell, value in pairs(cells) do
    if value ~= 0 then
      add(family, of, cell, value)
      cells[cell] = 0
    end
  end
end

function M.hand_over()
  for model, counts in pairs(mine) do
    local of = labels("model", model)
    for way, by_status in pairs(counts.requests) do
      for status, value in pairs(by_status) do
        add("requests_total", labels("model", model, "status", status, "way", way == "" and "router" or way), "", value)
      end
    end
    counts.requests = {}
    hand_over_cells("request_seconds", of, counts.seconds)
    hand_over_cells("first_byte_seconds", of, counts.first)
    add("request_bytes_total", of, "", counts.received)
    add("response_bytes_total", of, "", counts.sent)
    counts.received, counts.sent = 0, 0
  end
  for code, value in pairs(refused) do
    add("refused_total", labels("code", code), "", value)
  end
  for key, by_status in pairs(keyed) do
    for status, value in pairs(by_status) do
      add("key_requests_total", labels("key", key, "status", status), "", value)
    end
  end
  refused, keyed = {}, {}
end

-- As the configuration is read. A counter is there from the beginning, or its first event would be none to a rate().
function M.begin(routes)
  dict:safe_add(LOST, 0)
  for _, model in ipairs(routes.models) do
    names[model.id] = model.id
    ids[routes.service(model.id)] = model.id
    for _, alias in ipairs(model.aliases) do
      names[alias] = model.id
    end
  end
  for _, adapter in ipairs(routes.adapters) do
    names[adapter.id] = ids[routes.service(adapter.id)]
  end
  for _, model in pairs(names) do
    local of = labels("model", model)
    for _, family in ipairs({ "request_seconds", "first_byte_seconds" }) do
      add(family, of, "sum", 0)
    end
    for _, way in ipairs({ "server", "activator" }) do
      add("requests_total", labels("model", model, "status", 200, "way", way), "", 0)
    end
  end
end

-- In each worker, as it starts.
function M.work()
  ngx.timer.every(1, M.hand_over)
end

local function sample(out, name, of, value)
  out[#out + 1] = PREFIX .. name .. (of == "" and "" or "{" .. of .. "}") .. " " .. format("%.16g", value)
end

local function sample_histogram(out, name, of, cells)
  local total = 0
  for i = 1, INFINITE do
    total = total + (cells[tostring(i)] or 0)
    sample(out, name .. "_bucket", of .. ',le="' .. (LIMITS[i] or "+Inf") .. '"', total)
  end
  sample(out, name .. "_sum", of, cells.sum or 0)
  sample(out, name .. "_count", of, total)
end

-- {family: {labels: {cell: value}}}
local function found()
  local families = {}
  for _, entry in ipairs(dict:get_keys(0)) do
    local family, of, cell = match(entry, "^([^\n]*)\n([^\n]*)\n([^\n]*)$")
    families[family] = families[family] or {}
    families[family][of] = families[family][of] or {}
    families[family][of][cell] = dict:get(entry) or 0
  end
  return families
end

local function sorted(of)
  local all = {}
  for key in pairs(of) do
    all[#all + 1] = key
  end
  table.sort(all)
  return all
end

local function head(out, name, kind, words)
  out[#out + 1] = "# HELP " .. PREFIX .. name .. " " .. words
  out[#out + 1] = "# TYPE " .. PREFIX .. name .. " " .. kind
end

-- All of it. in_flight: {service: requests}.
function M.text(in_flight)
  M.hand_over()
  local out, families = {}, found()
  for _, family in ipairs(FAMILIES) do
    local name, kind, words = unpack(family)
    local series = families[name] or {}
    head(out, name, kind, words)
    for _, of in ipairs(sorted(series)) do
      if kind == "histogram" then
        sample_histogram(out, name, of, series[of])
      else
        sample(out, name, of, series[of][""])
      end
    end
  end
  head(out, "in_flight", "gauge", "Requests that a model's server has from here and has not answered to the end.")
  for _, service in ipairs(sorted(ids)) do
    sample(out, "in_flight", labels("model", ids[service]), in_flight[service] or 0)
  end
  return table.concat(out, "\n") .. "\n"
end

return M
