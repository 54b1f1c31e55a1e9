"""What Redis carries out in one step, and what it keeps: the scripts, and the names of their keys.

    llmgw:{TAG}:CLAIM      TAG: 16 hex digits of a tenant's SHA-256, so that all of a tenant's keys are in one slot of a cluster
      requests, tokens     text: the time at which the bucket will be full again, in microseconds; gone: it is full
      day                  text: "DAY COUNT", days since 1970
      concurrent           sorted set: request -> when its slot is free again whatever happens
      budget PERIOD        hash: w window, s spent, r reserved (nano-USD), t when `s` was seeded, e when the first reservation ends,
                           #REQUEST what a request has reserved
      budget PERIOD:r      sorted set: request -> when its reservation ends whatever happens
    llmgw:{TAG}:!REQUEST   settled already; for SETTLED seconds

Law: time is Redis' own, windows are those of the UTC calendar (`policies/windows.py` in Lua), buckets are `policies/bucket.py` told by one
number. A script reads and judges first, then writes everything or nothing. Arguments: of each claim its kind and its limit; the request; numbers;
and where the script asked for it, what was spent before. Lua's numbers are exact up to 2^53 nano-USD, nine million dollars; above, they are
rounded to a few nano-dollars.
"""

from __future__ import annotations

from hashlib import sha1, sha256

from llm_gateway.core.tenancy import Claim, Period
from llm_gateway.stores.redis.resp import Script

SETTLED = 300  # seconds
LAG = 10  # seconds that what was spent before may be behind: what was settled within them, before seeding, is counted again
LONGEST_NAME = 120
MOST_PURGES = 1000
EVERYTHING = b"[null,null,null]"  # a purge that names nothing

GRANTED, REFUSED, HELD, UNKNOWN, UNSEEDED = range(5)

# One letter of a measure or of a hard budget's period; soft ones are in capitals.
LETTERS: dict[str, str] = {"requests": "r", "tokens": "t", "day": "d", "concurrent": "c"}
PERIODS: dict[Period, str] = {"hour": "h", "day": "y", "week": "w", "month": "m", "total": "a"}

CLOCK = """
local function clock()
  local time = redis.call('TIME')
  return time[1] * 1e6 + time[2]
end
"""

CALENDAR = """
local floor, max, min = math.floor, math.max, math.min
local HOUR, DAY = 3.6e9, 8.64e10
local MONTHS = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365}

local function newyear(year)  -- days from 1970 to its first
  local before = year - 1
  return 365 * (year - 1970) + floor(before / 4) - floor(before / 100) + floor(before / 400) - 477
end

local function month(days)  -- months since the year 0, and the day on which the next one begins
  local year = 1970 + floor(days / 365.2425)
  while newyear(year) > days do year = year - 1 end
  while newyear(year + 1) <= days do year = year + 1 end
  local first = newyear(year)
  local leap = newyear(year + 1) - first - 365
  for m = 1, 12 do
    local ends = first + MONTHS[m + 1] + (m > 1 and leap or 0)
    if days < ends then return year * 12 + m - 1, ends end
  end
end

local function window(period, now)  -- its number, and when it ends
  local days = floor(now / DAY)
  if period == 'h' then
    local hour = floor(now / HOUR)
    return hour, (hour + 1) * HOUR
  elseif period == 'y' then
    return days, (days + 1) * DAY
  elseif period == 'w' then  -- 1970 began on a Thursday
    local week = floor((days + 3) / 7)
    return week, (week * 7 + 4) * DAY
  elseif period == 'm' then
    local number, ends = month(days)
    return number, ends * DAY
  end
  return 0, nil
end
"""

# A budget as it is at `now`: without what ran out, in the present window. `lost`: it was never seeded, or Redis was emptied since. Reservations are
# looked through when the first of them may have run out, not each time.
PURSE = """
local function sweep(key, leases, reserved, now)  -- what is reserved still, and when to look again
  local gone = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 100)
  if #gone > 0 then
    local fields = {}
    for i = 1, #gone do fields[i] = '#' .. gone[i] end
    for _, amount in ipairs(redis.call('HMGET', key, unpack(fields))) do reserved = max(0, reserved - (tonumber(amount) or 0)) end
    redis.call('ZREM', leases, unpack(gone))
    redis.call('HDEL', key, unpack(fields))
  end
  local next = redis.call('ZRANGE', leases, 0, 0, 'WITHSCORES')
  redis.call('PEXPIRE', leases, 172800000)
  redis.call('HSET', key, 'r', reserved, 'e', next[2] or 0)
  return reserved, tonumber(next[2]) or 0
end

local function purse(key, leases, kind, limit, request, now)
  local kept = redis.call('HMGET', key, 'w', 's', 'r', 't', 'e', request)
  local small = string.lower(kind)
  local number, ends = window(small, now)
  local was, spent, reserved, early = tonumber(kept[1]), tonumber(kept[2]) or 0, tonumber(kept[3]) or 0, tonumber(kept[5]) or 0
  local own = tonumber(kept[6])
  if was and early > 0 and now >= early then
    reserved, early = sweep(key, leases, reserved, now)
    own = tonumber(redis.call('HGET', key, request))
  end
  local turned = was ~= number
  if was and was > number then
    number, turned = was, false  -- not back, where clocks of two servers differ
  elseif turned then
    spent = 0
  end
  return {key = key, leases = leases, hard = kind == small, limit = limit, kind = small, window = number, ends = ends, turned = turned, now = now,
    spent = spent, reserved = reserved, seeded = tonumber(kept[4]) or now, early = early, own = own, lost = not was}
end

local function keep(one, request, amount, till)  -- with what the request has reserved, if that is to be kept
  if amount then
    if one.early == 0 or till < one.early then
      one.early, one.turned = till, true
    end
    redis.call('HSET', one.key, 'w', one.window, 's', one.spent, 'r', max(0, one.reserved), 't', one.seeded, 'e', one.early, request, amount)
    redis.call('ZADD', one.leases, till, string.sub(request, 2))
  else
    redis.call('HSET', one.key, 'w', one.window, 's', one.spent, 'r', max(0, one.reserved), 't', one.seeded, 'e', one.early)
  end
  if one.turned or not one.ends then
    redis.call('PEXPIRE', one.key, floor(one.ends and (one.ends - one.now + DAY) / 1000 or 3.456e10))
    redis.call('PEXPIRE', one.leases, 172800000)
  end
end

local function seed(one, given)  -- `AMOUNT@WALL`, or `?`: not known
  local amount, wall = string.match(given or '?', '(%d+)@(%d+)')
  if not amount then return false end
  local number = window(one.kind, tonumber(wall) * 1e6)
  if number > one.window then return false end
  one.spent = number == one.window and tonumber(amount) or 0
  one.lost, one.seeded = false, one.now
  keep(one)  -- at once: it is seeded once, whatever becomes of the request
  return true
end

local function short(one, amount)  -- the answer where it has less left
  if one.limit - one.spent >= amount then return 2, 1000 end
  return 1, one.ends and math.ceil((one.ends - one.now) / 1000) or -1
end

local function words(text)
  local list = {}
  for word in string.gmatch(text, '%S+') do list[#list + 1] = word end
  return list
end
"""

RESERVE = """
local n = floor((#ARGV - 2) / 2)
local request = ARGV[2 * n + 1]
local tokens, cost, least, hold = string.match(ARGV[2 * n + 2], '(%d+) (%d+) (%d+) (%d+)')
local now = clock()
local amounts, busy, states, keys, left = {}, {}, {}, {}, {}  -- by claim
local at, worst, wait, full, known, nth = 1, nil, 0.5, nil, nil, 0

for i = 1, n do
  local kind, limit, key = ARGV[2 * i - 1], tonumber(ARGV[2 * i]), KEYS[at]
  at, keys[i] = at + 1, key
  if kind == 'r' or kind == 't' then  -- microseconds: until it is full, and what is taken
    local amount, each, used = kind == 'r' and 1 or tonumber(tokens), 6e7, 0
    if limit > 0 then
      each, used = 6e7 / limit, max(0, (tonumber(redis.call('GET', key)) or 0) - now)
      left[i] = limit - used / each
    end
    local missing = limit > 0 and used - (limit - min(amount, limit)) * each or 6e7
    if missing > wait then worst, wait = i, missing end
    amounts[i], busy[i] = amount, amount * each + used
  elseif kind == 'd' then
    local day, count = string.match(redis.call('GET', key) or '', '(%d+) (%d+)')
    local number, ends = window('y', now)
    count = tonumber(day) == number and tonumber(count) or 0
    if count >= limit and ends - now > wait then worst, wait = i, ends - now end
    amounts[i], left[i], states[i] = 1, limit - count, {number, ends, count}
  elseif kind == 'c' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    local count = redis.call('ZCARD', key)
    if count >= limit then
      if redis.call('ZSCORE', key, request) then known = known or tonumber(cost) else full = full or i end
    end
    amounts[i], left[i] = 1, limit - count
  else
    local one = purse(key, KEYS[at], kind, limit, '#' .. request, now)
    at, states[i] = at + 1, one
    known = one.own or known
  end
end

local function answer(code, second, third)
  local reply = {code, second, third}
  for i = 1, n do
    local one = states[i]
    local rest = left[i] or one and one.limit - one.spent - one.reserved or 0
    reply[#reply + 1] = max(0, floor(rest + 1e-6))
  end
  return reply
end

if known then return answer(0, known) end
if worst then return answer(1, worst, math.ceil(wait / 1000)) end
if full then return answer(1, full, 1000) end

local granted, seeds = tonumber(cost), ARGV[2 * n + 3] and words(ARGV[2 * n + 3])
least = tonumber(least)
for i = 1, n do
  local one = states[i]
  if one and one.leases then
    nth = nth + 1
    if one.lost then
      if not seeds then return {4} end
      if not seed(one, seeds[nth]) and one.hard then return answer(3, i, 1000) end
    end
    if one.hard then
      local free = max(0, one.limit - one.spent - one.reserved)
      if free < least then
        local code, ms = short(one, least > 0 and least or granted)
        return answer(code, i, ms)
      end
      granted = min(granted, free)
    end
  end
end

local till = floor(now + tonumber(hold) * 1000)
for i = 1, n do
  local one, key = states[i], keys[i]
  if busy[i] then
    redis.call('SET', key, floor(now + busy[i]), 'PX', max(60000, math.ceil(busy[i] / 1000)))
  elseif not one then
    amounts[i] = redis.call('ZADD', key, till, request)  -- 0 if it has one already
    redis.call('PEXPIRE', key, 172800000)
  elseif not one.leases then
    redis.call('SET', key, one[1] .. ' ' .. one[3] + 1, 'PX', floor((one[2] - now) / 1000) + 3600000)
  elseif not one.lost then
    one.reserved = one.reserved + granted
    keep(one, '#' .. request, granted, till)
  end
  if left[i] then left[i] = left[i] - amounts[i] end
end
return answer(0, granted)
"""

# More for a request that was settled meanwhile is refused: nobody would give it back. It comes after its settlement where both found a Redis that
# was emptied, and were sent again with seeds.
EXTEND = """
local n = floor((#ARGV - 2) / 2)
if redis.call('GET', KEYS[2 * n + 1]) then return {1, 1, 0} end
local request = '#' .. ARGV[2 * n + 1]
local cost, hold = string.match(ARGV[2 * n + 2], '(%d+) (%d+)')
cost = tonumber(cost)
local now, states, seeds = clock(), {}, ARGV[2 * n + 3] and words(ARGV[2 * n + 3])
for i = 1, n do
  local one = purse(KEYS[2 * i - 1], KEYS[2 * i], ARGV[2 * i - 1], tonumber(ARGV[2 * i]), request, now)
  if one.lost then
    if not seeds then return {4} end
    if not seed(one, seeds[i]) and one.hard then return {3, i, 1000} end
  end
  if one.hard and one.limit - one.spent - one.reserved < cost then
    local code, wait = short(one, cost)
    return {code, i, wait}
  end
  states[i] = one
end
for i = 1, n do
  local one = states[i]
  if not one.lost then
    one.reserved = one.reserved + cost
    keep(one, request, (one.own or 0) + cost, floor(now + tonumber(hold) * 1000))
  end
end
return {0, cost}
"""

# The answer: what each budget had spent before and after, or that one has to be seeded. The third number: ms since it happened.
SETTLE = """
local n = floor((#ARGV - 2) / 2)
local request = ARGV[2 * n + 1]
local tokens, cost, age = string.match(ARGV[2 * n + 2], '(-?%d+) (%d+) (%d+)')
tokens, cost, age = tonumber(tokens), tonumber(cost), tonumber(age)
local now, at, states, seeds = clock(), 1, {}, ARGV[2 * n + 3] and words(ARGV[2 * n + 3])
local nth, lost = 0, false
for i = 1, n do
  local kind = ARGV[2 * i - 1]
  if kind == 't' or kind == 'c' then
    states[i] = KEYS[at]
    at = at + 1
  else
    local one = purse(KEYS[at], KEYS[at + 1], kind, tonumber(ARGV[2 * i]), '#' .. request, now)
    at, nth, states[i] = at + 2, nth + 1, one
    if one.lost and age <= LAG then
      if seeds then seed(one, seeds[nth]) else lost = true end
    end
  end
end
if lost then return {4} end
local again = nth > 0 and not redis.call('SET', KEYS[at], '1', 'NX', 'PX', SETTLED)
local reply = {0}
for i = 1, n do
  local kind, one = ARGV[2 * i - 1], states[i]
  if kind == 'c' then
    redis.call('ZREM', one, request)
  elseif kind == 't' then
    local limit = tonumber(ARGV[2 * i])
    if tokens ~= 0 and limit > 0 and not again then
      local busy = max(0, max(0, (tonumber(redis.call('GET', one)) or 0) - now) + tokens * 6e7 / limit)
      redis.call('SET', one, floor(now + busy), 'PX', max(60000, math.ceil(busy / 1000)))
    end
  else
    reply[#reply + 1] = one.spent
    if not one.lost and not again then
      if one.own then
        one.reserved = one.reserved - one.own
        redis.call('HDEL', one.key, '#' .. request)
        redis.call('ZREM', one.leases, request)
      end
      if age <= LAG or now + (LAG - age) * 1000 >= one.seeded then one.spent = one.spent + cost end
      keep(one)
    end
    reply[#reply + 1] = one.spent
  end
end
return reply
""".replace("SETTLED", str(SETTLED * 1000)).replace("LAG", str(LAG * 1000))


# The response cache's purges (replies.py): the number of this one. Where there are none they begin by the clock, above all that there ever were.
PURGE = """
local key, name, begin = KEYS[1], ARGV[1], ARGV[2] == '1'
local last = tonumber(redis.call('HGET', key, '#'))
if last and begin then return last end
if last then
  last = last + 1
else
  local time = redis.call('TIME')
  last, name = time[1] * 1000 + math.floor(time[2] / 1000), 'EVERYTHING'
end
if name == 'EVERYTHING' or redis.call('HLEN', key) > MOST then
  name = 'EVERYTHING'
  redis.call('DEL', key)
end
redis.call('HSET', key, '#', string.format('%.0f', last), name, string.format('%.0f', last))
return last
""".replace("EVERYTHING", EVERYTHING.decode()).replace("MOST", str(MOST_PURGES))


# A reply of the cache with the milliseconds it has left; where there is none, or ARGV[3] is 1, whose lease it is (leases.py): the caller's if it was
# nobody's. A server that is full or read-only still has its replies.
LOOK = """
if ARGV[3] ~= '1' then
  local reply = redis.call('GET', KEYS[1])
  if reply then return {reply, redis.call('PTTL', KEYS[1])} end
end
local held = redis.call('GET', KEYS[2])
if held then return held end
local said = redis.pcall('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return not said.err and ARGV[1]
"""


# One value for another, or for none, where it is still the caller's or nobody's (claims.py, leases.py).
SWAP = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""


def plain(text: str) -> Script:
    return Script(sha1(text.encode(), usedforsecurity=False).hexdigest().encode(), text.encode())


def script(body: str, clock: str = CLOCK) -> Script:
    """`clock`: where the time comes from, for tests that make their own."""
    return plain(clock + CALENDAR + PURSE + body)


class Scripts:
    """As they are known to a server."""

    def __init__(self, clock: str = CLOCK) -> None:
        self.reserve, self.extend, self.settle = (script(body, clock) for body in (RESERVE, EXTEND, SETTLE))
        self.purge, self.look, self.swap = plain(PURGE), plain(LOOK), plain(SWAP)

    @property
    def all(self) -> tuple[Script, ...]:
        return (self.reserve, self.extend, self.settle, self.purge, self.look, self.swap)


def tag(owner: str) -> str:
    """What all keys of one owner have in braces. A hash: names may hold braces themselves, and are nobody's business."""
    return sha256(owner.encode()).hexdigest()[:16]


def keys(owner: str, claim: Claim) -> tuple[bytes, ...]:
    """Of one claim; of a budget two. A name that is too long to be worth reading is hashed."""
    called = claim.name if len(claim.name) <= LONGEST_NAME else sha256(claim.name.encode()).hexdigest()
    key = f"llmgw:{{{tag(owner)}}}:{called}".encode()
    return (key, key + b":r") if claim.measure == "budget" else (key,)


def letter(claim: Claim) -> str:
    if claim.measure != "budget":
        return LETTERS[claim.measure]
    period = PERIODS[claim.period]
    return period if claim.hard else period.upper()
