-- A group with its jobs.
-- ARGV: its id.
-- Returns its size, and of each job that has ended its index and how it ended, as count_jobs.lua keeps
-- it; or nothing.
local groups, jobs = unpack(KEYS)
local id = ARGV[1]
local kept = redis.call('HGET', groups, id)
if not kept then
  return false
end
local size = tonumber(string.match(kept, '^%d+'))
local found = {}
for index = 0, size - 1 do
  local job = redis.call('HGET', jobs, string.format('%05d', index) .. id)
  if job then
    found[#found + 1] = { index, job }
  end
end
return { size, found }
