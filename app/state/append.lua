-- Appends one shard's part of a batch to histories, popularity and event log. All of it happens, or none.
--
-- KEYS[1] event log, KEYS[2] popularity, KEYS[3] trending, KEYS[4…] histories and sets of counted identities
-- ARGV[1…4] cap, time to live (ms), entries of the log, age of the log (ms)
-- ARGV[5…7] half-lives (s) of popularity and of trending, items that either list keeps
-- then five per event: index in KEYS | 0 to store nothing of the owner, score, member, popularity score | "", log data | ""
-- Returns one letter per event, (a)ccepted (d)uplicate (i)gnored (n)ot stored, and how many entries the log dropped.

local cap, ttl_ms = tonumber(ARGV[1]), ARGV[2]
local log_max_entries, log_max_age_ms = ARGV[3], tonumber(ARGV[4])
local half_lives_s, popularity_max = { tonumber(ARGV[5]), tonumber(ARGV[6]) }, tonumber(ARGV[7])
local HEADER, WIDTH = 7, 5

-- An item's score is the time at which one event of weight 1 would make it as popular as all its events do: the
-- exponentially decayed sum kept as a logarithm, which no date can overflow.
local function add_popularity(key, half_life_s, item, score)
  local before = call('ZSCORE', key, item)
  if before then
    before = tonumber(before)
    local high, low = math.max(before, score), math.min(before, score)
    score = high + half_life_s * math.log(1 + 2 ^ ((low - high) / half_life_s)) / math.log(2)
  end
  call('ZADD', key, string.format('%.17g', score), item)
end

-- Counts one event in both lists; its weight moves its time by so many half-lives.
local function count(popularity, member, score)
  if popularity ~= '' then
    local item, at = string.sub(member, string.find(member, '\31', 11, true) + 1), tonumber(score) / 1000000
    local popular_at = tonumber(popularity)
    add_popularity(KEYS[2], half_lives_s[1], item, popular_at)
    add_popularity(KEYS[3], half_lives_s[2], item, at + (popular_at - at) / half_lives_s[1] * half_lives_s[2])
  end
end

local outcomes, touched = {}, {}
for start = HEADER + 1, #ARGV, WIDTH do
  local key = KEYS[tonumber(ARGV[start])]
  local score, member = ARGV[start + 1], ARGV[start + 2]
  local outcome = 'a'
  if not key then
    outcome = 'n'
    count(ARGV[start + 3], member, score)
  elseif is_stored(key, string.sub(member, 3, 10)) then
    outcome = 'd'
  elseif not make_room(key, cap, score, member) then
    outcome = 'i'
  else
    call('ZADD', key, score, member)
    touched[key] = true
    count(ARGV[start + 3], member, score)
    if ARGV[start + 4] ~= '' then
      call('XADD', KEYS[1], '*', 'kind', 'event', 'data', ARGV[start + 4])
    end
  end
  outcomes[#outcomes + 1] = outcome
end

for key in pairs(touched) do
  call('PEXPIRE', key, ttl_ms)
end

for number = 2, 3 do
  if call('ZCARD', KEYS[number]) > 2 * popularity_max then
    call('ZREMRANGEBYRANK', KEYS[number], 0, -popularity_max - 1)
  end
end
local dropped = 0
if next(touched) then
  local now_ms = tonumber(call('TIME')[1]) * 1000
  dropped = call('XTRIM', KEYS[1], 'MAXLEN', '~', log_max_entries)
    + call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f', math.max(now_ms - log_max_age_ms, 0)))
end
return { table.concat(outcomes), dropped }
