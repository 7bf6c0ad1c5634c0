"""What is written where: on a terminal and elsewhere, of pipelines and models, of one run and of several."""

import asyncio
import io
import threading

import pytest
import reactivex as rx
from protocols import Chat
from reactivex import operators as ops

import rxllm
from rxllm import LLM, Chunk, Interrupted, ReasoningPart, RunChunk, StdoutHandler
from rxllm.testing import FakeServer, Reply

PATIENCE = 5.0  # seconds for what comes at once
DIM, RED, PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[0m"


class Letters(LLM):
    """Streams the prompt by letters."""

    async def chunks(self, request):
        """Letters."""
        for letter in request.text:
            yield letter


class Breaks(LLM):
    """Fails after a chunk."""

    async def chunks(self, request):
        """Half of it."""
        yield "a"
        raise Interrupted("no")


class Thinks(LLM):
    """Reasons in two pieces, then answers."""

    async def chunks(self, request):
        """Reasoning and text."""
        yield Chunk(parts=[ReasoningPart("I th")])
        yield Chunk(parts=[ReasoningPart("ink.")])
        yield "So"
        yield "!"


class StartsAgain(LLM):
    """Takes back what it said, once in a chunk of its own, once in one with text."""

    async def chunks(self, request):
        """Three times the same."""
        yield "Hel"
        yield Chunk(reset=True)
        yield "Hell"
        yield Chunk("Hello", reset=True)


class Terminal(io.StringIO):
    """A terminal, if you ask it."""

    def isatty(self):
        """It says so."""
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Nothing about colours is said, but what a test says."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture(params=[io.StringIO, Terminal], ids=["file", "terminal"])
def file(request):
    """Some of either kind."""
    return request.param()


@pytest.fixture
def terminal():
    """A terminal."""
    return Terminal()


# ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_models_text_is_a_line(file):
    """As it comes, and its end after the last piece; an answer that ends a line ends it once."""
    handler = StdoutHandler(file)
    Letters(handlers=[handler]).batch(["ab", "c\n", "d"], max_concurrency=1)
    assert "ab\nc\nd\n" == file.getvalue()


@pytest.mark.parametrize(
    "stages",
    [(Letters(),), (Letters(), rxllm.text()), (Letters(), rxllm.message()), (Letters(), Letters(), rxllm.text())],
    ids=["chunks", "texts", "message", "two models"],
)
def test_a_pipelines_text_is_written_once(stages, file):
    """What it gives, not what the models within give to it; whatever form it has."""
    rxllm.pipe(*stages).with_config(handlers=[StdoutHandler(file)]).invoke("ab")
    assert "ab\n" == file.getvalue()


def test_what_a_pipeline_makes_of_it_is_written(file):
    """And nothing of what is no text."""
    handler = StdoutHandler(file)
    rxllm.pipe(Letters(), rxllm.text(), ops.map(str.upper)).with_config(handlers=[handler]).invoke("ab")
    rxllm.pipe(Letters(), rxllm.text(), ops.map(len)).with_config(handlers=[handler]).invoke("ab")
    assert "AB\n" == file.getvalue()


def test_a_model_within_is_heard_where_only_it_is_attached(file):
    """It is the outermost that is heard, although a pipeline that nobody listens to runs it."""
    rxllm.pipe(Letters(handlers=[StdoutHandler(file)]), rxllm.text(), ops.map(str.upper)).invoke("ab")
    assert "ab\n" == file.getvalue()


def test_it_can_be_subscribed(file):
    """To a model's answer, a pipeline's texts, all events, or the chunks of them."""
    llm = Letters()
    of_chunks = ops.filter(lambda event: isinstance(event, RunChunk))
    for source in (
        llm("ab"),
        rxllm.pipe(llm, rxllm.text())("ab"),
        rxllm.pipe(llm, rxllm.text()).events("ab"),
        llm.events("ab").pipe(of_chunks),
    ):
        list(source.pipe(ops.do(StdoutHandler(file)), rxllm.stream()))
    assert "ab\n" * 4 == file.getvalue()


async def test_leaving_ends_the_line(file):
    """So that what comes next has a line of its own."""

    class Hangs(LLM):
        async def chunks(self, request):
            yield "a"
            await asyncio.Event().wait()

    async with Hangs(handlers=[StdoutHandler(file)]).astream("x") as stream:
        await anext(stream)
    assert "a\n" == file.getvalue()


def test_standard_output_is_looked_up_when_it_is_written_to(capsys):
    """A handler that was made before it was replaced writes to the replacement."""
    Letters(handlers=[StdoutHandler()]).invoke("ab")
    assert ("ab\n", "") == capsys.readouterr()


def test_a_provider_over_http_is_written():
    """With its reasoning, on a terminal."""
    file, terminal = io.StringIO(), Terminal()
    with FakeServer(Reply(Chat().stream(["He", "llo"], reasoning=["Hm", "."]))) as server:
        llm = rxllm.OpenAI("m", base_url=f"{server.url}/v1", handlers=[StdoutHandler(file), StdoutHandler(terminal)])
        llm.invoke("Hi")
    assert "Hello\n" == file.getvalue()
    assert f"{DIM}Hm{PLAIN}{DIM}.{PLAIN}\nHello\n" == terminal.getvalue()


# ── terminals ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_reasoning_is_dimmed_before_the_answer(terminal):
    """On a line of its own."""
    Thinks(handlers=[StdoutHandler(terminal)]).invoke("x")
    assert f"{DIM}I th{PLAIN}{DIM}ink.{PLAIN}\nSo!\n" == terminal.getvalue()


def test_reasoning_is_no_text():
    """Where there is no terminal, the answer alone is written."""
    file = io.StringIO()
    Thinks(handlers=[StdoutHandler(file)]).invoke("x")
    assert "So!\n" == file.getvalue()


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_who_wants_no_colour_gets_none(name, value, terminal, monkeypatch):
    """The texts are the same."""
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr", error := Terminal())
    Thinks(handlers=[StdoutHandler(terminal)]).invoke("x")
    with pytest.raises(Interrupted):
        Breaks(handlers=[StdoutHandler(terminal)]).invoke("x")
    assert "I think.\nSo!\na\n" == terminal.getvalue()
    assert "Interrupted: no\n" == error.getvalue()


def test_an_empty_no_color_says_nothing(terminal, monkeypatch):
    """By the convention it must not be empty."""
    monkeypatch.setenv("NO_COLOR", "")
    Thinks(handlers=[StdoutHandler(terminal)]).invoke("x")
    assert DIM in terminal.getvalue()


def test_a_failure_is_told_once_and_in_red(terminal, monkeypatch):
    """On standard error, whose own terminal decides; though the model's run and the pipeline's run both failed."""
    for error, expected in (Terminal(), f"{RED}Interrupted: no{PLAIN}\n"), (io.StringIO(), "Interrupted: no\n"):
        monkeypatch.setattr("sys.stderr", error)
        with pytest.raises(Interrupted):
            rxllm.pipe(Breaks(), rxllm.text()).with_config(handlers=[StdoutHandler(terminal)]).invoke("x")
        assert expected == error.getvalue()
    assert "a\na\n" == terminal.getvalue()


def test_what_a_model_within_failed_of_is_not_told_if_the_pipeline_did_not(capsys):
    """It is the pipeline's to say."""
    pipeline = rxllm.pipe(Breaks(), rxllm.text(), ops.catch(rx.just("b")))
    pipeline.with_config(handlers=[StdoutHandler()]).invoke("x")
    assert ("ab\n", "") == capsys.readouterr()


def test_starting_again_is_seen():
    """As a note on a line of its own, dimmed on a terminal."""
    file, terminal = io.StringIO(), Terminal()
    StartsAgain(handlers=[StdoutHandler(file), StdoutHandler(terminal)]).invoke("x")
    assert "Hel\n[started again]\nHell\n[started again]\nHello\n" == file.getvalue()
    assert file.getvalue().replace("[started again]", f"{DIM}[started again]{PLAIN}") == terminal.getvalue()


# ── several at once ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_runs_at_the_same_time_are_written_one_after_another(file, capsys):
    """In the order they began: the first as it comes, the others when it has ended, with their failures."""
    may_end = asyncio.Event()

    class First(LLM):
        async def chunks(self, request):
            yield "fir"
            await may_end.wait()
            yield "st"

    handler = StdoutHandler(file)
    async with First(handlers=[handler]).astream("x") as first:
        await anext(first)
        second = asyncio.create_task(Letters(handlers=[handler]).ainvoke("second"))
        third = asyncio.create_task(Breaks(handlers=[handler]).ainvoke("third"))
        await asyncio.wait([second, third])
        assert isinstance(third.exception(), Interrupted)
        assert ("fir", "") == (file.getvalue(), capsys.readouterr().err)
        may_end.set()
        assert ["st"] == [str(chunk) async for chunk in first]
    assert "first\nsecond\na\n" == file.getvalue()
    assert "Interrupted: no\n" == capsys.readouterr().err
    assert {} == handler._turns


async def test_who_is_next_is_written_as_it_comes(file):
    """Once the first has ended."""
    first, second = asyncio.Event(), asyncio.Event()

    class Waits(LLM):
        async def chunks(self, request):
            yield "a"
            await (first if request.text == "first" else second).wait()
            yield "b"

    llm = Waits(handlers=[StdoutHandler(file)])
    async with llm.astream("first") as one, llm.astream("second") as two:
        await anext(one)
        await anext(two)
        assert "a" == file.getvalue()
        first.set()
        assert ["b"] == [str(chunk) async for chunk in one]
        assert "ab\na" == file.getvalue()
        second.set()
        assert ["b"] == [str(chunk) async for chunk in two]
    assert "ab\nab\n" == file.getvalue()


def test_threads_do_not_garble_lines(file):
    """Each answer is whole, on loops of its own and on the portal."""
    handler = StdoutHandler(file)
    llm = Letters(handlers=[handler])
    threads = [
        threading.Thread(target=lambda text=text: asyncio.run(llm.ainvoke(text))) for text in ("aaaa", "bbbb", "cccc")
    ]
    for thread in threads:
        thread.start()
    llm.batch(["dddd"] * 4)
    for thread in threads:
        thread.join(PATIENCE)
    assert ["aaaa", "bbbb", "cccc", *["dddd"] * 4] == sorted(file.getvalue().split())


# ── control characters ───────────────────────────────────────────────────────────────────────────────────────────


class Attacks(LLM):
    """Tries to write to the terminal's clipboard, in reasoning, text and an error; the sequences are split."""

    async def chunks(self, request):
        """An escape sequence in pieces."""
        for half in ("\x1b", "]52;c;AA\x07"):
            yield Chunk(parts=[ReasoningPart(half)])
        yield "a\x1b"
        yield "]52;c;AA\x07\t\x9b2Jb\n"
        raise Interrupted("no\x1b[2J\nfake")


def test_control_characters_are_shown(capsys, monkeypatch):
    """Neither what is thought nor what is said reaches the terminal as a command, nor an error; its line is one."""
    monkeypatch.setenv("NO_COLOR", "1")
    out, err = Terminal(), Terminal()
    monkeypatch.setattr("sys.stderr", err)
    with pytest.raises(Interrupted):
        Attacks(handlers=[StdoutHandler(out)]).invoke("x")
    sequence = "\\u001b]52;c;AA\\u0007"
    assert f"{sequence}\na{sequence}\t\\u009b2Jb\n" == out.getvalue()
    assert "Interrupted: no\\u001b[2J fake\n" == err.getvalue()
