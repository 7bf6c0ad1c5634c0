"""The writer of Anthropic's requests: conversations, tools and files in the form of the messages protocol."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from ..misuse import MisuseError
from ..values.message import Message
from ..values.parameters import Parameters
from ..values.parts import (
    CachePoint,
    FilePart,
    Part,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from ..values.tools import ResponseSchema, ToolSpec
from ..values.vocabulary import Role
from ._anthropic_parts import ENDINGS
from ._attachments import base64_of
from ._documents import arguments_of, identity_of, list_of, object_of
from ._ids import valid_id
from ._joining import joined
from ._refusals import (
    NO_DETAILS,
    check_effort,
    check_fields,
    check_readable,
    foreign_tool,
    no_messages,
    unsupported_part,
)

__all__ = [
    "container_of",
    "conversation_of",
    "marks_of",
    "output_config",
    "system_of",
    "tool_choice_of",
    "tool_definition",
]

MAKER = "anthropic"
_ID = r"[A-Za-z0-9_-]+"
_SERVED = ("server_tool_use", "mcp_tool_use")  # calls of tools that Anthropic runs
_THINKING = ("thinking", "redacted_thinking")
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


def system_of(messages: tuple[Message, ...]) -> str | list[dict[str, Any]] | None:
    """Return the system's messages, which the protocol keeps apart from the conversation."""
    blocks = [block for message in messages if message.role == "system" for block in _content("system", message.parts)]
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return str(blocks[0]["text"])
    return blocks or None


def conversation_of(messages: tuple[Message, ...], *, unsigned: bool = False) -> list[dict[str, Any]]:
    """Return the turns of the user and the assistant.

    Tool results belong to the user's turn. Consecutive messages of one side become one turn.

    Args:
        messages: the conversation.
        unsigned: whether the server takes its reasoning back without a signature.

    Raises:
        MisuseError: the protocol cannot carry a part, a file or a field of the messages.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        check_fields("Anthropic", message)
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        # Reasoning that broke off lacks its signature also where the server signs.
        content = _content(message.role, message.parts, unsigned=unsigned and not message.interrupted)
        turns.append({"role": role, "content": content})
    turns = joined(_sendable(joined(turns), unsigned=unsigned))
    if not turns:
        raise no_messages("Anthropic")
    for turn in turns:
        if turn["role"] == "user":  # the API requires the results of tools before any other content
            turn["content"].sort(key=_follows_results)
    if turns[-1]["role"] == "assistant" and "text" in (last := turns[-1]["content"][-1]):
        last["text"] = last["text"].rstrip()  # the API rejects white space at the end of an answer to continue
    return turns


def _sendable(turns: Sequence[dict[str, Any]], *, unsigned: bool) -> Iterator[dict[str, Any]]:
    """Yield the turns without the blocks of answers that broke off, which the API rejects.

    It rejects a call of its own tools without a result. The last answer goes on, and so does an answer that waits for
    the results of the program's tools, so their calls stay. It rejects thinking at the end of an answer, too.
    Source: https://github.com/open-gsd/gsd-pi/issues/1330, https://github.com/tailcallhq/forgecode/pull/3073
    """
    answered = {block.get("tool_use_id") for turn in turns for block in turn["content"]}
    for place, turn in enumerate(turns):
        content: list[dict[str, Any]] = turn["content"]
        following: list[dict[str, Any]] = turns[place + 1]["content"] if place + 1 < len(turns) else []
        if turn["role"] == "assistant" and following and all(map(_follows_results, following)):
            content = [each for each in content if each.get("type") not in _SERVED or each.get("id") in answered]
        while turn["role"] == "assistant" and not unsigned and content and content[-1].get("type") in _THINKING:
            content = content[:-1]
        yield {**turn, "content": content}


def container_of(messages: tuple[Message, ...], wanted: object) -> object:
    """Return the container of the request: the wanted one, with the id of the one in which code waits for results.

    The API requires this id, because the code calls the program's tools. After a new question no code waits, and the
    container may have expired.
    Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/programmatic-tool-calling
    """
    identity = _waiting(messages)
    if identity is None or wanted is None:
        return wanted or identity
    return {"id": identity, **cast("Mapping[str, Any]", wanted)} if isinstance(wanted, Mapping) else wanted


def _waiting(messages: tuple[Message, ...]) -> str | None:
    """Return the id of the container of the last answer, if the answer goes on or if results follow it."""
    last = next((at for at in reversed(range(len(messages))) if messages[at].role == "assistant"), None)
    if last is None:
        return None
    raws = [part.data for part in messages[last].parts if isinstance(part, RawPart) and part.provider == MAKER]
    containers = [data["id"] for data in raws if data.get("type") == ENDINGS["container"] and "id" in data]
    following = messages[last + 1 :]
    goes_on = any(isinstance(part, ToolResultPart) for message in following for part in message.parts) or not following
    return identity_of(containers[-1]) if containers and goes_on else None


def _follows_results(block: Mapping[str, Any]) -> bool:
    return block.get("type") != "tool_result"


def _content(role: Role, parts: Iterable[Part], *, unsigned: bool = False) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, CachePoint):
            if not blocks:
                raise MisuseError("A CachePoint caches the parts before it, but this one has none. Put it after them.")
            # The API rejects a mark on thinking, so the block before has the mark, if there is one.
            places = [at for at, block in enumerate(blocks) if block.get("type") not in _THINKING]
            for at in places[-1:]:
                blocks[at] = {**blocks[at], "cache_control": _mark(part)}
        else:
            blocks += _blocks(role, part, unsigned=unsigned)
    return blocks


def marks_of(blocks: Iterable[object]) -> int:
    """Return how many blocks have a mark for the cache, with those in the results of tools."""
    marks = 0
    for block in map(object_of, blocks):
        within = list_of(block.get("content")) if block.get("type") == "tool_result" else []
        marks += ("cache_control" in block) + marks_of(within)
    return marks


def _mark(point: CachePoint) -> dict[str, str]:
    return {"type": "ephemeral", **({"ttl": point.ttl} if point.ttl else {})}


def _blocks(role: Role, part: Part, *, unsigned: bool) -> Iterator[dict[str, Any]]:
    match part:
        case TextPart() | RefusalPart():
            # The API rejects blank texts, although the models send them before a call.
            if part.text and not part.text.isspace():
                yield {"type": "text", "text": part.text, **_citations(role, part)}
        case ReasoningPart() if role == "assistant":
            # Anthropic's API rejects reasoning without its own signature.
            is_own = part.provider == MAKER or (part.provider is None and part.signature)
            if is_own and (part.signature or (unsigned and part.text)):
                yield {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
        case ToolCallPart() if role == "assistant":
            yield {
                "type": "tool_use",
                "id": valid_id(part.id, _ID),
                "name": part.name,
                "input": arguments_of(part.arguments),
                **((part.extra or {}) if part.provider == MAKER else {}),
            }
        case ToolResultPart() if role in ("tool", "user"):
            yield _result(part)
        case FilePart() if role in ("tool", "user"):
            yield _file(part)
        case RawPart(provider="anthropic"):
            if part.data.get("type") not in ENDINGS.values():  # `container_of` returns the container
                yield dict(part.data)
        case RawPart() if role == "assistant":
            pass  # it belongs to another provider
        case _:
            raise unsupported_part("Anthropic", part, role)


def _result(part: ToolResultPart) -> dict[str, Any]:
    items = part.content
    facts: dict[str, Any] = {"is_error": True} if part.is_error else {}
    if items and isinstance(items[-1], CachePoint):  # the mark of the whole result
        facts["cache_control"] = _mark(items[-1])
        items = items[:-1]
    content = part.text if all(isinstance(item, TextPart) for item in items) else _content("user", items)
    if part.is_error and (not content or (isinstance(content, str) and content.isspace())):
        content = NO_DETAILS
    return {"type": "tool_result", "tool_use_id": valid_id(part.id, _ID), "content": content, **facts}


def _citations(role: Role, part: TextPart | RefusalPart) -> dict[str, Any]:
    """Return the text's citations that are in Anthropic's form. Those of other providers are left out."""
    if role != "assistant" or isinstance(part, RefusalPart) or not part.citations:
        return {}
    accepted = [dict(each) for each in part.citations if str(each.get("type")).endswith("_location")]
    return {"citations": accepted} if accepted else {}


def _file(part: FilePart) -> dict[str, Any]:
    kind = part.media_type.partition("/")[0]
    block = "image" if kind == "image" else "document"
    check_readable("Anthropic", part, MAKER)
    source: dict[str, Any]
    if part.file_id is not None:
        source = {"type": "file", "file_id": part.file_id}
    elif kind not in ("image", "text") and part.media_type != "application/pdf":
        raise MisuseError(f"Anthropic takes images, PDF documents and plain text, not {part.media_type}.")
    elif part.data is None:
        source = {"type": "url", "url": part.url}
    elif kind == "text":
        source = {"type": "text", "media_type": "text/plain", "data": part.data.decode("utf-8", "replace")}
    else:
        source = {"type": "base64", "media_type": part.media_type, "data": base64_of(part.data)}
    facts: dict[str, Any] = {}
    if block == "document":
        facts = {"title": part.title or part.name, "context": part.context}
        facts["citations"] = {"enabled": True} if part.citable else None
    return {"type": block, "source": source, **{name: fact for name, fact in facts.items() if fact is not None}}


def tool_definition(tool: ToolSpec | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the definition of a tool."""
    if not isinstance(tool, ToolSpec):
        if "function" in tool or "functionDeclarations" in tool or "parameters" in tool:
            raise foreign_tool(tool)
        return tool
    definition: dict[str, Any] = {"name": tool.name, "input_schema": tool.parameters}
    if tool.description:
        definition["description"] = tool.description
    if tool.strict is not None:
        definition["strict"] = tool.strict
    return definition


def tool_choice_of(parameters: Parameters) -> Mapping[str, Any] | None:
    """Return the tool choice, with the setting for parallel calls."""
    choice = parameters.tool_choice
    if choice is not None and not isinstance(choice, str):
        return choice
    alone = {"disable_parallel_tool_use": True} if parameters.parallel_tool_calls is False else {}
    match choice:
        case None:
            return {"type": "auto", **alone} if alone and parameters.tools else None
        case "auto":
            return {"type": "auto", **alone}
        case "required":
            return {"type": "any", **alone}
        case "none":
            return {"type": "none"}
        case name:
            return {"type": "tool", "name": name, **alone}


def output_config(parameters: Parameters) -> dict[str, Any] | None:
    """Return the response format and the effort.

    Raises:
        MisuseError: the protocol does not have this response format or effort.
    """
    config: dict[str, Any] = {}
    form, effort = parameters.response_format, parameters.effort
    if form == "json":
        raise MisuseError(
            "Anthropic's models answer in JSON by a schema only. Pass a ResponseSchema as response_format."
        )
    if form is not None:
        config["format"] = {"type": "json_schema", "schema": form.schema} if isinstance(form, ResponseSchema) else form
    if effort is not None and effort != "none":
        check_effort("Anthropic", effort, _EFFORTS)
        config["effort"] = effort
    return config or None
