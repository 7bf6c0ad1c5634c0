"""`Timeline`: what it keeps, and what it draws."""

import asyncio
import base64
import hashlib
import json
import pickle
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from pictures.situations import GOLDEN, SITUATIONS
from protocols import Chat
from reactivex import operators as ops

import rxllm
from rxllm import LLM, Chunk, Emitted, Finished, MisuseError, Run, RunChunk, Started, Timeline
from rxllm.events import run_chunk
from rxllm.pictures import recording, timeline
from rxllm.pictures.axis import seconds, ticks
from rxllm.pictures.rows import view_of
from rxllm.pictures.timeline_trace import traced
from rxllm.runtime.gate import Gate
from rxllm.testing import Cassette, FakeServer, MarbleLLM, Reply, on_virtual_time, record

ROOT = Path(__file__).parents[2]
HOSTILE = "</script><script>alert(1)</script> ]]> <!-- &amp; \x00\x1b[31m\ufffe\ud800 \u202e \"'"


class Bursts(LLM):
    """Streams as many chunks as the prompt says."""

    async def chunks(self, request):
        """Yield chunks of one token."""
        for _ in range(int(request.text)):
            yield "token"


def lines_of(name):
    """Return the lines of a situation's text, without the legend."""
    lines = SITUATIONS[name]().text(width=90).splitlines()
    return lines[: lines.index("")]


def texts_in(svg):
    """Return the texts in an SVG document."""
    root = ET.fromstring(svg)  # noqa: S314 - it is ours
    return [text for element in root.iter() for text in [element.text or ""] if "text" in element.tag]


def runs_of_trace(trace):
    """Check the rules of the Trace Event format. Return how often each id begins a run."""
    whole = json.loads(trace)
    assert {"traceEvents", "displayTimeUnit"} == whole.keys()
    process, *events = whole["traceEvents"]
    assert "M" == process["ph"]
    times = [each["ts"] for each in events]
    assert sorted(times) == times
    assert all(isinstance(each, int) and each >= 0 for each in times)
    open_events, begun = {}, Counter()
    for each in events:
        assert {"ph", "cat", "id", "name", "pid", "tid", "ts", "args"} == each.keys()
        stack = open_events.setdefault((each["cat"], each["id"]), [])
        if each["ph"] == "b":
            begun[each["id"]] += not stack
            stack.append(each["name"])
        elif each["ph"] == "e":
            assert stack.pop() == each["name"]
        else:
            assert "n" == each["ph"]
            assert stack, "an instant lies within its run"
    assert not any(open_events.values())
    return begun


# ── situations ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SITUATIONS)
def test_pictures_are_those_that_a_person_has_looked_at(name):
    """The SVG and the text equal the golden files; ``tests/pictures/situations.py`` writes them again."""
    drawn = SITUATIONS[name]()
    assert (GOLDEN / f"{name}.svg").read_text("utf-8") == drawn.svg() + "\n"
    assert (GOLDEN / f"{name}.txt").read_text("utf-8") == drawn.text() + "\n"


def test_hedge_is_a_tree_of_diagrams():
    """The runs of the models stand below the run of the combinator, each at its own time."""
    assert [
        "hedge   ---------------o---o--o-o----o--o---o--o---|  3.45 s, first after 1.2 s, 8 values",
        "  slow  ---------------/                              cancelled after 1.2 s",
        "  quick             ---o---o--o-o----o--o---o--o---|  2.45 s, first after 200 ms, 8 chunks",
        "        0 s                      2 s",
    ] == lines_of("hedge")


def test_picture_of_the_readme_is_made_by_its_example(tmp_path):
    """``python examples/49_timeline.py docs/timeline.svg`` makes the picture again."""
    drawn = tmp_path / "timeline.svg"
    subprocess.run([sys.executable, ROOT / "examples" / "49_timeline.py", drawn], check=True, capture_output=True)
    assert (ROOT / "docs" / "timeline.svg").read_text("utf-8") == drawn.read_text("utf-8")
    assert "](docs/timeline.svg)" in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", SITUATIONS)
def test_trace_keeps_the_rules_of_its_format(name):
    """Begins and ends match by category and id and are nested, times are whole and rise, and each run has an id."""
    drawn = SITUATIONS[name]()
    begun = runs_of_trace(drawn.trace())
    assert {1} == set(begun.values())
    assert len(begun) == drawn.runs


def test_overlapping_waits_are_one_after_another_in_a_trace():
    """A planned wait may reach into another one. Their events must not cross, so the later one begins later."""
    kept = recording.Record(Run("1", "model", "llm"), 0.0, Gate(lambda: 9.0))
    kept.wait(("retry", 1.0, 4.0, "again in"))
    kept.wait(("pause", 2.0, 6.0, "paused"))
    kept.wait(("pause", 3.0, 5.0, "paused"))
    trace = traced(view_of([kept], 0))
    assert {"1": 1} == runs_of_trace(trace)
    spans = [(each["ph"], each["ts"]) for each in json.loads(trace)["traceEvents"] if " " in each["name"]]
    assert [("b", 1e6), ("e", 4e6), ("b", 4e6), ("e", 6e6), ("b", 6e6), ("e", 6e6)] == spans


@pytest.mark.parametrize("name", SITUATIONS)
def test_picture_has_alternative_texts(name):
    """An SVG is an image with a title and a description, which name each run and how it ended."""
    svg = SITUATIONS[name]().svg()
    root = ET.fromstring(svg)  # noqa: S314 - it is ours
    assert "img" == root.get("role")
    title, description = root[0], root[1]
    assert title.tag.endswith("title")
    assert title.text.startswith("Timeline of ")
    assert description.tag.endswith("desc")
    assert re.search("finished|failed|cancelled|Interrupted|Timeout", description.text)


# ── what is in them ──────────────────────────────────────────────────────────────────────────────────────────────


@on_virtual_time
async def test_slow_reader_is_drawn_as_a_pause():
    """The time for which the reader's full buffer holds up the model is a wait of its own, and counted."""
    drawn = Timeline()
    async for chunk in Bursts().astream("200", handlers=[drawn]):
        await asyncio.sleep(0.1 if chunk.text else 0)
    assert "paused by its reader" in texts_in(drawn.svg())
    assert "_" in drawn.text()
    assert re.search(r"paused 1[0-9]", drawn.text())


@on_virtual_time
async def test_running_and_waiting_runs_can_be_drawn():
    """A picture may be drawn at any time: a run that goes on reaches to the present, and so does a wait."""
    drawn = Timeline()
    llm = rxllm.limited(MarbleLLM("-a-----b|"), rxllm.Limiter(concurrency=1))
    running = [asyncio.ensure_future(llm.ainvoke("hi", handlers=[drawn])) for _ in range(2)]
    await asyncio.sleep(4)
    first, _, waiting = drawn.text(80).splitlines()[:3]
    assert "running after 4 s" in first
    assert re.match(r"limited     =+>  running after 4 s", waiting)
    assert json.loads(drawn.trace())["traceEvents"][-1]["ph"] == "e"
    await asyncio.gather(*running)
    assert "running" not in drawn.text()


@on_virtual_time
async def test_closed_gate_of_a_running_run_is_drawn():
    """A reader that has stopped reading shows as a pause up to the present, also when it leaves."""
    drawn = Timeline()
    async with Bursts().astream("200", handlers=[drawn]) as chunks:
        await anext(chunks)
        await asyncio.sleep(5)
        assert re.match("Bursts .?_+>", drawn.text())
        assert "paused 5 s" in drawn.text()
    assert "cancelled after 5 s" in drawn.text()
    assert "paused 5 s" in drawn.text()


@on_virtual_time
async def test_marks_are_labelled():
    """Events of the program, an answer that starts again, and a shared answer are labels."""
    drawn = Timeline()

    class Talks(LLM):
        async def chunks(self, request):
            yield "a"
            await asyncio.sleep(1)
            rxllm.dispatch("looked up", {"private": 1})
            yield Chunk("b", reset=True)
            await asyncio.sleep(1)

    cached = rxllm.cached(Talks(), rxllm.MemoryStore(), name="talks")
    await asyncio.gather(*(cached.ainvoke("hi", handlers=[drawn]) for _ in range(2)))
    assert {"looked up", "starts again", "shared"} <= set(texts_in(drawn.svg()))


def test_costs_and_speed_are_told():
    """An answer with a known price has its cost, and the runs around it the sum."""
    with FakeServer(Reply(Chat(model="gpt-4o").stream(["Hello", " you"], usage=(1000, 2000)))) as server:
        llm = rxllm.OpenAI("gpt-4o", base_url=f"{server.url}/v1", api_key="none")
        drawn = Timeline()
        rxllm.pipe(llm, rxllm.text()).invoke("hi", handlers=[drawn])
    whole, model = drawn.text(80).splitlines()[:2]
    assert re.search(r"2,000 tokens \([\d,]+/s\), \$0\.0225$", model)
    assert whole.endswith("$0.0225")


@on_virtual_time
async def test_answer_to_which_it_is_subscribed_has_one_row():
    """It can be the observer of an answer, which has no runs."""
    drawn = Timeline()
    ended = asyncio.Event()
    answer = MarbleLLM("--a-b--|")("hi").pipe(ops.do_action(on_completed=ended.set))
    answer.subscribe(drawn, scheduler=rxllm.scheduler())
    await ended.wait()
    assert 1 == drawn.runs
    assert drawn.text(60).splitlines()[0].startswith("stream o")
    assert "2 values" in drawn.text()


@on_virtual_time
async def test_events_to_which_it_is_subscribed_are_drawn():
    """It can be the observer of `events`."""
    drawn = Timeline()
    ended = asyncio.Event()
    MarbleLLM("--a-b--|").events("hi").pipe(ops.do_action(on_completed=ended.set)).subscribe(
        drawn, scheduler=rxllm.scheduler()
    )
    await ended.wait()
    assert 1 == drawn.runs
    assert "7 s, first after 2 s, 2 chunks" in drawn.text()


@on_virtual_time
async def test_failed_events_to_which_it_is_subscribed_have_one_row():
    """The error of the stream is that of the run's Failed event."""
    drawn = Timeline()
    ended = asyncio.Event()
    failing = MarbleLLM("--a-#").events("hi").pipe(ops.finally_action(ended.set))
    failing.subscribe(drawn, scheduler=rxllm.scheduler())
    await ended.wait()
    assert 1 == drawn.runs
    assert "TransportError after 4 s, first after 2 s, 1 chunk" in drawn.text()


# ── recorded events ──────────────────────────────────────────────────────────────────────────────────────────────


def test_recorded_events_are_drawn_by_their_times():
    """`of` draws events by their times. When the computer's clock goes back, the picture stands still."""
    run = Run("1", "model", "llm")
    times = (5.0, 7.0, 6.0, 6.5)
    values = [Emitted("a", run=run, time=at) for at in times[1:3]]
    events = [Started("hi", run=run, time=times[0]), *values, Finished(None, run=run, time=times[3])]
    assert "2 s, first after 2 s, 2 chunks" in Timeline.of(events).text()


def test_events_of_a_stream_can_be_drawn():
    """A program may keep the events of a stream, and draw them later."""
    events = list(MarbleLLM("-a-b|", timespan=0.01).events("hi").pipe(rxllm.stream()))
    assert any(isinstance(event, RunChunk) for event in events)
    assert "2 chunks" in Timeline.of(events).text()


@on_virtual_time
async def test_cassette_can_be_drawn(tmp_path):
    """The answers of a cassette are runs that start together."""
    path = tmp_path / "tea.jsonl"
    llm = record(MarbleLLM(["--a-b|", "-a-#"]), path)
    await llm.ainvoke("hi")
    with pytest.raises(rxllm.TransportError):
        await llm.ainvoke("hi")
    first, second = Timeline.of(Cassette.read(path).events()).text(80).splitlines()[:2]
    assert first.startswith("answer 1 -")
    assert first.endswith("|  5 s, first after 2 s, 2 chunks")
    assert second.rstrip().endswith("TransportError after 3 s, first after 1 s, 1 chunk")


# ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def everything(drawn):
    """Fill a timeline with private and hostile texts: of a prompt, chunks, tools, errors and names."""

    def look(word: str) -> str:
        rxllm.dispatch(HOSTILE)
        return f"private result {HOSTILE}"

    call = rxllm.Message("assistant", rxllm.ToolCallPart("1", "look", '{"word": "private"}'))
    error = rxllm.TransportError(f"private error {HOSTILE}")
    llm = MarbleLLM(["-c-|", "-x-#"], values={"c": call, "x": f"private {HOSTILE}"}, error=error, run_name=HOSTILE)
    with pytest.raises(rxllm.TransportError):
        await rxllm.agent(llm, look).ainvoke("private prompt", handlers=[drawn])


@on_virtual_time
async def test_pictures_have_no_private_text_unless_asked():
    """Prompts, answers, errors, and what tools get and give, are in no picture."""
    drawn = Timeline()
    await everything(drawn)
    for picture in drawn.svg(), drawn.text(), drawn.html(), drawn.trace(), repr(drawn):
        assert "private" not in picture


@pytest.mark.parametrize("texts", [False, True])
def test_hostile_texts_stay_texts(texts):
    """The SVG is well-formed, the page has no further script, and no picture has a control character."""
    drawn = Timeline(texts=texts)
    on_virtual_time(everything)(drawn)
    for picture in drawn.svg(), drawn.text(), drawn.html(), drawn.trace():
        picture.encode()
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ufffe]", picture)
    assert any("</script><script>" in text for text in texts_in(drawn.svg()))
    assert 2 == drawn.html().count("<script")
    assert 2 == drawn.html().count("</script>")
    outputs = [each["args"].get("output", "") for each in json.loads(drawn.trace())["traceEvents"]]
    assert texts == any("private result </script>" in output for output in outputs)


@on_virtual_time
async def test_page_has_the_texts_that_were_asked_for():
    """With `texts`, a page knows each chunk's text. Only its own script may run, and it loads nothing."""
    drawn = Timeline(texts=True)
    await MarbleLLM("-Hel-lo|").ainvoke("hi", handlers=[drawn])
    page = drawn.html()
    data = json.loads(re.search('id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert [[1.0, 1, "Hel"], [4.0, 1, "lo"]] == data["rows"][0]["d"]
    script = re.search('<script type="module">(.*?)</script>', page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page
    assert ["http://www.w3.org/2000/svg"] == re.findall("https?://[^\"' ]*", page)


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("texts", [False, True])
def test_memory_of_a_run_is_bounded_and_its_count_exact(texts):
    """Of very many chunks, the latest keep their times; older ones are kept in groups, with their number."""
    drawn = Timeline(texts=texts)
    run = Run("1", "model", "llm")
    drawn.on_next(Started("hi", run=run))
    for number in range(100_001):
        drawn.on_next(run_chunk(Chunk(f"{number} "), run))
    drawn.on_next(Finished(None, run=run))
    times = drawn._records["1"].chunks
    assert 100_001 == times.count
    assert len(times.latest) <= recording.KEPT
    assert len(times.older) == len(times.numbers) <= 2 * recording.KEPT
    assert 100_001 == sum(times.counts)
    assert len(times.counts) == len(times.older) + len(times.latest)
    assert sorted(times.older) == list(times.older)
    if texts:
        assert len(times.older) + len(times.latest) == len(times.texts)
        assert times.texts[0].startswith("0 1 ")
        assert "100000 " == times.texts[-1]
    assert "100,001 chunks" in drawn.text()


def test_number_of_runs_is_bounded(monkeypatch):
    """The latest runs are kept, and the others counted. A run that goes on is not dropped for a new one."""
    monkeypatch.setattr(timeline, "RUNS", 20)
    drawn = Timeline()
    lasting = Run("lasting", "lasting", "llm")
    drawn.on_next(Started("hi", run=lasting))
    for number in range(50):
        run = Run(str(number), f"run {number}", "llm", ("lasting",))
        drawn.on_next(Started("hi", run=run))
        drawn.on_next(Finished(None, run=run))
    drawn.on_next(Finished(None, run=lasting))
    assert 51 == drawn.runs
    lines = drawn.text().splitlines()
    assert "lasting" == lines[0].split()[0]
    assert "  run 49" == lines[19][:8]
    assert "… and 31 more" == lines[20]


def test_rows_are_bounded():
    """A picture has at most 100 rows, and tells how many runs have none."""
    drawn = Timeline()
    Bursts().batch(["1"] * 130, handlers=[drawn])
    assert "… and 30 more" in texts_in(drawn.svg())
    assert "Timeline of 130 runs" in drawn.svg()


@on_virtual_time
async def test_lines_of_a_text_are_bounded_on_request():
    """The runs that go on are drawn, and those that ended last; the number of the others is told."""
    drawn = Timeline()
    running = rxllm.astream()(MarbleLLM("-a" + "-" * 100 + "|").with_config(run_name="long", handlers=[drawn])("x"))
    await anext(running)
    for number in range(20):
        await MarbleLLM("-a|").with_config(run_name=f"run {number}", handlers=[drawn]).ainvoke("x")
    names = [re.split(r" +[-o>|]", line)[0] for line in drawn.text(height=8).splitlines()]
    assert ["long", "run 17", "run 18", "run 19", "… and 17 more"] == names[:5]
    assert 8 == len(names)
    assert drawn.text() == drawn.text(height=30)
    assert drawn.text(height=1).startswith("long ")
    await running.aclose()


@pytest.mark.parametrize("runs", [1, 100])
def test_many_chunks_are_drawn_fast_and_small(runs):
    """10,000 chunks take less than 200 ms and 300 KB, in one run or in many."""
    drawn = Timeline()
    Bursts().batch([str(10_000 // runs)] * runs, handlers=[drawn])
    durations = []
    for _ in range(3):
        began = time.process_time()
        svg = drawn.svg()
        durations.append(time.process_time() - began)
    assert len(svg) < 300_000
    assert min(durations) < 0.2


# ── the handler ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_runs_of_several_threads_are_drawn():
    """Synchronous calls run on another thread's loop than the drawing."""
    drawn = Timeline()
    Bursts().batch(["3"] * 5, handlers=[drawn])
    Bursts().invoke("3", handlers=[drawn])
    assert 6 == drawn.text().count("3 chunks")


def test_notebooks_show_it():
    """A notebook gets the SVG, and the text where it shows no SVG."""
    drawn = SITUATIONS["plain"]()
    assert {"image/svg+xml": drawn.svg(), "text/plain": drawn.text()} == drawn._repr_mimebundle_()
    assert "<Timeline of 1 run over 2.45 s>" == repr(drawn)


def test_empty_timeline_can_be_drawn():
    """Before the first run, too."""
    drawn = Timeline()
    assert drawn.svg().startswith("<svg")
    assert "<html" in drawn.html()
    assert json.loads(drawn.trace())
    assert "No runs yet." == drawn.text()


@on_virtual_time
async def test_run_that_takes_no_time_can_be_drawn():
    """A span of zero seconds is drawn, too."""
    drawn = Timeline()
    await Bursts().ainvoke("2", handlers=[drawn])
    assert "2 chunks" in drawn.text()
    assert drawn.svg()


def test_wrong_arguments_are_sentences():
    """A wrong argument is a sentence, and a timeline stays in its process."""
    with pytest.raises(MisuseError, match="texts must be True or False"):
        Timeline(texts="yes")
    with pytest.raises(MisuseError, match="cannot be pickled"):
        pickle.dumps(Timeline())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((0, "0 s"), (2e-6, "2 µs"), (0.0042, "4.2 ms"), (0.25, "250 ms"), (1, "1 s"), (2.346, "2.35 s")),
        *((42.34, "42.3 s"), (59.97, "1:00 min"), (75, "1:15 min"), (3661, "1:01:01 h")),
    ],
)
def test_durations_are_short(value, shown):
    """A duration has its unit and at most three digits, or minutes and hours."""
    assert shown == seconds(value)


@pytest.mark.parametrize("span", [0.001, 0.003, 0.9, 7, 42, 75, 500, 4000, 90_000, 1e7])
def test_ticks_are_round_and_few(span):
    """An axis has two ticks at least, and not more than asked for."""
    drawn = ticks(span, 8)
    assert 2 <= len(drawn) <= 8
    assert 0 == drawn[0][0]
    assert drawn[-1][0] <= span * 1.001
    assert len({label for _, label in drawn}) == len(drawn)
