"""The frames of OpenAI's chat and completions protocols, and their decoders.

They have only the fields that `ChatDecoder` reads. A comment marks each field of another server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Struct

from ._documents import token_of

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
    "decode_plain_answer",
    "speaks",
]


# The fields of a frame. A field that servers fill in different ways is Any; the reader checks its type only if it is
# set. So the common frame, a delta of plain text, costs one decoding and one check.
class Delta(Struct, gc=False):
    """The content of a frame."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_text: Any = None  # GitHub Copilot
    reasoning_opaque: Any = None  # GitHub Copilot
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    images: Any = None  # OpenRouter
    audio: Any = None
    annotations: Any = None
    reasoning_details: Any = None  # OpenRouter
    thinking_blocks: Any = None  # LiteLLM's proxy


class Choice(Struct, gc=False):
    """One of several answers; nearly always the only one."""

    delta: Delta | None = None
    text: Any = None  # the completions protocol
    finish_reason: Any = None
    native_finish_reason: Any = None  # OpenRouter: the word of the server behind it
    usage: Any = None  # Moonshot
    logprobs: Any = None
    error: Any = None  # OpenRouter
    annotations: Any = None  # OpenRouter, for some models
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


def _plain(kind: type[Struct], needed: Mapping[str, Any], optional: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Return a type in which only these fields may differ from null. The decoder checks it faster than Python."""
    spelled = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    fields = [(name, needed[name]) if name in needed else (name, optional.get(name), None) for name in spelled]
    return msgspec.defstruct(f"Plain{kind.__name__}", fields, rename=spelled, kw_only=True, gc=False)


_TEXT = Annotated[str, msgspec.Meta(min_length=1)]
_NO_LIST = Annotated[list[Any], msgspec.Meta(max_length=0)]  # OpenAI's annotations of an answer without a web search
_PlainDelta = _plain(Delta, {"content": _TEXT})
_PlainChoice = _plain(Choice, {"delta": _PlainDelta, "index": Literal[0]})
_PlainMessage = _plain(Delta, {"content": _TEXT}, {"annotations": _NO_LIST | None})
_PlainWhole = _plain(
    _WholeChoice, {"delta": _PlainMessage, "index": Literal[0], "finish_reason": Literal["stop", "length"]}
)


def _one(kind: Any) -> Any:
    return tuple.__class_getitem__(kind)


_PlainFrame = _plain(Frame, {"choices": _one(_PlainChoice)})
_PlainAnswer = _plain(Answer, {"choices": _one(_PlainWhole), "id": str, "model": str}, {"usage": Any})
decode_plain: Callable[[bytes], Any] = msgspec.json.Decoder(_PlainFrame).decode
decode_plain_answer: Callable[[bytes], Any] = msgspec.json.Decoder(_PlainAnswer).decode
decode_frame = msgspec.json.Decoder(Frame).decode
decode_first = msgspec.json.Decoder(FirstFrame).decode
decode_answer = msgspec.json.Decoder(Answer).decode
NO_CHOICE = Choice()


def speaks(choice: Choice) -> bool:
    """Whether a choice has content, and not only a role or a finish_reason."""
    delta = choice.delta
    if delta is None:
        return bool(token_of(choice.text)) or bool(isinstance(choice, FirstChoice) and choice.message)
    return bool(
        token_of(delta.content)
        or delta.content
        or choice.text
        or delta.reasoning_content
        or delta.reasoning
        or delta.reasoning_text
        or delta.refusal
        or delta.tool_calls
        or delta.function_call
        or delta.images
        or delta.audio
    )
