-- Searches bytes where they are with PCRE2's compiled patterns; nginx itself brings the library.

local ffi = require "ffi"

ffi.cdef [[
typedef struct pcre2_code pcre2_code;
typedef struct pcre2_match_data pcre2_match_data;
typedef struct pcre2_match_context pcre2_match_context;
typedef struct pcre2_jit_stack pcre2_jit_stack;
pcre2_code *pcre2_compile_8(const char *pattern, size_t length, uint32_t options, int *error, size_t *at, void *context);
int pcre2_jit_compile_8(pcre2_code *code, uint32_t options);
pcre2_match_data *pcre2_match_data_create_8(uint32_t pairs, void *context);
pcre2_match_context *pcre2_match_context_create_8(void *context);
pcre2_jit_stack *pcre2_jit_stack_create_8(size_t start, size_t most, void *context);
int pcre2_set_match_limit_8(pcre2_match_context *context, uint32_t limit);
void pcre2_jit_stack_assign_8(pcre2_match_context *context, void *callback, void *data);
int pcre2_match_8(const pcre2_code *code, const uint8_t *subject, size_t length, size_t start, uint32_t options,
                  pcre2_match_data *data, pcre2_match_context *context);
size_t *pcre2_get_ovector_pointer_8(pcre2_match_data *data);
]]

local lib = ffi.load("libpcre2-8.so.0")
local JIT_COMPLETE = 1
local NO_MATCH = -1

-- One of each serves all: a worker runs one search at a time, and takes its result before the next.
local context = lib.pcre2_match_context_create_8(nil)
local data = lib.pcre2_match_data_create_8(8, nil)
local ends = lib.pcre2_get_ovector_pointer_8(data)
-- It counts steps of a search, for patterns that try much again and again. None here does: two million numbers are as many
-- steps, and no fault.
lib.pcre2_set_match_limit_8(context, 0xffffffff)
-- 1 MiB: some thousands of levels of JSON. Whoever needs more counts as not found.
lib.pcre2_jit_stack_assign_8(context, nil, lib.pcre2_jit_stack_create_8(32 * 1024, 1024 * 1024, nil))

local M = {}

function M.compile(pattern)
  local fault, at = ffi.new("int[1]"), ffi.new("size_t[1]")
  local code = lib.pcre2_compile_8(pattern, #pattern, 0, fault, at, nil)
  if code == nil then
    error(string.format("pattern %s: error %d at %d", pattern, fault[0], tonumber(at[0])))
  end
  -- Where the machine has no compiler for patterns, it searches all the same, only slower.
  lib.pcre2_jit_compile_8(code, JIT_COMPLETE)
  return code
end

-- Where a pattern is found from start on: the offset where it begins, the one behind its end, and those of a group, the
-- first by default, if that was found. Nil when it is not found, and true when it is too deep for the stack.
function M.find(code, bytes, length, start, group)
  local pairs = lib.pcre2_match_8(code, bytes, length, start, 0, data, context)
  if pairs < 1 then
    return nil, pairs ~= NO_MATCH
  end
  group = group or 1
  if pairs > group then
    return tonumber(ends[0]), tonumber(ends[1]), tonumber(ends[2 * group]), tonumber(ends[2 * group + 1])
  end
  return tonumber(ends[0]), tonumber(ends[1])
end

return M
