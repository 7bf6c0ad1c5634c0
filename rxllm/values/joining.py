"""`PartJoiner`: the rules by which the parts of chunks join, described in `chunk`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from .parts import Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ends_round

__all__ = ["PartJoiner"]


class _OpenPart:
    """A part to which later fragments may still add: its latest state, and the texts and citations so far."""

    __slots__ = ("citations", "part", "texts")

    def __init__(self, part: TextPart | ReasoningPart | RefusalPart | ToolCallPart) -> None:
        self.part = part
        self.texts: list[str] = [part.arguments if isinstance(part, ToolCallPart) else part.text]
        self.citations: list[Mapping[str, Any]] = []  # the citations of later fragments

    def update(self, part: TextPart | ReasoningPart | ToolCallPart) -> None:
        """Take over the signature, the provider and the extra fields of a later fragment."""
        if part.signature is None and part.provider is None and part.extra is None:
            return
        current: Any = self.part
        extra: dict[str, Any] = {**(current.extra or {}), **(part.extra or {})}
        self.part = attrs.evolve(
            current,
            signature=part.signature or current.signature,
            provider=current.provider or part.provider,
            extra=extra or None,
        )

    def close(self) -> Part:
        """Return the joined part."""
        if len(self.texts) == 1:
            return self.part
        text = "".join(self.texts)
        if isinstance(self.part, ToolCallPart):
            return attrs.evolve(self.part, arguments=text)
        if isinstance(self.part, TextPart):
            return attrs.evolve(self.part, text=text, citations=[*self.part.citations, *self.citations])
        return attrs.evolve(self.part, text=text)


class PartJoiner:
    """Joins parts in linear time, by the rules in the docstring of `chunk`."""

    __slots__ = ("_calls", "_parts", "_reasoning")

    def __init__(self) -> None:
        self._parts: list[_OpenPart | Part] = []
        self._calls: dict[int, _OpenPart] = {}
        self._reasoning: dict[int, _OpenPart] = {}

    def add_text(self, text: str) -> None:
        """Add text without further attributes."""
        last = self._parts[-1] if self._parts else None
        if isinstance(last, _OpenPart) and type(last.part) is TextPart and last.part.signature is None:
            last.texts.append(text)
        elif text:
            self._parts.append(_OpenPart(TextPart(text)))

    def add(self, part: Part) -> None:
        """Add the next part."""
        if isinstance(part, TextPart):
            self._add_text_part(part)
        elif isinstance(part, ToolCallPart):
            self._add_call(part)
        elif isinstance(part, ReasoningPart):
            self._add_reasoning(part)
        elif isinstance(part, RefusalPart):
            last = self._parts[-1] if self._parts else None
            if isinstance(last, _OpenPart) and isinstance(last.part, RefusalPart):
                last.texts.append(part.text)
            elif part.text:
                self._parts.append(_OpenPart(part))
        else:
            if ends_round(part):
                self._calls.clear()
                self._reasoning.clear()
            self._parts.append(part)

    def _add_text_part(self, part: TextPart) -> None:
        last = self._parts[-1] if self._parts else None
        current = last.part if isinstance(last, _OpenPart) else None
        is_signed = part.signature is not None or (isinstance(current, TextPart) and current.signature is not None)
        if (
            isinstance(last, _OpenPart)
            and isinstance(current, TextPart)
            and part.index in (None, current.index)
            and not is_signed
        ):
            last.texts.append(part.text)
            last.citations += part.citations
            last.update(part)
        elif part.text or part.citations or part.signature or part.extra:
            self._parts.append(_OpenPart(part))

    def _add_call(self, part: ToolCallPart) -> None:
        latest = self._calls.get(part.index)
        current = latest.part if latest else None
        if latest and isinstance(current, ToolCallPart) and part.id in ("", current.id):
            if part.name and not current.name:
                latest.part = attrs.evolve(current, name=part.name)
            latest.update(part)
            latest.texts.append(part.arguments)
            return
        opened = self._calls[part.index] = _OpenPart(part)
        self._parts.append(opened)

    def _add_reasoning(self, part: ReasoningPart) -> None:
        if part.index is not None:
            latest = self._reasoning.get(part.index)
        else:
            last = self._parts[-1] if self._parts else None
            latest = last if isinstance(last, _OpenPart) else None
        current = latest.part if latest else None
        # A second signature for the same text replaces the first. New text after a signature opens a new part.
        if (
            latest
            and isinstance(current, ReasoningPart)
            and current.index == part.index
            and (current.signature is None or not part.text)
        ):
            if part.id and not current.id:
                latest.part = attrs.evolve(current, id=part.id)
            latest.update(part)
            latest.texts.append(part.text)
            return
        if part.text or part.signature or part.id:
            opened = _OpenPart(part)
            self._parts.append(opened)
            if part.index is not None:
                self._reasoning[part.index] = opened

    def parts(self) -> tuple[Part, ...]:
        """Return the joined parts."""
        return tuple(part.close() if isinstance(part, _OpenPart) else part for part in self._parts)
