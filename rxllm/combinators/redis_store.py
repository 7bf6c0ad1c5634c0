"""`RedisStore`: the answers of `cached` in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..misuse import MisuseError, shown
from ..operators.caching import Store
from ..records import of_json, to_json
from ..values.chunk import Chunk
from .redis_client import check_arguments, client_of

__all__ = ["RedisStore"]

_TIMEOUT = 1.0  # seconds, after which `cached` goes on without its store


class RedisStore(Store):
    """Keeps answers in Redis, which processes of many machines may share. They are stored as JSON.

    Args:
        url: the address, such as ``redis://localhost`` or ``rediss://user:password@host``.
        prefix: the beginning of all keys.
        seconds: how long an answer is kept; None keeps it until Redis needs the memory.

    Raises:
        MisuseError: the package redis is not installed, or an argument is out of its range.
    """

    def __init__(self, url: str, *, prefix: str = "rxllm", seconds: int | None = None) -> None:
        check_arguments("RedisStore", url, prefix=prefix)
        if seconds is not None and (not isinstance(seconds, int) or seconds < 1):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise MisuseError(f"seconds must be a whole number of at least 1, or None, not {shown(seconds)}.")
        self._url = url
        self._prefix = prefix
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"RedisStore(prefix={self._prefix!r}, seconds={self._seconds!r})"

    async def get(self, key: str, /) -> list[Chunk] | None:
        """Return the chunks under the key; None if there are none."""
        client: Any = await client_of(self, self._url, _TIMEOUT)
        records = await client.get(self._name(key))
        if records is None:
            return None
        return [of_json(record) for record in msgspec.json.decode(records, type=list[dict[str, Any]])]

    async def put(self, key: str, chunks: Sequence[Chunk], /) -> None:
        """Store the chunks of a whole answer under the key."""
        client: Any = await client_of(self, self._url, _TIMEOUT)
        await client.set(self._name(key), msgspec.json.encode([to_json(chunk) for chunk in chunks]), ex=self._seconds)

    def _name(self, key: str) -> str:
        return f"{self._prefix}:answers:{key}"
