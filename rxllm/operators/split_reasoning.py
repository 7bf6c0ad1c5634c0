"""`split_reasoning`: turn tagged reasoning in the text into reasoning parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from reactivex import Observable, abc

from ..misuse import MisuseError
from ..runtime.source import Source
from ..values.chunk import Chunk, part_chunk
from ..values.parts import Part, ReasoningPart, TextPart
from .rewriting import MutablePart, Patterns, Rewriting, new_object
from .stage import makes_operator

__all__ = ["split_reasoning"]


@makes_operator(adds_up="message")
def split_reasoning(start: str = "<think>", end: str = "</think>") -> Callable[[Observable[Chunk]], Observable[Chunk]]:
    r"""Turn the text between the tags at the beginning of the answer into reasoning, and remove the tags.

    ::

        -<thi-nk>Hm-m.</-think>\n-Yes.-|
        split_reasoning()
        ------Hm----m.------------Yes.-|      the first two as ReasoningParts

    For models whose server passes their reasoning on as tagged text, such as DeepSeek-R1 and Qwen3. Providers and
    servers with a reasoning parser need no such operator.

    Shape: takes and emits chunks. Only an answer that begins with `start`, after optional whitespace, has reasoning. A
    tag that comes later stays text, since an answer may quote tags. Pass ``start=""`` where the prompt template already
    contains the opening tag, so that the answer begins within the reasoning. Whitespace between `end` and the answer is
    dropped. Without a closing tag, the whole answer is reasoning. A ``reset`` starts the search again.

    Errors: those of the source, after the held text; `MisuseError` for a value that is not a Chunk, and for an empty
    `end`.

    Source: the parsers of vLLM (``deepseek_r1`` accepts an answer without the opening tag, ``qwen3`` does not) and
    SGLang, which lists the opening tag of each model:
    https://docs.sglang.io/docs/advanced_features/separate_reasoning
    """
    start = start.lstrip()
    if not end:
        raise MisuseError(
            "split_reasoning needs the tag that closes the reasoning, but end is empty. Pass the tag of your model, "
            'such as end="</think>".'
        )
    patterns = Patterns([end])

    def operator(source: Observable[Chunk]) -> Observable[Chunk]:
        return Source(lambda observer, scheduler: _Splitting(observer, start, end, patterns).start(source, scheduler))

    return operator


def _reasoning_chunk(text: str) -> Chunk:
    """A chunk of one ReasoningPart."""
    part = new_object(MutablePart)
    part.text = text
    part.signature = part.index = part.id = part.provider = part.extra = None
    part.__class__ = ReasoningPart
    return part_chunk(part)


def text_parts(text: str) -> list[Part]:
    """Return the text as a list with one part; an empty list for an empty text."""
    return [TextPart(text)] if text else []


def _reasoning(text: str) -> list[Part]:
    return [ReasoningPart(text)] if text else []


_Stage = Literal["before", "reasoning", "gap", "answer"]


class _Splitting(Rewriting):
    __slots__ = ("blank", "first", "held", "opening", "patterns", "stage")

    name = "split_reasoning()"

    def __init__(self, observer: abc.ObserverBase[Chunk], opening: str, end: str, patterns: Patterns) -> None:
        super().__init__(observer)
        self.opening = opening
        self.first = end[0]
        self.patterns = patterns
        self.forget()

    def forget(self) -> None:
        self.held: str = ""
        self.blank: list[str] = []  # whitespace before the opening tag
        self.stage: _Stage = "before" if self.opening else "reasoning"

    def on_next(self, value: Chunk) -> None:
        try:
            facts = value.rest
        except AttributeError:
            self.refuse_value(value)
            return
        if self.stage == "reasoning" and facts is None and not self.held:
            text = value.text
            if self.first in text:
                text = self.find(text)
            if text:
                self.emit(_reasoning_chunk(text))
        elif self.stage == "answer" and (facts is None or not facts.reset):
            self.emit(value)
        else:
            super().on_next(value)

    def find(self, text: str) -> str:
        """Return the reasoning in the text, when no text is held.

        When the text contains the closing tag, this method emits everything itself and returns an empty text.
        """
        size, found = self.patterns.find(text)
        if found is None:
            self.held = text[size:]
            return text[:size]
        self.emit_parts(self.read(text))
        return ""

    def read(self, text: str) -> list[Part]:
        parts: list[Part] = []
        if self.stage == "before":
            text = self.open(text)
        if self.stage == "reasoning":
            text = self.held + text
            size, found = self.patterns.find(text)
            parts += _reasoning(text[:size])
            if found is None:
                self.held = text[size:]
                return parts
            self.held = ""
            self.stage = "gap"
            text = text[found.end() :]
        if self.stage == "gap":
            text = text.lstrip()
            if text:
                self.stage = "answer"
        return parts + text_parts(text)

    def open(self, text: str) -> str:
        """Read the beginning of the answer, and return the text that belongs to the next stage."""
        if not self.held:
            word = text.lstrip()
            self.blank.append(text[: len(text) - len(word)])
            text = word
        text = self.held + text
        self.held = ""
        if text.startswith(self.opening):
            self.blank.clear()
            self.stage = "reasoning"
            return text[len(self.opening) :]
        if self.opening.startswith(text):  # also an empty text, after whitespace only
            self.held = text
            return ""
        self.stage = "answer"
        return self.with_blank(text)

    def rest(self) -> list[Part]:
        text, self.held = self.held, ""
        if self.stage == "reasoning":
            return _reasoning(text)
        return text_parts(self.with_blank(text))

    def with_blank(self, text: str) -> str:
        """Restore the whitespace of an answer that begins without a tag."""
        blank, self.blank = self.blank, []
        return "".join([*blank, text])
