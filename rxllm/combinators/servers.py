"""The servers that answer a limited model."""

from __future__ import annotations

import functools
from urllib.parse import urlsplit

__all__ = ["Servers", "server_of"]


@functools.lru_cache(64)
def server_of(place: str) -> str:
    """Return the server of a URL, as ``host:port``."""
    parts = urlsplit(place)
    return f"{parts.hostname}:{parts.port or {'https': 443, 'http': 80}.get(parts.scheme)}"


class Servers:
    """The known servers of one limited model. Each answer adds its server."""

    __slots__ = ("names",)

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self.names = names

    def add(self, name: str) -> None:
        """Add a server that answered."""
        if name not in self.names:
            self.names = tuple(sorted((*self.names, name)))
