-- Counts ends of jobs of one user's groups.
-- ARGV: the time in milliseconds, and in microseconds, how many bytes of results a group keeps, then of
-- each job: its group's id and size, its index in 5 digits, its `rev` in 20 digits, how it ended (0
-- succeeded, 1 failed, 2 cancelled), its id, and its result with an `r` before it, or nothing.
-- A `rev` is compared as a text, since it may have more digits than Lua's numbers.
-- Returns of each job how far its group is after all of them: size, succeeded, failed, cancelled, `rev`,
-- and whether it was complete before.
local groups, jobs, ages = unpack(KEYS)
local now, micros, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local seen, counted = {}, {}

local function load(id, size)
  local kept = redis.call('HGET', groups, id)
  local group = { id = id, size = tonumber(size), 0, 0, 0, rev = 0, bytes = 0 }
  if kept then
    local number = string.gmatch(kept, '%d+')
    group.size = tonumber(number())
    for i = 1, 3 do
      group[i] = tonumber(number())
    end
    group.rev, group.bytes = tonumber(number()), tonumber(number())
  end
  group.was_complete = group[1] + group[2] + group[3] >= group.size
  group.rev = math.max(micros, group.rev + 1)
  return group
end

for i = 4, #ARGV, 7 do
  local id, size, index, rev, outcome, task, result = unpack(ARGV, i, i + 6)
  local group = seen[id]
  if not group then
    group = load(id, size)
    seen[id] = group
  end
  counted[#counted + 1] = group
  local field = index .. id
  local old = redis.call('HGET', jobs, field)
  if tonumber(index) < group.size and not (old and string.sub(old, 1, 20) >= rev) then
    if old then
      local before = tonumber(string.sub(old, 21, 21)) + 1
      group[before] = group[before] - 1
      group.bytes = group.bytes - math.max(#old - 31 - tonumber(string.sub(old, 22, 31)) - 1, 0)
    end
    local ended = tonumber(outcome) + 1
    group[ended] = group[ended] + 1
    local bytes = math.max(#result - 1, 0)
    if group.bytes + bytes > most then
      result, bytes = '', 0
    end
    group.bytes = group.bytes + bytes
    local task_bytes = string.format('%010d', #task)
    redis.call('HSET', jobs, field, rev .. outcome .. task_bytes .. task .. result)
  end
end

for id, group in pairs(seen) do
  local kept = string.format('%d %d %d %d %.0f %d',
    group.size, group[1], group[2], group[3], group.rev, group.bytes)
  redis.call('HSET', groups, id, kept)
  redis.call('ZADD', ages, now, id)
end

local answer = {}
for i, group in ipairs(counted) do
  answer[i] = { group.size, group[1], group[2], group[3], group.rev, group.was_complete and 1 or 0 }
end
return answer
