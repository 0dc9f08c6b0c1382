-- Keeps a list among an owner's others; those whose time is over go, and the oldest of too many.
--
-- KEYS[1] the owner's lists
-- ARGV[1] name of the list, which begins with the second at which its time is over, as 8 hex digits; ARGV[2] its value
-- ARGV[3] this second, likewise; ARGV[4] how many are kept; ARGV[5] life of the key (ms)

local call = redis.call

local names = call('HKEYS', KEYS[1])
table.sort(names)
for place, name in ipairs(names) do
  if name ~= ARGV[1] and (string.sub(name, 1, 8) <= ARGV[3] or #names - place + 1 >= tonumber(ARGV[4])) then
    call('HDEL', KEYS[1], name)
  end
end
call('HSET', KEYS[1], ARGV[1], ARGV[2])
call('PEXPIRE', KEYS[1], ARGV[5])
return 1
