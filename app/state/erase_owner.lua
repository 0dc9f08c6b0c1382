-- Erases an owner's histories; what leads to the rest of the owner's log entries is set aside until those are erased too.
--
-- KEYS[1…3] history, counted identities, position of the last merge; KEYS[4…6] the same and the list of merges, detached
-- KEYS[11] lists that are kept for further pages
-- KEYS[7] merges into the owner and KEYS[8] sources that are expected; KEYS[9…10] the same, set aside
-- Returns how many events the history held, what is set aside of merges, and of sources.

local call = redis.call

local num_events = call('ZCARD', KEYS[1]) + call('ZCARD', KEYS[4])
call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[11])
call('ZUNIONSTORE', KEYS[9], 3, KEYS[9], KEYS[7], KEYS[6])
call('SUNIONSTORE', KEYS[10], KEYS[10], KEYS[8])
call('DEL', KEYS[6], KEYS[7], KEYS[8])
return { num_events, call('ZRANGE', KEYS[9], 0, -1), call('SMEMBERS', KEYS[10]) }
