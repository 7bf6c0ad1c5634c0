"""The model's answer in one round of an agent."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import attrs
from reactivex import abc

from ..values.chunk import Chunk, changed
from ..values.joining import PartJoiner
from ..values.parts import Part, ToolCallPart, ends_round
from ..values.usage import Usage
from ..values.vocabulary import FinishReason

if TYPE_CHECKING:
    from .looping import Loop

__all__ = ["PAUSED", "Round"]

PAUSED = ("pause_turn", "compaction")
"""Anthropic's reasons for an answer that goes on when it is sent back: a server tool takes long, or a summary has taken
the place of the conversation, and the request has asked for a pause after it (``pause_after_compaction``)."""


class Round(abc.ObserverBase[Chunk]):
    """The model's answer in one round. It passes the chunks on, and collects the facts for the loop.

    Attributes:
        finish: the finish reason, and the provider's own word.
        usage: the usage of this round alone.
        ids: the ids of the calls so far.
        opened: by the index of a call to which fragments may still add: the id from the server, and the call's own.
    """

    __slots__ = ("append", "emit", "finish", "has_calls", "ids", "joiner", "loop", "opened", "texts", "usage")

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.emit = loop.emit  # looked up once, because on_next is called for each chunk
        self.texts: list[str] = []
        self.append = self.texts.append
        self.begin()

    def begin(self) -> None:
        """Discard the round, also when a chunk has `reset`."""
        self.joiner = PartJoiner()
        self.texts.clear()
        self.usage: Usage | None = None
        self.finish: tuple[FinishReason | None, str | None] = (None, None)
        self.has_calls = False
        self.ids: set[str] = set()
        self.opened: dict[int, tuple[str, str]] = {}

    def on_next(self, value: Chunk) -> None:
        """Pass a chunk on."""
        if value.rest is None:  # plain text, as most chunks
            self.append(value.text)
            self.emit(value)
        elif chunk := self.read(value):
            self.emit(chunk)

    def on_error(self, error: Exception) -> None:
        """End the agent's answer."""
        self.loop.fail(error)

    def on_completed(self) -> None:
        """Let the loop decide what follows."""
        self.loop.answered(self)

    def read(self, chunk: Chunk) -> Chunk:
        """Add up a chunk that is more than text. Return the chunk for the subscriber."""
        loop = self.loop
        changes: dict[str, Any] = {}
        if chunk.reset:
            self.begin()
            if loop.parts:  # the earlier rounds have not been taken back
                loop.emit(Chunk(reset=True, parts=loop.parts, usage=loop.usage))
                changes["reset"] = False
        self.flush()
        if chunk.rest is not None and chunk.rest.parts is not None:
            parts = tuple(map(self.identified, chunk.parts))
            if parts != chunk.parts:
                changes["parts"] = parts
            for part in parts:
                self.joiner.add(part)
        else:
            self.joiner.add_text(chunk.text)
        if chunk.usage is not None:
            self.usage = self.usage.updated(chunk.usage) if self.usage else chunk.usage
            changes["usage"] = self.total()
        if chunk.finish_reason or chunk.raw_finish_reason:
            self.finish = (chunk.finish_reason or self.finish[0], chunk.raw_finish_reason or self.finish[1])
            if (
                self.has_calls or chunk.raw_finish_reason in PAUSED or loop.inbox.messages
            ):  # the stream continues after it
                changes["finish_reason"] = changes["raw_finish_reason"] = None
        return changed(chunk, **changes) if changes else chunk

    def identified(self, part: Part) -> Part:
        """Return the part. A call gets another id if it has none, or that of another call: a result names its call."""
        if not isinstance(part, ToolCallPart):
            if ends_round(part):  # a server has run its calls
                self.opened.clear()
            return part
        self.has_calls = True
        given, own = self.opened.get(part.index, (None, ""))
        if given is not None and part.id in ("", given):  # a fragment of an open call
            return attrs.evolve(part, id=own) if part.id and part.id != own else part
        own = part.id if part.id and part.id not in self.ids else f"call_{uuid.uuid4().hex[:24]}"
        self.opened[part.index] = part.id, own
        self.ids.add(own)
        return part if part.id == own else attrs.evolve(part, id=own)

    def flush(self) -> None:
        """Add up the texts so far."""
        self.joiner.add_text("".join(self.texts))
        self.texts.clear()

    def total(self) -> Usage | None:
        """Return the sum of this round and the earlier ones."""
        earlier = self.loop.usage
        return earlier + self.usage if earlier and self.usage else self.usage or earlier

    def joined(self) -> tuple[Part, ...]:
        """Return the content of the answer."""
        self.flush()
        return self.joiner.parts()
