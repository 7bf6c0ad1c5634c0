"""`Repeats`: requests that carry an ``Idempotency-Key``, and are answered once however often they come.

The answer of such a request runs in a relay. Its client may lose the connection and send the request again: it then
gets the same answer from its beginning, while it runs and for some minutes after its end. If the answer has failed, the
request begins anew, also if no client has seen the failure. It also begins anew if the log had no room for the answer.
A failure that the request itself causes stays. Source:
https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from attrs import define
from reactivex import Observable
from starlette.requests import Request as HTTPRequest

from ..runtime.forks import reset_in_child
from .failures import HTTPFailure, Refused
from .incoming import refusal
from .logs import Entry, Position
from .relay import Relay
from .response import Encoder

__all__ = ["Repeats", "Replayed", "idempotency_key"]

KEEP = 600.0  # seconds after its beginning for which an answer is repeated; longer while the log has it
_LONGEST = 255  # characters of a key
_HEADER = "idempotency-key"
_STREAM = "text/event-stream"

_json = msgspec.json.Encoder(order="deterministic").encode


def idempotency_key(http: HTTPRequest) -> str | None:
    """Return the key of a request; None if it has none.

    Raises:
        Refused: the key is empty or too long.
    """
    key = http.headers.get(_HEADER)
    if key is not None and not 0 < len(key) <= _LONGEST:
        raise refusal(400, "invalid_idempotency_key", f"An Idempotency-Key has 1 to {_LONGEST} characters.")
    return key


@define
class _Answer:
    digest: bytes
    begun: asyncio.Task[Position]
    until: float  # by the clock of the event loop


class Repeats:
    """The answers to requests with an ``Idempotency-Key``. Use it on one event loop."""

    def __init__(self, relay: Relay | None = None) -> None:
        self.relay = Relay() if relay is None else relay
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Forget the answers of the parent in a forked child, because their tasks run in the parent."""
        self._answers: dict[tuple[str, str], _Answer] = {}

    async def answer(
        self,
        owner: str,
        key: str,
        request: Mapping[str, Any],
        source: Observable[Any],
        encoder: Encoder[Any],
    ) -> tuple[Observable[Entry], Replayed]:
        """Return the answer of a request, which begins now unless the same request has begun it.

        Raises:
            Refused: another request has used the key.
        """
        now = asyncio.get_running_loop().time()
        for name, old in [(name, answer) for name, answer in self._answers.items() if answer.until < now]:
            if not await self._is_kept(name, old) and self._answers.get(name) is old:
                del self._answers[name]
        place, digest = (owner, f"idempotent {key}"), hashlib.sha256(_json(request)).digest()
        answer = self._answers.get(place)
        if answer is not None and answer.digest == digest and await self._begins_anew(place, answer):
            if self._answers.get(place) is answer:  # else a request has begun it anew meanwhile
                del self._answers[place]
            answer = self._answers.get(place)
        if answer is None:
            recorded = encoder if encoder.media_type == _STREAM else _Document(encoder)
            begun = asyncio.ensure_future(self.relay.start(place, source, recorded))
            answer = self._answers[place] = _Answer(digest, begun, now + KEEP)
        elif answer.digest != digest:
            raise refusal(422, "idempotency_key_reused", "Another request has this Idempotency-Key. Choose a new one.")
        try:
            position = await asyncio.shield(answer.begun)
        except Exception:
            self._answers.pop(place, None)
            raise
        return self.relay.follow(place, position), Replayed(encoder)

    async def _begins_anew(self, place: tuple[str, str], answer: _Answer) -> bool:
        """Return whether the same request needs a new answer.

        It does if the answer ended without success and may have another outcome, or if the log has forgotten it.
        """
        begun = answer.begun
        if not begun.done() or begun.cancelled() or begun.exception() is not None:
            return False
        if not await self.relay.keeps(place, begun.result()):
            return True
        ending = await self.relay.ending(place, begun.result().epoch)
        if isinstance(ending, HTTPFailure):
            return ending.kind != "invalid_request_error"
        return ending in ("abort", "interrupted")

    async def _is_kept(self, place: tuple[str, str], answer: _Answer) -> bool:
        """Return whether an old answer still begins or runs, or whether the log still has it."""
        begun = answer.begun
        if not begun.done():
            return True
        return not begun.cancelled() and begun.exception() is None and await self.relay.keeps(place, begun.result())


class _Document:
    """Encodes a whole answer for a relay, whose last entry must have content: here it is the document."""

    def __init__(self, encoder: Encoder[Any]) -> None:
        self._encoder = encoder
        self._data = b""
        self.media_type = encoder.media_type
        self.ping = encoder.ping
        self.fail = encoder.fail
        self.refuse = encoder.refuse

    def begin(self) -> bytes:
        """Return no bytes."""
        return b""

    def encode(self, item: object) -> bytes:
        """Keep the document until the end."""
        self._data += self._encoder.encode(item)
        return b""

    def end(self) -> bytes:
        """Return the document."""
        return self._data


class Replayed:
    """Encodes the entries of a relay as the bytes that they are."""

    def __init__(self, encoder: Encoder[Any]) -> None:
        self._separator = b"\n\n" if encoder.media_type == _STREAM else b""
        self.media_type = encoder.media_type
        self.ping = encoder.ping
        self.fail = encoder.fail
        self.refuse = encoder.refuse

    def begin(self) -> bytes:
        """Return no bytes: the first entry begins the answer."""
        return b""

    def encode(self, entry: Entry) -> bytes:
        """Return the bytes of an entry."""
        if entry.ending == "abort":
            sentence = "The answer was stopped, because its client had left."
            raise Refused(HTTPFailure(409, "server_error", "Stopped", sentence, again=True))
        return entry.data + self._separator

    def end(self) -> bytes:
        """Return no bytes: the last entry ends the answer."""
        return b""
