"""Requests in no vendor's form: one for each kind of part and each parameter, and random mixtures of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen
from hypothesis import strategies as st

from rxllm import (
    LLM,
    CachePoint,
    FilePart,
    Message,
    MisuseError,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    ToolSpec,
)
from rxllm.values.parts import Part
from rxllm.values.tools import ResponseSchema

__all__ = ["Piece", "accepted", "pieces", "requests"]

PNG = b"\x89PNG\r\n\x1a\n"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = ToolSpec("weather", "Tells the weather of a city.", SCHEMA)
BARE = ToolSpec("now")
CITATION = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 6}


@frozen
class Piece:
    """A part of a request: messages, parameters, or both.

    Attributes:
        name: what a test calls it.
        messages: the messages.
        settings: the parameters.
    """

    name: str
    messages: Sequence[Message] = ()
    settings: Mapping[str, Any] = {}

    def body(self, llm: LLM) -> dict[str, Any]:
        """The JSON that is sent.

        Raises:
            MisuseError: the provider refuses the request.
        """
        return dict(llm.preview([*self.messages] or "hi", **self.settings).json)


def _user(name: str, *parts: Part | str) -> Piece:
    return Piece(name, [Message("user", [*parts])])


def _answer(kind: str, *parts: Part, **fields: Any) -> Piece:
    return Piece(kind, [Message("user", "hi"), Message("assistant", parts, **fields), Message("user", "more")])


def _called(name: str, *results: ToolResultPart, **fields: Any) -> Piece:
    calls = [ToolCallPart(result.id, "weather", '{"city": "Ulm"}', index) for index, result in enumerate(results)]
    answer = Message("assistant", calls, **fields)
    told = [Message("tool", [result]) for result in results]
    return Piece(name, [Message("user", "hi"), answer, *told, Message("user", "more")], {"tools": [WEATHER]})


_IMAGE = FilePart("image/png", PNG)

PIECES = [
    _user("text", "hi"),
    _user("texts", "hi", "you"),
    _user("no text", ""),
    Piece("system", [Message("system", "Be brief."), Message("user", "hi")]),
    Piece("system twice", [Message("system", ["Be brief.", "Be kind."]), Message("user", "hi")]),
    Piece("system later", [Message("user", "hi"), Message("system", "Be brief."), Message("user", "go on")]),
    Piece("name", [Message("user", "hi", name="Ada")]),
    _user("image", "Look:", _IMAGE),
    _user("image with detail", FilePart("image/jpeg", PNG, detail="low")),
    _user("image by url", FilePart("image/*", url="https://example.com/a.png", detail="high")),
    _user("image by id", FilePart("image/png", file_id="file-1")),
    _user("pdf", "Read:", FilePart("application/pdf", b"%PDF", name="a.pdf")),
    _user("pdf to cite", "Read:", FilePart("application/pdf", b"%PDF", title="A", context="old", citable=True)),
    _user("pdf by url", "Read:", FilePart("application/pdf", url="https://example.com/a.pdf")),
    _user("pdf by id", "Read:", FilePart("application/pdf", file_id="file-1")),
    _user("text file", "Read:", FilePart("text/plain", b"abc", name="a.txt")),
    _user("sound", "Hear:", FilePart("audio/wav", b"RIFF")),
    _user("video", "See:", FilePart("video/mp4", b"mp4")),
    _user("cache mark", "long", CachePoint()),
    _user("cache mark for an hour", "long", CachePoint("1h")),
    _user("cached image", _IMAGE, CachePoint("5m"), "and?"),
    Piece("cached system", [Message("system", ["Be brief.", CachePoint()]), Message("user", "hi")]),
    _answer("answer", TextPart("Hello.")),
    _answer("answer of two texts", TextPart("Hello."), TextPart("You.", index=1)),
    _answer("empty answer", TextPart("")),
    _answer("answer without parts"),
    _answer("answer with a name", TextPart("Hello."), name="Bob"),
    _answer("refusal", RefusalPart("No.")),
    _answer("text and refusal", TextPart("Well,"), RefusalPart("no.")),
    _answer("reasoning", ReasoningPart("Hm."), TextPart("Hello.")),
    _answer("foreign reasoning", ReasoningPart("Hm.", "sig", id="rs_9", provider="elsewhere"), TextPart("Hello.")),
    _answer(
        "foreign text", TextPart("Hello.", [{"url": "u"}], signature="sig", provider="x", extra={"item": {"a": 1}})
    ),
    _answer("foreign raw part", RawPart("elsewhere", {"type": "server_thing", "x": 1}), TextPart("Hello.")),
    _answer("foreign facts", TextPart("Hello."), id="a", model="m", provider="elsewhere", finish_reason="stop"),
    _answer("cited text", TextPart("Hello.", [CITATION])),
    _called("result", ToolResultPart("call_1", "wet", name="weather")),
    _called("results", ToolResultPart("call_1", "wet"), ToolResultPart("call_2", "dry", "error")),
    _called("denied result", ToolResultPart("call_1", "", "denied"), ToolResultPart("call_2", "x", "interrupted")),
    _called("odd ids", ToolResultPart("call:1/ä" * 20, "wet")),
    _called("result with an image", ToolResultPart("call_1", ["see", _IMAGE], name="weather")),
    _called("result of an image", ToolResultPart("call_1", [_IMAGE], "error", "weather")),
    _called("result with a pdf", ToolResultPart("call_1", [FilePart("application/pdf", b"%PDF", name="a.pdf")])),
    _called("result with a text file", ToolResultPart("call_1", [FilePart("text/plain", b"abc", name="a.txt")])),
    _called("cached result", ToolResultPart("call_1", ["wet", CachePoint()])),
    Piece(
        "call with a text",
        [
            Message("user", "hi"),
            Message("assistant", [TextPart("I look."), ToolCallPart("c_1", "now", "")]),
            Message("user", [ToolResultPart("c_1", "noon", name="now"), TextPart("and?")]),
        ],
        {"tools": [BARE]},
    ),
    Piece("model", settings={"model": "other-1"}),
    Piece("temperature", settings={"temperature": 0.5}),
    Piece("no temperature", settings={"temperature": 0}),
    Piece("top_p", settings={"top_p": 0.9}),
    Piece("top_k", settings={"top_k": 40}),
    Piece("max_tokens", settings={"max_tokens": 10}),
    Piece("stop sequences", settings={"stop_sequences": ["END", "\nUser:"]}),
    Piece("seed", settings={"seed": 7}),
    Piece("whole", settings={"stream": False}),
    Piece("tool", settings={"tools": [WEATHER]}),
    Piece("bare tool", settings={"tools": [BARE]}),
    Piece("strict tool", settings={"tools": [ToolSpec("weather", "W", SCHEMA, strict=True)]}),
    Piece("lenient tool", settings={"tools": [ToolSpec("weather", "W", SCHEMA, strict=False)]}),
    Piece("tools", settings={"tools": [WEATHER, BARE]}),
    Piece("parallel calls", settings={"tools": [WEATHER], "parallel_tool_calls": True}),
    Piece("no parallel calls", settings={"tools": [WEATHER], "parallel_tool_calls": False}),
    *(
        Piece(f"tool_choice {choice}", settings={"tools": [WEATHER], "tool_choice": choice})
        for choice in ("auto", "none", "required", "weather")
    ),
    *(
        Piece(f"effort {effort}", settings={"effort": effort})
        for effort in ("none", "minimal", "low", "medium", "high", "xhigh", "max")
    ),
    Piece("json", settings={"response_format": "json"}),
    Piece("schema", settings={"response_format": SCHEMA}),
    Piece(
        "named schema",
        settings={"response_format": ResponseSchema(SCHEMA, "city", strict=True, description="A city.")},
    ),
]


def pieces(own: Sequence[Message]) -> list[Piece]:
    """All kinds of pieces; `own` are answers of the vendor that is asked."""
    hi = Message("user", "hi")
    mine = []
    for number, answer in enumerate(own):
        results = [Message("tool", [ToolResultPart(call.id, "wet", name=call.name)]) for call in answer.tool_calls]
        turns = [hi, answer, *results, Message("user", "more")]
        mine.append(Piece(f"own answer {number}", turns, {"tools": [WEATHER]} if results else {}))
    return [*PIECES, *mine]


def accepted(llm: LLM, candidates: Sequence[Piece]) -> Iterator[Piece]:
    """The pieces that this model sends."""
    for piece in candidates:
        try:
            piece.body(llm)
        except MisuseError:
            continue
        yield piece


_TEXTS = st.text(max_size=8).map(TextPart)
_IDS = st.text(min_size=1, max_size=70)
_ARGUMENTS = st.sampled_from(["", "{}", '{"city": "Ulm"}', "[1]", "{broken"])
_CALLS = st.tuples(_IDS, _ARGUMENTS).map(lambda drawn: ToolCallPart(drawn[0], "weather", drawn[1]))
_THOUGHTS = st.text(max_size=8).map(ReasoningPart) | st.just(ReasoningPart("Hm.", "sig"))
_RESULTS = st.tuples(_IDS, st.text(max_size=8), st.sampled_from(["ok", "error"])).map(
    lambda drawn: ToolResultPart(*drawn, "weather")
)
_MESSAGES = st.one_of(
    st.lists(_TEXTS | st.just(_IMAGE), min_size=1, max_size=3).map(lambda parts: Message("user", parts)),
    st.lists(_TEXTS | _CALLS | _THOUGHTS, min_size=1, max_size=3).map(lambda parts: Message("assistant", parts)),
    st.lists(_RESULTS, min_size=1, max_size=2).map(lambda parts: Message("tool", parts)),
)


def requests(candidates: Sequence[Piece]) -> st.SearchStrategy[Piece]:
    """Mixtures of a few pieces in any order, with texts and ids of their own."""
    chosen = st.lists(st.sampled_from(candidates), min_size=1, max_size=3)
    return st.tuples(chosen, st.lists(_MESSAGES, max_size=2), st.booleans()).map(lambda drawn: _mixed(*drawn))


def _mixed(chosen: Sequence[Piece], more: Sequence[Message], backwards: bool) -> Piece:
    messages = [message for piece in chosen for message in piece.messages]
    settings: dict[str, Any] = {}
    for piece in chosen:
        settings |= piece.settings
    return Piece("a mixture", [*more, *(reversed(messages) if backwards else messages)], settings)
