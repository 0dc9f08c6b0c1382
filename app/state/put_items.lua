-- Puts records of items, numbers every change and writes it to the change log. All of it happens, or none.
--
-- KEYS[1] records: item id → revision, a space, record   KEYS[2] change log   KEYS[3] the last revision
-- ARGV[1] entries of the change log, ARGV[2] most records
-- then three per item: id, the revision that it must have ('' none, '*' any), record
-- Returns one letter per item, (p)ut (u)nchanged (c)onflict (f)ull, and the revision that each of them now has (0: none).

local call = redis.call
local log_max_entries, max_records = ARGV[1], tonumber(ARGV[2])

local letters, revisions = {}, {}
for start = 3, #ARGV, 3 do
  local id, expected, record = ARGV[start], ARGV[start + 1], ARGV[start + 2]
  local current = call('HGET', KEYS[1], id)
  local revision, before = '', nil
  if current then
    local space = string.find(current, ' ', 1, true)
    revision, before = string.sub(current, 1, space - 1), string.sub(current, space + 1)
  end
  local letter = 'p'
  if before == record then
    letter = 'u'
  elseif expected ~= '*' and expected ~= revision then
    letter = 'c'
  elseif not current and call('HLEN', KEYS[1]) >= max_records then
    letter = 'f'
  else
    revision = string.format('%.0f', call('INCR', KEYS[3]))
    call('HSET', KEYS[1], id, revision .. ' ' .. record)
    call('XADD', KEYS[2], 'MAXLEN', '~', log_max_entries, revision .. '-1', 'item_id', id, 'record', record)
  end
  letters[#letters + 1] = letter
  revisions[#revisions + 1] = tonumber(revision) or 0
end
return { table.concat(letters), revisions }
