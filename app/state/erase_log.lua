-- Erases entries of one owner from a part of an event log, a page at a time.
--
-- KEYS[1] event log
-- ARGV[1] position behind which to begin, ARGV[2] last position, ARGV[3] entries of a page
-- ARGV[4] how the owner's entries begin; or, when it is empty, ARGV[5] the store's id and ARGV[6] the owner's digest
-- Returns the last position of the page, nil when there is none, and how many entries went.

local prefix, store_id, digest = ARGV[4], ARGV[5], ARGV[6]

local function is_the_owners(data)
  if prefix ~= '' then
    return string.sub(data, 1, #prefix) == prefix
  end
  local kind, id = string.match(data, '^{"(%a+)_id":"([^"\\]*)"')
  if not kind then -- a stateless list, or an id with characters that JSON escapes
    local fields = cjson.decode(data)
    kind, id = 'user', fields['user_id']
    if not id then
      kind, id = 'session', fields['session_id']
    end
  end
  return id ~= nil and redis.sha1hex(store_id .. ' ' .. kind .. ':' .. id) == digest
end

local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], ARGV[2], 'COUNT', ARGV[3])
local num_erased = 0
for _, entry in ipairs(entries) do
  if is_the_owners(entry[2][4]) then
    num_erased = num_erased + redis.call('XDEL', KEYS[1], entry[1])
  end
end
return { #entries > 0 and entries[#entries][1] or false, num_erased }
