-- Tasks of a user, those that changed last first, and of one moment those with the greatest id.
-- ARGV: only what comes after this time in milliseconds and this id, or both empty; only those that have
-- ended (`1`) or have not (`0`), or empty; how many, and how many bytes of states; one too many of either
-- says that there are more.
-- Returns of each its id, when its state was stored, and its rank and state in one.
local tasks, ages, open, ranks = unpack(KEYS)
local time, id, ended = ARGV[1], ARGV[2], ARGV[3]
local limit, most = tonumber(ARGV[4]), tonumber(ARGV[5])

-- A version before kept ranks, by `rev`; one that still runs does so again.
if redis.call('EXISTS', ranks) == 1 then
  for _, ranked in ipairs(redis.call('ZRANGE', ranks, 0, -1)) do
    local task = string.sub(ranked, 22)
    local at = redis.call('ZSCORE', ages, task)
    local kept = at and redis.call('HGET', tasks, task)
    if kept and string.sub(kept, 21, 21) == '0' then
      redis.call('ZADD', open, at, task)
    elseif kept then
      redis.call('ZREM', open, task)
    end
  end
  redis.call('DEL', ranks)
end

-- As Redis compares members; Lua's own `<` goes by the server's language.
local function is_less(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

local order = ended == '0' and open or ages
local start = time == '' and 0 or redis.call('ZCOUNT', order, '(' .. time, '+inf')
local found, bytes = {}, 0
local at_once = 100
while true do
  local part = redis.call('ZREVRANGE', order, start, start + at_once - 1, 'WITHSCORES')
  for i = 1, #part, 2 do
    local task, at = part[i], part[i + 1]
    local comes_after = time == '' or tonumber(at) < tonumber(time) or is_less(task, id)
    if comes_after and not (ended == '1' and redis.call('ZSCORE', open, task)) then
      local kept = redis.call('HGET', tasks, task)
      if kept then
        found[#found + 1] = { task, at, kept }
        bytes = bytes + #kept - 21
        if #found > limit or (#found > 1 and bytes > most) then
          return found
        end
      end
    end
  end
  if #part < 2 * at_once then
    return found
  end
  start = start + at_once
end
