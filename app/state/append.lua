-- Appends one shard's part of a batch to histories, popularity and event log. All of it happens, or none.
--
-- KEYS[1] event log, KEYS[2] popularity, KEYS[3…] histories and sets of counted identities
-- ARGV[1…6] cap, time to live (ms), entries of the log, age of the log (ms), half-life (s), items of the popularity list
-- then five per event: index in KEYS | 0 to store nothing of the owner, score, member, popularity score | "", log data
-- Returns one letter per event, (a)ccepted (d)uplicate (i)gnored (n)ot stored, and how many entries the log dropped.

local cap, ttl_ms = tonumber(ARGV[1]), ARGV[2]
local log_max_entries, log_max_age_ms = ARGV[3], tonumber(ARGV[4])
local half_life_s, popularity_max = tonumber(ARGV[5]), tonumber(ARGV[6])
local HEADER, WIDTH = 6, 5

-- An item's score is the time at which one event of weight 1 would make it as popular as all its events do: the
-- exponentially decayed sum kept as a logarithm, which no date can overflow.
local function add_popularity(item, score)
  local before = call('ZSCORE', KEYS[2], item)
  if before then
    before = tonumber(before)
    local high, low = math.max(before, score), math.min(before, score)
    score = high + half_life_s * math.log(1 + 2 ^ ((low - high) / half_life_s)) / math.log(2)
  end
  call('ZADD', KEYS[2], string.format('%.17g', score), item)
end

local function count(popularity, member)
  if popularity ~= '' then
    add_popularity(string.sub(member, string.find(member, '\31', 11, true) + 1), tonumber(popularity))
  end
end

local outcomes, touched = {}, {}
for start = HEADER + 1, #ARGV, WIDTH do
  local key = KEYS[tonumber(ARGV[start])]
  local score, member = ARGV[start + 1], ARGV[start + 2]
  local outcome = 'a'
  if not key then
    outcome = 'n'
    count(ARGV[start + 3], member)
  elseif is_stored(key, string.sub(member, 3, 10)) then
    outcome = 'd'
  elseif not make_room(key, cap, score, member) then
    outcome = 'i'
  else
    call('ZADD', key, score, member)
    touched[key] = true
    count(ARGV[start + 3], member)
    call('XADD', KEYS[1], '*', 'kind', 'event', 'data', ARGV[start + 4])
  end
  outcomes[#outcomes + 1] = outcome
end

for key in pairs(touched) do
  call('PEXPIRE', key, ttl_ms)
end

if call('ZCARD', KEYS[2]) > 2 * popularity_max then
  call('ZREMRANGEBYRANK', KEYS[2], 0, -popularity_max - 1)
end
local dropped = 0
if next(touched) then
  local now_ms = tonumber(call('TIME')[1]) * 1000
  dropped = call('XTRIM', KEYS[1], 'MAXLEN', '~', log_max_entries)
    + call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f', math.max(now_ms - log_max_age_ms, 0)))
end
return { table.concat(outcomes), dropped }
