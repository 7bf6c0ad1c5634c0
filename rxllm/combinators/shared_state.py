"""`SharedState`: the calls of one participant to the state of shared limits in Redis."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, TypeVar

import msgspec

from .redis_client import new_client, within
from .redis_script import SCRIPT

__all__ = ["SharedState"]

T = TypeVar("T")

_LEASE = 10.0  # seconds after its last call for which a participant keeps its places
_LOOK = 1.0  # seconds between two calls of a participant that stands in the line for a place
_PATIENCE = 3.0  # seconds after its last call for which it keeps its position in the line
_TIMEOUT = 0.25  # seconds for one answer of Redis
_PAUSE = 1.0  # seconds without a call to a Redis that did not answer
_MEMORY = 600.0  # seconds after its last call for which a participant expects that Redis has kept the data
_log = logging.getLogger("rxllm")


class SharedState:
    """The state of shared limits, as one participant knows it. It belongs to the running event loop.

    Args:
        url: the address of Redis.
        key: the key of the state.
        name: the name of the account, for the log.

    Attributes:
        members: the number of participants of the last minute, as of the last call.
        is_silent: whether the last call had no answer.
        settled_at: the `time.monotonic` from which Redis knows again what all participants hold.
    """

    def __init__(self, url: str, key: str, name: str) -> None:
        self.members = 1
        self.is_silent = False
        self.settled_at = 0.0
        self._client: Any = new_client(url)
        self._script: Any = self._client.register_script(SCRIPT)
        self._key = key
        self._name = name
        self._member = uuid.uuid4().hex
        self._epoch: str | None = None
        self._called_at = -inf
        self._silent_until = 0.0

    @property
    def renewal(self) -> float:
        """The seconds between two calls of a participant that holds places."""
        return _LEASE / 4

    @property
    def is_usable(self) -> bool:
        """Whether Redis answers, and knows what all participants hold."""
        return not self.is_silent and time.monotonic() >= self.settled_at

    async def call(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Send a message, and return the reply; None if there is none. See `redis_script` for both."""
        message = {"member": self._member, "lease": _LEASE, "patience": _PATIENCE, **message}
        if self._epoch is not None and time.monotonic() - self._called_at < _MEMORY:
            message["epoch"] = self._epoch
        words = [self._key], [msgspec.json.encode(message)]
        answer = await self._answer(lambda: self._script(*words), _TIMEOUT)
        if answer is None:
            return None
        reply = msgspec.json.decode(answer, type=dict[str, Any])
        if reply["epoch"] != message.get("epoch", reply["epoch"]):
            _log.warning("Redis has lost the counts of the shared limits %r. They begin anew.", self._name)
            self.settled_at = time.monotonic() + 2 * self.renewal
        elif self.is_silent:
            _log.info("Redis answers again.")
            self.settled_at = time.monotonic() + 2 * self.renewal
        self._epoch, self._called_at, self.is_silent = reply["epoch"], time.monotonic(), False
        if self.is_usable:  # else some of them have not called yet
            self.members = reply["members"]
        return reply

    async def woken(self, seconds: float) -> None:
        """Wait until a place may be free for this participant, for at most so long or a second."""
        seconds = min(seconds, _LOOK)
        key = f"{self._key}:{self._member}"
        await self._answer(lambda: self._client.blpop([key], timeout=max(seconds, 0.01)), seconds + _TIMEOUT)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _answer(self, ask: Callable[[], Awaitable[T]], seconds: float) -> T | None:
        """Return the answer of Redis; None if there is none."""
        from redis.exceptions import RedisError

        if time.monotonic() < self._silent_until:
            return None
        try:
            return await within(seconds, ask())
        except (RedisError, OSError, TimeoutError) as error:
            self._silent_until = time.monotonic() + _PAUSE
            if not self.is_silent:
                self.is_silent = True
                _log.warning(
                    "Redis does not answer (%s). Until it does, the limits %r are not shared.",
                    type(error).__name__,
                    self._name,
                )
            return None
