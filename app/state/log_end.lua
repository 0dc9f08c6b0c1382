-- KEYS[1] event log. Returns the position up to which everything was logged before now, collected already or not.

local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local upto = string.format('%.0f-18446744073709551615', now_ms - 1)
if redis.call('EXISTS', KEYS[1]) == 1 then
  local stream = redis.call('XINFO', 'STREAM', KEYS[1])
  for place = 1, #stream, 2 do
    if stream[place] == 'last-generated-id' then
      local last = stream[place + 1]
      if tonumber(string.match(last, '^%d+')) >= now_ms then
        upto = last
      end
    end
  end
end
return upto
