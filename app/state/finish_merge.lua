-- The last step of a merge, unless another has done it: KEYS[1] merges under way, KEYS[2…4] what was detached,
-- ARGV[1] source, ARGV[2] the merge as `detach` gave it.

if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
return 1
