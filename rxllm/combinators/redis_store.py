"""`RedisStore`: the answers of `cached` in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..misuse import MisuseError, shown
from ..operators.caching import JoiningStore
from ..records import of_json, to_json
from ..runtime.loop_local import loop_local
from ..values.characters import json_bytes
from ..values.chunk import Chunk
from .redis_claims import Claims
from .redis_client import check_arguments, pickled

__all__ = ["RedisStore"]


class RedisStore(JoiningStore):
    """Keeps answers in Redis, which processes of many machines may share. They are stored as JSON.

    Concurrent calls of `cached` with the same key share one request, also those of several processes: one of them asks,
    and the others wait for the whole answer. If that request fails, another process asks. If its process is killed,
    another one asks ten seconds later.

    Args:
        url: the address, such as ``redis://localhost`` or ``rediss://user:password@host``. Redis 6 or later.
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

    def __getstate__(self) -> dict[str, Any]:
        return pickled("RedisStore", self._url, vars(self))

    async def get(self, key: str, /) -> list[Chunk] | None:
        """Return the chunks under the key; None if there are none."""
        claims = await self._claims()
        return _read(await claims.get(self._name(key)))

    async def join(self, key: str, /) -> list[Chunk] | bool:
        """Return the chunks under the key, or whether this caller asks for them: False while another one does."""
        claims = await self._claims()
        found = await claims.take(self._name(key))
        return found if isinstance(found, bool) else _read(found) or []

    async def put(self, key: str, chunks: Sequence[Chunk], /) -> None:
        """Store the chunks of a whole answer under the key."""
        claims = await self._claims()
        records = json_bytes([to_json(chunk) for chunk in chunks])
        await claims.put(self._name(key), records, self._seconds)

    async def leave(self, key: str, /) -> None:
        """Let another caller ask, because this one got no whole answer."""
        claims = await self._claims()
        await claims.leave(self._name(key))

    async def _claims(self) -> Claims:
        return await loop_local(self, lambda: Claims(self._url), Claims.close)

    def _name(self, key: str) -> str:
        return f"{self._prefix}:answers:{{{key}}}"  # braces: in a cluster the answer and its claim are on one node


def _read(records: bytes | None) -> list[Chunk] | None:
    if records is None:
        return None
    return [of_json(record) for record in msgspec.json.decode(records, type=list[dict[str, Any]])]
