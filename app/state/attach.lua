-- The second step of a merge: adds what was detached to the target's history. Doing it again changes nothing.
--
-- KEYS[1] history, KEYS[2] counted identities, KEYS[3] list of merges, KEYS[4] sources that are expected
-- ARGV[1…4] cap, time to live (ms), age of the log (ms), source
-- ARGV[5…6] how many of the pairs are of the history and of the counted identities; the rest is of the list of merges
-- then score and member of each
-- Returns how many events the history gained, or nil when the source is not expected: it is done, or the target was
-- erased meanwhile.

local cap, ttl_ms, log_max_age_ms = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local HEADER = 6

if call('SISMEMBER', KEYS[4], ARGV[4]) == 0 then
  return false
end

local function add(key, first, last)
  local added = 0
  for pair = first, last do
    local score, member = ARGV[HEADER + 2 * pair - 1], ARGV[HEADER + 2 * pair]
    if not is_stored(key, string.sub(member, 3, 10)) and make_room(key, cap, score, member) then
      call('ZADD', key, score, member)
      added = added + 1
    end
  end
  if added > 0 then
    call('PEXPIRE', key, ttl_ms)
  end
  return added
end

local num_events, num_counted = tonumber(ARGV[5]), tonumber(ARGV[6])
local num_pairs = (#ARGV - HEADER) / 2
local added = add(KEYS[1], 1, num_events)
add(KEYS[2], num_events + 1, num_events + num_counted)
for pair = num_events + num_counted + 1, num_pairs do
  call('ZADD', KEYS[3], ARGV[HEADER + 2 * pair - 1], ARGV[HEADER + 2 * pair])
end
local now_ms = tonumber(call('TIME')[1]) * 1000
call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('(%.0f', now_ms - log_max_age_ms))
call('PEXPIRE', KEYS[3], ARGV[3])
return added
