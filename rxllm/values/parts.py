"""All parts: those that contain others, the union `Part`, and the conversion of content to parts.

A tool result contains parts, and the constructor of `ToolResultPart` accepts content dicts, which may be tool results.
So this module stands above the readers of content dicts, and those stand above the parts that contain no other part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, cast, get_args

from attrs import field, frozen

from ..misuse import MisuseError, is_mapping, is_text, must_be, shown
from ..public import Public
from ..showing import brief
from .content import READERS, Fields
from .leaf_parts import (
    CachePoint,
    FilePart,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    text_of,
)

__all__ = [
    "Approval",
    "CachePoint",
    "FilePart",
    "Outcome",
    "Part",
    "Pending",
    "RawPart",
    "ReasoningPart",
    "RefusalPart",
    "TextPart",
    "ToolCallPart",
    "ToolResultPart",
    "parts_of",
    "text_of",
]

Outcome = Literal["ok", "error", "denied", "interrupted"]
"""How a tool call ended. ``interrupted`` means: it is unknown whether the tool has run."""


def _content(content: object) -> tuple[Part, ...]:
    if is_mapping(content) and "type" not in content:
        raise MisuseError(
            f"The content of a ToolResultPart must be text or parts, not {shown(content)}. Convert it to text with "
            "json.dumps."
        )
    return parts_of(content)


_is_call = must_be("a ToolCallPart", lambda call: isinstance(call, ToolCallPart))


@frozen
class ToolResultPart(metaclass=Public):
    """The result of a tool call.

    Attributes:
        id: the id of the call.
        content: the result, as parts: text, pictures, files. The constructor also accepts text.
        outcome: how the call ended.
        name: the name of the tool, which some providers require.
    """

    id: str = field(validator=must_be("text", is_text))
    content: tuple[Part, ...] = field(converter=_content)
    outcome: Outcome = field(  # pyright: ignore[reportAssignmentType]
        default="ok",
        validator=must_be(f"one of {', '.join(get_args(Outcome))}", lambda outcome: outcome in get_args(Outcome)),
    )
    name: str = ""

    __repr__ = brief

    @property
    def text(self) -> str:
        """All text of the result, joined."""
        return text_of(self.content, TextPart)

    @property
    def is_error(self) -> bool:
        """Whether the outcome is anything but ``"ok"``."""
        return self.outcome != "ok"


@frozen
class Pending(metaclass=Public):
    """A tool call of an agent that waits for an approval. It is at the end of the agent's answer.

    Attributes:
        call: the call.
        signature: the agent's proof that it made the call, if the agent has a secret.
    """

    call: ToolCallPart = field(validator=_is_call)
    signature: str | None = None

    __repr__ = brief

    def approve(self, note: str = "") -> Approval:
        """Return the approval of the call."""
        return Approval(self.call, True, note, self.signature)

    def deny(self, note: str = "") -> Approval:
        """Return the denial of the call. The model gets the note as the result."""
        return Approval(self.call, False, note, self.signature)

    def to_json(self) -> dict[str, Any]:
        """Return the call for a user interface, as a dict of plain values: its id, name, arguments and signature."""
        call = self.call
        signed = {} if self.signature is None else {"signature": self.signature}
        return {"id": call.id, "name": call.name, "arguments": call.arguments, **signed}


@frozen
class Approval(metaclass=Public):
    """A decision on a waiting tool call: the call runs, or the model gets the denial as its result.

    ::

        answer = agent.invoke(question)
        decisions = [pending.approve() for pending in answer.pending]
        agent.invoke([("user", question), answer, Message("user", decisions)])

    Attributes:
        call: the call, whose name and arguments must be those of the pending call.
        yes: whether the tool may run.
        note: a reason, which the model gets if the call is denied.
        signature: the signature of the pending call, if it has one.
    """

    call: ToolCallPart = field(validator=_is_call)
    yes: bool = field(validator=must_be("True or False", lambda yes: isinstance(yes, bool)))
    note: str = field(default="", validator=must_be("text", is_text))
    signature: str | None = None

    __repr__ = brief

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Approval:
        """Return the approval for the dict of `Pending.to_json`, to which a user interface has added ``yes``.

        It may also have a ``note``.

        Raises:
            MisuseError: the record is malformed.
        """
        if not is_mapping(record):
            raise MisuseError(f"An approval must be a dict with id, name, arguments and yes, not {shown(record)}.")
        fields = Fields(record, "an approval")
        call = ToolCallPart(fields.text("id"), fields.text("name"), fields.text("arguments"))
        approval = cls(call, fields.rest.pop("yes", None), fields.text("note", ""), fields.optional("signature"))
        fields.end()
        return approval


Part = (
    TextPart
    | ReasoningPart
    | RefusalPart
    | ToolCallPart
    | ToolResultPart
    | FilePart
    | CachePoint
    | RawPart
    | Pending
    | Approval
)


MAKER = "rxllm"
"""The provider of the raw parts that rxllm itself writes: messages that an agent got while it ran."""


def ends_round(part: Part) -> bool:
    """Return whether a part of an agent's answer ends a round: nothing after it joins with a part before it."""
    return isinstance(part, ToolResultPart) or (isinstance(part, RawPart) and part.provider == MAKER)


def parts_of(content: object) -> tuple[Part, ...]:
    """Return the parts of a content: text, a part, a content dict, or an iterable of these."""
    if isinstance(content, str):
        return (TextPart(content),) if content else ()
    if type(content) is tuple and _PART_SET.issuperset(map(type, cast("tuple[object, ...]", content))):
        return cast("tuple[Part, ...]", content)
    if isinstance(content, _PART_TYPES):
        return (cast("Part", content),)
    if content is None:
        return ()
    if isinstance(content, Mapping):
        return _parts_of_dict(cast("Mapping[str, Any]", content))
    if isinstance(content, Iterable) and not isinstance(content, bytes):
        return tuple(part for item in cast("Iterable[object]", content) for part in parts_of(item))
    raise MisuseError(f"Content must be text, parts or content dicts, not {type(content).__name__}.")


_PART_TYPES = get_args(Part)
_PART_SET = frozenset(_PART_TYPES)


def _parts_of_dict(item: Mapping[str, Any]) -> tuple[Part, ...]:
    kind = item.get("type")
    read = _ALL_READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise MisuseError(
            f"rxllm does not know content of type {kind!r}. Use the parts of rxllm (TextPart, FilePart, …), or a "
            "RawPart for content that only one provider knows."
        )
    fields = Fields(item, f"content of the type {kind!r}")
    del fields.rest["type"]
    cached = _cache_point(fields)
    part = read(fields)
    fields.end()
    return (part, *cached)


def _cache_point(fields: Fields) -> tuple[CachePoint, ...]:
    if fields.rest.get("cache_control") is None:
        return ()
    control = fields.fields("cache_control")
    kind, ttl = control.text("type", "ephemeral"), control.optional("ttl")
    control.end()
    if kind != "ephemeral":
        raise MisuseError(f"A cache_control must have the type 'ephemeral', not {kind!r}.")
    return (CachePoint(ttl),)


def _tool_result(fields: Fields) -> Part:
    outcome: Outcome = "error" if fields.flag("is_error") else "ok"
    return ToolResultPart(fields.text("tool_use_id"), fields.rest.pop("content", None), outcome)


_ALL_READERS: Mapping[str, Callable[[Fields], Part]] = {**READERS, "tool_result": _tool_result}
