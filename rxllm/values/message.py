"""`Message`: one turn of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from attrs import field, frozen
from attrs.validators import optional

from ..misuse import MisuseError, is_mapping, is_text, must_be, shown
from ..public import Public
from ..showing import called, set_fields
from .frozen import frozen_json
from .parts import Part, Pending, ReasoningPart, RefusalPart, TextPart, ToolCallPart, parts_of, text_of
from .plain import plain
from .usage import Usage
from .vocabulary import FinishReason, Logprobs, Role

__all__ = ["Message"]


_ROLE_HINTS = {"human": "user", "ai": "assistant", "model": "assistant", "developer": "system", "function": "tool"}


_ROLES = get_args(Role)


def _plain_role(role: Role) -> Role:
    return plain(role)


def _role(message: object, attribute: object, role: object) -> None:
    if role not in _ROLES:
        hint = f" Write {_ROLE_HINTS[role]!r}." if isinstance(role, str) and role in _ROLE_HINTS else ""
        raise MisuseError(f"A message's role must be one of {', '.join(_ROLES)}, not {shown(role)}.{hint}")


@frozen
class Message(metaclass=Public):
    """One turn of a conversation. A program can append an answer to a conversation unchanged.

    ``str(message)`` is the text. The constructor accepts `parts` as text, as a part, or as a list of content dicts.

    Attributes:
        role: the author of the message.
        parts: the content.
        usage: the tokens that the answer took.
        finish_reason: why the answer ended.
        raw_finish_reason: the finish reason in the provider's own word.
        model: the name of the model that answered.
        id: the provider's id of the answer.
        logprobs: the log-probabilities of the tokens, if the request asked for them.
        provider: the name of the provider that answered.
        created: when the provider created the answer, in seconds since 1970.
        interrupted: whether the answer is incomplete, because of an error or because its subscriber disposed it.
        name: the name of the author, if there are several users or assistants. Providers that do not support names
            omit it.
        extra: further fields of the message in the provider's own form. Other providers raise MisuseError for them.
        metadata: data of the calling program. rxllm never sends it.
    """

    role: Role = field(converter=_plain_role, validator=_role)
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
        keywords = {field.name: content for field, content in set_fields(self)}
        if len(self.parts) == 1 and isinstance(self.parts[0], TextPart):
            keywords["parts"] = repr(self.text)
        positional = [keywords.pop("role"), *([keywords.pop("parts")] if self.parts else [])]
        return called("Message", [*positional, *(f"{name}={content}" for name, content in keywords.items())])

    def _repr_html_(self) -> str:
        from .in_notebook import message_html  # imported here, because only notebooks need it

        return message_html(self)

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
        """The model's refusal, joined; empty if the model did not refuse."""
        return text_of(self.parts, RefusalPart)

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The tool calls that the model requests, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCallPart))

    @property
    def pending(self) -> tuple[Pending, ...]:
        """The tool calls of an agent that wait for an approval."""
        return tuple(part for part in self.parts if isinstance(part, Pending))

    def to_json(self) -> dict[str, Any]:
        """Return the message as a dict of plain values for `json.dumps`. `from_json` restores the message.

        The dict carries a version. Bytes are written as base64. A file that is not read yet is read here, so that the
        dict has its bytes and not its path.

        Raises:
            MisuseError: a `RawPart`, `extra` or `metadata` holds a value that JSON cannot express, or a file cannot be
                read.
        """
        from .persisted import message_record

        return message_record(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Message:
        """Return the message that `to_json` wrote, in this version of rxllm or in an earlier one.

        Raises:
            MisuseError: the record is malformed, names the path of a file, or a later version of rxllm wrote it. The
                message names the wrong field or the version.
        """
        from .persisted import message_fields

        return cls(**message_fields(record))
