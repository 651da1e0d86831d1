-- Tasks of a user, those that changed last first.
-- ARGV: only below this `rev` in 20 digits, or empty; only those that have ended (`1`) or have not
-- (`0`), or empty; how many.
-- Returns of each its id, and its rank and state in one.
local tasks, ranks = unpack(KEYS)
local before, ended, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local top = before == '' and '+' or '(' .. before
local found = {}
-- Little is asked for again where most is passed over.
local at_once = math.max(limit, 100)
while true do
  local page = redis.call('ZREVRANGEBYLEX', ranks, top, '-', 'LIMIT', 0, at_once)
  for _, ranked in ipairs(page) do
    if ended == '' or ended == string.sub(ranked, 21, 21) then
      local id = string.sub(ranked, 22)
      found[#found + 1] = { id, redis.call('HGET', tasks, id) }
      if #found == limit then
        return found
      end
    end
    top = '(' .. ranked
  end
  if #page < at_once then
    return found
  end
end
