-- The first step of a merge: takes a history out of its owner's reach, so that what comes later begins a new one.
--
-- KEYS[1] event log, KEYS[2] merges under way, KEYS[3] position of the owner's last merge in the log
-- KEYS[4…6] history, counted identities and list of merges; KEYS[7…9] where they wait, detached
-- KEYS[10] lists that are kept for further pages, which nobody will ask for
-- ARGV[1] owner, ARGV[2] target, ARGV[3] log data, ARGV[4] age of the log (ms)
-- Returns nil when nothing is stored; else "after upto target" of the merge under way, and whether it began only now:
-- what the log says of the owner between the two positions belongs to the target.

local call = redis.call

call('DEL', KEYS[10])
local under_way = call('HGET', KEYS[2], ARGV[1])
if under_way then
  return { under_way, 0 }
end
if call('EXISTS', KEYS[4], KEYS[5]) == 0 then
  return false
end
for number = 4, 6 do
  if call('EXISTS', KEYS[number]) == 1 then
    call('RENAME', KEYS[number], KEYS[number + 3])
  end
end
local after = call('GET', KEYS[3]) or '0-0'
local upto = call('XADD', KEYS[1], '*', 'kind', 'merge', 'data', ARGV[3])
call('SET', KEYS[3], upto, 'PX', ARGV[4])
under_way = after .. ' ' .. upto .. ' ' .. ARGV[2]
call('HSET', KEYS[2], ARGV[1], under_way)
return { under_way, 1 }
