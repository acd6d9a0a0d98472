"""What Redis looks up by itself, so that large entries stay there: Lua that only reads."""

from __future__ import annotations

ENDS = """
local ends = {'0-0', '0-0'}
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
  if info[i] == 'first-entry' and info[i + 1] then ends[1] = info[i + 1][1] end
  if info[i] == 'last-generated-id' then ends[2] = info[i + 1] end
end
return ends
"""
"""The first id kept, or 0-0, and the last one ever written, of the stream KEYS[1]."""

OUTLINES = """
local field, after, left = ARGV[1], ARGV[2], tonumber(ARGV[3])
local found, carried = {}, 0
while #found < left and carried < 4194304 do
  local entry = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', 1)[1]
  if not entry then break end
  local size, value = 0, false
  for i = 1, #entry[2], 2 do
    size = size + #entry[2][i] + #entry[2][i + 1]
    if entry[2][i] == field then value = entry[2][i + 1] end
  end
  found[#found + 1] = {entry[1], size, value}
  after, carried = entry[1], carried + size
end
return found
"""
"""Of the entries after the id ARGV[2] in the stream KEYS[1], at most ARGV[3]: id, size of all
fields, and the field ARGV[1]. It looks at some 4 MiB at a time, which is a matter of milliseconds:
nothing else runs meanwhile."""
