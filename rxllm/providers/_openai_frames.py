"""The frames of OpenAI's chat and completions protocols, and their decoders.

They have only the fields that `ChatDecoder` reads. A comment marks each field of another server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Struct

__all__ = [
    "NO_CHOICE",
    "Answer",
    "Choice",
    "Delta",
    "FirstChoice",
    "FirstFrame",
    "Frame",
    "decode_answer",
    "decode_first",
    "decode_frame",
    "decode_plain",
]


# The fields of a frame. A field that servers fill in different ways is Any; the reader checks its type only if it is
# set. So the common frame, a delta of plain text, costs one decoding and one check.
class Delta(Struct, gc=False):
    """The content of a frame."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    images: Any = None  # OpenRouter
    audio: Any = None
    annotations: Any = None
    reasoning_details: Any = None  # OpenRouter


class Choice(Struct, gc=False):
    """One of several answers; nearly always the only one."""

    delta: Delta | None = None
    text: Any = None  # the completions protocol
    finish_reason: Any = None
    usage: Any = None  # Moonshot
    logprobs: Any = None
    error: Any = None  # OpenRouter
    index: Any = None  # usually 0, see `Choices`


class Frame(Struct, gc=False):
    """A frame after the first chunk."""

    choices: list[Choice | None] | None = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None


class FirstChoice(Choice, gc=False):
    """A choice before the first chunk."""

    message: Any = None  # some gateways send a whole response as a stream of one frame


class FirstFrame(Frame, gc=False):
    """A frame before the first chunk. Only these frames are read for the id and the model."""

    choices: list[FirstChoice | None] | None = None  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride]
    id: Any = None
    model: Any = None


# A whole response has "message" in place of "delta". (Perplexity sends both in each frame; its message repeats all the
# text so far.)
class _WholeChoice(Choice, gc=False):
    delta: Delta | None = msgspec.field(default=None, name="message")


class Answer(FirstFrame, gc=False):
    """A whole response."""

    choices: list[_WholeChoice | None] | None = None  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleVariableOverride]


def _plain(kind: type[Struct], **types: Any) -> Any:
    """Return a type in which only these fields may differ from null. The decoder checks it faster than Python."""
    fields = [(name, types[name]) if name in types else (name, None, None) for name in kind.__struct_fields__]
    return msgspec.defstruct(f"Plain{kind.__name__}", fields, kw_only=True, gc=False)


_PlainDelta = _plain(Delta, content=Annotated[str, msgspec.Meta(min_length=1)])
_PlainChoice = _plain(Choice, delta=_PlainDelta, index=Literal[0])
_OneChoice: Any = tuple.__class_getitem__(_PlainChoice)
decode_plain: Callable[[bytes], Any] = msgspec.json.Decoder(_plain(Frame, choices=_OneChoice)).decode
decode_frame = msgspec.json.Decoder(Frame).decode
decode_first = msgspec.json.Decoder(FirstFrame).decode
decode_answer = msgspec.json.Decoder(Answer).decode
NO_CHOICE = Choice()
