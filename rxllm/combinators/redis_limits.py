"""`RedisLimits`: the limits of a `Limiter` for the processes of many machines, counted in Redis."""

from __future__ import annotations

from typing import Any

from ..public import Public
from ..runtime.loop_local import loop_local
from .participant import Participant
from .redis_client import check_arguments, pickled
from .shared_state import SharedState

__all__ = ["RedisLimits"]


class RedisLimits(metaclass=Public):
    """The limits of a `Limiter`, shared by all processes with the same Redis and the same name.

    ::

        shared = rxllm.RedisLimits("redis://localhost", "openai")
        limiter = rxllm.Limiter(concurrency=200, requests_per_minute=5_000, tokens_per_minute=2_000_000, shared=shared)

    All processes together stay within the limits. Each event loop reserves one request at a time, so those that ask as
    much get as much. Only the clock of Redis counts. Processes with different limits under one name would mix them up,
    so give each account a name.

    A running request holds its place of the `concurrency` by a lease, which is renewed while the request runs. If its
    process is killed, the place is free again after ten seconds.

    If Redis does not answer within a quarter of a second, or has lost its data, each event loop takes its share of the
    limits by the number of those that asked in the last minute, and the log says so once. With `strict` the requests
    fail instead.

    Args:
        url: the address, such as ``redis://localhost`` or ``rediss://user:password@host``. Redis 6 or later.
        name: the name of the account.
        prefix: the beginning of all keys.
        strict: whether requests fail with `RateLimited` while Redis does not answer.

    Raises:
        MisuseError: the package redis is not installed, or an argument is not text.
    """

    def __init__(self, url: str, name: str, *, prefix: str = "rxllm", strict: bool = False) -> None:
        check_arguments("RedisLimits", url, name=name, prefix=prefix)
        self._url = url
        self._key = f"{prefix}:limits:{{{name}}}"  # braces: in a cluster all keys of a name are on one node
        self.name = name
        self.strict = strict

    def __repr__(self) -> str:
        return f"RedisLimits(name={self.name!r})"

    def __getstate__(self) -> dict[str, Any]:
        return pickled("RedisLimits", self._url, vars(self))

    async def participant(self) -> Participant:
        """Return the participant of the running event loop."""

        def make() -> Participant:
            return Participant(SharedState(self._url, self._key, self.name), self.name, strict=self.strict)

        return await loop_local(self, make, Participant.close)
