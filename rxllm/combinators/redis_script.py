"""The one script of `RedisLimits`: it takes the message of a member, and reserves the member's next request.

The state of all members is one value, so each call reads it, changes it and writes it back as a whole. The clock is
that of Redis. All times of a message and of its reply are seconds from now, so no other clock counts. A member is an
event loop of a process.

Message:
    member: the name of the member.
    epoch: the epoch that it knows; absent at first.
    held: the places that its requests hold.
    waits: whether it stands in the line for a place.
    lease, patience: the seconds after its last call for which a member keeps its places, and its position in the line.
    corrections: for each, the `rate`, the `span`, and what to add to its `amount` and to its `cost`.
    closed: how long the server takes no requests.
    rates: the rates of a request to reserve, which is absent if there is none. Each has its `name`, the `seconds` of
        its period, its `limit`, the `amount` and the `cost` of the request (seconds at the average rate), how much
        `early` it may start, and the `due` time that the member knows.
    places: the limit of concurrency; absent if the request needs no place.
    most: the longest wait.

Reply:
    epoch: changes when Redis loses its data. Then nothing is reserved, because the other members have not yet said how
        many places they hold.
    members: the number of members that called in the last minute.
    wait: the seconds until the request may start. It is reserved, unless the wait is longer than `most`.
    is_full: whether all places are taken. Then the member stands in the line, and calls again soon.
    spans, dues: for each rate where the request is counted, and the time when the average has caught up.
"""

from __future__ import annotations

__all__ = ["SCRIPT"]

SCRIPT = """
local FORGET = 60 -- seconds after which a member is forgotten
local SPANS = 60 -- spans in the period of a rate
local NUMBER, FIRST, LAST, AMOUNT = 1, 2, 3, 4 -- of a span: a list takes half as long as a table with names
local message = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local stored = redis.call('GET', KEYS[1])
local state = stored and cmsgpack.unpack(stored)
    or {epoch = time[1] .. '.' .. time[2], now = 0, behind = 0, closed = 0, members = {}, line = {}, rates = {}}

-- Time never goes back, although the clock of the server may be set back.
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000 + state.behind
if now < state.now then
    state.behind = state.behind + state.now - now
    now = state.now
end
state.now = now

local reply = {epoch = state.epoch, members = 0}
local me = {seen = now, held = message.held}
state.members[message.member] = me
state.places = message.places or state.places
local free = state.places or math.huge
for name, member in pairs(state.members) do
    if now - member.seen > FORGET then
        state.members[name] = nil
    else
        reply.members = reply.members + 1
        if now - member.seen <= message.lease then free = free - member.held end
    end
end

local asks = message.rates and (message.epoch or state.epoch) == state.epoch
local line, position = {}, nil
for _, name in ipairs(state.line) do
    local member = state.members[name]
    if name == message.member then
        if asks or message.waits then
            table.insert(line, name)
            position = #line
        end
    elseif member and now - member.seen <= message.patience then
        table.insert(line, name)
    end
end
state.line = line

for _, correction in ipairs(message.corrections) do
    local rate = state.rates[correction.rate]
    if rate then
        rate.due = rate.due + correction.cost
        for _, span in ipairs(rate.spans) do
            if span[NUMBER] == correction.span then
                span[AMOUNT] = span[AMOUNT] + correction.amount
                rate.taken = rate.taken + correction.amount
            end
        end
    end
end
if message.closed > 0 then state.closed = math.max(state.closed, now + message.closed) end

-- Returns the time when the rate admits the request, at or after `start`: the pace, and the limit of each period.
local function earliest(rate, ask, start)
    local spans = rate.spans
    while spans[1] and spans[1][LAST] + ask.seconds <= now do
        rate.taken = rate.taken - table.remove(spans, 1)[AMOUNT]
    end
    if not spans[1] then rate.taken = 0 end
    start = math.max(start, rate.due - ask.early)
    local taken, room = rate.taken, math.max(ask.limit - ask.amount, 0)
    for _, span in ipairs(spans) do -- also those of later requests, so that their periods stay within the limit
        if taken <= room then break end
        taken = taken - span[AMOUNT]
        start = math.max(start, span[LAST] + ask.seconds)
    end
    return start
end

-- Counts the request.
local function take(rate, ask, start)
    local span = rate.spans[#rate.spans]
    if not span or start - span[FIRST] > ask.seconds / SPANS then
        rate.number = rate.number + 1
        span = {rate.number, start, start, 0}
        table.insert(rate.spans, span)
    end
    span[LAST] = math.max(span[LAST], start)
    span[AMOUNT] = span[AMOUNT] + ask.amount
    rate.taken = rate.taken + ask.amount
    rate.due = math.max(rate.due, start) + ask.cost
    table.insert(reply.spans, span[NUMBER])
    table.insert(reply.dues, rate.due - now)
end

if asks and message.places and (position or #line + 1) > free then
    reply.is_full = true
    if not position then table.insert(line, message.member) end
elseif asks then
    if position then table.remove(line, position) end
    local start = math.max(now, state.closed)
    for _, ask in ipairs(message.rates) do
        local rate = state.rates[ask.name]
        if not rate then
            rate = {due = now + ask.due, taken = 0, number = 0, spans = {}}
            state.rates[ask.name] = rate
        end
        start = earliest(rate, ask, start)
    end
    reply.wait = start - now
    if not message.most or reply.wait <= message.most then
        reply.spans, reply.dues = {}, {}
        for _, ask in ipairs(message.rates) do take(state.rates[ask.name], ask, start) end
        if message.places then
            me.held = me.held + 1
            free = free - 1
        end
    end
end

for place = 1, math.min(free, #line) do -- wake the first members of the line
    local wake = KEYS[1] .. ':' .. line[place]
    redis.call('DEL', wake)
    redis.call('RPUSH', wake, '1')
    redis.call('PEXPIRE', wake, 2000)
end

local last = now
for _, rate in pairs(state.rates) do last = math.max(last, rate.due) end
redis.call('SET', KEYS[1], cmsgpack.pack(state), 'EX', math.ceil(last - now) + 3600)
return cjson.encode(reply)
"""
