-- Moves the cursor of a stream, never back and never beyond its newest event.
-- ARGV: the epoch that the number is of, the number.
local meta = KEYS[1]
local epoch, last, cursor = unpack(redis.call('HMGET', meta, 'epoch', 'last', 'cursor'))
if epoch == ARGV[1] and last then
  local seq = math.min(tonumber(ARGV[2]), tonumber(last))
  if seq > tonumber(cursor or 0) then
    redis.call('HSET', meta, 'cursor', seq)
  end
end
return 0
