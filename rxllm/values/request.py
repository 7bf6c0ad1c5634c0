"""`Request`: a prompt and its parameters; and the conversion of prompts to messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard, cast

from attrs import field, frozen

from ..extensible import mutable_class
from ..misuse import MisuseError, is_text, shown
from ..showing import called, set_fields
from .content import Fields
from .message import Message
from .parameters import PARAMETERS, Parameters
from .parts import (
    FilePart,
    Outcome,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    parts_of,
)
from .plain import plain
from .rounds import separated

__all__ = ["Prompt", "Request", "is_pair", "messages_of"]


def _content(prompt: Prompt) -> str | tuple[Message, ...]:
    return plain(prompt) if isinstance(prompt, str) else separated(messages_of(prompt))


@frozen(kw_only=True)
class Request(Parameters):
    """A prompt with its parameters, as a provider receives it.

    Attributes:
        prompt: the text, or the messages. The properties `messages` and `text` work for both. An agent's answer becomes
            several messages here, one for each round and one for the results of each round.
    """

    prompt: str | tuple[Message, ...] = field(converter=_content)

    def __repr__(self) -> str:
        others = (f"{field.alias}={text}" for field, text in set_fields(self) if field.name != "prompt")
        return called("Request", [f"prompt={self.prompt!r}", *others])

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation. A text prompt is one message of the role ``user``."""
        return (Message("user", self.prompt),) if isinstance(self.prompt, str) else self.prompt

    @property
    def text(self) -> str:
        """The text of the prompt. Blank lines separate the texts of several messages."""
        return self.prompt if isinstance(self.prompt, str) else "\n\n".join(m.text for m in self.prompt if m.text)

    @staticmethod
    def ask(prompt: Prompt, parameters: Parameters = Parameters()) -> Request:
        """Return the request for a prompt. If the prompt is a Request, its own parameters win.

        Raises:
            MisuseError: the prompt has an unsupported type.
        """
        if isinstance(prompt, Request):
            return prompt.over(parameters)
        request = _MutableRequest()
        request.prompt = _content(prompt)
        for name in PARAMETERS:  # the constructor of `parameters` has already validated the values
            setattr(request, name, getattr(parameters, name))
        request.__class__ = Request
        return request  # type: ignore[no-any-return]  # every request runs this line; cast() would cost a call


_MutableRequest = mutable_class(Request)
MessageLike = Message | Mapping[str, Any] | tuple[str, str]


Prompt = str | Message | Mapping[str, Any] | Sequence[MessageLike] | Request


def messages_of(prompt: object) -> tuple[Message, ...]:
    """Return the messages of a prompt that is not text.

    Raises:
        MisuseError: the prompt has an unsupported type, or is empty.
    """
    if isinstance(prompt, (Message, Mapping)):
        return (_message_of(cast("object", prompt)),)
    if isinstance(prompt, (Sequence, Iterable)) and not isinstance(prompt, (bytes, bytearray)):
        items = tuple(cast("Iterable[object]", prompt))
        if isinstance(prompt, tuple) and len(items) == 2 and not isinstance(items[0], (Message, Mapping, tuple)):
            return (_message_of(items),)
        if items:
            return tuple(map(_message_of, items))
        raise MisuseError("The prompt is an empty list. Pass text or at least one message.")
    raise MisuseError(
        "A prompt must be text, a Message, a list of messages or a Request, "
        f"not {type(prompt).__name__}{': ' + shown(prompt) if prompt is not None else ''}."
    )


def _message_of(item: object) -> Message:
    if isinstance(item, Message):
        return item
    if isinstance(item, Mapping):
        return _message_of_dict(cast("Mapping[str, Any]", item))
    if is_pair(item):
        return Message(item[0], parts_of(item[1]))
    raise MisuseError(
        "A list of messages must contain Messages, {'role', 'content'} dicts or (role, text) pairs, not "
        f"{type(item).__name__}: {shown(item)}. For several prompts, call llm.batch."
    )


def is_pair(item: object) -> TypeGuard[tuple[Any, Any]]:
    """Return whether an item may be a (role, text) pair."""
    return isinstance(item, tuple) and len(cast("Sequence[Any]", item)) == 2


def _message_of_dict(item: Mapping[str, Any]) -> Message:
    if "role" not in item:
        raise MisuseError(f"A message dict needs a 'role' and a 'content'; this one has {sorted(map(str, item))}.")
    fields = Fields(item, "a message dict")
    role = fields.rest.pop("role")
    attributes: dict[str, Any] = {name: fields.rest.pop(name, None) for name in ("name", "extra", "metadata")}
    is_answer = role == "assistant"
    if role == "tool":
        parts: tuple[Part, ...] = (_result_of(fields, attributes.pop("name")),)
    else:
        calls = fields.rest.pop("tool_calls", None) or () if is_answer else ()
        if not isinstance(calls, (list, tuple)):
            raise MisuseError(f"tool_calls must be a list of dicts, not {shown(calls)}.")
        call_parts = [_call_of(index, call) for index, call in enumerate(cast("Sequence[Mapping[str, Any]]", calls))]
        before, after = _read_answer(fields, attributes) if is_answer else ((), ())
        content = fields.rest.pop("content", None)
        if content is None and not (before or after or call_parts):
            raise MisuseError(_no_content(item))
        told = parts_of(content)
        in_content = {part.id for part in told if isinstance(part, ToolCallPart)}  # some proxies write calls twice
        parts = (*before, *told, *after, *(part for part in call_parts if part.id not in in_content))
    fields.end()
    return Message(role, parts, **attributes)


def _result_of(fields: Fields, name: str | None) -> ToolResultPart:
    """Return the tool result in a message of the role ``tool``. Ollama's clients also name the tool in it."""
    if "tool_call_id" not in fields.rest:
        raise MisuseError("A message dict with the role 'tool' needs the 'tool_call_id' of the call that it answers.")
    if fields.rest.get("content") is None:
        raise MisuseError(_no_content(fields.rest))
    name = name or fields.optional("tool_name") or ""
    outcome: Outcome = "error" if fields.flag("is_error") else "ok"
    return ToolResultPart(fields.rest.pop("tool_call_id"), fields.rest.pop("content"), outcome, name)


def _read_answer(fields: Fields, attributes: dict[str, Any]) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Return the parts of an answer that go before and after its content. Add its id and model to `attributes`."""
    attributes["id"], attributes["model"] = fields.optional("id"), fields.optional("model")
    if fields.rest.get("type") == "message":  # a whole answer of Anthropic's API
        for name in ("type", "stop_reason", "stop_sequence", "usage"):
            fields.rest.pop(name, None)
    fields.rest.pop("parsed", None)  # of OpenAI's SDK: the content in the caller's class
    reasoning = fields.optional("reasoning_content") or fields.optional("reasoning")
    before = (ReasoningPart(reasoning),) if reasoning else ()
    after: list[Part] = []
    if citations := fields.items("annotations"):
        after.append(TextPart("", citations=citations))
    if refusal := fields.optional("refusal"):
        after.append(RefusalPart(refusal))
    if fields.rest.get("audio") is not None:
        sound = fields.fields("audio")
        after.append(FilePart("audio/*", file_id=sound.text("id"), provider="openai"))
        for name in ("data", "transcript", "expires_at"):  # the provider stores these under the id
            sound.rest.pop(name, None)
        sound.end()
    after += [part for item in fields.items("images") for part in parts_of(item)]
    return before, tuple(after)


def _no_content(item: Mapping[str, Any]) -> str:
    if "content" in item:
        return (
            "The content of a message dict is None. Only an assistant's message with 'tool_calls' may have no "
            "content: pass text, parts or content dicts."
        )
    import difflib

    keys = sorted(map(str, item))
    near = difflib.get_close_matches("content", keys, 1)
    hint = f" Did you mean 'content' by {near[0]!r}?" if near else ""
    return f"A message dict needs a 'role' and a 'content'; this one has {keys}.{hint}"


def _call_of(index: int, call: Mapping[str, Any]) -> ToolCallPart:
    match call:
        case {"function": {"name": str(name), "arguments": str(arguments), **inner}, **rest} if (
            is_text(call.get("id") or "") and inner.keys() <= {"parsed_arguments"}  # of OpenAI's SDK
        ):
            # The further fields include extra_content, in which Gemini requires its signature back.
            extra = {key: value for key, value in rest.items() if key not in ("id", "type", "index")}
            return ToolCallPart(call.get("id") or "", name, arguments, index, extra=extra or None)
        case _:
            raise MisuseError(
                "A tool call must be a dict with 'id' and 'function', and the function must have a 'name' and "
                f"'arguments' as JSON text; got {shown(call)}."
            )
