-- Answers for a name that no model here has.

local answers = require "answers"
local routes = require "routes"

local M = {}

-- What of a name is repeated in an answer: no piece of a character at its end.
function M.shown(name)
  if #name <= 200 then
    return name
  end
  return string.gsub(string.sub(name, 1, 200), "[\192-\247][\128-\191]*$", "") .. "…"
end

function M.fail(name)
  local nearest = routes.nearest(name)
  return answers.fail(404, "model_not_found", "The model '" .. M.shown(name) .. "' does not exist." ..
    (nearest and " Did you mean '" .. nearest .. "'?" or "") .. " Models here: " .. routes.names() .. "." ..
    (#routes.adapters > 0 and " Adapters: " .. table.concat(routes.ids(routes.adapters), ", ") .. "." or ""), "model")
end

return M
