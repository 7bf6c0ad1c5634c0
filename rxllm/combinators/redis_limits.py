"""`RedisLimits`: the rates of a `Limiter` for the processes of many machines, counted in Redis.

A rate is one number, the time by which its average has caught up with all requests that were booked. A script books a
request in all rates at once and returns the seconds until it may start. So requests start in the order in which they
were booked, whichever process they belong to, and a process asks Redis once for each of them. Only the clock of Redis
counts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Sequence
from typing import Any

from attrs import frozen

from ..errors import RateLimited
from ..public import Public
from .redis_client import check_arguments, client_of

__all__ = ["Booking", "RedisLimits", "Share"]

_TIMEOUT = 0.25  # seconds for one answer of Redis
_PAUSE = 1.0  # seconds without a question to a Redis that did not answer
_log = logging.getLogger("rxllm")

# KEYS: the processes, the time until which the server is closed, the rates.
# ARGV: the name of this process, and for each rate the seconds that the request takes, and those it may be early.
_BOOK = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 60)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('EXPIRE', KEYS[1], 120)
local start = math.max(now, tonumber(redis.call('GET', KEYS[2]) or '0'))
local due = {}
for i = 3, #KEYS do
    due[i] = tonumber(redis.call('GET', KEYS[i]) or '0')
    start = math.max(start, due[i] - tonumber(ARGV[2 * i - 3]))
end
for i = 3, #KEYS do
    local later = math.max(due[i], start) + tonumber(ARGV[2 * i - 4])
    redis.call('SET', KEYS[i], string.format('%.6f', later), 'EX', math.ceil(later - now) + 60)
end
return {string.format('%.6f', start - now), redis.call('ZCARD', KEYS[1])}
"""
# KEYS: the rates. ARGV: the seconds to add to each.
_SETTLE = """
for i = 1, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 1 then redis.call('INCRBYFLOAT', KEYS[i], ARGV[i]) end
end
"""
# KEYS: the time until which the server is closed. ARGV: the seconds from now.
_CLOSE = """
local time = redis.call('TIME')
local until_ = tonumber(time[1]) + tonumber(time[2]) / 1000000 + tonumber(ARGV[1])
if until_ > tonumber(redis.call('GET', KEYS[1]) or '0') then
    redis.call('SET', KEYS[1], string.format('%.6f', until_), 'EX', math.ceil(tonumber(ARGV[1])) + 1)
end
"""


@frozen
class Share:
    """What one request takes of one rate.

    Attributes:
        key: the name of the rate.
        seconds: the time that the request takes at the average rate.
        early: how much earlier than that average the request may start.
    """

    key: str
    seconds: float
    early: float


@frozen
class Booking:
    """A booked request.

    Attributes:
        wait: the seconds until it may start.
        is_shared: whether Redis has booked it.
    """

    wait: float
    is_shared: bool


class RedisLimits(metaclass=Public):
    """The rates of a `Limiter`, shared by all processes with the same Redis and the same name.

    ::

        shared = rxllm.RedisLimits("redis://localhost", "openai")
        limiter = rxllm.Limiter(requests_per_minute=5_000, tokens_per_minute=2_000_000, shared=shared)

    Processes with different limits under one name would mix them up, so give each account a name. The limiter's
    `concurrency` holds for each process alone.

    If Redis does not answer within a quarter of a second, each process takes its share of the rates by the number of
    processes of the last minute, and the log says so once. With `strict` the requests fail instead.

    Args:
        url: the address, such as ``redis://localhost`` or ``rediss://user:password@host``.
        name: the name of the account.
        prefix: the beginning of all keys.
        strict: whether requests fail with `RateLimited` while Redis does not answer.

    Raises:
        MisuseError: the package redis is not installed, or an argument is not text.
    """

    def __init__(self, url: str, name: str, *, prefix: str = "rxllm", strict: bool = False) -> None:
        check_arguments("RedisLimits", url, name=name, prefix=prefix)
        self._url = url
        self._name = f"{prefix}:limits:{{{name}}}"  # braces: in a cluster the keys of a script are on one node
        self.name = name
        self.strict = strict
        self._process = uuid.uuid4().hex
        self._processes = 1
        self._silent_until = 0.0
        self._is_silent = False
        self._due: dict[str, float] = {}  # the rates of this process while Redis does not answer

    def __repr__(self) -> str:
        return f"RedisLimits(name={self.name!r})"

    async def book(self, shares: Sequence[Share]) -> Booking:
        """Book a request.

        Raises:
            RateLimited: Redis does not answer, and the limits are strict.
        """
        keys = [f"{self._name}:processes", f"{self._name}:closed", *(f"{self._name}:{share.key}" for share in shares)]
        process = f"{self._process}-{os.getpid()}"  # a server may fork after it has made this object
        arguments = [process, *(number for share in shares for number in (share.seconds, share.early))]
        answer = await self._call(_BOOK, keys, arguments)
        if answer is not None:
            self._processes = max(1, int(answer[1]))
            return Booking(float(answer[0]), is_shared=True)
        if self.strict:
            raise RateLimited("Redis does not answer, so the shared limits are unknown.", code="limiter")
        return Booking(self._own(shares), is_shared=False)

    async def settle(self, shares: Sequence[Share], parts: Sequence[float]) -> None:
        """Add a part of each share, which is negative for what the request did not take."""
        keys = [f"{self._name}:{share.key}" for share in shares]
        changes = [f"{share.seconds * part:.6f}" for share, part in zip(shares, parts, strict=True)]
        await self._call(_SETTLE, keys, changes)

    async def close(self, seconds: float) -> None:
        """Let no process start a request for some seconds, because the server asks for it."""
        await self._call(_CLOSE, [f"{self._name}:closed"], [seconds])

    def _own(self, shares: Sequence[Share]) -> float:
        now = start = time.monotonic()
        for share in shares:
            start = max(start, self._due.get(share.key, 0.0) - share.early)
        for share in shares:
            self._due[share.key] = max(self._due.get(share.key, 0.0), start) + share.seconds * self._processes
        return start - now

    async def _call(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Return the answer of Redis; None if there is none."""
        from redis.exceptions import RedisError

        if time.monotonic() < self._silent_until:
            return None
        try:
            client: Any = await client_of(self, self._url, _TIMEOUT)
            async with client.turns:  # the time limit is for Redis, not for the commands before this one
                if time.monotonic() < self._silent_until:
                    return None
                async with asyncio.timeout(_TIMEOUT):
                    answer = await client.eval(script, len(keys), *keys, *arguments)
        except (RedisError, OSError, TimeoutError) as error:
            self._silent_until = time.monotonic() + _PAUSE
            if not self._is_silent:
                self._is_silent = True
                what = "Requests fail" if self.strict else "Each process takes its share of the limits"
                _log.warning("Redis does not answer (%s). %s until it does.", type(error).__name__, what)
            return None
        self._is_silent = False
        return [] if answer is None else answer
