-- Marks events of a user's inbox.
-- ARGV: what they become (`read` or `archived`), which (`up_to` or `ids`), then the number or the ids.
-- Returns how many are not read then, and the epoch and the last of what was counted; nothing if there
-- never was an event.
local meta, ids, read, archived = unpack(KEYS)
local mark, which = ARGV[1], ARGV[2]
local epoch, last, first, read_up_to, archived_up_to =
  unpack(redis.call('HMGET', meta, 'epoch', 'last', 'first', 'read_up_to', 'archived_up_to'))
if not last then
  return false
end
last, first, read_up_to = tonumber(last), tonumber(first), tonumber(read_up_to or 0)
archived_up_to = tonumber(archived_up_to or 0)

-- All up to a number are noted in one, and only those above it one by one.
if which == 'up_to' then
  local up_to = math.min(tonumber(ARGV[3]), last)
  if up_to > read_up_to then
    read_up_to = up_to
    redis.call('HSET', meta, 'read_up_to', read_up_to)
    redis.call('ZREMRANGEBYSCORE', read, '-inf', read_up_to)
  end
  if mark == 'archived' and up_to > archived_up_to then
    redis.call('HSET', meta, 'archived_up_to', up_to)
    redis.call('ZREMRANGEBYSCORE', archived, '-inf', up_to)
  end
else
  for i = 3, #ARGV do
    local seq = tonumber(redis.call('HGET', ids, ARGV[i]) or 0)
    if mark == 'archived' and seq > archived_up_to then
      redis.call('ZADD', archived, seq, seq)
    end
    if seq > read_up_to then
      redis.call('ZADD', read, seq, seq)
    end
  end
end
return { last - math.max(read_up_to, first - 1) - redis.call('ZCARD', read), epoch, last }
