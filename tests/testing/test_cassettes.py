"""Answers that are recorded, and replayed."""

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

FAST = 0.001  # seconds a character, where they pass
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
    """Where to record."""
    return tmp_path / "cassette.jsonl"


def heard(llm, prompt="hi"):
    """What comes when, on virtual time."""
    with marbles_testing() as (start, _, _, _):
        return start(llm(prompt))


def told(records):
    """Records as values that can be compared, errors with all that they say."""
    return [
        (record.time, facts(event.exception) if event.kind == "E" else getattr(event, "value", "the end"))
        for record, event in ((record, record.value) for record in records)
    ]


def facts(error):
    """What an error says."""
    names = ("retryable", "status", "retry_after", "code", "body", "text", "partial", "request")
    return type(error), str(error), {name: getattr(error, name, None) for name in names}


def lines_of(path):
    """The lines, decoded."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# ── one after the other ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("diagram", ["--a-b--|", "|", "-(a,b)---c|", "a|", "------a-#", "#"])
def test_what_was_recorded_is_replayed_to_the_moment(path, diagram):
    """The same chunks in the same rhythm with the same end; and who records hears them as they come."""
    original = told(heard(MarbleLLM(diagram)))
    assert original == told(heard(record(MarbleLLM(diagram), path)))
    assert original == told(heard(Replay(path)))


@settings(max_examples=30)
@given(pieces=st.lists(chunks, min_size=1, max_size=5))
def test_chunks_of_every_kind(tmp_path_factory, pieces):
    """Nothing of a chunk is lost."""
    path = tmp_path_factory.mktemp("law") / "cassette.jsonl"
    values = {f"c{index}": piece for index, piece in enumerate(pieces)}
    llm = MarbleLLM(f"-({','.join(values)},|)", values=values)
    assert told(heard(llm)) == told(heard(record(llm, path))) == told(heard(Replay(path)))


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: str(error))
def test_an_error_is_raised_again(path, error):
    """As the same class, with its facts and what had arrived; each time another."""
    original = told(heard(record(MarbleLLM("-a-#", error=error), path)))
    replay = Replay(path)
    first, second = heard(replay), heard(replay)
    assert original == told(first) == told(second)
    assert first[-1].value.exception is not second[-1].value.exception


def test_an_error_that_is_not_rxllms(path):
    """Is named, and of the nearest class that there is."""

    class Quota(rxllm.RateLimited):
        """Somebody's own."""

    for error in (ValueError("no"), Quota("Slow.", retry_after=2)):
        heard(record(MarbleLLM("#", error=error), path))
    replay = Replay(path)
    first, second = (heard(replay)[-1].value.exception for _ in range(2))
    assert (rxllm.RxllmError, "ValueError: no") == (type(first), str(first))
    assert (rxllm.RateLimited, 2) == (type(second), second.retry_after)


def test_the_same_request_gets_its_answers_in_order(path):
    """And after the last one, that again; whatever else was recorded in between."""
    llm = record(MarbleLLM(["-a|", "-x|", "-b|"]), path)
    for prompt in ("one", "two", "one"):
        heard(llm, prompt)
    replay = Replay(path, speed=math.inf)
    assert ["a", "b", "b", "x"] == [replay.bind().invoke(prompt).text for prompt in ("one", "one", "one", "two")]
    assert ["one", "one", "one", "two"] == [request.text for request in replay.requests]


def test_what_was_not_recorded_is_refused(path):
    """The sentence says what was: prompts, shortened, and parameters by which they differ."""
    llm = record(MarbleLLM("a|"), path)
    heard(llm, "one")
    heard(llm.bind(temperature=0.5, model="m", tools=[{"name": "now"}], extra={"user": "secret"}), "a " * 100)
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


def test_how_it_is_to_come_makes_no_difference(path):
    """A recorded stream is also the answer to stream=False, as one chunk."""
    heard(record(MarbleLLM("-a-b|"), path))
    assert ["ab"] == [str(chunk) for chunk in Replay(path, speed=math.inf).stream("hi", stream=False)]


@pytest.mark.parametrize(("speed", "end"), [(1, 206), (2.0, 203), (0.5, 212), (math.inf, 200)])
def test_the_pace_has_a_factor(path, speed, end):
    """Twice as fast takes half the time, and an infinite speed none."""
    heard(record(MarbleLLM("--a-b-|"), path))
    assert end == heard(Replay(path, speed=speed))[-1].time


@pytest.mark.parametrize("speed", [0, -1, math.nan])
def test_a_pace_that_is_none_is_refused(path, speed):
    """With a sentence."""
    path.touch()
    with pytest.raises(MisuseError, match="factor above 0"):
        Replay(path, speed=speed)


# ── on an event loop ─────────────────────────────────────────────────────────────────────────────────────────────


def test_over_http_and_again_without(path):
    """A provider's answer, with its counts and reason, sounds the same when the server is gone; and no key is told."""
    with FakeServer(Reply(Chat().stream(["Hel", "lo"]))) as server:
        llm = record(rxllm.OpenAI("m", base_url=server.url, api_key="a-secret-key"), path)
        original = llm.invoke("hi", temperature=0)
        streamed = list(llm.stream("hi", temperature=0))
    replay = Replay(path, speed=math.inf)
    assert original == replay.invoke("hi", temperature=0)
    assert streamed == list(replay.stream("hi", temperature=0))
    assert "a-secret-key" not in path.read_text("utf-8")
    assert llm.streaming


async def test_several_at_once(path):
    """Their lines may alternate; each is replayed as it was."""
    llm = record(MarbleLLM("-a-b-c-|", timespan=FAST), path)
    prompts = [f"prompt {number}" for number in range(20)]
    await asyncio.gather(*(llm.ainvoke(prompt) for prompt in prompts))
    runs = [line["run"] for line in lines_of(path)]
    assert runs != sorted(runs, key=runs.index), "nothing was recorded at the same time"
    answers = await Replay(path, speed=math.inf).abatch(prompts)
    assert ["abc"] * 20 == [str(answer) for answer in answers]


class Fast(rxllm.LLM):
    """As fast as it may be."""

    async def chunks(self, request):
        """Many."""
        for number in range(200):
            yield f"{number} "


@pytest.fixture
def now(monkeypatch):
    """The time, moved by hand."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


async def turns():
    """Some of the loop's."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_pause_of_the_consumer_is_no_silence_of_the_model(path, now):
    """While the gate is closed nothing is waited for, and a replay would hand on a pause that was not the model's."""
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


async def test_a_pause_before_leaving_is_none_of_the_model(path, now):
    """Who takes no more, and leaves later, has made the model wait; it was not silent."""
    scheduler = rxllm.scheduler()
    subscription = record(Fast(), path)("hi").subscribe(lambda _: scheduler.gate.close(), scheduler=scheduler)
    await turns()
    now[0] += 500.0
    subscription.dispose()
    end = lines_of(path)[-1]
    assert ("cancelled", 0.0) == (end["end"], end["after"])


async def test_a_silence_of_the_model_is_recorded(path, now):
    """Also that behind a pause of the consumer, from its end on."""
    scheduler, source, heard = rxllm.scheduler(), Subject(), []
    record(Plays(source), path)("hi").subscribe(heard.append, scheduler=scheduler)
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
class Plays(rxllm.LLM):
    """Says what a source says, which heeds no gate."""

    source: rx.Observable = field(eq=False)

    def chunks(self, request):
        """As it comes."""
        return self.source


def test_the_run_is_the_models_own(path):
    """Who listens to the recording model hears one run, so that nothing is counted twice."""
    heard = []
    record(MarbleLLM("-a|", timespan=FAST), path).with_config(
        run_name="mine", tags=["t"], handlers=[heard.append]
    ).invoke("hi")
    assert ["Started", "RunChunk", "Finished"] == [type(event).__name__ for event in heard]
    assert {("mine", ("t",))} == {(event.name, event.tags) for event in heard}


def test_as_an_operator(path):
    """It asks once its upstream has completed."""
    llm = record(MarbleLLM("-a|", timespan=FAST), path)
    assert "a" == "".join(map(str, rxllm.pipe(MarbleLLM("-x|", timespan=FAST), llm).stream("hi")))
    assert "a" == Replay(path).invoke("x").text


# ── what was cut ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_subscriber_who_left(path):
    """What he had heard is replayed, and then it is Interrupted, since nobody knows the rest."""
    with marbles_testing() as (start, _, _, _):
        start(record(MarbleLLM("-a--b-c|"), path)("hi").pipe(ops.take(2)))
    *_, (at, (kind, sentence, said)) = told(heard(Replay(path)))
    assert (204.0, Interrupted, "ab") == (at, kind, said["partial"].text)
    assert "its subscriber left" in sentence


async def test_leaving_on_a_loop(path):
    """Is noted once; nothing comes after it."""
    async with record(MarbleLLM("-a-b", timespan=FAST), path).astream("hi") as pieces:
        await anext(pieces)
    assert ["a", "cancelled"] == [line.get("text", line.get("end")) for line in lines_of(path)[1:]]


@pytest.mark.parametrize("torn", ["", '{"run": "'])
def test_a_recording_that_was_broken_off(path, torn):
    """What is there is replayed, and then it is Interrupted; half a line at the end is nothing."""
    heard(record(MarbleLLM("-a--b-c|"), path))
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + torn, "utf-8")
    *_, (at, (kind, sentence, said)) = told(heard(Replay(path)))
    assert (204.0, Interrupted, "ab", True) == (at, kind, said["partial"].text, said["retryable"])
    assert "broken off" in sentence


def test_a_process_that_is_killed_loses_little(path):
    """What had come is in the file."""
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


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────────────────────

HEAD = {"run": "1", "rxllm": 1, "request": "x", "asked": "'hi'"}


@pytest.mark.parametrize(
    ("lines", "number", "sentence"),
    [
        (["no json"], 1, "malformed|invalid"),
        ([HEAD, {"run": "1", "after": 0.1, "text": 5}], 2, "does not describe a chunk"),
        ([HEAD, {"run": "1", "after": "soon"}], 2, "Expected `float`"),
        ([HEAD, {"run": "1", "end": "happy"}], 2, "Invalid enum value"),
        ([HEAD, {"run": "2", "text": "a"}], 2, "its answer has no head"),
        ([{"text": "a"}], 1, "missing required field `run`"),
        ([{**HEAD, "rxllm": 2}], 1, "format 2, and this rxllm reads 1"),
        ([[]], 1, "Expected `object`"),
    ],
)
def test_what_is_no_cassette_is_refused(path, lines, number, sentence):
    """When it is opened, with the number of the line."""
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines), "utf-8")
    with pytest.raises(MisuseError, match=f"Line {number} of .*cassette.jsonl.* is none of a cassette: .*({sentence})"):
        Replay(path)


def test_no_file(tmp_path):
    """Where there is none to read, or no directory to write to, a sentence says so at once."""
    with pytest.raises(MisuseError, match="can't be read: No such file"):
        Replay(tmp_path / "none.jsonl")
    with pytest.raises(MisuseError, match="there is no directory"):
        record(MarbleLLM("a|"), tmp_path / "none" / "cassette.jsonl")


def test_an_empty_file_has_no_answers(path):
    """It is none to any request."""
    path.touch()
    with pytest.raises(MisuseError, match="it has answers to nothing"):
        Replay(path).invoke("hi")


def test_a_cassette_can_be_shared(path):
    """Two models that play the same one take turns."""
    llm = record(MarbleLLM(["-a|", "-b|"]), path)
    heard(llm), heard(llm)
    cassette = Cassette.read(path)
    assert ["a", "b"] == [Replay(cassette, speed=math.inf).invoke("hi").text for _ in range(2)]


@frozen
class Strange(rxllm.LLM):
    """Answers with what no file can hold."""

    async def chunks(self, request):
        """Part of it can."""
        yield Chunk("a")
        yield Chunk(parts=[rxllm.RawPart("mine", {"data": object()})])
        yield Chunk("c")


def test_what_can_not_be_written_ends_the_answer(path):
    """Rather than leave a hole in the recording; and so does a file that is none."""
    with pytest.raises(TypeError, match="object"):
        record(Strange(), path).invoke("hi")
    assert ["a"] == [line["text"] for line in lines_of(path)[1:]]
    with pytest.raises(IsADirectoryError):
        record(MarbleLLM("-a|", timespan=FAST), path.parent).invoke("hi")
