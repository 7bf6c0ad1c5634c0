"""Answers in the format of OpenAI's ``/v1/responses``: streams and whole answers.

A response is a list of items: messages, reasoning, tool calls. Each event of a stream names its item by the position in
this list. Source: https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ..values.characters import json_bytes
from ..values.chat_answer import VisibleCalls, new_id
from ..values.parts import FilePart, Part, ReasoningPart, RefusalPart, TextPart, ToolCallPart
from ..values.usage import Usage
from ..values.vocabulary import FinishReason
from .failures import HTTPFailure
from .openai_chat import error_body, error_fields
from .openai_items import picture_fields, response_usage
from .wording import chunk_of, refuse_reset

__all__ = ["ResponseEvents", "WholeResponse"]

Item = dict[str, Any]
Event = dict[str, Any]


_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter", "error": "error", "other": "other"}
_KINDS: Mapping[type[object], tuple[str, str]] = {  # the type of a part's item, and the prefix of the item's id
    TextPart: ("message", "msg_"),
    RefusalPart: ("message", "msg_"),
    ReasoningPart: ("reasoning", "rs_"),
}
_DELTAS: Mapping[type[object], str] = {
    TextPart: "response.output_text.delta",
    RefusalPart: "response.refusal.delta",
    ReasoningPart: "response.reasoning_summary_text.delta",
}
_LOGPROBS: Mapping[type[object], dict[str, Any]] = {TextPart: {"logprobs": []}}  # clients require the field


class _Content:
    """The open piece of an item: a text, a refusal or a summary of reasoning."""

    def __init__(self, output_index: int, item: Item, index: int, part: Part) -> None:
        self.place: Event = {"item_id": item["id"], "output_index": output_index}
        self.item = item
        self.kind = type(part)
        self.texts: list[str] = []
        self.annotations: list[dict[str, Any]] = []
        self.place["summary_index" if self.kind is ReasoningPart else "content_index"] = index

    def fields(self, *, done: bool) -> dict[str, Any]:
        """Return the piece as the item holds it: empty at first, whole at its end."""
        text = "".join(self.texts) if done else ""
        if self.kind is ReasoningPart:
            return {"type": "summary_text", "text": text}
        if self.kind is RefusalPart:
            return {"type": "refusal", "refusal": text}
        annotations = self.annotations if done else []
        return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}


class ResponseEvents:
    """A stream of the events of a response.

    Attributes:
        calls: the tool calls that the client sees.
    """

    media_type = "text/event-stream"
    ping = b": ping\n\n"

    def __init__(self, model: str, *, tools: Collection[str] = (), echoed: Mapping[str, Any] | None = None) -> None:
        self.calls = VisibleCalls(frozenset(tools).__contains__)
        self._head = {
            "id": new_id("resp_"),
            "object": "response",
            "created_at": int(time.time()),
            "model": model,
            **(echoed or {}),
        }
        self._output: list[Item] = []
        self._content: _Content | None = None  # the open piece
        self._open_calls: dict[int, tuple[int, Item, list[str]]] = {}  # by position: output index, item, arguments
        self._number = 0
        self._usage: Usage | None = None
        self._reason: FinishReason | None = None
        self._text_before = b""  # the bytes before a text of the open piece, with a place for the event's number

    def begin(self) -> bytes:
        """Return the events that begin the response."""
        response = self._response("in_progress")
        return self._lines(
            [{"type": "response.created", "response": response}, {"type": "response.in_progress", "response": response}]
        )

    def encode(self, item: object) -> bytes:
        """Return the events of one item."""
        chunk = chunk_of(item)
        if chunk.rest is None and self._content is not None and self._content.kind is TextPart and chunk.text:
            self._content.texts.append(chunk.text)
            self._number += 1
            return self._text_before % self._number + json_bytes(chunk.text) + b"}\n\n"
        if chunk.reset and self._output:
            raise refuse_reset()
        self._usage = chunk.usage or self._usage
        self._reason = chunk.finish_reason or self._reason
        return self._lines(event for part in chunk.parts for event in self._events(part))

    def end(self) -> bytes:
        """Return the events that close the items and the response."""
        closing = self._lines(self._close())
        response = self.response()
        return closing + self._line({"type": f"response.{response['status']}", "response": response})

    def response(self) -> dict[str, Any]:
        """Return the whole response."""
        return self._response("incomplete" if self._reason in _INCOMPLETE else "completed")

    def fail(self, failure: HTTPFailure) -> bytes:
        """Return the event of an error. It has the fields at both places where clients look for them."""
        fields = error_fields(failure)
        facts = {name: fields[name] for name in ("code", "message", "param")}
        return self._line({"type": "error", **facts, "error": fields})

    def refuse(self, failure: HTTPFailure) -> bytes:
        """Return the body of an error response."""
        return error_body(failure)

    def _response(self, status: str) -> dict[str, Any]:
        ended = status != "in_progress"
        reason = _INCOMPLETE.get(self._reason or "") if status == "incomplete" else None
        return {
            **self._head,
            "status": status,
            "output": [*self._output] if ended else [],
            "error": None,
            "incomplete_details": None if reason is None else {"reason": reason},
            "usage": response_usage(self._usage or Usage()) if ended else None,
        }

    def _line(self, event: Event) -> bytes:
        self._number += 1
        kind: str = event["type"]
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), json_bytes({**event, "sequence_number": self._number}))

    def _lines(self, events: Iterable[Event]) -> bytes:
        return b"".join(map(self._line, events))

    def _events(self, part: Part) -> Iterator[Event]:
        seen = self.calls.see(part)
        if isinstance(part, (TextPart, RefusalPart, ReasoningPart)):
            if part.text or (isinstance(part, TextPart) and part.citations and self._content is not None):
                yield from self._piece(part)
        elif isinstance(part, ToolCallPart) and seen is not None:
            yield from self._call(part, *seen)
        elif isinstance(part, FilePart):
            yield from self._picture(part)

    def _piece(self, part: TextPart | RefusalPart | ReasoningPart) -> Iterator[Event]:
        content = self._content
        if content is None or content.kind is not type(part):
            content, events = self._open(part)
            yield from events
        content.texts.append(part.text)
        if part.text:
            yield {
                "type": _DELTAS[content.kind],
                **content.place,
                "delta": part.text,
                **_LOGPROBS.get(content.kind, {}),
            }
        if isinstance(part, TextPart):
            yield from _annotations(content, part)

    def _open(self, part: Part) -> tuple[_Content, list[Event]]:
        """Open a piece: in the open item if it is of the same type, else in a new item."""
        kind, prefix = _KINDS[type(part)]
        before = self._content
        if before is not None and before.item["type"] == kind:
            events = self._close_content(before)
            index, item = before.place["output_index"], before.item
        else:
            item = {"id": new_id(prefix), "type": kind, "status": "in_progress"}
            item |= {"summary": []} if kind == "reasoning" else {"role": "assistant", "content": []}
            events = [*self._close_item(), self._added(item)]  # open calls stay open: their arguments may go on
            index = len(self._output) - 1
        pieces = item["summary" if kind == "reasoning" else "content"]
        content = self._content = _Content(index, item, len(pieces), part)
        name = "reasoning_summary_part" if kind == "reasoning" else "content_part"
        events.append({"type": f"response.{name}.added", **content.place, "part": content.fields(done=False)})
        if content.kind is TextPart:
            facts = json_bytes({"type": _DELTAS[TextPart], **content.place, "logprobs": []})
            head = b"event: %s\ndata: %s" % (_DELTAS[TextPart].encode(), facts[:-1])
            self._text_before = head + b',"sequence_number":%d,"delta":'
        return content, events

    def _call(self, part: ToolCallPart, position: int, opens: bool) -> Iterator[Event]:
        if opens:
            yield from self._close_item()
            item: Item = {"id": new_id("fc_"), "type": "function_call", "status": "in_progress"}
            item |= {"call_id": part.id or new_id("call_"), "name": part.name, "arguments": ""}
            yield self._added(item)
            self._open_calls[position] = (len(self._output) - 1, item, [])
        index, item, arguments = self._open_calls[position]
        if part.arguments:
            arguments.append(part.arguments)
            place = {"item_id": item["id"], "output_index": index}
            yield {"type": "response.function_call_arguments.delta", **place, "delta": part.arguments}

    def _picture(self, part: FilePart) -> Iterator[Event]:
        done = picture_fields(part)
        yield from self._close_item()
        item: Item = {"id": new_id("ig_"), "type": "image_generation_call", "status": "in_progress", "result": None}
        yield self._added(item)
        item.update(done)
        index = len(self._output) - 1
        yield {"type": "response.image_generation_call.completed", "item_id": item["id"], "output_index": index}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}

    def _added(self, item: Item) -> Event:
        self._output.append(item)
        return {"type": "response.output_item.added", "output_index": len(self._output) - 1, "item": {**item}}

    def _close(self) -> list[Event]:
        """Close the open piece with its item, and the open calls."""
        events = self._close_item()
        for index, item, arguments in self._open_calls.values():
            item.update(arguments="".join(arguments), status="completed")
            facts = {"item_id": item["id"], "output_index": index, "name": item["name"]}
            events.append({"type": "response.function_call_arguments.done", **facts, "arguments": item["arguments"]})
            events.append({"type": "response.output_item.done", "output_index": index, "item": item})
        self._open_calls.clear()
        return events

    def _close_item(self) -> list[Event]:
        """Close the open piece with its item, if there is one."""
        content = self._content
        if content is None:
            return []
        events = self._close_content(content)
        content.item["status"] = "completed"
        index = content.place["output_index"]
        return [*events, {"type": "response.output_item.done", "output_index": index, "item": content.item}]

    def _close_content(self, content: _Content) -> list[Event]:
        self._content = None
        piece = content.fields(done=True)
        if content.kind is ReasoningPart:
            content.item["summary"].append(piece)
            kind, name, field = "reasoning_summary_text", "reasoning_summary_part", "text"
        else:
            content.item["content"].append(piece)
            kind, name = piece["type"], "content_part"
            field = "refusal" if content.kind is RefusalPart else "text"
        logprobs = _LOGPROBS.get(content.kind, {})
        return [
            {"type": f"response.{kind}.done", **content.place, field: piece[field], **logprobs},
            {"type": f"response.{name}.done", **content.place, "part": piece},
        ]


class WholeResponse(ResponseEvents):
    """A whole response as one JSON document. A ping is a space, which JSON allows before a document."""

    media_type = "application/json"
    ping = b" "

    def begin(self) -> bytes:
        """Return no bytes: the document is the only item."""
        return b""

    def encode(self, item: object) -> bytes:
        """Return the document of an answer."""
        super().encode(item)
        self._close()
        return json_bytes(self.response())

    def end(self) -> bytes:
        """Return no bytes: the document is complete."""
        return b""


def _annotations(content: _Content, part: TextPart) -> Iterator[Event]:
    """Add the web pages that a text cites."""
    for citation in part.citations:
        if not isinstance(url := citation.get("url"), str):
            continue
        end = sum(map(len, content.texts))
        span = {"start_index": end - len(part.text), "end_index": end}
        annotation = {"type": "url_citation", "url": url, "title": str(citation.get("title") or ""), **span}
        number = len(content.annotations)
        content.annotations.append(annotation)
        kind = "response.output_text.annotation.added"
        yield {"type": kind, **content.place, "annotation_index": number, "annotation": annotation}
