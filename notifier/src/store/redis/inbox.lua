-- A part of a user's inbox, the newest first.
-- ARGV: the number to begin with, what is wanted (`all`, `unread` or `archived`), how many, and how many
-- bytes of bodies; one too many of either says that there are more.
-- Returns of each its number, when it was stored, whether it is read, whether it is archived, its body.
local meta, events, read, archived = unpack(KEYS)
local top, wanted, limit, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local read_up_to, archived_up_to =
  unpack(redis.call('HMGET', meta, 'read_up_to', 'archived_up_to'))
read_up_to, archived_up_to = tonumber(read_up_to or 0), tonumber(archived_up_to or 0)
local found, bytes = {}, 0
-- Few, since each may be large.
local at_once = 32

local function number(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

-- Whether it was the last that is wanted.
local function add(entry, is_read, is_archived)
  local body = entry[2][6]
  found[#found + 1] =
    { number(entry), entry[2][4], is_read and 1 or 0, is_archived and 1 or 0, body }
  bytes = bytes + #body
  return #found > limit or (#found > 1 and bytes > most)
end

if wanted == 'archived' then
  local above = '(' .. archived_up_to
  local apart = redis.call('ZREVRANGEBYSCORE', archived, top, above, 'LIMIT', 0, limit + 1)
  for _, seq in ipairs(apart) do
    for _, entry in ipairs(redis.call('XRANGE', events, seq .. '-0', seq .. '-0')) do
      if add(entry, true, true) then
        return found
      end
    end
  end
  if tonumber(top) > archived_up_to then
    top = archived_up_to
  end
end

local above = wanted == 'archived' and 0 or archived_up_to
if wanted == 'unread' then
  above = math.max(above, read_up_to)
end
local bottom = (above + 1) .. '-0'
local from = top .. '-0'
while true do
  local page = redis.call('XREVRANGE', events, from, bottom, 'COUNT', at_once)
  for _, entry in ipairs(page) do
    local seq = number(entry)
    local is_read = seq <= read_up_to or redis.call('ZSCORE', read, seq)
    local is_wanted = wanted ~= 'unread' or not is_read
    local is_archived = wanted == 'archived'
    if is_archived or (is_wanted and not redis.call('ZSCORE', archived, seq)) then
      if add(entry, is_read or is_archived, is_archived) then
        return found
      end
    end
    from = (seq - 1) .. '-0'
  end
  if #page < at_once then
    return found
  end
end
