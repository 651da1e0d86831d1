-- Where a stream stands.
-- ARGV: an epoch if it has none, for how many milliseconds it is known without events.
-- Returns its epoch, last, first, cursor, and how many are not read.
local meta, events, ids, read, archived = unpack(KEYS)
local epoch, last, first, cursor, read_up_to =
  unpack(redis.call('HMGET', meta, 'epoch', 'last', 'first', 'cursor', 'read_up_to'))
if not epoch then
  -- As in append.lua. Whoever is told this epoch finds it again when the first event comes.
  if redis.call('EXISTS', meta, events, ids, read, archived) > 0 then
    redis.call('DEL', meta, events, ids, read, archived)
  end
  epoch, last, first, cursor, read_up_to = ARGV[1], 0, 1, 0, 0
  redis.call('HSET', meta, 'epoch', epoch)
end
last, first = tonumber(last or 0), tonumber(first or 1)
if first > last then
  redis.call('PEXPIRE', meta, ARGV[2])
end
local unread = last - math.max(tonumber(read_up_to or 0), first - 1) - redis.call('ZCARD', read)
return { epoch, last, first, tonumber(cursor or 0), unread }
