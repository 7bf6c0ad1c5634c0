"""Content dicts in OpenAI's and Anthropic's forms: rxllm carries each field, or its MisuseError names the field."""

import pytest

import rxllm
from rxllm import Message, MisuseError, Request
from rxllm.values.parts import (
    CachePoint,
    FilePart,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

URL = "https://host.invalid/a.png"
PIXELS = "data:image/png;base64,UE5H"


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}, (TextPart("hi"), CachePoint())),
        (
            {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
            (TextPart("hi"), CachePoint("1h")),
        ),
        ({"type": "output_text", "text": "a", "annotations": [{"x": 1}]}, (TextPart("a", [{"x": 1}]),)),
        ({"type": "output_text", "text": "a", "logprobs": [], "parsed": {"x": 1}}, (TextPart("a"),)),
        ({"type": "text", "text": "a", "citations": [{"x": 1}]}, (TextPart("a", [{"x": 1}]),)),
        ({"type": "text", "text": "a", "citations": None}, (TextPart("a"),)),
        (
            {"type": "image_url", "image_url": {"url": URL, "detail": "low"}},
            (FilePart("image/*", url=URL, detail="low"),),
        ),
        ({"type": "input_image", "image_url": PIXELS}, (FilePart("image/png", b"PNG"),)),
        ({"type": "image_url", "image_url": {"url": PIXELS}, "index": 0}, (FilePart("image/png", b"PNG"),)),
        (
            {"type": "input_image", "file_id": "file-1", "detail": "high"},
            (FilePart("image/*", file_id="file-1", provider="openai", detail="high"),),
        ),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "UE5H"}},
            (FilePart("image/png", b"PNG"),),
        ),
        ({"type": "image", "source": {"type": "url", "url": URL}}, (FilePart("image/*", url=URL),)),
        (
            {"type": "document", "source": {"type": "file", "file_id": "f1"}, "title": "T", "context": "C"},
            (FilePart("application/pdf", file_id="f1", provider="anthropic", title="T", context="C"),),
        ),
        (
            {"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": True}},
            (FilePart("text/plain", b"x", citable=True),),
        ),
        (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,UERG", "filename": "a.pdf"}},
            (FilePart("application/pdf", b"PDF", name="a.pdf"),),
        ),
        (
            {"type": "file", "file": {"file_id": "f"}},
            (FilePart("application/*", file_id="f", provider="openai"),),
        ),
        ({"type": "input_file", "file_url": "https://x/a.pdf"}, (FilePart("application/pdf", url="https://x/a.pdf"),)),
        (
            {"type": "input_audio", "input_audio": {"data": "UE5H", "format": "mp3"}},
            (FilePart("audio/mpeg", b"PNG"),),
        ),
        (
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            (ReasoningPart("hm", "s", provider="anthropic"),),
        ),
        (
            {"type": "redacted_thinking", "data": "x"},
            (RawPart("anthropic", {"type": "redacted_thinking", "data": "x"}),),
        ),
        ({"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}, (ToolCallPart("c", "f", '{"a":1}'),)),
        (
            {"type": "tool_result", "tool_use_id": "c", "content": "no", "is_error": True},
            (ToolResultPart("c", "no", "error"),),
        ),
        (
            {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "image_url", "image_url": PIXELS}]},
            (ToolResultPart("c", [FilePart("image/png", b"PNG")]),),
        ),
        ({"type": "refusal", "refusal": "no"}, (RefusalPart("no"),)),
        (
            {"type": "server_tool_use", "id": "s", "input": {"q": "tea"}, "cache_control": None},
            (RawPart("anthropic", {"type": "server_tool_use", "id": "s", "input": {"q": "tea"}}),),
        ),
        (
            {"type": "search_result", "title": "t", "cache_control": {"type": "ephemeral"}},
            (RawPart("anthropic", {"type": "search_result", "title": "t"}), CachePoint()),
        ),
    ],
)
def test_content_dict_keeps_every_field(item, expected):
    """Content dicts of both vendors' clients become parts without loss."""
    assert expected == Message("user", [item]).parts


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        (
            {"type": "text", "text": "hi", "colour": "red"},
            "can't carry the field 'colour' of content",
        ),
        (
            {"type": "image_url", "image_url": {"url": URL, "size": 5}},
            "can't carry the field 'size' of the",
        ),
        ({"type": "text", "text": 5}, "The 'text' of content of the type 'text' must be text, not 5"),
        ({"type": "text"}, "must be text, not None"),
        ({"type": "text", "text": "x", "cache_control": {"type": "eternal"}}, "must have the type 'ephemeral'"),
        ({"type": "image", "source": {"type": "magic"}}, "must be base64, text, url or file, not 'magic'"),
        ({"type": "image"}, "must be a dict, not None"),
        ({"type": "input_audio", "input_audio": {"data": "§"}}, "is not valid base64"),
        ({"type": "file", "file": {}}, "needs a 'file_data', a 'file_id' or a 'file_url'"),
        ({"type": "tool_use", "id": "c", "name": "f", "input": "x"}, "'input' of content of the type 'tool_use' must"),
        ({"type": ["text"]}, "does not know content of type"),
    ],
)
def test_unknown_field_of_content_dict_raises_misuse_error_with_its_name(item, sentence):
    """A field that no part can carry raises before anything is sent."""
    with pytest.raises(MisuseError, match=sentence):
        Message("user", [item])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"role": "user", "content": "hi", "name": "Ada"}, Message("user", "hi", name="Ada")),
        (
            {"role": "assistant", "content": "a", "extra": {"prefix": True}},
            Message("assistant", "a", extra={"prefix": True}),
        ),
        (
            {"role": "assistant", "content": "a", "reasoning_content": "hm"},
            Message("assistant", [ReasoningPart("hm"), TextPart("a")]),
        ),
        (
            {"role": "assistant", "content": None, "audio": {"id": "au_1", "transcript": "x"}},
            Message("assistant", [FilePart("audio/*", file_id="au_1", provider="openai")]),
        ),
        (
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "image_url", "image_url": PIXELS}]},
            Message("tool", [ToolResultPart("c", [FilePart("image/png", b"PNG")])]),
        ),
        (
            {"role": "tool", "tool_call_id": "c", "tool_name": "f", "content": "x"},
            Message("tool", [ToolResultPart("c", "x", name="f")]),
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "c", "function": {"name": "f", "arguments": "{}"}, "extra_content": {"google": {"s": 1}}}
                ],
            },
            Message("assistant", [ToolCallPart("c", "f", "{}", extra={"extra_content": {"google": {"s": 1}}})]),
        ),
        (
            {
                "type": "message",
                "id": "m",
                "role": "assistant",
                "content": [{"type": "text", "text": "a"}],
                "usage": {},
            },
            Message("assistant", "a", id="m"),
        ),
    ],
)
def test_message_dict_keeps_every_field(given, expected):
    """Message dicts of OpenAI's, DeepSeek's, Ollama's and Anthropic's clients become Messages without loss."""
    assert (expected,) == Request(prompt=[given]).messages


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"role": "assistant", "content": "x", "prefix": True}, "prefix"),
        ({"role": "user", "content": "x", "tool_calls": [{"id": "c"}]}, "tool_calls"),
        ({"role": "user", "content": "x", "cache_control": {"type": "ephemeral"}}, "cache_control"),
        ({"role": "tool", "tool_call_id": "c", "content": "x", "extra_field": 1}, "extra_field"),
    ],
)
def test_unknown_field_of_message_dict_raises_misuse_error_with_its_name(given, field):
    """The message names the field and tells how to send it with ``extra=``."""
    with pytest.raises(MisuseError, match=rf"can't carry the field '{field}' of a message dict\..*extra="):
        Request(prompt=[given])


def test_message_survives_json_round_trip():
    """`to_json` writes the version of the form, and `from_json` restores every field."""
    message = Message(
        "assistant",
        [
            ReasoningPart("hm", "sig", 0, "rs_1", "openai", {"a": [1]}),
            TextPart("hi", [{"url": "u"}], 1, "sig", "google", {"phase": "final"}),
            ToolCallPart("c", "f", "{}", 0, "sig", "google", {"x": 1}),
            FilePart("image/png", b"PNG", detail="low"),
        ],
        usage=rxllm.Usage(input_tokens=1),
        finish_reason="stop",
        raw_finish_reason="end_turn",
        model="m",
        id="i",
        provider="openai",
        created=1.5,
        interrupted=True,
        name="Ada",
        extra={"prefix": True},
        metadata={"mine": 1},
    )
    record = message.to_json()
    again = Message.from_json(record)
    assert (1, message) == (record["rxllm"], again)
    for name in ("provider", "created", "metadata", "usage"):
        assert getattr(message, name) == getattr(again, name)
    assert [part.provider for part in message.parts] == [part.provider for part in again.parts]


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({}, "has no version"),
        ([], "has no version"),
        ({"rxllm": 2, "role": "user"}, "later rxllm wrote this message, in form 2; this version reads forms up to 1"),
        ({"rxllm": 1, "role": "bard"}, "does not describe a message: Invalid enum value 'bard'"),
        ({"rxllm": 1, "role": "user", "colour": 1}, "unknown field `colour`"),
        ({"rxllm": 1, "role": "user", "parts": [{"type": "hologram"}]}, "a part has the type 'hologram'"),
    ],
)
def test_malformed_or_newer_record_raises_misuse_error(record, sentence):
    """`from_json` names the wrong field, or the version that it does not know."""
    with pytest.raises(MisuseError, match=sentence):
        Message.from_json(record)


def test_value_outside_json_raises_misuse_error():
    """`to_json` raises for a value that JSON cannot express."""
    with pytest.raises(MisuseError, match="can't be written as JSON"):
        Message("user", RawPart("x", {"a": object()})).to_json()


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (Message("user", RawPart("x", {"a": [1.0, float("nan")]})), r"data\['a'\]\[1\] is nan"),
        (Message("user", "x", extra={"a": float("inf")}), r"extra\['a'\] is inf"),
        (Message("user", "x", metadata={"a": float("-inf")}), r"metadata\['a'\] is -inf"),
        (Message("assistant", "x", logprobs={"content": [{"logprob": float("-inf")}]}), r"logprobs\['content'\]\[0\]"),
    ],
)
def test_number_that_json_lacks_raises_misuse_error(message, place):
    """Encoders write such a number as null, so that it would be lost without a word."""
    with pytest.raises(MisuseError, match=f"^{place}.*, which JSON cannot express"):
        message.to_json()


@pytest.mark.parametrize(
    ("written", "media_type"), [("image/jpg", "image/jpeg"), ("IMAGE/PNG", "image/png"), ("audio/wav", "audio/wav")]
)
def test_media_types_have_one_spelling(written, media_type):
    """Vendors refuse image/jpg, which many programs write, and the case does not matter."""
    item = {"type": "image_url", "image_url": {"url": f"data:{written};base64,UE5H"}}
    assert FilePart(media_type, b"PNG") == FilePart(written, b"PNG") == Message("user", [item]).parts[0]


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,UE5HUA==",
        "data:image/png;base64,UE5HUA",
        "data:image/png;base64,UE5HUA%3D%3D",
        "DATA:image/PNG;charset=utf-8;BASE64,UE5HUA==",
        " data:image/png;base64,UE5H\nUA==",
        "data:image/png,PNG%50",
    ],
)
def test_data_url_may_have_every_form(url):
    """The scheme's case, padding and percent signs do not matter; base64 is optional."""
    item = {"type": "image_url", "image_url": {"url": url}}
    assert FilePart("image/png", b"PNGP") == Message("user", [item]).parts[0]


def test_base64_may_have_the_letters_of_urls():
    """Gmail and others write it so; other wrong letters are refused."""
    source = {"type": "base64", "media_type": "image/png", "data": "-_-_"}
    assert FilePart("image/png", b"\xfb\xff\xbf") == Message("user", [{"type": "image", "source": source}]).parts[0]
    with pytest.raises(MisuseError, match="not valid base64"):
        Message("user", [{"type": "image", "source": {**source, "data": "UE5H!"}}])


def test_base64_may_be_broken_into_lines():
    """As base64.encodebytes and many tools write it."""
    source = {"type": "base64", "media_type": "image/png", "data": "UE5\nHUE\r\n5H\n"}
    assert (FilePart("image/png", b"PNGPNG"),) == Message("user", [{"type": "image", "source": source}]).parts
