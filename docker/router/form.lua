-- Reads which model a multipart form names. Strict where readers of forms differ: what is not plainly one thing is refused.

local M = {}

local TOO_ODD_DATA = "The form's part %d begins with its boundary"
local TOO_ODD = "The form's part %d has a Content-Disposition that may be read in more than one way"

-- The boundary that a Content-Type header names, or nil and what is wrong.
local function boundary(header)
  local rest = string.match(header, "^[Mm][Uu][Ll][Tt][Ii][Pp][Aa][Rr][Tt]/[Ff][Oo][Rr][Mm]%-[Dd][Aa][Tt][Aa]%s*;(.*)$")
  if not rest then
    return nil, "This path takes a form: Content-Type: multipart/form-data; boundary=…"
  end
  local found = string.match(rest, '^%s*[Bb][Oo][Uu][Nn][Dd][Aa][Rr][Yy]=([%w\'()+_,./:=?-]+)%s*$') or
    string.match(rest, '^%s*[Bb][Oo][Uu][Nn][Dd][Aa][Rr][Yy]="([%w\'()+_,./:=? -]*[%w\'()+_,./:=?-])"%s*$')
  if not found or #found > 70 then
    return nil, "The form's Content-Type should have one parameter, its boundary, of 1 to 70 letters, digits and '()+_,./:=?-"
  end
  return found
end

-- The name of a part and whether it is a file, from a Content-Disposition; nil where that can be read in two ways.
local function disposition(value)
  local rest = string.match(value, "^[Ff][Oo][Rr][Mm]%-[Dd][Aa][Tt][Aa](.*)$")
  local name, file
  while rest and rest ~= "" do
    local key, text, more = string.match(rest, '^%s*;%s*([%w*_-]+)="([^"\\%c]*)"(.*)$')
    if not key then
      -- filename*=UTF-8''…
      key, text, more = string.match(rest, "^%s*;%s*([%w*_-]+)=([%w'%%._-]+)(.*)$")
      if key and string.lower(key) == "name" then
        return nil
      end
    end
    if not key then
      return nil
    end
    key, rest = string.lower(key), more
    if key == "name" then
      if name then
        return nil
      end
      name = text
    elseif key == "filename" or key == "filename*" then
      file = true
    else
      return nil
    end
  end
  return rest and name, file
end

-- The name and whether it is a file, of the part whose headers these lines are.
local function part(headers)
  local name, file
  for line in string.gmatch(headers .. "\r\n", "(.-)\r\n") do
    local key, value = string.match(line, "^([%w!#$&'*+.^_`|~-]+):[ \t]*(.-)[ \t]*$")
    if not key or string.find(line, "[%z\r\n]") then
      return nil
    end
    if string.lower(key) == "content-disposition" then
      if name then
        return nil
      end
      name, file = disposition(value)
      if not name then
        return nil
      end
    end
  end
  return name, file
end

-- The name of the model, "" when the form has none; or nil and what is wrong.
function M.model(header, text)
  local mark, problem = boundary(header)
  if not mark then
    return nil, problem
  end
  mark = "--" .. mark
  if string.sub(text, 1, #mark + 2) ~= mark .. "\r\n" then
    return nil, "The form should begin with its boundary"
  end
  local from, number, model = #mark + 3, 0, nil
  while true do
    number = number + 1
    local ended, past = string.find(text, "\r\n\r\n", from, true)
    if not ended or ended - from > 8192 then
      return nil, string.format("The form's part %d has no end of its headers", number)
    end
    local name, file = part(string.sub(text, from, ended - 1))
    if not name then
      return nil, string.format(TOO_ODD, number)
    end
    -- The line break that ends the headers does not begin a boundary as well.
    local stop, behind = string.find(text, "\r\n" .. mark, past + 1, true)
    if string.sub(text, past + 1, past + #mark) == mark then
      return nil, string.format(TOO_ODD_DATA, number)
    end
    if not stop then
      return nil, string.format("The form ends inside its part %d", number)
    end
    local follows = string.sub(text, behind + 1, behind + 2)
    if follows ~= "\r\n" and follows ~= "--" then
      return nil, string.format("The form's part %d holds its boundary, or one with something behind it", number)
    end
    if name == "model" then
      if file or model then
        return nil, file and "The form's model should be a field and no file" or "The form names a model twice"
      end
      model = string.sub(text, past + 1, stop - 1)
    end
    if follows == "--" then
      return model or ""
    end
    from = behind + 3
  end
end

return M
