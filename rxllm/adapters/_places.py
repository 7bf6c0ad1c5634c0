"""`Places`: which fragments of a stream belong to one part, for libraries that number the parts of an answer."""

from __future__ import annotations

from ..values.parts import Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ends_round

__all__ = ["Places"]


class Places:
    """Numbers the parts of one answer. The rules are those by which chunks join; see `rxllm.values.chunk`."""

    def __init__(self) -> None:
        self._count = 0
        self._last: Part | None = None
        self._calls: dict[int, tuple[int, str]] = {}  # the number and the id of the latest call, by index
        self._reasoning: dict[int | None, int] = {}  # the number of the open reasoning, by index

    def of(self, part: Part) -> int:
        """Return the number of the part that this fragment begins or continues."""
        last, self._last = self._last, part
        if isinstance(part, ToolCallPart):
            number, latest = self._calls.get(part.index, (-1, ""))
            if number >= 0 and part.id in ("", latest):
                return number
            number = self._new()
            self._calls[part.index] = number, part.id
            return number
        if isinstance(part, ReasoningPart):
            continues = part.index is not None or isinstance(last, ReasoningPart)
            number = self._reasoning.get(part.index, -1) if continues else -1
            if number < 0:
                number = self._reasoning[part.index] = self._new()
            if part.signature:  # it closes the reasoning
                self._reasoning.pop(part.index, None)
            return number
        if isinstance(part, (TextPart, RefusalPart)) and type(last) is type(part) and not _is_apart(last, part):
            return self._count - 1
        if ends_round(part):
            self._calls.clear()
            self._reasoning.clear()
        return self._new()

    def _new(self) -> int:
        self._count += 1
        return self._count - 1


def _is_apart(last: Part | None, part: Part) -> bool:
    if not isinstance(last, TextPart) or not isinstance(part, TextPart):
        return False
    return bool(last.signature or part.signature) or part.index not in (None, last.index)
