-- Puts something under a name, if what is there has the version that is expected.
-- ARGV: the version (0: nothing is there), what to put, and what nobody else puts with it: by that it is
-- known when the answer was lost and the same comes again.
local document = KEYS[1]
local version, by = unpack(redis.call('HMGET', document, 'version', 'by'))
version = version or '0'
local next_version = string.format('%.0f', tonumber(ARGV[1]) + 1)
if version == next_version and by == ARGV[3] then
  return 1
end
if version ~= ARGV[1] then
  return 0
end
redis.call('HSET', document, 'version', next_version, 'body', ARGV[2], 'by', ARGV[3])
return 1
