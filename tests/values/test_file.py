"""`rxllm.file`: parts for files on disk."""

import asyncio
import base64
import json
import os
import pickle
import threading
from pathlib import Path

import pytest
from attrs import field, frozen
from protocols import Chat

import rxllm
import rxllm.operators.reading
import rxllm.values.disk
from rxllm import LLM, FilePart, Message, MisuseError, OpenAI, ToolResultPart
from rxllm.bounds import FILE_BYTES, IMAGE_BYTES
from rxllm.testing import FakeServer, Replay, Reply, record

PNG = b"\x89PNG\r\n\x1a\npixels"
JPEG = b"\xff\xd8\xff\xe0pixels"


@frozen
class Looker(LLM):
    """A model that keeps the prompts it gets."""

    seen: list = field(factory=list, eq=False)

    async def complete(self, request):
        """Keep the prompt."""
        self.seen.append(request.prompt)
        return "I see."


@pytest.fixture
def photo(tmp_path):
    """The path of a picture."""
    path = tmp_path / "photo.png"
    path.write_bytes(PNG)
    return path


@pytest.fixture
def reads(monkeypatch):
    """The threads in which files were read."""
    threads = []
    real = rxllm.operators.reading.read_files

    def spy(request):
        threads.append(threading.current_thread())
        return real(request)

    monkeypatch.setattr(rxllm.operators.reading, "read_files", spy)
    return threads


def sent(llm):
    """The parts that the model got with the last prompt."""
    return llm.seen[-1][0].parts


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("convert", [str, Path], ids=["str", "Path"])
def test_the_model_gets_the_bytes_and_no_path(photo, convert):
    """The name of the file goes with them."""
    llm = Looker()
    llm.invoke(Message("user", [rxllm.file(convert(photo)), "What is this?"]))
    assert (FilePart("image/png", PNG, name="photo.png"), rxllm.TextPart("What is this?")) == sent(llm)


def test_the_file_is_read_with_the_request_not_before(photo):
    """`file` works before the file exists, and each request reads what the file holds then."""
    photo.unlink()
    part, llm = rxllm.file(photo), Looker()
    stream = llm(Message("user", part))
    photo.write_bytes(PNG)
    stream.run()
    photo.write_bytes(JPEG)
    llm.invoke(Message("user", part))
    assert [PNG, JPEG] == [prompt[0].parts[0].data for prompt in llm.seen]


async def test_files_are_read_in_another_thread(photo, reads):
    """Never on the event loop."""
    await Looker().ainvoke(Message("user", rxllm.file(photo)))
    assert 1 == len(reads)
    assert threading.current_thread() not in reads


def test_a_relative_path_starts_where_the_process_was(photo, monkeypatch):
    """Not where the process is when the request is sent."""
    monkeypatch.chdir(photo.parent)
    part, llm = rxllm.file("photo.png"), Looker()
    monkeypatch.chdir("/")
    llm.invoke(Message("user", part))
    assert PNG == sent(llm)[0].data


def test_a_file_in_a_tool_result_is_read(photo):
    """Also in lists of messages with other turns."""
    llm = Looker()
    result = Message("tool", ToolResultPart("1", [rxllm.file(photo), "the chart"]))
    llm.invoke([Message("user", "Draw"), result])
    before, after = llm.seen[-1]
    assert Message("user", "Draw") == before
    assert PNG == after.parts[0].content[0].data


def test_each_file_of_a_request_is_read_once(photo, monkeypatch):
    """However often it occurs."""
    read, real = [], rxllm.values.disk.content_of
    monkeypatch.setattr(rxllm.values.disk, "content_of", lambda path: read.append(path) or real(path))
    Looker().invoke([Message("user", [rxllm.file(photo), rxllm.file(photo)]), Message("user", rxllm.file(photo))])
    assert 1 == len(read)


@pytest.mark.parametrize(
    "combine",
    [
        lambda llm: rxllm.retry(llm, attempts=3, delay=lambda error, attempt: 0),
        lambda llm: rxllm.fallback(llm, llm, llm),
        lambda llm: rxllm.limited(rxllm.fallback(llm, llm, llm), rxllm.Limiter(concurrency=1)),
    ],
    ids=["retry", "fallback", "limited"],
)
def test_all_attempts_send_the_same_bytes(photo, reads, combine):
    """The file is read once, also if it changes meanwhile."""

    @frozen
    class Failing(Looker):
        async def complete(self, request):
            await super().complete(request)
            photo.write_bytes(JPEG)
            if len(self.seen) < 3:
                raise rxllm.Overloaded("busy")
            return "ok"

    llm = Failing()
    assert "ok" == combine(llm).invoke(Message("user", rxllm.file(photo))).text
    assert [PNG] * 3 == [prompt[0].parts[0].data for prompt in llm.seen]
    assert 1 == len(reads)


def test_retries_of_the_provider_send_the_same_bytes(photo, reads):
    """As those of `retry` do."""
    with FakeServer(
        Reply.json(b"{}", status=503, headers={"retry-after": "0"}), Reply(Chat().stream(["ok"]))
    ) as server:
        OpenAI("m", base_url=server.url).invoke(Message("user", rxllm.file(photo)))
        first, second = (exchange.json for exchange in server.requests)
    assert first == second
    assert 1 == len(reads)


def test_a_batch_reads_the_file_of_each_prompt(tmp_path):
    """Each answer is that to its own file."""
    for number in range(5):
        (tmp_path / f"{number}.txt").write_text(f"text {number}")
    llm = Looker()
    llm.batch([Message("user", rxllm.file(tmp_path / f"{number}.txt")) for number in range(5)])
    assert {f"text {number}".encode() for number in range(5)} == {prompt[0].parts[0].data for prompt in llm.seen}


async def test_a_cancelled_request_is_not_sent_when_the_file_is_read(photo, monkeypatch):
    """The result of the reading is dropped."""
    started, go_on, real = threading.Event(), threading.Event(), rxllm.operators.reading.read_files

    def slow(request):
        started.set()
        go_on.wait(30)
        return real(request)

    monkeypatch.setattr(rxllm.operators.reading, "read_files", slow)
    llm = Looker()
    task = asyncio.ensure_future(llm.ainvoke(Message("user", rxllm.file(photo))))
    await asyncio.to_thread(started.wait, 5)
    task.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [] == llm.seen


# ── what cannot be sent ──────────────────────────────────────────────────────────────────────────────────────────


def large(path, size):
    """Make a file of this size, which takes no place on the disk."""
    path.touch()
    os.truncate(path, size)
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder / "gone.png", "gone.png' cannot be sent: there is no such file"),
        (lambda folder: folder, "it is a directory"),
        (lambda folder: large(folder / "empty.png", 0), "empty.png' cannot be sent: it is empty"),
        (lambda folder: large(folder / "photo.jpg", 30 * 2**20), "'photo.jpg' has 30.0 MiB, .* up to 20 MiB.*scale"),
        (lambda folder: large(folder / "film.mp4", FILE_BYTES + 1), r"film.mp4' has 100.0 MiB, .* file_id or its url"),
        (lambda folder: large(folder / "data", 9), "media type of '.*data' is unknown"),
        (lambda folder: os.mkfifo(folder / "pipe") or folder / "pipe", "it is not a regular file"),
    ],
    ids=["gone", "directory", "empty", "large picture", "large file", "unknown type", "pipe"],
)
@pytest.mark.parametrize("wrap", [lambda llm: llm, rxllm.retry], ids=["alone", "in retry"])
def test_a_file_that_cannot_be_read_is_an_error_before_sending(tmp_path, make, sentence, wrap):
    """A sentence that names the file, and no request."""
    with FakeServer() as server:
        llm = wrap(OpenAI("m", base_url=server.url))
        with pytest.raises(MisuseError, match=sentence):
            llm.invoke(Message("user", [rxllm.file(make(tmp_path)), "hi"]))
        assert [] == server.requests


@pytest.fixture
def ordinary_user():
    """Makes this process an ordinary user's until the test has ended, since root may read every file."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_forbidden_file_is_named(photo, request):
    """With the reason."""
    looker = Looker()
    looker.invoke(Message("user", rxllm.file(photo)))  # imports what an ordinary user could not read in root's home
    photo.chmod(0)
    request.getfixturevalue("ordinary_user")
    with pytest.raises(MisuseError, match="this user may not read it"):
        looker.invoke(Message("user", rxllm.file(photo)))


def test_a_part_with_bytes_has_the_same_bound():
    """Also one that `file` did not make."""
    with pytest.raises(MisuseError, match=r"The picture has 30\.0 MiB"):
        OpenAI("m", api_key="k").invoke(Message("user", FilePart("image/png", bytes(30 * 2**20))))
    OpenAI("m", api_key="k").preview(Message("user", FilePart("image/png", bytes(IMAGE_BYTES))))


@pytest.mark.parametrize("wrong", ["", None, 3, b"photo.png", ["photo.png"], "a\0b"])
def test_only_a_path_is_a_path(wrong):
    """The error says how to call it."""
    with pytest.raises(MisuseError, match=r"takes the path of a file, as in rxllm\.file"):
        rxllm.file(wrong)


# ── media types ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "data", "media_type"),
    [
        ("photo.jpg", JPEG, "image/jpeg"),
        ("photo.jpg", PNG, "image/png"),
        ("photo", PNG, "image/png"),
        ("a.WEBP", b"RIFF\1\2\3\4WEBPVP8 ", "image/webp"),
        ("a.jpg", b"RIFF\1\2\3\4WEBPVP8 ", "image/webp"),
        ("a", b"RIFF\1\2\3\4WAVEfmt ", "audio/wav"),
        ("a", b"GIF89a..", "image/gif"),
        ("IMG_1.jpeg", b"\0\0\0\x18ftypheic....", "image/heic"),
        ("a.m4a", b"\0\0\0\x18ftypM4A ....", "audio/mp4"),
        ("a", b"\0\0\0\x18ftypisom....", "video/mp4"),
        ("a.m4a", b"\0\0\0\x18ftypisom....", "audio/mp4"),
        ("a.pdf", b"%PDF-1.7 ...", "application/pdf"),
        ("a.txt", b"%PDF-1.7 ...", "application/pdf"),
        ("a.mp3", b"\xff\xfb\x90", "audio/mpeg"),
        ("notes.md", b"# Notes", "text/markdown"),
        ("data.csv", b"a,b", "text/csv"),
        ("Makefile", b"all:", "text/plain"),
        ("a.unknownending", "é".encode(), "text/plain"),
        ("a.docx", b"PK\3\4", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ],
)
def test_the_bytes_tell_the_media_type_else_the_name_does(tmp_path, name, data, media_type):
    """A picture with the wrong ending is sent as what it is."""
    (tmp_path / name).write_bytes(data)
    assert media_type == rxllm.file(tmp_path / name).read().media_type


def test_a_given_media_type_counts(photo):
    """The bytes do not change it, because a server may know its own types."""
    part = rxllm.file(photo, "image/x-mine", name="a.png", detail="low", title="T", context="C", citable=True).read()
    assert FilePart("image/x-mine", PNG, name="a.png", detail="low", title="T", context="C", citable=True) == part
    with pytest.raises(MisuseError, match="media_type must be like image/png"):
        rxllm.file(photo, "png")


# ── JSON, pickles, caches, recordings ────────────────────────────────────────────────────────────────────────────


def test_json_has_the_bytes_and_no_path(photo):
    """And comes back as the part that was sent."""
    message = Message("user", [rxllm.file(photo), ToolResultPart("1", [rxllm.file(photo)])])
    record = message.to_json()
    assert str(photo) not in json.dumps(record)
    assert base64.b64encode(PNG).decode() == record["parts"][0]["data"]
    picture = FilePart("image/png", PNG, name="photo.png")
    assert Message("user", [picture, ToolResultPart("1", [picture])]) == Message.from_json(record)


def test_json_of_a_file_that_is_gone_is_an_error(photo):
    """Not a record without the file."""
    message = Message("user", rxllm.file(photo))
    photo.unlink()
    with pytest.raises(MisuseError, match="there is no such file"):
        message.to_json()


def nested(part):
    """The part in the result of a tool."""
    return {"type": "tool_result", "id": "1", "content": [part]}


@pytest.mark.parametrize("place", [lambda part: part, nested], ids=["message", "tool result"])
def test_a_record_never_names_a_path(place):
    """A history that comes from a browser cannot make the server read its own files."""
    part = {"type": "file", "media_type": "text/plain", "path": "/etc/passwd"}
    with pytest.raises(MisuseError, match="a file has a path, which is never read from a record"):
        Message.from_json({"rxllm": 1, "role": "user", "parts": [place(part)]})


def test_a_dict_never_names_a_path():
    """Neither does a message in OpenAI's or Anthropic's form."""
    for part in (
        {"type": "file", "path": "/etc/passwd"},
        {"type": "file", "file": {"path": "/etc/passwd"}},
        {"type": "image", "source": {"type": "path", "path": "/etc/passwd"}},
    ):
        with pytest.raises(MisuseError):
            Looker().invoke([{"role": "user", "content": [part]}])


def test_a_part_can_be_pickled(photo):
    """With its path, which another process on the same machine reads."""
    part = rxllm.file(photo)
    copy = pickle.loads(pickle.dumps(part))  # noqa: S301
    assert part == copy
    assert PNG == copy.read().data
    assert part.read() == pickle.loads(pickle.dumps(part.read()))  # noqa: S301


def test_the_cache_knows_a_file_by_its_bytes(photo):
    """The same bytes are the same request, other bytes under the same name another."""
    llm = Looker()
    model = rxllm.cached(llm, rxllm.MemoryStore())
    for data in (PNG, PNG, JPEG, PNG):
        photo.write_bytes(data)
        model.invoke(Message("user", rxllm.file(photo)))
    assert [PNG, JPEG] == [prompt[0].parts[0].data for prompt in llm.seen]


def test_a_recording_knows_a_file_by_its_bytes(photo, tmp_path):
    """The replay finds it."""
    prompt = Message("user", [rxllm.file(photo), "hi"])
    record(Looker(), tmp_path / "cassette").invoke(prompt)
    assert "I see." == Replay(tmp_path / "cassette").invoke(prompt).text
    photo.write_bytes(JPEG)
    with pytest.raises(MisuseError, match="has no answer to"):
        Replay(tmp_path / "cassette").invoke(prompt)


def test_a_preview_has_the_bytes(photo):
    """It is what would be sent."""
    preview = OpenAI("m", api_key="k", api="chat").preview(Message("user", rxllm.file(photo)))
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert [{"type": "image_url", "image_url": {"url": url}}] == preview.json["messages"][0]["content"]


def test_events_show_the_part_as_the_program_wrote_it(photo):
    """Reading is a part of the run, so a failure to read is a failed run."""
    events = []
    Looker().with_config(handlers=[events.append]).invoke(Message("user", rxllm.file(photo)))
    [started] = [event for event in events if isinstance(event, rxllm.Started)]
    assert rxllm.file(photo) == started.input.messages[0].parts[0]
    photo.unlink()
    events.clear()
    with pytest.raises(MisuseError):
        Looker().with_config(handlers=[events.append]).invoke(Message("user", rxllm.file(photo)))
    assert [rxllm.Started, rxllm.Failed] == [type(event) for event in events]
