"""The model's answer in one round of an agent whose answer has a shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..values.chunk import Chunk, with_parts
from ..values.parts import Part, ReasoningPart, TextPart, ToolCallPart
from .one_round import Round

if TYPE_CHECKING:
    from .looping import Loop

__all__ = ["ShapedRound"]


class ShapedRound(Round):
    """Emits what the model writes before its calls as reasoning, because the text of the agent's answer is its JSON.

    JSON passes as it comes. Other text is held back until it is known what it is: reasoning if a call follows; if the
    round ends without a call, it is the answer, which does not fit.

    Attributes:
        held: the text that is held back.
        is_json: whether the text of this round began as JSON, so that nothing is held back.
    """

    __slots__ = ("held", "is_json")

    def __init__(self, loop: Loop) -> None:
        self.held = ""
        self.is_json = False
        super().__init__(loop)

    def on_next(self, value: Chunk) -> None:
        """Pass a chunk on, unless its text must wait."""
        if value.reset:  # what was held back is taken back, too
            self.held, self.is_json, self.has_calls = "", False, False
        parts: list[Part] = []
        for part in value.parts:
            if isinstance(part, TextPart) and part == TextPart(part.text):
                parts += self.shown(part.text)
                continue
            if isinstance(part, ToolCallPart):
                self.has_calls = True
                parts += self.released()
            parts.append(part)
        if value.finish_reason:
            parts += self.released()
        chunk = value if tuple(parts) == value.parts else with_parts(value, parts)
        if chunk:
            super().on_next(chunk)

    def shown(self, text: str) -> list[Part]:
        """Return the text that can be passed on."""
        if not self.is_json:
            self.held += text
            if not self.held.lstrip().startswith("{"):
                return []
            self.is_json, text, self.held = True, self.held, ""
        return [TextPart(text)]

    def released(self) -> list[Part]:
        """Return the text that was held back. It is reasoning if the round has calls."""
        text, self.held = self.held, ""
        if not text:
            return []
        if not self.has_calls:
            return [TextPart(text)]
        return [] if text.isspace() else [ReasoningPart(text)]

    def on_completed(self) -> None:
        """Emit what was held back, and let the loop decide what follows."""
        if parts := self.released():
            super().on_next(Chunk(parts=parts))
        super().on_completed()
