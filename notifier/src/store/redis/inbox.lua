-- A part of a user's inbox, the newest first.
-- ARGV: the number to begin with, what is wanted (`all`, `unread` or `archived`), how many.
-- Returns of each its number, when it was stored, whether it is read, whether it is archived, its body.
local meta, events, read, archived = unpack(KEYS)
local top, wanted, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local read_up_to, archived_up_to =
  unpack(redis.call('HMGET', meta, 'read_up_to', 'archived_up_to'))
read_up_to, archived_up_to = tonumber(read_up_to or 0), tonumber(archived_up_to or 0)
local found = {}

local function number(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

local function add(entry, is_read, is_archived)
  found[#found + 1] =
    { number(entry), entry[2][4], is_read and 1 or 0, is_archived and 1 or 0, entry[2][6] }
end

if wanted == 'archived' then
  local above = '(' .. archived_up_to
  for _, seq in ipairs(redis.call('ZREVRANGEBYSCORE', archived, top, above, 'LIMIT', 0, limit)) do
    for _, entry in ipairs(redis.call('XRANGE', events, seq .. '-0', seq .. '-0')) do
      add(entry, true, true)
    end
  end
  if #found < limit then
    if tonumber(top) > archived_up_to then
      top = archived_up_to
    end
    local page = redis.call('XREVRANGE', events, top .. '-0', '-', 'COUNT', limit - #found)
    for _, entry in ipairs(page) do
      add(entry, true, true)
    end
  end
  return found
end

local above = archived_up_to
if wanted == 'unread' then
  above = math.max(above, read_up_to)
end
local bottom = (above + 1) .. '-0'
local from = top .. '-0'
-- Little is asked for again where most is passed over.
local at_once = math.max(limit, 100)
while true do
  local page = redis.call('XREVRANGE', events, from, bottom, 'COUNT', at_once)
  for _, entry in ipairs(page) do
    local seq = number(entry)
    local is_read = seq <= read_up_to or redis.call('ZSCORE', read, seq)
    local is_wanted = wanted == 'all' or not is_read
    if is_wanted and not redis.call('ZSCORE', archived, seq) then
      add(entry, is_read, false)
      if #found == limit then
        return found
      end
    end
    from = (seq - 1) .. '-0'
  end
  if #page < at_once then
    return found
  end
end
