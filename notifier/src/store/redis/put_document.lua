-- Puts something under a name, if what is there has the version that is expected.
-- ARGV: the version (0: nothing is there), what to put.
local document = KEYS[1]
local version = redis.call('HGET', document, 'version') or '0'
if version ~= ARGV[1] then
  return 0
end
redis.call('HSET', document, 'version', string.format('%.0f', tonumber(version) + 1), 'body', ARGV[2])
return 1
