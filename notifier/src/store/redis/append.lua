-- Keeps events of streams: of one, or of several where one server has them all.
-- KEYS: five of each stream.
-- ARGV: how many events a stream holds, the time in milliseconds, then for each stream an epoch if it has
-- none, how many events follow, and the id and the body of each.
-- Returns for each stream the epoch, and of each event its number, whether it is new, how many are not
-- read now.
local limit, now = tonumber(ARGV[1]), ARGV[2]

-- While a slot is on its way to another server of a cluster, what this script has emptied it is not let at
-- again. Nothing is left there to remove.
local function remove(key, seq)
  return tonumber(redis.pcall('ZREM', key, seq)) or 0
end

-- Keeps those of a stream whose epoch is the argument at `from`, and the last of whose is at `to`.
local function grow(keys, from, to)
  local meta, events, ids, read, archived = unpack(keys)
  local epoch, last, first, read_up_to =
    unpack(redis.call('HMGET', meta, 'epoch', 'last', 'first', 'read_up_to'))
  if not epoch then
    -- What is left of an earlier life would be in the way of the new numbers. After a script's first
    -- change Redis refuses it nothing more, however full its memory is; so there is none without need.
    if redis.call('EXISTS', meta, events, ids, read, archived) > 0 then
      redis.call('DEL', meta, events, ids, read, archived)
    end
    epoch, last, first, read_up_to = ARGV[from], nil, nil, nil
  end
  -- None in a new life, and where somebody has asked for the stream and no event has come yet.
  local first_before, last_before = tonumber(first), tonumber(last)
  last, first, read_up_to = last_before or 0, first_before or 1, tonumber(read_up_to or 0)
  local read_apart = redis.call('ZCARD', read)
  local was_empty = first > last

  local function remove_oldest()
    local at = first .. '-0'
    local oldest = redis.call('XRANGE', events, at, at)[1]
    if oldest then
      redis.call('HDEL', ids, oldest[2][2])
    end
    read_apart = read_apart - remove(read, first)
    remove(archived, first)
    first = first + 1
    redis.call('XTRIM', events, 'MINID', first .. '-0')
  end

  local kept = {}
  for i = from + 2, to, 2 do
    local id, body = ARGV[i], ARGV[i + 1]
    local seq = last + 1
    local is_new = redis.call('HSETNX', ids, id, seq)
    if is_new == 1 then
      local added = redis.pcall('XADD', events, seq .. '-0', 'id', id, 'at', now, 'body', body)
      if added.err then
        -- Otherwise it would be taken for known when it comes again.
        redis.call('HDEL', ids, id)
        return added
      end
      last = seq
      while last + 1 - first > limit do
        remove_oldest()
      end
    else
      seq = tonumber(redis.call('HGET', ids, id))
    end
    local unread = last - math.max(read_up_to, first - 1) - read_apart
    kept[#kept + 1] = { seq, is_new, unread }
  end
  -- Each command costs, here and in the log that Redis keeps: only what has changed.
  if first ~= first_before then
    redis.call('HSET', meta, 'epoch', epoch, 'last', last, 'first', first)
  elseif last ~= last_before then
    redis.call('HSET', meta, 'last', last)
  end
  if was_empty then
    -- Without events it was to be forgotten some day.
    redis.call('PERSIST', meta)
  end
  return { epoch, kept }
end

local grown, from = {}, 3
for i = 1, #KEYS, 5 do
  local to = from + 1 + 2 * tonumber(ARGV[from + 1])
  local stream = grow({ unpack(KEYS, i, i + 4) }, from, to)
  if stream.err then
    return stream
  end
  grown[#grown + 1] = stream
  from = to + 1
end
return grown
