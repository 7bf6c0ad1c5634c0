"""`Claims`: which answers one event loop asks for, so that other processes wait for them.

States of an answer in Redis: absent, claimed (by the token of one request, with a time to live), stored. The loop that
holds a claim renews it until it stores the answer, leaves, or ends. The claim of a killed process expires.
"""

from __future__ import annotations

import asyncio
import contextvars
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from .redis_client import new_client, within

__all__ = ["Claims"]

LEASE = 10.0  # seconds that a claim lasts
_TIMEOUT = 1.0  # seconds for one answer of Redis

# KEYS: the answer, its claim. ARGV: the token, the lease. Returns the answer, or whether the claim is set: 1 or 0.
_TAKE = """
local answer = redis.call('GET', KEYS[1])
if answer then return answer end
return redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""
# KEYS: the answer, its claim. ARGV: the token, the lease. A claim that Redis has lost is set again.
_RENEW = """
local owner = redis.call('GET', KEYS[2])
if not owner or owner == ARGV[1] then redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2]) end
"""
# KEYS: the answer, its claim. ARGV: the token, and if there is an answer, that and how many seconds it is kept.
_END = """
if ARGV[3] then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
elseif ARGV[2] then redis.call('SET', KEYS[1], ARGV[2]) end
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
"""


class Claims:
    """The claims of the running event loop on answers in one Redis, and its client.

    Args:
        url: the address of Redis.
    """

    def __init__(self, url: str) -> None:
        self._client: Any = new_client(url)
        self._scripts = {text: self._client.register_script(text) for text in (_TAKE, _RENEW, _END)}
        self._held: dict[str, str] = {}  # the token of each claim, by the key of its answer
        self._renewing: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[Any]] = set()

    async def get(self, key: str) -> bytes | None:
        """Return the stored answer; None if there is none."""
        found: bytes | None = await self._answer(lambda: self._client.get(key))
        return found

    async def take(self, key: str) -> bytes | bool:
        """Return the stored answer; or claim it, and return whether that worked."""
        token = uuid.uuid4().hex
        try:
            found: bytes | int = await self._run(_TAKE, key, token, _milliseconds())
        except asyncio.CancelledError:  # Redis may have set the claim
            leaving = asyncio.get_running_loop().create_task(self._run(_END, key, token))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._left)
            raise
        if isinstance(found, bytes):
            return found
        if found:
            self._held[key] = token
            if self._renewing is None or self._renewing.done():
                renewing = self._renew_all()
                self._renewing = asyncio.get_running_loop().create_task(renewing, context=contextvars.Context())
        return bool(found)

    async def put(self, key: str, answer: bytes, seconds: int | None) -> None:
        """Store an answer, and give up the claim on it."""
        kept = () if seconds is None else (seconds,)
        await self._run(_END, key, self._held.pop(key, ""), answer, *kept)

    async def leave(self, key: str) -> None:
        """Give up the claim on an answer."""
        if (token := self._held.pop(key, None)) is not None:
            await self._run(_END, key, token)

    async def close(self) -> None:
        """Close the connections, because the event loop has ended all tasks."""
        await self._client.aclose()

    async def _renew_all(self) -> None:
        from redis.exceptions import RedisError

        try:
            while self._held:
                await asyncio.sleep(LEASE / 4)
                for key, token in list(self._held.items()):
                    try:
                        await self._run(_RENEW, key, token, _milliseconds())
                    except (RedisError, OSError, TimeoutError):
                        break  # the next round tries again
        except asyncio.CancelledError:  # the event loop ends, and all requests with it
            await asyncio.gather(*map(self.leave, list(self._held)), return_exceptions=True)
            raise

    def _left(self, task: asyncio.Task[Any]) -> None:
        self._leaving.discard(task)
        if not task.cancelled():
            task.exception()  # the claim expires anyway

    async def _run(self, script: str, key: str, *arguments: Any) -> Any:
        return await self._answer(lambda: self._scripts[script]([key, f"{key}:claim"], arguments))

    async def _answer(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        async with self._client.turns:  # the time limit is for Redis, not for the commands before this one
            return await within(_TIMEOUT, ask())


def _milliseconds() -> int:
    return int(LEASE * 1000)
