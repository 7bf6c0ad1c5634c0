"""Chat answers that are pictures or sounds."""

import base64
import json

import pytest

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
    """Wherever a server puts it."""
    assert (PICTURE,) == asked(delta, stream=stream).parts


@BOTH
def test_a_picture_beside_text(stream):
    """Both are heard, and pictures that are elsewhere have their address."""
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
    """Its id is the file's name, what is said in it is text."""
    deltas = [{"audio": {"id": "audio_1", "transcript": "Hel"}}, {"audio": {"transcript": "lo"}}]
    answer = asked(*deltas, *({"audio": {"data": piece}} for piece in pieces), {"audio": {"expires_at": 1}})
    assert (TextPart("Hello"), FilePart("audio/wav", SOUND, file_id="audio_1")) == answer.parts


def test_a_sound_of_a_whole_answer_is_a_file():
    """Its kind is the one that was asked for."""
    audio = {"id": "audio_1", "data": encoded(b"abc"), "transcript": "Hi", "expires_at": 1}
    answer = asked({"content": None, "audio": audio}, stream=False, extra={"audio": {"format": "mp3", "voice": "v"}})
    assert (TextPart("Hi"), FilePart("audio/mpeg", b"abc", file_id="audio_1")) == answer.parts


@BOTH
def test_a_sound_that_is_no_base64_is_an_error(stream):
    """Nothing else could be made of it."""
    with pytest.raises(ProtocolError, match="not valid base64"):
        asked({"audio": {"data": "???"}}, stream=stream)


def test_files_go_back_as_they_came():
    """A picture in the field it came in, a sound by its id."""
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
def test_citations_are_heard(stream):
    """They belong to the text before them."""
    cited = {"type": "url_citation", "url_citation": {"url": "https://example.com", "title": "Example"}}
    delta = {"content": "It is so.", "annotations": [cited]}
    assert (TextPart("It is so.", (cited,)),) == asked(delta, stream=stream).parts
    assert (TextPart("It is so.", (cited,)),) == asked({"content": "It is so."}, {"annotations": [cited]}).parts
