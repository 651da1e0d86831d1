-- Keeps the states of one user's tasks that are newer than what is there.
-- ARGV: the time in milliseconds, then of each task its id, its rank and its state. A rank is the `rev`
-- in 20 digits and 1 if the task has ended, else 0: ranks sort as their text does, and a `rev` may
-- have more digits than Lua's numbers.
local tasks, ranks, ages = unpack(KEYS)
local now = ARGV[1]
for i = 2, #ARGV, 3 do
  local id, rank, state = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local old = redis.call('HGET', tasks, id)
  local old_rank = old and string.sub(old, 1, 21)
  local is_newer = not old
    or (string.sub(rank, 1, 20) > string.sub(old, 1, 20)
      and string.sub(rank, 21) >= string.sub(old, 21, 21))
  if is_newer then
    redis.call('HSET', tasks, id, rank .. state)
    -- First the new, then the old: while a slot is on its way to another server of a cluster, a script
    -- that has emptied a key is not let at it again, and ends there.
    redis.call('ZADD', ranks, 0, rank .. id)
    if old then
      redis.call('ZREM', ranks, old_rank .. id)
    end
    redis.call('ZADD', ages, now, id)
  end
end
return 0
