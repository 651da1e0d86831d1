-- Events of a stream, the oldest first.
-- ARGV: the number to begin with, the number to end with, how many bytes of bodies at most.
-- Returns of each its id and its body; of one in any case.
local events = KEYS[1]
local from, to, most = ARGV[1] .. '-0', ARGV[2] .. '-0', tonumber(ARGV[3])
local found, bytes = {}, 0
-- Few at once, since each may be large.
local at_once = 32
while true do
  local part = redis.call('XRANGE', events, from, to, 'COUNT', at_once)
  for _, entry in ipairs(part) do
    local body = entry[2][6]
    bytes = bytes + #body
    if #found > 0 and bytes > most then
      return found
    end
    found[#found + 1] = { entry[1], body }
    from = '(' .. entry[1]
  end
  if #part < at_once then
    return found
  end
end
