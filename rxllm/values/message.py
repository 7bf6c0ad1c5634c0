"""`Message`: one turn of a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from attrs import field, frozen
from attrs.validators import optional

from ..misuse import MisuseError, is_text, must_be, shown
from ..showing import called, set_fields
from .content import parts_of
from .frozen import frozen_json
from .parts import Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart, is_mapping, text_of
from .usage import Usage

__all__ = ["FinishReason", "Logprobs", "Message", "Role", "is_whole"]


Role = Literal["system", "user", "assistant", "tool"]


Logprobs = Mapping[str, Sequence[Any]]
"""By the provider's names, such as ``content`` or ``tokens``: what it says of each token."""


FinishReason = Literal["stop", "length", "content_filter", "tool_call", "error", "other"]
"""Why an answer ended. ``other`` stands for every word of a provider that is not known; never for a plain end."""


def is_whole(reason: FinishReason | None) -> bool:
    """Whether an answer that ended for this reason may be kept and given again.

    An answer that was filtered, failed, or ended for an unknown reason may not. A model that gives no reason ends its
    answers as it means to.
    """
    return reason in _WHOLE


_WHOLE = (None, "stop", "length", "tool_call")


_ROLE_HINTS = {"human": "user", "ai": "assistant", "model": "assistant", "developer": "system", "function": "tool"}


def _role(message: object, attribute: object, role: object) -> None:
    if role not in get_args(Role):
        hint = f"; say {_ROLE_HINTS[role]!r}" if isinstance(role, str) and role in _ROLE_HINTS else ""
        raise MisuseError(f"A message's role is one of {', '.join(get_args(Role))}, not {shown(role)}{hint}.")


@frozen
class Message:
    """One turn of a conversation. An answer goes back into a conversation as it is.

    ``str(message)`` is its text. `parts` may be given as text, a part, or any of the usual content lists.

    Attributes:
        role: who says it.
        parts: what is said.
        usage: the tokens that the answer took.
        finish_reason: why the answer ended.
        raw_finish_reason: the same in the provider's word.
        model: the model that answered.
        id: the provider's id of the answer.
        logprobs: the log-probabilities of its tokens, if they were asked for.
        provider: who answered.
        created: when the answer was made, in seconds since 1970.
        interrupted: whether the answer broke off, because of an error or because its reader left.
        name: which of several users, or assistants, says it; providers that know no names get none.
        extra: further fields of the message in the provider's own form; providers of another form refuse them.
        metadata: facts of the program's own, which no provider gets.
    """

    role: Role = field(validator=_role)
    parts: tuple[Part, ...] = field(converter=parts_of, default=())
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    model: str | None = None
    id: str | None = None
    logprobs: Logprobs | None = field(default=None, eq=False, converter=frozen_json)
    provider: str | None = field(default=None, eq=False)
    created: float | None = field(default=None, eq=False)
    interrupted: bool = False
    name: str | None = field(default=None, validator=optional(must_be("text", is_text)))
    extra: Mapping[str, Any] | None = field(
        default=None,
        converter=frozen_json,
        validator=optional(must_be("a dict of further fields in the provider's own form", is_mapping)),
        hash=False,
    )
    metadata: Mapping[str, Any] | None = field(
        default=None, converter=frozen_json, validator=optional(must_be("a dict", is_mapping)), eq=False
    )

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        told = {field.name: content for field, content in set_fields(self)}
        if len(self.parts) == 1 and isinstance(self.parts[0], TextPart):
            told["parts"] = repr(self.text)
        given = [told.pop("role"), *([told.pop("parts")] if self.parts else [])]
        return called("Message", [*given, *(f"{name}={content}" for name, content in told.items())])

    def _repr_markdown_(self) -> str:
        """What a notebook shows: the text, and the calls of tools as code."""
        calls = [f"`{call.name}({call.arguments})`" for call in self.tool_calls]
        return "\n\n".join(filter(None, [self.text, self.refusal, *calls]))

    @property
    def text(self) -> str:
        """All text, joined."""
        return text_of(self.parts, TextPart)

    @property
    def reasoning(self) -> str:
        """All reasoning, joined."""
        return text_of(self.parts, ReasoningPart)

    @property
    def refusal(self) -> str:
        """The words of refusal, if the model refused."""
        return text_of(self.parts, RefusalPart)

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The calls of tools that the model asks for, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCallPart))

    def to_json(self) -> dict[str, Any]:
        """The message as a dict of plain values for `json.dumps`, from which `from_json` makes the same message.

        It carries a version. Bytes are written as base64.

        Raises:
            MisuseError: a `RawPart`, `extra` or `metadata` holds a value that JSON does not have.
        """
        from ..records import message_to_json

        return message_to_json(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Message:
        """The message that `to_json` has written, in this version of rxllm or an earlier one.

        Raises:
            MisuseError: the dict is no such record, or one of a later version; the sentence says where it is wrong.
        """
        from ..records import message_from_json

        return message_from_json(record)
