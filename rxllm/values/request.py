"""`Request`: a prompt and its parameters; and what counts as a conversation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard, cast

from attrs import field, frozen

from ..misuse import MisuseError, is_text, shown
from ..showing import called, set_fields
from .content import Fields, parts_of
from .message import Message
from .parameters import PARAMETERS, Parameters
from .parts import FilePart, Outcome, Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart

__all__ = ["Prompt", "Request"]


def _content(prompt: Prompt) -> str | tuple[Message, ...]:
    return prompt if isinstance(prompt, str) else _conversation(prompt)


@frozen(kw_only=True)
class Request(Parameters):
    """A prompt and how to answer it: what a provider gets.

    `prompt` is the text or the messages as they were given; `messages` and `text` read it either way.
    """

    prompt: str | tuple[Message, ...] = field(converter=_content)

    def __repr__(self) -> str:
        others = (f"{field.alias}={text}" for field, text in set_fields(self) if field.name != "prompt")
        return called("Request", [f"prompt={self.prompt!r}", *others])

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation; plain text is one message of the user."""
        return (Message("user", self.prompt),) if isinstance(self.prompt, str) else self.prompt

    @property
    def text(self) -> str:
        """The text of the prompt; of several messages, their texts with a blank line between."""
        return self.prompt if isinstance(self.prompt, str) else "\n\n".join(m.text for m in self.prompt if m.text)

    @classmethod
    def ask(cls, prompt: Prompt, parameters: Parameters = Parameters()) -> Request:
        """The request for a prompt; where the prompt is a Request, its own parameters win.

        Raises:
            MisuseError: this is no prompt.
        """
        if isinstance(prompt, Request):
            return prompt.over(parameters)
        request = object.__new__(cls)
        object.__setattr__(request, "prompt", _content(prompt))
        for name in PARAMETERS:  # whose values have been looked at
            object.__setattr__(request, name, getattr(parameters, name))
        return request


MessageLike = Message | Mapping[str, Any] | tuple[str, str]


Prompt = str | Message | Mapping[str, Any] | Sequence[MessageLike] | Request


def _conversation(prompt: object) -> tuple[Message, ...]:
    if isinstance(prompt, (Message, Mapping)):
        return (_message_of(cast("object", prompt)),)
    if isinstance(prompt, (Sequence, Iterable)) and not isinstance(prompt, (bytes, bytearray)):
        items = tuple(cast("Iterable[object]", prompt))
        if isinstance(prompt, tuple) and len(items) == 2 and not isinstance(items[0], (Message, Mapping, tuple)):
            return (_message_of(items),)
        if items:
            return tuple(map(_message_of, items))
        raise MisuseError("An empty list is no prompt; give text or at least one message.")
    raise MisuseError(
        "A prompt is text, a Message, a list of messages or a Request, "
        f"not {type(prompt).__name__}{': ' + shown(prompt) if prompt is not None else ''}."
    )


def _message_of(item: object) -> Message:
    if isinstance(item, Message):
        return item
    if isinstance(item, Mapping):
        return _message_of_dict(cast("Mapping[str, Any]", item))
    if _is_pair(item):
        return Message(item[0], parts_of(item[1]))
    raise MisuseError(
        "A list of messages holds Messages, {'role', 'content'} dicts or (role, text) pairs, not "
        f"{type(item).__name__}: {shown(item)}. Several prompts go to llm.batch."
    )


def _is_pair(item: object) -> TypeGuard[tuple[Any, Any]]:
    return isinstance(item, tuple) and len(cast("Sequence[Any]", item)) == 2


def _message_of_dict(given: Mapping[str, Any]) -> Message:
    if "role" not in given:
        raise MisuseError(f"A message dict needs a 'role' and a 'content'; this one has {sorted(map(str, given))}.")
    fields = Fields(given, "a message dict")
    role = fields.rest.pop("role")
    known: dict[str, Any] = {name: fields.rest.pop(name, None) for name in ("name", "extra", "metadata")}
    is_answer = role == "assistant"
    if role == "tool":
        parts: tuple[Part, ...] = (_result_of(fields, known.pop("name")),)
    else:
        calls = fields.rest.pop("tool_calls", None) or () if is_answer else ()
        if not isinstance(calls, (list, tuple)):
            raise MisuseError(f"tool_calls must be a list of dicts, not {shown(calls)}.")
        asked = [_call_of(index, call) for index, call in enumerate(cast("Sequence[Mapping[str, Any]]", calls))]
        before, after = _answered(fields, known) if is_answer else ((), ())
        content = fields.rest.pop("content", None)
        if content is None and not (before or after or asked):
            raise MisuseError(_no_content(given))
        parts = (*before, *parts_of(content), *after, *asked)
    fields.end()
    return Message(role, parts, **known)


def _result_of(fields: Fields, name: str | None) -> ToolResultPart:
    """The result of a tool: OpenAI's clients write it as a message of its own, Ollama's name the tool, too."""
    if "tool_call_id" not in fields.rest:
        raise MisuseError("A message dict of the role 'tool' needs the 'tool_call_id' that it answers.")
    if fields.rest.get("content") is None:
        raise MisuseError(_no_content(fields.rest))
    name = name or fields.optional("tool_name") or ""
    outcome: Outcome = "error" if fields.flag("is_error") else "ok"
    return ToolResultPart(fields.rest.pop("tool_call_id"), fields.rest.pop("content"), outcome, name)


def _answered(fields: Fields, known: dict[str, Any]) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """The parts of an answer that stand beside its content, before and after it; and its facts, into `known`."""
    known["id"], known["model"] = fields.optional("id"), fields.optional("model")
    if fields.rest.get("type") == "message":  # Anthropic's answers, whole
        for name in ("type", "stop_reason", "stop_sequence", "usage"):
            fields.rest.pop(name, None)
    thought = fields.optional("reasoning_content") or fields.optional("reasoning")
    before = (ReasoningPart(thought),) if thought else ()
    after: list[Part] = []
    if cited := fields.items("annotations"):
        after.append(TextPart("", citations=cited))
    if refusal := fields.optional("refusal"):
        after.append(RefusalPart(refusal))
    if fields.rest.get("audio") is not None:
        sound = fields.fields("audio")
        after.append(FilePart("audio/*", file_id=sound.text("id"), provider="openai"))
        for name in ("data", "transcript", "expires_at"):  # what the provider keeps under the id
            sound.rest.pop(name, None)
        sound.end()
    after += [part for item in fields.items("images") for part in parts_of(item)]
    return before, tuple(after)


def _no_content(given: Mapping[str, Any]) -> str:
    if "content" in given:
        return (
            "The content of a message dict is None, which only that of an assistant's with 'tool_calls' may be: give "
            "text, parts or content dicts."
        )
    import difflib

    keys = sorted(map(str, given))
    near = difflib.get_close_matches("content", keys, 1)
    hint = f" Is {near[0]!r} its 'content'?" if near else ""
    return f"A message dict needs a 'role' and a 'content'; this one has {keys}.{hint}"


def _call_of(index: int, call: Mapping[str, Any]) -> ToolCallPart:
    match call:
        case {"function": {"name": str(name), "arguments": str(arguments), **inner}, **rest} if (
            is_text(call.get("id") or "") and not inner
        ):
            facts = {key: value for key, value in rest.items() if key not in ("id", "type", "index")}
            # Such as extra_content, in which Gemini wants its signature back.
            return ToolCallPart(call.get("id") or "", name, arguments, index, extra=facts or None)
        case _:
            raise MisuseError(
                "A tool call is a dict of 'id' and 'function', which has a 'name' and 'arguments' as JSON text, "
                f"not {shown(call)}."
            )
