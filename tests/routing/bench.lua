-- What wrk sends, and how it says what it saw: for tests/routing/bench_wrk.py, which reads the last line.
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
file:close()

-- Milliseconds between an answer and the next request of its connection, and before the first one: at the mean, as
-- requests of many who know nothing of one another come (exponentially distributed), the same ones in each run.
local pause = tonumber(os.getenv("BENCH_PAUSE") or "0")
if pause > 0 then
  math.randomseed(1)
  function delay()
    return math.floor(0.5 - pause * math.log(1 - math.random()))
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("seen %d %d %d %d %d %d %d\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), latency.max, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
