"""Chat answers that are pictures or sounds."""

import base64
import json

import pytest
from protocols import sse

from rxllm import FilePart, MisuseError, OpenAI, ProtocolError, TextPart
from rxllm.testing import FakeServer, Reply

PIXELS = b"\x89PNG\r\n\x1a\npixels"
PICTURE = FilePart("image/png", PIXELS)
URL = "data:image/png;base64," + base64.b64encode(PIXELS).decode()
SOUND = b"RIFF....WAVEsound and some more of it"


def asked(*deltas, stream=True, **parameters):
    """The answer that these deltas are, or that the only one is."""
    if stream:
        choices = [{"index": 0, "delta": delta} for delta in deltas] + [
            {"index": 0, "delta": {}, "finish_reason": "stop"}
        ]
        body = b"".join(b"data: %s\n\n" % json.dumps({"choices": [choice]}).encode() for choice in choices)
    else:
        body = json.dumps({"choices": [{"message": deltas[0], "finish_reason": "stop"}]}).encode()
    with FakeServer(Reply(body)) as server:
        return OpenAI("m", base_url=server.url, max_retries=0).invoke("hi", stream=stream, **parameters)


BOTH = pytest.mark.parametrize("stream", [True, False])


@BOTH
@pytest.mark.parametrize(
    "delta",
    [
        {"images": [{"type": "image_url", "image_url": {"url": URL}}]},
        {"content": None, "images": [{"image_url": URL}]},
        {"content": "", "images": [{"url": URL}]},
        {"images": [{"b64_json": URL.partition(",")[2]}]},
        {"images": [URL]},
        {"content": [{"type": "image_url", "image_url": {"url": URL}}]},
    ],
)
def test_a_picture_is_a_file(delta, stream):
    """In whichever field a server puts it."""
    assert (PICTURE,) == asked(delta, stream=stream).parts


@BOTH
def test_a_picture_beside_text(stream):
    """The answer has both; a picture on another server has its URL."""
    images = [{"image_url": {"url": URL}}, {"image_url": {"url": "https://example.com/a.png"}}]
    answer = asked({"content": "Here: ", "images": images}, stream=stream)
    assert (TextPart("Here: "), PICTURE, FilePart("image/*", url="https://example.com/a.png")) == answer.parts


def encoded(data):
    """Its base64."""
    return base64.b64encode(data).decode()


WHOLE = encoded(SOUND)


@pytest.mark.parametrize(
    "pieces",
    [[WHOLE], [encoded(SOUND[:5]), encoded(SOUND[5:])], [WHOLE[:7], WHOLE[7:9], WHOLE[9:]]],
    ids=["whole", "each of its own", "cut"],
)
def test_a_sound_that_comes_in_pieces_is_one_file(pieces):
    """Its id is the file_id, and its transcript is text."""
    deltas = [{"audio": {"id": "audio_1", "transcript": "Hel"}}, {"audio": {"transcript": "lo"}}]
    answer = asked(*deltas, *({"audio": {"data": piece}} for piece in pieces), {"audio": {"expires_at": 1}})
    assert (TextPart("Hello"), FilePart("audio/wav", SOUND, file_id="audio_1")) == answer.parts


def test_a_sound_of_a_whole_answer_is_a_file():
    """Its media type is that of the requested format."""
    audio = {"id": "audio_1", "data": encoded(b"abc"), "transcript": "Hi", "expires_at": 1}
    answer = asked({"content": None, "audio": audio}, stream=False, extra={"audio": {"format": "mp3", "voice": "v"}})
    assert (TextPart("Hi"), FilePart("audio/mpeg", b"abc", file_id="audio_1")) == answer.parts


@BOTH
def test_a_sound_that_is_no_base64_is_an_error(stream):
    """It raises ProtocolError."""
    with pytest.raises(ProtocolError, match="not valid base64"):
        asked({"audio": {"data": "???"}}, stream=stream)


def test_files_go_back_as_they_came():
    """A picture in the field that it came in, a sound by its id."""
    answer = asked({"content": "Here", "images": [URL], "audio": {"id": "a1", "data": WHOLE}})
    with FakeServer(Reply(b"data: [DONE]\n\n")) as server:
        OpenAI("m", base_url=server.url).invoke([("user", "a picture"), answer, ("user", "another")])
        sent = server.exchange(0).request.json["messages"][1]
    assert {
        "role": "assistant",
        "content": "Here",
        "images": [{"type": "image_url", "image_url": {"url": URL}}],
        "audio": {"id": "a1"},
    } == sent


def test_a_file_that_cannot_go_back_is_refused():
    """Before anything is sent."""
    answer = asked({"images": [URL]})
    with pytest.raises(MisuseError, match="no image/png file in an assistant message"):
        OpenAI("m", api_key="k").invoke([answer, ("user", "another")])


@BOTH
def test_citations_belong_to_the_text_before_them(stream):
    """Streamed and whole."""
    cited = {"type": "url_citation", "url_citation": {"url": "https://example.com", "title": "Example"}}
    delta = {"content": "It is so.", "annotations": [cited]}
    assert (TextPart("It is so.", (cited,)),) == asked(delta, stream=stream).parts
    assert (TextPart("It is so.", (cited,)),) == asked({"content": "It is so."}, {"annotations": [cited]}).parts


FOUND = {"title": "Example", "url": "https://example.com", "date": "2026-01-01"}
SOURCES = [
    ({"search_results": [FOUND], "citations": ["https://example.com"]}, FOUND),  # Perplexity, in each frame
    ({"citations": ["https://example.com"]}, {"url": "https://example.com"}),  # xAI, at the end
]


@pytest.mark.parametrize(("fields", "cited"), SOURCES)
def test_sources_beside_the_choices_are_citations(fields, cited):
    """Once, however often the server repeats them."""
    deltas = [("It is", None), (" so.", None), ("", "stop")]
    frames = [{"choices": [{"index": 0, "delta": {"content": d}, "finish_reason": f}], **fields} for d, f in deltas]
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}, **fields}
    stream = Reply(b"".join(map(sse, [*frames, usage])) + b"data: [DONE]\n\n", content_type="text/event-stream")
    whole = {"choices": [{"index": 0, "message": {"content": "It is so."}, "finish_reason": "stop"}], **fields}
    with FakeServer(stream, Reply.json(whole)) as server:
        llm = OpenAI("sonar", base_url=server.url)
        assert [(TextPart("It is so.", (cited,)),)] * 2 == [llm.invoke("?", stream=s).parts for s in (True, False)]


@BOTH
def test_unknown_items_of_the_content_go_back_as_they_came(stream):
    """Such as Mistral's references between the texts."""
    reference = {"type": "reference", "reference_ids": [1, 2]}
    content = [
        {"type": "text", "text": "So it is"},
        reference,
        {"type": "text", "text": "."},
        {"type": "text", "text": ""},
    ]
    answer = asked({"content": content}, stream=stream)
    assert ["TextPart", "RawPart", "TextPart"] == [type(part).__name__ for part in answer.parts]
    assert "So it is." == answer.text
    with FakeServer(Reply(b"data: [DONE]\n\n")) as server:
        OpenAI("m", base_url=server.url).invoke([("user", "hi"), answer, ("user", "and?")])
        sent = server.exchange(0).request.json["messages"][1]
    assert content[:3] == sent["content"]
