"""Frames that continue a text, and whole answers of one text, have decoders of their own.

Their chunks are those of the general decoder.
"""

import json

import pytest

from rxllm.providers import _openai_chat
from rxllm.providers._openai_chat import ChatDecoder, whole_answer

DEVIATIONS = [
    *({"delta": {name: value}} for name in ("reasoning_content", "reasoning", "refusal") for value in (None, "", "Hm")),
    *({"delta": {"content": value}} for value in (None, "", [{"type": "text", "text": "Hi"}], 7)),
    *({"delta": value} for value in (None, {}, {"role": "assistant"}, {"content": "Hi", "unknown": [1]})),
    {"delta": {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "add", "arguments": "{}"}}]}},
    {"delta": {"tool_calls": []}},
    {"delta": {"annotations": [{"type": "url_citation", "url_citation": {"url": "https://example.org"}}]}},
    {"delta": {"images": [{"image_url": {"url": "data:image/png;base64,aGk="}}]}},
    {"delta": {"reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]}},
    *({"index": value} for value in (None, 0, 1, "0")),
    *({"finish_reason": value} for value in (None, "", "null", "stop", "length")),
    *({"logprobs": value} for value in (None, {}, {"content": [{"token": "Hi", "logprob": -1}]})),
    *({"text": value} for value in (None, "", "Hi")),
    *({"usage": value} for value in (None, {"prompt_tokens": 1, "completion_tokens": 2})),
    {"error": {"message": "Overloaded"}},
    {"stop_reason": None, "token_ids": [1]},
]
OUTER = [
    *({"usage": value} for value in (None, {}, {"prompt_tokens": 1, "completion_tokens": 2})),
    *({"error": value} for value in (None, {"message": "Overloaded"})),
    *({"choices": value} for value in (None, [], [None])),
    {"x_groq": {"usage": {"prompt_tokens": 1, "completion_tokens": 2}}},
    {"citations": ["https://example.org"]},
]


def frame(text, /, **changes):
    """A frame of text with these changes in its choice."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    if isinstance(changes.get("delta"), dict):
        changes["delta"] = {"content": text, **changes["delta"]}
    return {"id": "1", "model": "m", "choices": [{**choice, **changes}], "usage": None}


def read(decoder, frames):
    """The chunks of frames, up to an error; and the decoder's state."""
    chunks = []
    for each in frames:
        try:
            chunks.append(decoder.chunk(json.dumps(each).encode()))
        except Exception as error:
            chunks.append((type(error), str(error)))
    return [*chunks, decoder.rest(), decoder.complete, decoder.ended, str(decoder.failure)]


@pytest.mark.parametrize(
    "changed", [*(frame("c", **each) for each in DEVIATIONS), *(frame("c") | each for each in OUTER)]
)
def test_a_deviating_frame_is_read_as_by_the_general_decoder(changed):
    """So are the frames after it."""
    frames = [frame("a"), frame("b"), changed, frame("d"), changed, frame("e")]
    general = ChatDecoder()
    general._is_usual = False
    assert read(general, frames) == read(ChatDecoder(), frames)


def test_texts_stay_with_the_fast_decoder():
    """Fields that are unknown or null change nothing."""
    decoder = ChatDecoder()
    more = {"delta": {"role": None, "refusal": None, "tool_calls": None}, "stop_reason": None}
    read(decoder, [frame("a"), frame("b", **more), frame("c", **more)])
    assert decoder._is_usual


def whole(text, /, **changes):
    """A whole answer of text with these changes in its choice."""
    changes = {"finish_reason": "stop", **changes}
    document = frame(text, **changes)
    (choice,) = document["choices"]
    choice["message"] = choice.pop("delta")
    return document


def outcome(answer, *arguments):
    """What a decoder of whole answers returns or raises."""
    try:
        chunk = answer(*arguments)
    except Exception as error:
        return type(error), str(error)
    return chunk, chunk.provider, chunk.logprobs


@pytest.mark.parametrize(
    "document",
    [
        *(whole("c", **each) for each in DEVIATIONS),
        *(whole("c", finish_reason=word) for word in (None, "", "null", "tool_calls", "content_filter", "error", 7)),
        *(whole("c", delta={"annotations": value}) for value in (None, [], [{"url": "https://example.org"}], "x")),
        *(whole("c") | each for each in OUTER),
        whole("c") | {"choices": whole("c")["choices"] * 2},
        *(whole("c") | {name: value} for name in ("id", "model") for value in (None, "", 7)),
        *(whole("c") | {"usage": value} for value in (7, [], {"prompt_tokens": "1"}, {"input_tokens": 2})),
        {"choices": whole("c")["choices"]},
        [],
    ],
)
def test_whole_answer_is_read_as_by_the_general_decoder(document):
    """Whatever deviates from one text."""
    body = json.dumps(document).encode()
    assert outcome(_openai_chat._any_answer, body, "", "openai") == outcome(whole_answer, body)


def test_usual_whole_answer_needs_no_general_decoder(monkeypatch):
    """With the fields that OpenAI sends."""
    monkeypatch.setattr(_openai_chat, "_any_answer", None)
    details = {"cached_tokens": 1, "audio_tokens": 0}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": details}
    more = {"object": "chat.completion", "created": 1, "service_tier": "default", "usage": usage}
    message = {"role": "assistant", "refusal": None, "annotations": []}
    chunk = whole_answer(json.dumps({**whole("Hi", delta=message), **more}).encode())
    assert ("Hi", "stop", "1", "m") == (chunk.text, chunk.finish_reason, chunk.id, chunk.model)
    assert (3, 2, 1) == (chunk.usage.input_tokens, chunk.usage.output_tokens, chunk.usage.cache_read_input_tokens)
