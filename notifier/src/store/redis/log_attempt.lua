-- Adds to the log of deliveries of one event, unless it is there: it says when, so it came before.
-- ARGV: what to add, how many are kept, for how many milliseconds.
local attempts = KEYS[1]
if not redis.call('LPOS', attempts, ARGV[1]) then
  redis.call('RPUSH', attempts, ARGV[1])
  redis.call('LTRIM', attempts, -tonumber(ARGV[2]), -1)
end
redis.call('PEXPIRE', attempts, ARGV[3])
return 0
