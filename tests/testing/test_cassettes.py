"""`record` and `Replay`: recorded answers and their replay."""

import asyncio
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import reactivex as rx
from attrs import field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.test_monoid import chunks
from protocols import Chat
from reactivex import operators as ops
from reactivex.subject import Subject
from reactivex.testing.marbles import marbles_testing

import rxllm
from rxllm import Chunk, Interrupted, MisuseError
from rxllm.testing import Cassette, FakeServer, MarbleLLM, Replay, Reply, record

FAST = 0.001  # seconds per character in real time
FAILURES = [
    rxllm.RateLimited("Slow down.", status=429, retry_after=3, code="busy", body="{}"),
    rxllm.RateLimited("Spent.", retryable=False),
    rxllm.Timeout("There was no first chunk."),
    rxllm.Interrupted("Cut."),
    rxllm.ProtocolError("Garbage.", frame=b"x"),
    rxllm.ParseError("No number.", text="x", shape=int),
    rxllm.MisuseError("No key."),
]


@pytest.fixture
def path(tmp_path):
    """The path of the recording."""
    return tmp_path / "cassette.jsonl"


def heard(llm, prompt="hi"):
    """The notifications and their times, on virtual time."""
    with marbles_testing() as (start, _, _, _):
        return start(llm(prompt))


def comparable(records):
    """The records as comparable values, errors with their facts."""
    return [
        (record.time, facts(event.exception) if event.kind == "E" else getattr(event, "value", "the end"))
        for record, event in ((record, record.value) for record in records)
    ]


def facts(error):
    """The facts of an error."""
    names = ("retryable", "status", "retry_after", "code", "body", "text", "partial", "request")
    return type(error), str(error), {name: getattr(error, name, None) for name in names}


def lines_of(path):
    """The decoded lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# ── one answer at a time ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("diagram", ["--a-b--|", "|", "-(a,b)---c|", "a|", "------a-#", "#"])
def test_replay_equals_the_recorded_answer(path, diagram):
    """The replay has the same chunks, times and end; the recording subscriber receives them as they arrive."""
    original = comparable(heard(MarbleLLM(diagram)))
    assert original == comparable(heard(record(MarbleLLM(diagram), path)))
    assert original == comparable(heard(Replay(path)))


@settings(max_examples=30)
@given(pieces=st.lists(chunks, min_size=1, max_size=5))
def test_chunks_of_every_kind(tmp_path_factory, pieces):
    """The replay keeps every field of a chunk."""
    path = tmp_path_factory.mktemp("law") / "cassette.jsonl"
    values = {f"c{index}": piece for index, piece in enumerate(pieces)}
    llm = MarbleLLM(f"-({','.join(values)},|)", values=values)
    assert comparable(heard(llm)) == comparable(heard(record(llm, path))) == comparable(heard(Replay(path)))


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: str(error))
def test_recorded_error_is_raised_again(path, error):
    """The error has the same class, facts and `partial`; each replay raises a new object."""
    original = comparable(heard(record(MarbleLLM("-a-#", error=error), path)))
    replay = Replay(path)
    first, second = heard(replay), heard(replay)
    assert original == comparable(first) == comparable(second)
    assert first[-1].value.exception is not second[-1].value.exception


def test_foreign_error_is_raised_as_the_nearest_class(path):
    """The message names the foreign class."""

    class Quota(rxllm.RateLimited):
        """An error class of the user's own."""

    for error in (ValueError("no"), Quota("Slow.", retry_after=2)):
        heard(record(MarbleLLM("#", error=error), path))
    replay = Replay(path)
    first, second = (heard(replay)[-1].value.exception for _ in range(2))
    assert (rxllm.RxllmError, "ValueError: no") == (type(first), str(first))
    assert (rxllm.RateLimited, 2) == (type(second), second.retry_after)


def test_same_request_gets_its_answers_in_order(path):
    """After the last answer, the last one repeats; other recordings in between change nothing."""
    llm = record(MarbleLLM(["-a|", "-x|", "-b|"]), path)
    for prompt in ("one", "two", "one"):
        heard(llm, prompt)
    replay = Replay(path, speed=math.inf)
    assert ["a", "b", "b", "x"] == [replay.bind().invoke(prompt).text for prompt in ("one", "one", "one", "two")]
    assert ["one", "one", "one", "two"] == [request.text for request in replay.requests]


def test_unrecorded_request_is_refused(path):
    """The message lists the recorded requests: excerpts of the prompts, and the differing parameters."""
    llm = record(MarbleLLM("a|"), path)
    heard(llm, "one")
    heard(llm.bind(temperature=0.5, model="m", tools=[rxllm.ToolSpec("now")], extra={"user": "secret"}), "a " * 100)
    replay = Replay(path)
    with pytest.raises(MisuseError) as caught:
        replay.invoke("one", seed=1)
    known = f"'one'; '{'a ' * 29}a…' model='m' temperature=0.5 tools=… user=…"
    assert str(caught.value).endswith(f"has no answer to 'one' seed=1; it has answers to {known}.")
    assert "secret" not in path.read_text("utf-8")
    for number in range(20):
        heard(llm, f"{number}")
    with pytest.raises(MisuseError, match="'7' and 12 more"):
        Replay(path).invoke("none")


def test_stream_parameter_does_not_matter(path):
    """A recorded stream also answers stream=False, as one chunk."""
    heard(record(MarbleLLM("-a-b|"), path))
    assert ["ab"] == [str(chunk) for chunk in Replay(path, speed=math.inf).stream("hi", stream=False)]


@pytest.mark.parametrize(("speed", "end"), [(1, 206), (2.0, 203), (0.5, 212), (math.inf, 200)])
def test_speed_is_a_factor(path, speed, end):
    """Speed 2 takes half the time, infinite speed none."""
    heard(record(MarbleLLM("--a-b-|"), path))
    assert end == heard(Replay(path, speed=speed))[-1].time


@pytest.mark.parametrize("speed", [0, -1, math.nan])
def test_invalid_speed_is_refused(path, speed):
    """MisuseError says what a speed is."""
    path.touch()
    with pytest.raises(MisuseError, match="factor above 0"):
        Replay(path, speed=speed)


# ── on an event loop ─────────────────────────────────────────────────────────────────────────────────────────────


def test_provider_over_http_is_replayed_without_it(path):
    """The replayed answer has the same counts and finish reason; the file does not contain the key."""
    with FakeServer(Reply(Chat().stream(["Hel", "lo"]))) as server:
        llm = record(rxllm.OpenAI("m", base_url=server.url, api_key="a-secret-key"), path)
        original = llm.invoke("hi", temperature=0)
        streamed = list(llm.stream("hi", temperature=0))
    replay = Replay(path, speed=math.inf)
    assert original == replay.invoke("hi", temperature=0)
    assert streamed == list(replay.stream("hi", temperature=0))
    assert "a-secret-key" not in path.read_text("utf-8")
    assert llm.streaming


async def test_concurrent_answers_are_recorded(path):
    """Their lines may alternate; each answer is replayed as it was."""
    llm = record(MarbleLLM("-a-b-c-|", timespan=FAST), path)
    prompts = [f"prompt {number}" for number in range(20)]
    await asyncio.gather(*(llm.ainvoke(prompt) for prompt in prompts))
    runs = [line["run"] for line in lines_of(path)]
    assert runs != sorted(runs, key=runs.index), "nothing was recorded at the same time"
    answers = await Replay(path, speed=math.inf).abatch(prompts)
    assert ["abc"] * 20 == [str(answer) for answer in answers]


class Fast(rxllm.LLM):
    """Emits many chunks without a pause."""

    async def chunks(self, request):
        """Yield the chunks."""
        for number in range(200):
            yield f"{number} "


@pytest.fixture
def now(monkeypatch):
    """A clock that the test moves."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


async def turns():
    """Let the event loop run other tasks."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_pause_of_the_consumer_is_not_recorded(path, now):
    """The model waits while the gate is closed, so the recording leaves this time out."""
    scheduler, heard, over = rxllm.scheduler(), [], asyncio.Event()

    def take(chunk):
        heard.append(chunk)
        if len(heard) % 70 == 0:
            scheduler.gate.close()

    record(Fast(), path)("hi").subscribe(take, on_completed=over.set, scheduler=scheduler)
    for expected in 70, 140:
        await turns()
        assert expected == len(heard)
        now[0] += 500.0
        scheduler.gate.open()
    await over.wait()
    assert [0.0] * 201 == [line["after"] for line in lines_of(path)[1:]]


async def test_pause_before_a_cancellation_is_not_recorded(path, now):
    """A consumer that stops reading and later cancels has paused the model; the model was not silent."""
    scheduler = rxllm.scheduler()
    subscription = record(Fast(), path)("hi").subscribe(lambda _: scheduler.gate.close(), scheduler=scheduler)
    await turns()
    now[0] += 500.0
    subscription.dispose()
    end = lines_of(path)[-1]
    assert ("cancelled", 0.0) == (end["end"], end["after"])


async def test_silence_of_the_model_is_recorded(path, now):
    """Also the silence after a pause of the consumer, from the end of the pause."""
    scheduler, source, heard = rxllm.scheduler(), Subject(), []
    record(FromSource(source), path)("hi").subscribe(heard.append, scheduler=scheduler)
    for after, what in ((0.0, scheduler.gate.close), (500.0, scheduler.gate.open), (2.0, scheduler.gate.close)):
        now[0] += after
        what()
    source.on_next(Chunk("a"))
    now[0] += 3.0
    source.on_next(Chunk("b"))
    source.on_completed()
    assert ["a", "b"] == list(map(str, heard))
    assert [2.0, 3.0, 0.0] == [line["after"] for line in lines_of(path)[1:]]


@frozen
class FromSource(rxllm.LLM):
    """Emits the values of a source that ignores back-pressure."""

    source: rx.Observable = field(eq=False)

    def chunks(self, request):
        """Yield them as they arrive."""
        return self.source


def test_recording_model_has_one_run(path):
    """A handler of the recording model receives one run, so that nothing is counted twice."""
    heard = []
    record(MarbleLLM("-a|", timespan=FAST), path).with_config(
        run_name="mine", tags=["t"], handlers=[heard.append]
    ).invoke("hi")
    assert ["Started", "RunChunk", "Finished"] == [type(event).__name__ for event in heard]
    assert {("mine", ("t",))} == {(event.name, event.tags) for event in heard}


def test_recording_model_is_an_operator(path):
    """The model asks once its upstream has completed."""
    llm = record(MarbleLLM("-a|", timespan=FAST), path)
    assert "a" == "".join(map(str, rxllm.pipe(MarbleLLM("-x|", timespan=FAST), llm).stream("hi")))
    assert "a" == Replay(path).invoke("x").text


# ── interrupted recordings ───────────────────────────────────────────────────────────────────────────────────────


def test_cancelled_recording_is_replayed_as_interrupted(path):
    """The received chunks are replayed, then Interrupted is raised, because the rest is unknown."""
    with marbles_testing() as (start, _, _, _):
        start(record(MarbleLLM("-a--b-c|"), path)("hi").pipe(ops.take(2)))
    *_, (at, (kind, sentence, said)) = comparable(heard(Replay(path)))
    assert (204.0, Interrupted, "ab") == (at, kind, said["partial"].text)
    assert "its subscriber cancelled" in sentence


async def test_cancellation_on_an_event_loop_is_recorded_once(path):
    """No line follows the cancellation."""
    async with record(MarbleLLM("-a-b", timespan=FAST), path).astream("hi") as pieces:
        await anext(pieces)
    assert ["a", "cancelled"] == [line.get("text", line.get("end")) for line in lines_of(path)[1:]]


@pytest.mark.parametrize("torn", ["", '{"run": "'])
def test_torn_recording_is_replayed_as_interrupted(path, torn):
    """The complete lines are replayed, then Interrupted is raised; half a line at the end is ignored."""
    heard(record(MarbleLLM("-a--b-c|"), path))
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + torn, "utf-8")
    *_, (at, (kind, sentence, said)) = comparable(heard(Replay(path)))
    assert (204.0, Interrupted, "ab", True) == (at, kind, said["partial"].text, said["retryable"])
    assert "it was interrupted" in sentence


@pytest.mark.parametrize("cut", [1, 2, 9, 40])
def test_recording_goes_on_after_a_torn_line(path, cut):
    """A process that was killed left half a line, and a later recording adds its own lines to it."""
    heard(record(MarbleLLM("-a--b|"), path), "first")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    heard(record(MarbleLLM("-c|"), path), "second")
    assert "c" == Replay(path, speed=math.inf).invoke("second").text
    if cut == 1:  # only the end of the line is missing
        assert "ab" == Replay(path, speed=math.inf).invoke("first").text
    else:
        with pytest.raises(Interrupted) as caught:
            Replay(path, speed=math.inf).invoke("first")
        assert "ab" == caught.value.partial.text


def test_killed_process_keeps_the_received_chunks(path):
    """The chunks that had arrived are in the file."""
    program = f"""
import rxllm.testing
llm = rxllm.testing.record(rxllm.testing.MarbleLLM("-a-b--------", timespan=0.01), {str(path)!r})
for chunk in llm.stream("hi"):
    print(chunk, flush=True)
"""
    environment = {"PYTHONPATH": str(Path(rxllm.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE) as process:
        assert [b"a\n", b"b\n"] == [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(signal.SIGKILL)
    with pytest.raises(Interrupted) as caught:
        Replay(path, speed=math.inf).invoke("hi")
    assert "ab" == caught.value.partial.text


# ── misuse ───────────────────────────────────────────────────────────────────────────────────────────────────────

HEAD = {"run": "1", "rxllm": 1, "request": "x", "asked": "'hi'"}


@pytest.mark.parametrize(
    ("lines", "number", "sentence"),
    [
        (["no json"], 1, "malformed|invalid"),
        ([HEAD, {"run": "1", "after": 0.1, "text": 5}], 2, "does not describe a chunk"),
        ([HEAD, {"run": "1", "after": "soon"}], 2, "Expected `float`"),
        ([HEAD, {"run": "1", "end": "happy"}], 2, "Invalid enum value"),
        ([HEAD, {"run": "2", "text": "a"}], 2, "the head line of its answer is missing"),
        ([{"text": "a"}], 1, "missing required field `run`"),
        ([{**HEAD, "rxllm": 2}], 1, "format 2, but this rxllm reads only the format 1"),
        ([[]], 1, "Expected `object`"),
    ],
)
def test_invalid_cassette_is_refused(path, lines, number, sentence):
    """Opening the file raises MisuseError with the number of the line."""
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")
    with pytest.raises(
        MisuseError, match=f"Line {number} of .*cassette.jsonl.* is not a cassette line: .*({sentence})"
    ):
        Replay(path)


def test_missing_file_or_directory_is_refused(tmp_path):
    """A missing file to read, or directory to write to, raises MisuseError at once."""
    with pytest.raises(MisuseError, match="cannot be read: No such file"):
        Replay(tmp_path / "none.jsonl")
    with pytest.raises(MisuseError, match="there is no directory"):
        record(MarbleLLM("a|"), tmp_path / "none" / "cassette.jsonl")


def test_empty_file_has_no_answers(path):
    """Every request is refused."""
    path.touch()
    with pytest.raises(MisuseError, match="it has answers to nothing"):
        Replay(path).invoke("hi")


def test_cassette_can_be_shared(path):
    """Two models that replay the same cassette take turns."""
    llm = record(MarbleLLM(["-a|", "-b|"]), path)
    heard(llm), heard(llm)
    cassette = Cassette.read(path)
    assert ["a", "b"] == [Replay(cassette, speed=math.inf).invoke("hi").text for _ in range(2)]


@frozen
class Strange(rxllm.LLM):
    """Answers with a value that has no JSON form."""

    async def chunks(self, request):
        """Yield a chunk, then the value."""
        yield Chunk("a")
        yield Chunk(parts=[rxllm.RawPart("mine", {"data": object()})])
        yield Chunk("c")


def test_value_without_json_form_ends_the_answer(path):
    """An error ends the answer instead of a hole in the recording; a path that is not a file does so, too."""
    with pytest.raises(TypeError, match="object"):
        record(Strange(), path).invoke("hi")
    assert ["a"] == [line["text"] for line in lines_of(path)[1:]]
    with pytest.raises(IsADirectoryError):
        record(MarbleLLM("-a|", timespan=FAST), path.parent).invoke("hi")
