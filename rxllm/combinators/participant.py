"""`Participant`: an event loop that takes part in shared limits.

States of a participant, which only its loop changes::

    shared ──Redis does not answer──► alone ──Redis answers──► settling ──two renewals──► shared
    shared ──Redis has lost its data─────────────────────────► settling

Alone and settling, it reserves from its own share of the limits. While all participants settle, each tells Redis how
many places it holds; only then does any of them take more.

States of a request: in turn (it waits for the earlier requests of its loop), asking (all places are taken), reserved
(it waits for its time), started, ended. So a participant has at most one reservation that has not started, and the
reservations of several participants alternate.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any

from ..errors import RateLimited
from .own_share import Asked, Change, OwnShare, Reserved, name_of
from .pacing import Rate
from .queueing import Counted
from .shared_state import SharedState

__all__ = ["Participant"]

_GRACE = 0.25  # seconds for the request before, which asks Redis


class Participant:
    """An event loop that takes part in the shared limits of one account.

    Args:
        state: the state of the limits in Redis.
        name: the name of the account, for errors.
        strict: whether requests fail while Redis does not answer.
    """

    def __init__(self, state: SharedState, name: str, *, strict: bool) -> None:
        self._state = state
        self._name = name
        self._strict = strict
        self._turn = asyncio.Lock()  # of the requests, in their order
        self._calling = asyncio.Lock()  # each call tells what is held, so a call must not overtake an earlier one
        self._starts = 0.0  # when the request that has the turn may start
        self._held = 0  # places
        self._waits = False  # whether it stands in the line for a place
        self._freed = asyncio.Event()
        self._corrections: list[dict[str, Any]] = []
        self._closes = 0.0  # seconds to tell Redis
        self._closed_until = 0.0
        self._dues: dict[str, float] = {}  # of the rates, for a Redis that has lost them
        self._own: OwnShare | None = None  # while it does not share
        self._news = asyncio.Event()
        self._reporter: asyncio.Task[None] | None = None
        self._is_ending = False  # whether the event loop has cancelled the reporter

    async def start(self, asked: Asked, most: float | None) -> Reserved:
        """Wait until the request may start, for at most so many seconds.

        Raises:
            RateLimited: it would wait longer; or Redis does not answer, and the limits are strict.
        """
        deadline = inf if most is None else time.monotonic() + most
        self._is_ending = False
        await self._take_turn(deadline)
        try:
            while (reserved := await self._reserve(asked, deadline)) is None:
                await self._wait_for_place(deadline)
            self._starts = time.monotonic() + reserved.wait
            try:
                await asyncio.sleep(reserved.wait)
            except BaseException:
                self.end(asked, reserved, started=False)
                raise
            return reserved
        finally:
            self._turn.release()
            if self._waits:
                self._waits = False
                self._report()

    def count(self, asked: Asked, reserved: Reserved, tokens: float) -> None:
        """Correct the tokens of a request."""
        for of, change in reserved.changes:
            if of == "tokens":
                change(asked.tokens, tokens)

    def end(self, asked: Asked, reserved: Reserved, *, started: bool = True) -> None:
        """Give back the place of a request, and its amounts if it has not started."""
        if not started:
            for of, change in reserved.changes:
                change(asked.amount(of), 0.0)
        if asked.places is not None:
            self._held -= 1
            self._freed.set()
            self._report()

    def close_for(self, seconds: float) -> None:
        """Let no participant start a request for some seconds, because the server asks for it."""
        self._closes = max(self._closes, seconds)
        self._closed_until = max(self._closed_until, time.monotonic() + seconds)
        self._report()

    async def close(self) -> None:
        """Close the connections, because the event loop has ended all tasks."""
        if self._reporter is not None:
            self._reporter.cancel()
            await asyncio.wait([self._reporter])
        await self._state.close()

    async def _take_turn(self, deadline: float) -> None:
        if self._turn.locked() and self._starts > deadline:
            raise self._refusal(self._starts - time.monotonic())
        try:
            async with asyncio.timeout(None if deadline == inf else deadline - time.monotonic() + _GRACE):
                await self._turn.acquire()
        except TimeoutError:
            raise self._refusal(None) from None

    async def _reserve(self, asked: Asked, deadline: float) -> Reserved | None:
        """Reserve the request; None if all places are taken."""
        while True:
            if self._state.is_silent:
                await self._call()  # without a request, so that this participant settles first
            if self._state.is_usable:
                self._own = None
                if (reply := await self._call(asked, deadline)) is not None and "wait" in reply:
                    return self._reserved(asked, reply)
                if reply is not None and "is_full" in reply:
                    self._waits = True
                    self._keep_reporting()
                    return None
            elif not self._strict:
                return self._reserve_own(asked, deadline)
            elif self._state.is_silent:
                raise RateLimited(
                    f"The request was not sent: Redis does not answer, so the shared limits {self._name!r} are "
                    "unknown. RedisLimits(strict=False) would let each process take its share.",
                    code="limiter",
                )
            else:
                wait = self._state.settled_at - time.monotonic()
                if self._state.settled_at > deadline:
                    raise self._refusal(wait)
                await asyncio.sleep(wait)

    def _reserved(self, asked: Asked, reply: dict[str, Any]) -> Reserved:
        self._waits = False
        if "spans" not in reply:
            raise self._refusal(reply["wait"])
        now = time.monotonic()
        changes: list[tuple[Counted, Change]] = []
        for (of, rate), span, due in zip(asked.rates, reply["spans"], reply["dues"], strict=True):
            name = name_of(of, rate)
            self._dues[name] = now + due
            changes.append((of, partial(self._correct, name, rate, span)))
        self._hold(asked)
        return Reserved(reply["wait"], changes)

    def _reserve_own(self, asked: Asked, deadline: float) -> Reserved | None:
        """Reserve the request from the share of this participant; None if all places are taken."""
        if self._own is None:
            self._own = OwnShare(self._state.members, self._dues)
        if not self._own.has_place(asked, self._held):
            return None
        now = time.monotonic()
        wait = max(self._own.wait(asked), self._closed_until - now)
        if wait > max(0.0, deadline - now):
            raise self._refusal(wait)
        self._hold(asked)
        return self._own.take(asked, wait)

    def _hold(self, asked: Asked) -> None:
        if asked.places is not None:
            self._held += 1
            self._keep_reporting()

    async def _wait_for_place(self, deadline: float) -> None:
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise self._refusal(None)
        if self._state.is_usable:
            await self._state.woken(seconds)
            return
        self._freed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, self._state.renewal)):  # then the limits may be shared again
                await self._freed.wait()

    def _refusal(self, wait: float | None) -> RateLimited:
        when = "." if wait is None else f", and it could start in {wait:.3g} s at the earliest."
        return RateLimited(
            f"The request was not sent: the shared limits {self._name!r} are full{when} Limiter(max_wait=…) allows "
            "longer waits.",
            retry_after=wait,
            code="limiter",
        )

    def _correct(self, name: str, rate: Rate, span: int, before: float, after: float) -> None:
        cost = (min(after, rate.limit) - min(before, rate.limit)) / rate.per_second
        self._corrections.append({"rate": name, "span": span, "amount": after - before, "cost": cost})
        self._dues[name] += cost
        self._report()

    async def _call(self, asked: Asked | None = None, deadline: float = inf) -> dict[str, Any] | None:
        """Tell Redis the news, and maybe ask for a request. Return the reply; None if there is none."""
        async with self._calling:
            self._news.clear()
            corrections, self._corrections = self._corrections, []
            closes, self._closes = self._closes, 0.0
            held = 0 if self._is_ending else self._held
            message: dict[str, Any] = {"held": held, "waits": self._waits, "closed": closes}
            message["corrections"] = corrections
            if asked is not None:
                now = time.monotonic()
                message["rates"] = [self._rate(asked, of, rate, now) for of, rate in asked.rates]
                if asked.places is not None:
                    message["places"] = asked.places
                if deadline != inf:
                    message["most"] = max(0.0, deadline - now)
            try:
                return await self._state.call(message)
            except asyncio.CancelledError:
                self._report()  # Redis may have counted a request that will not start
                raise

    def _rate(self, asked: Asked, of: Counted, rate: Rate, now: float) -> dict[str, Any]:
        """Return what `redis_script` must know of a rate."""
        name, amount = name_of(of, rate), asked.amount(of)
        cost = min(amount, rate.limit) / rate.per_second
        early = max(0.0, rate.seconds / 60 - cost) if rate.burst is None else (rate.burst - 1) * cost
        return {
            "name": name,
            "seconds": rate.seconds,
            "limit": rate.limit,
            "amount": amount,
            "cost": cost,
            "early": early,
            "due": max(0.0, self._dues.get(name, 0.0) - now),
        }

    def _report(self) -> None:
        """Tell Redis the news soon."""
        self._news.set()
        self._keep_reporting()

    def _keep_reporting(self) -> None:
        if not self._is_ending and (self._reporter is None or self._reporter.done()):
            self._reporter = asyncio.get_running_loop().create_task(self._report_all(), context=contextvars.Context())

    async def _report_all(self) -> None:
        """Tell Redis what is new, and at each renewal that the places are still held."""
        try:
            while self._news.is_set() or self._held or self._waits:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._state.renewal):
                        await self._news.wait()
                await self._call()
        except asyncio.CancelledError:  # the event loop ends, and all requests with it
            self._is_ending = True
            await self._call()
            raise
