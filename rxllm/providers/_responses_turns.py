"""The writer of Responses requests: conversations, tools and response formats in the protocol's form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from ..misuse import MisuseError
from ..values.content import location_of
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
from ..values.request import Request
from ..values.tools import ResponseSchema, ToolSpec
from ._attachments import base64_of
from ._ids import valid_id
from ._openai_turns import result_text
from ._refusals import check_readable, foreign_tool, unsupported_part

__all__ = ["custom_names", "fits_responses", "response_fields"]

_ID = r"(?s).{1,64}"
# The fields of the chat protocol that the Responses protocol does not have.
_CHAT_FIELDS = {
    "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs", "max_completion_tokens",
    "modalities", "n", "prediction", "presence_penalty", "reasoning_effort", "stream_options", "verbosity",
    "web_search_options",
}  # fmt: skip
_CHAT_MODELS = ("audio", "search-preview", "search-api")
_WITHOUT_REASONING = ("gpt-3.5", "gpt-4", "chatgpt-4o")
_ENCRYPTED = "reasoning.encrypted_content"


def fits_responses(request: Request, model: str) -> bool:
    """Return whether the Responses protocol serves the model and has every feature that the request needs."""
    if request.stop_sequences or request.seed is not None or any(word in model for word in _CHAT_MODELS):
        return False
    if request.extra and not _CHAT_FIELDS.isdisjoint(request.extra):
        return False
    if any(not isinstance(tool, ToolSpec) and "function" in tool for tool in request.tools or ()):
        return False
    if isinstance(request.tool_choice, Mapping) and not {"function", "allowed_tools"}.isdisjoint(request.tool_choice):
        return False
    if isinstance(request.response_format, Mapping) and "json_schema" in request.response_format:
        return False
    return isinstance(request.prompt, str) or all(map(_fits, request.prompt))


def _fits(message: Message) -> bool:
    """Return whether the protocol can carry a message. It cannot carry sound and the fields of chat messages."""
    if message.extra and set(message.extra) != {"phase"}:
        return False
    parts = [*message.parts]
    for part in message.parts:
        parts += part.content if isinstance(part, ToolResultPart) else ()
    return not any(
        (isinstance(part, FilePart) and part.media_type.startswith("audio/"))
        or (isinstance(part, RawPart) and message.role != "assistant" and _is_chat_content(part))
        for part in parts
    )


def _is_chat_content(part: RawPart) -> bool:
    kind = part.data.get("type")
    return part.provider == "openai" and "item" not in part.data and not str(kind).startswith("input_")


def response_fields(request: Request, model: str, maker: str, keeper: str) -> dict[str, Any]:
    """Return the body of a request.

    OpenAI stores the response only if `extra` has ``"store": True``. Otherwise the reasoning arrives encrypted.

    Args:
        request: the request.
        model: the model's name on the server.
        maker: the provider name of the server. Parts with data for another provider go without the data.
        keeper: the provider name whose raw items the server accepts back.

    Raises:
        MisuseError: the protocol lacks a feature that the request needs.
    """
    extra = dict(request.extra)
    stored = extra.get("store") is True
    if request.stop_sequences is not None or request.seed is not None:
        lacking = "seed" if request.stop_sequences is None else "stop_sequences"
        raise MisuseError(f"The Responses protocol has no {lacking}. Leave it out, or pass OpenAI(…, api='chat').")
    for name in ("background", "previous_response_id"):
        if extra.get(name) and not stored:
            raise MisuseError(f"{name} needs a response that OpenAI stores. Add 'store': True to extra.")
    if "input" in extra:
        raise MisuseError(
            "extra can't contain 'input'. Pass the messages as the prompt, as in llm.invoke([('user', 'hi')])."
        )
    streams = request.stream is not False or bool(extra.get("background"))  # only a stream can be resumed
    form = _response_format(request.response_format)
    thinks = not model.removeprefix("ft:").startswith(_WITHOUT_REASONING)
    optional = {
        "max_output_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "tools": None if request.tools is None else [_tool_definition(tool) for tool in request.tools],
        "tool_choice": _tool_choice(request),
        "parallel_tool_calls": request.parallel_tool_calls,
        "reasoning": _united("effort", request.effort, extra.pop("reasoning", None)),
        "text": _united("format", form, extra.pop("text", None)),
        "include": [_ENCRYPTED] if thinks and not stored else None,
        "stream_options": {"include_obfuscation": False} if streams and maker == "openai" else None,
    }
    return {
        "model": model,
        "input": _input(request, maker, keeper, stored=stored),
        "store": False,
        "stream": streams,
        **{name: value for name, value in optional.items() if value is not None},
        **extra,
    }


def _united(name: str, value: object, others: object) -> object:
    """Return an object with this field and the other fields from `extra`."""
    if not isinstance(others, Mapping):
        return others if value is None else {name: value}
    return {**cast("Mapping[str, Any]", others), **({} if value is None else {name: value})}


def _input(request: Request, maker: str, keeper: str, *, stored: bool) -> str | list[dict[str, Any]]:
    """Return the conversation.

    `stored` is True if the server stores responses. Then the id of its reasoning is enough.
    """
    if isinstance(request.prompt, str):
        return request.prompt
    custom = {
        part.id for message in request.prompt for part in message.tool_calls if _item(part).get("type") is not None
    }
    return [item for message in request.prompt for item in _items(message, (maker, keeper), custom, stored=stored)]


def _items(message: Message, makers: tuple[str, str], custom: set[str], *, stored: bool) -> list[dict[str, Any]]:
    maker, keeper = makers
    items: list[dict[str, Any]] = []
    follows: list[str | None] = []  # for each item, the id of the reasoning directly before it

    def add(item: dict[str, Any], after: str | None = None) -> None:
        items.append(item)
        follows.append(after)

    for part in message.parts:
        is_own = getattr(part, "provider", None) == maker
        facts: Mapping[str, Any] = (getattr(part, "extra", None) if is_own else None) or {}
        after = facts.get("follows")
        match part:
            case ReasoningPart() if message.role == "assistant":
                if is_own and (thought := _thought(part, stored=stored)):
                    add(thought)
            case ToolCallPart() if message.role == "assistant":
                field = "input" if _item(part).get("type") == "custom_tool_call" else "arguments"
                call = {"call_id": valid_id(part.id, _ID), "name": part.name, field: part.arguments or "{}"}
                add({"type": "function_call", **call, **facts.get("item", {})}, after)
            case ToolResultPart() if message.role in ("tool", "user"):
                kind = "custom_tool_call_output" if part.id in custom else "function_call_output"
                add({"type": kind, "call_id": valid_id(part.id, _ID), "output": _output(part, maker)})
            case RawPart() if "item" in part.data:
                if part.provider == keeper:  # the server rejects items of other providers' tools
                    add(dict(part.data["item"]), part.data.get("follows"))
            case FilePart() if message.role == "assistant":
                add(_picture(part, keeper))
            case _:
                for content in _content(message, part, maker):
                    last = items[-1] if items else {}
                    own = facts.get("item", {})
                    if "role" in last and not own:
                        last["content"].append(content)
                    else:
                        add({"role": message.role, "content": [content], **own, **(message.extra or {})}, after)
    return [*_consistent(items, follows, maker)]


def _consistent(items: list[dict[str, Any]], follows: list[str | None], maker: str) -> Iterator[dict[str, Any]]:
    """Yield the items. An id is removed if its reasoning, or the item after that reasoning, is missing.

    OpenAI rejects reasoning "without its required following item", and an item without its reasoning.
    """
    for place, item in enumerate(items):
        if item.get("type") == "reasoning":
            following = follows[place + 1] if place + 1 < len(items) else None
            if "id" in item and following != item["id"]:
                del item["id"]
                if not item.keys() & {"encrypted_content", "content"}:
                    continue
        elif (thought := follows[place]) and (place == 0 or items[place - 1].get("id") != thought):
            item.pop("id", None)
        if "role" in item:
            yield _message(item, maker)
        else:
            yield item


def _message(item: dict[str, Any], maker: str) -> dict[str, Any]:
    content = item["content"]
    is_answer = item["role"] == "assistant"
    plain = [each.keys() == {"type", "text"} or not each.get("annotations", True) for each in content]
    if "id" in item:
        return {"type": "message", **item, "status": "completed"}
    # llama.cpp refuses an answer as a plain text: it takes only the form that it sends itself.
    if all(plain) and (maker == "openai" if is_answer else len(content) == 1):
        return {**item, "content": "".join(each["text"] for each in content)}
    return {"type": "message", **item} if is_answer else item


def _thought(part: ReasoningPart, *, stored: bool) -> dict[str, Any] | None:
    """Return the item of some reasoning; None if the server would not accept it.

    The server needs the signature, the id of a stored response, or the reasoning's own content.
    """
    facts = _item(part)
    if not (part.signature or (stored and part.id) or facts.get("content")):
        return None
    summary = [{"type": "summary_text", "text": part.text}] if part.text and not facts else []
    item: dict[str, Any] = {"type": "reasoning", "id": part.id, "summary": summary, **facts}
    if part.signature:
        item["encrypted_content"] = part.signature
    return {name: value for name, value in item.items() if value is not None}


def _item(part: ReasoningPart | ToolCallPart) -> Mapping[str, Any]:
    """Return the fields of the part's item, from the part's extra data."""
    facts: Mapping[str, Any] = (part.extra or {}).get("item") or {}
    return facts


def _content(message: Message, part: Part, maker: str) -> Iterator[dict[str, Any]]:
    role = message.role
    match part:
        case TextPart() if role == "assistant":
            own = [dict(each) for each in part.citations] if part.provider in (None, maker) else []
            accepted = [each for each in own if str(each.get("type")).endswith(("_citation", "_path"))]
            if part.text:
                yield {"type": "output_text", "text": part.text, "annotations": accepted}
        case TextPart() if role != "tool":
            yield {"type": "input_text", "text": part.text}
        case RefusalPart() if role == "assistant":
            yield {"type": "refusal", "refusal": part.text}
        case FilePart() if role == "user":
            yield _file(part, maker)
        case RawPart() if part.provider in ("openai", maker) and role != "assistant":
            yield dict(part.data)
        case CachePoint():
            pass  # servers of this protocol cache prompts automatically
        case RawPart() if role == "assistant":
            pass  # it belongs to another provider or protocol
        case _:
            raise unsupported_part("OpenAI", part, role)


def _output(part: ToolResultPart, maker: str) -> str | list[dict[str, Any]]:
    if all(isinstance(item, (TextPart, CachePoint)) for item in part.content):
        return result_text(part, part.text)
    user = Message("user")
    contents = [content for item in part.content for content in _content(user, item, maker)]
    prefix = result_text(part, "")
    return [*([{"type": "input_text", "text": prefix}] if prefix else []), *contents]


def _picture(part: FilePart, maker: str) -> dict[str, Any]:
    """Write an image that the server's own tool made."""
    if part.provider != maker or not part.file_id or not part.media_type.startswith("image/"):
        raise MisuseError(
            f"OpenAI takes no {part.media_type} file in an assistant message. Send the file in a user message instead."
        )
    result = {} if part.data is None else {"result": base64_of(part.data), "status": "completed"}
    return {"type": "image_generation_call", "id": part.file_id, **result}


def _file(part: FilePart, maker: str) -> dict[str, Any]:
    kind, _, subtype = part.media_type.partition("/")
    if kind == "audio":
        raise MisuseError("The Responses protocol takes no audio. Use OpenAI(…, api='chat').")
    if kind == "video":
        raise MisuseError("The Responses protocol takes no video. Send pictures of it instead.")
    check_readable(maker, part, maker)
    if kind == "image":
        place = {"file_id": part.file_id} if part.file_id else {"image_url": location_of(part)}
        return {"type": "input_image", **place, "detail": part.detail or "auto"}
    if part.file_id:
        return {"type": "input_file", "file_id": part.file_id}
    if part.data is None:
        return {"type": "input_file", "file_url": part.url}
    return {"type": "input_file", "filename": part.name or f"file.{subtype}", "file_data": location_of(part)}


def _tool_definition(tool: ToolSpec | Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the definition of a tool.

    The protocol's default for `strict` is True. The definition says False, because that is the default of `ToolSpec`.
    """
    if isinstance(tool, ToolSpec):
        described = {"description": tool.description} if tool.description else {}
        function = {"name": tool.name, "parameters": tool.parameters, **described, "strict": bool(tool.strict)}
        return {"type": "function", **function}
    if "input_schema" in tool or "functionDeclarations" in tool or "function" in tool:
        raise foreign_tool(tool)
    return tool


def custom_names(parameters: Parameters) -> frozenset[str]:
    """Return the names of the tools that take text instead of JSON."""
    tools = [tool for tool in parameters.tools or () if not isinstance(tool, ToolSpec)]
    return frozenset(str(tool.get("name")) for tool in tools if tool.get("type") == "custom")


def _tool_choice(parameters: Parameters) -> str | Mapping[str, Any] | None:
    """Return the tool choice."""
    choice = parameters.tool_choice
    if choice is None or not isinstance(choice, str) or choice in ("auto", "none", "required"):
        return choice
    return {"type": "custom" if choice in custom_names(parameters) else "function", "name": choice}


def _response_format(form: str | ResponseSchema | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the response format."""
    if isinstance(form, str):
        return {"type": "json_object"}
    if not isinstance(form, ResponseSchema):
        return form
    described = {} if form.description is None else {"description": form.description}
    schema = {"name": form.name, "schema": form.schema, **described, "strict": bool(form.strict)}
    return {"type": "json_schema", **schema}
