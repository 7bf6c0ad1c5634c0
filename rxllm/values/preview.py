"""`Preview`: the HTTP request that a prompt becomes, to look at and not to send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from attrs import field, frozen

from ..public import Public

__all__ = ["Preview"]


@frozen
class Preview(metaclass=Public):
    """The request that would be sent. ``str(preview)`` shows it as HTTP does.

    Attributes:
        method: the HTTP method.
        url: the address, without a login.
        headers: the headers; ``***`` stands for each secret.
        json: the body, as decoded JSON; ``***`` stands for each key in it.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(hash=False)
    json: Mapping[str, Any] = field(hash=False)

    def __str__(self) -> str:
        lines = [f"{self.method} {self.url}", *(f"{name}: {value}" for name, value in self.headers.items())]
        body = msgspec.json.format(msgspec.json.encode(self.json), indent=2).decode()
        return "\n".join([*lines, "", body])
