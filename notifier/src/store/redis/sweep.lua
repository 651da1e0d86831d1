-- Removes what is too old of one stream, and of its user's tasks and groups.
-- ARGV: what was stored before this time in milliseconds, how many of each at most, for how many
-- milliseconds a stream is known without events.
-- Returns how many events, tasks and groups went, whether there may be more groups, and when the oldest was stored that remains.
local meta, events, ids, read, archived, tasks, ranks, ages, groups, jobs, group_ages, open = unpack(KEYS)
local oldest, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local rest = false

local gone, first = 0, 0
for _, entry in ipairs(redis.call('XRANGE', events, '-', '+', 'COUNT', most + 1)) do
  local stored_at = tonumber(entry[2][4])
  if stored_at >= oldest or gone == most then
    rest = stored_at
    break
  end
  redis.call('HDEL', ids, entry[2][2])
  first = tonumber(string.match(entry[1], '^%d+')) + 1
  gone = gone + 1
end
if gone > 0 then
  redis.call('HSET', meta, 'first', first)
  redis.call('ZREMRANGEBYSCORE', read, '-inf', '(' .. first)
  redis.call('ZREMRANGEBYSCORE', archived, '-inf', '(' .. first)
  if rest then
    redis.call('XTRIM', events, 'MINID', first .. '-0')
  else
    redis.call('DEL', events)
    redis.call('PEXPIRE', meta, ARGV[3])
  end
end

local old = redis.call('ZRANGEBYSCORE', ages, '-inf', '(' .. ARGV[1], 'LIMIT', 0, most)
for _, id in ipairs(old) do
  local task = redis.call('HGET', tasks, id)
  if task then
    redis.call('ZREM', ranks, string.sub(task, 1, 21) .. id)
    redis.call('ZREM', open, id)
    redis.call('HDEL', tasks, id)
  end
  redis.call('ZREM', ages, id)
end
local next_task = redis.call('ZRANGE', ages, 0, 0, 'WITHSCORES')[2]
if next_task then
  rest = math.min(rest or math.huge, tonumber(next_task))
end

-- Of groups, as many as have so many jobs together: nothing else is done meanwhile.
local groups_gone, jobs_gone, more_groups = 0, 0, 0
while true do
  local id = redis.call('ZRANGEBYSCORE', group_ages, '-inf', '(' .. ARGV[1], 'LIMIT', 0, 1)[1]
  if not id then
    break
  end
  if jobs_gone >= 10000 then
    more_groups = 1
    break
  end
  local size = tonumber(string.match(redis.call('HGET', groups, id) or '0', '^%d+'))
  for index = 0, size - 1 do
    redis.call('HDEL', jobs, string.format('%05d', index) .. id)
  end
  redis.call('HDEL', groups, id)
  redis.call('ZREM', group_ages, id)
  groups_gone, jobs_gone = groups_gone + 1, jobs_gone + size + 1
end
local next_group = redis.call('ZRANGE', group_ages, 0, 0, 'WITHSCORES')[2]
if next_group then
  rest = math.min(rest or math.huge, tonumber(next_group))
end
return { gone, #old, groups_gone, more_groups, rest }
