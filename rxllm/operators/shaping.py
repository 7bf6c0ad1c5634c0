"""Undoes the way in which a shape was asked for, so that the JSON of the answer is its text in every mode."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from reactivex import Observable, abc

from ..runtime.source import Source, connect
from ..shapes.locating import Locator
from ..shapes.modes import Plan
from ..shapes.shape import Shape
from ..values.chunk import Chunk, changed, join, text_chunk, with_parts
from ..values.message import Message
from ..values.parts import Part, ReasoningPart, TextPart, ToolCallPart
from .message import one_chunk
from .observer import OperatorObserver

__all__ = ["reshaped"]


def reshaped(source: Observable[Any], plan: Plan, *, is_whole: bool) -> Observable[Any]:
    """Return the answer to a planned request, with the JSON of the shape as its text.

    * A native answer is such a text.
    * The arguments of the forced tool call become the text, and the finish reason ``stop``. Text that the model wrote
      beside the call becomes reasoning. If the model called no tool, its text remains.
    * Of an answer that was prompted for, prose and fences are left out.

    Args:
        source: the answer.
        plan: how it was asked for.
        is_whole: whether it is one chunk, and stays one.
    """
    if plan.mode == "native":
        return source
    create = partial(_OfTool, tool=plan.tool) if plan.mode == "tool" else partial(_OfProse, shape=plan.shape)
    stream: Source[Any] = Source(lambda observer, scheduler: connect(source, create(observer), scheduler))
    return one_chunk(stream) if is_whole else stream


class _Reshaping(OperatorObserver[Any, Chunk]):
    """Rewrites the parts of chunks. It passes other values on, because the model's own checks refuse them."""

    __slots__ = ()

    def parts(self, chunk: Chunk) -> list[Part]:
        """Return the parts of the chunk as they are passed on."""
        raise NotImplementedError

    def text(self, text: str) -> list[Part]:
        """Return the parts that stand for a text."""
        raise NotImplementedError

    def held(self) -> list[Part]:
        """Return what is held back, at the end."""
        raise NotImplementedError

    def on_next(self, value: Any) -> None:
        if isinstance(value, (str, Message)):
            value = Chunk.of(value)
        if not isinstance(value, Chunk):
            self.emit(value)
        elif value.rest is None:
            self.emit_parts(self.text(value.text))
        else:
            self.emit(self.changed(value))

    def changed(self, chunk: Chunk) -> Chunk:
        """Return a chunk with facts, with its parts as they are passed on."""
        return with_parts(chunk, self.parts(chunk))

    def emit_parts(self, parts: list[Part]) -> None:
        """Emit a chunk of the parts, if there are any."""
        if len(parts) == 1 and type(parts[0]) is TextPart:
            self.emit(text_chunk(parts[0].text))
        elif parts:
            self.emit(Chunk(parts=parts))

    def end(self, notify: Callable[[], object]) -> None:
        """Emit what is held back, and end."""
        if not self.ended:
            self.emit_parts(self.held())
            super().end(notify)


class _OfTool(_Reshaping):
    """Makes the arguments of the answer's call the text.

    Attributes:
        tool: the name of the tool.
        texts: what the model wrote before its first call.
        has_answered: whether the answer's call has begun.
        calls_others: whether the model has called another tool.
        is_empty: whether no argument has come.
        is_answer: for each index, whether its latest call is the answer.
    """

    __slots__ = ("calls_others", "has_answered", "is_answer", "is_empty", "texts", "tool")

    def __init__(self, observer: abc.ObserverBase[Chunk], tool: str) -> None:
        super().__init__(observer)
        self.tool = tool
        self.begin()

    def begin(self) -> None:
        self.texts: list[str] = []
        self.has_answered = self.calls_others = False
        self.is_empty = True
        self.is_answer: dict[int, bool] = {}

    def text(self, text: str) -> list[Part]:
        if self.calls_others:
            return [TextPart(text)] if text else []
        if self.has_answered:
            return [ReasoningPart(text)] if text else []
        self.texts.append(text)
        return []

    def held(self) -> list[Part]:
        texts, self.texts = "".join(self.texts), []
        if self.has_answered and self.is_empty:
            self.is_empty = False
            texts = "{}"  # a call without arguments
        return [TextPart(texts)] if texts else []

    def parts(self, chunk: Chunk) -> list[Part]:
        if chunk.reset:
            self.begin()
        parts: list[Part] = []
        for part in chunk.parts:
            if isinstance(part, ToolCallPart):
                parts += self.call(part)
            elif type(part) is TextPart and not part.citations:
                parts += self.text(part.text)
            else:
                parts.append(part)
        return [*parts, *self.held()] if chunk.finish_reason else parts

    def call(self, part: ToolCallPart) -> list[Part]:
        """Return the parts that stand for a call, or for a fragment of one."""
        if part.name or part.index not in self.is_answer:
            self.is_answer[part.index] = part.name == self.tool
        if not self.is_answer[part.index]:
            self.calls_others = True
            return [*self.held(), part]
        before: list[Part] = []
        if not self.has_answered:
            said, self.texts = "".join(self.texts), []
            before = [ReasoningPart(said)] if said and not said.isspace() else []
            self.has_answered = True
        if part.arguments:
            self.is_empty = False
        return [*before, TextPart(part.arguments)] if part.arguments else before

    def changed(self, chunk: Chunk) -> Chunk:
        answer = super().changed(chunk)
        is_answer = self.has_answered and not self.calls_others
        return changed(answer, finish_reason="stop") if is_answer and chunk.finish_reason == "tool_call" else answer


class _OfProse(_Reshaping):
    """Leaves out the text around the JSON value.

    Attributes:
        locator: finds the value.
        others: the chunks with facts, which are emitted again when the first candidate is taken back.
    """

    __slots__ = ("locator", "others", "shape")

    def __init__(self, observer: abc.ObserverBase[Chunk], shape: Shape[Any]) -> None:
        super().__init__(observer)
        self.shape = shape
        self.begin()

    def begin(self) -> None:
        self.locator = Locator(self.shape)
        self.others: list[Chunk] = []

    def text(self, text: str) -> list[Part]:
        shown = self.locator.read(text)
        return [TextPart(shown)] if shown else []

    def parts(self, chunk: Chunk) -> list[Part]:
        parts: list[Part] = []
        for part in chunk.parts:
            parts += self.text(part.text) if type(part) is TextPart else [part]
        return parts

    def changed(self, chunk: Chunk) -> Chunk:
        if chunk.reset:
            self.begin()
        answer = super().changed(chunk)
        self.others.append(with_parts(chunk, [part for part in answer.parts if type(part) is not TextPart]))
        return answer

    def held(self) -> list[Part]:
        return []

    def end(self, notify: Callable[[], object]) -> None:
        if self.ended:
            return
        value = self.locator.end()
        if value and self.locator.has_shown:
            whole = join(self.others)
            self.emit(changed(with_parts(whole, [*whole.parts, TextPart(value)]), reset=True))
        elif value:
            self.emit(text_chunk(value))
        super().end(notify)
