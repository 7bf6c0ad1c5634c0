"""`split_reasoning`: turn tagged thoughts in the text into reasoning parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from reactivex import Observable, abc

from ..misuse import MisuseError
from ..runtime.source import Source
from ..values.chunk import Chunk, part_chunk
from ..values.parts import Part, ReasoningPart, TextPart
from .rewriting import Rewriting, Sought, ThawedPart, new_object
from .stage import makes_operator

__all__ = ["split_reasoning"]


@makes_operator(adds_up="message")
def split_reasoning(start: str = "<think>", end: str = "</think>") -> Callable[[Observable[Chunk]], Observable[Chunk]]:
    r"""What the answer has between the tags at its beginning becomes reasoning; the tags vanish.

    ::

        -<thi-nk>Hm-m.</-think>\n-Yes.-|
        split_reasoning()
        ---------Hm-m.-----------Yes.-|      the first two as ReasoningParts

    For models that are served raw and think aloud in their text, such as DeepSeek-R1 and Qwen3; providers and servers
    with a reasoning parser do this themselves.

    Shape: takes chunks and gives chunks. Only an answer that begins with `start`, perhaps after whitespace, has
    reasoning: a tag that comes later is text, since answers may speak of tags. Where the prompt's template has already
    opened the reasoning, so that the answer begins inside of it, say ``start=""``. Whitespace between `end` and the
    answer is dropped. Reasoning that is never closed is reasoning to the end.

    Errors: of the source, after what was held back; `MisuseError` for what is no chunk. A ``reset`` starts anew.

    Source: the parsers of vLLM (``deepseek_r1`` takes a missing opening tag as given, ``qwen3`` does not) and SGLang,
    whose list tells which model opens with a tag: https://docs.sglang.io/docs/advanced_features/separate_reasoning
    """
    start = start.lstrip()
    if not end:
        raise MisuseError("split_reasoning needs the text that ends the reasoning.")
    sought = Sought([end])

    def operator(source: Observable[Chunk]) -> Observable[Chunk]:
        return Source(lambda observer, scheduler: _Splitting(observer, start, end, sought).start(source, scheduler))

    return operator


def _thought(text: str) -> Chunk:
    """What `Chunk` makes of one ReasoningPart."""
    part = new_object(ThawedPart)
    part.text = text
    part.signature = part.index = None
    part.__class__ = ReasoningPart
    return part_chunk(part)


def text_parts(text: str) -> list[Part]:
    """The text as parts: one, or none of an empty text."""
    return [TextPart(text)] if text else []


def _reasoning(text: str) -> list[Part]:
    return [ReasoningPart(text)] if text else []


_Stage = Literal["before", "reasoning", "gap", "answer"]


class _Splitting(Rewriting):
    __slots__ = ("blank", "first", "held", "opening", "sought", "stage")

    name = "split_reasoning()"

    def __init__(self, observer: abc.ObserverBase[Chunk], opening: str, end: str, sought: Sought) -> None:
        super().__init__(observer)
        self.opening = opening
        self.first = end[0]
        self.sought = sought
        self.forget()

    def forget(self) -> None:
        self.held: str = ""
        self.blank: list[str] = []  # before the opening tag
        self.stage: _Stage = "before" if self.opening else "reasoning"

    def on_next(self, value: Chunk) -> None:
        try:
            facts = value.rest
        except AttributeError:
            self.refuse(value)
            return
        if self.stage == "reasoning" and facts is None and not self.held:
            text = value.text
            if self.first in text:
                text = self.find(text)
            if text:
                self.emit(_thought(text))
        elif self.stage == "answer" and (facts is None or not facts.reset):
            self.emit(value)
        else:
            super().on_next(value)

    def find(self, text: str) -> str:
        """What of the text is reasoning, where nothing is held; but of the last there is, everything is said here."""
        size, found = self.sought.find(text)
        if found is None:
            self.held = text[size:]
            return text[:size]
        self.say(self.read(text))
        return ""

    def read(self, text: str) -> list[Part]:
        parts: list[Part] = []
        if self.stage == "before":
            text = self.open(text)
        if self.stage == "reasoning":
            text = self.held + text
            size, found = self.sought.find(text)
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
        """Reads the beginning of the answer. What is returned belongs to the stage after it."""
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
        if self.opening.startswith(text):  # also where nothing but whitespace has come
            self.held = text
            return ""
        self.stage = "answer"
        return self.begun(text)

    def rest(self) -> list[Part]:
        text, self.held = self.held, ""
        if self.stage == "reasoning":
            return _reasoning(text)
        return text_parts(self.begun(text))

    def begun(self, text: str) -> str:
        """An answer that begins with no tag keeps its whitespace."""
        blank, self.blank = self.blank, []
        return "".join([*blank, text])
