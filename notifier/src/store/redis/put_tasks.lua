-- Keeps the states of one user's tasks that are newer than what is there.
-- ARGV: the time in milliseconds, then of each task its id, its rank and its state. A rank is the `rev`
-- in 20 digits and 1 if the task has ended, else 0: ranks compare as their text does, and a `rev` may
-- have more digits than Lua's numbers.
local tasks, ages, open = unpack(KEYS)
local now = ARGV[1]
local ended = {}
for i = 2, #ARGV, 3 do
  local id, rank, state = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local old = redis.call('HGET', tasks, id)
  local is_newer = not old
    or (string.sub(rank, 1, 20) > string.sub(old, 1, 20)
      and string.sub(rank, 21) >= string.sub(old, 21, 21))
  if is_newer then
    if string.sub(rank, 21) == '1' then
      ended[#ended + 1] = id
    else
      redis.call('ZADD', open, now, id)
    end
    redis.call('ZADD', ages, now, id)
    -- Last: if something before it fails, the state is new when it comes again.
    redis.call('HSET', tasks, id, rank .. state)
  end
end
-- First the new, then the old: while a slot is on its way to another server of a cluster, what a script
-- has emptied it is not let at again. Nothing is left there to remove.
for _, id in ipairs(ended) do
  redis.pcall('ZREM', open, id)
end
return 0
