"""`StdoutHandler`: its output on terminals and files, for models and pipelines, one run and several."""

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

PATIENCE = 30.0  # seconds; a limit for steps that take milliseconds
DIM, RED, PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[0m"


class Letters(LLM):
    """Streams the prompt letter by letter."""

    async def chunks(self, request):
        """Yield one chunk per letter."""
        for letter in request.text:
            yield letter


class Breaks(LLM):
    """Emits a chunk, then fails."""

    async def chunks(self, request):
        """Yield one chunk, then raise."""
        yield "a"
        raise Interrupted("no")


class Thinks(LLM):
    """Emits reasoning in two chunks, then the answer."""

    async def chunks(self, request):
        """Yield reasoning and text."""
        yield Chunk(parts=[ReasoningPart("I th")])
        yield Chunk(parts=[ReasoningPart("ink.")])
        yield "So"
        yield "!"


class StartsAgain(LLM):
    """Resets its answer twice: in a chunk of its own, and in a chunk with text."""

    async def chunks(self, request):
        """Yield the same text three times."""
        yield "Hel"
        yield Chunk(reset=True)
        yield "Hell"
        yield Chunk("Hello", reset=True)


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self):
        """Return True."""
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """Remove the environment variables about colour."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture(params=[io.StringIO, Terminal], ids=["file", "terminal"])
def file(request):
    """A file, once plain and once a terminal."""
    return request.param()


@pytest.fixture
def terminal():
    """A terminal."""
    return Terminal()


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_model_writes_its_text_as_a_line(file):
    """Text appears as it arrives, with a newline after the last piece, unless the answer ends with one."""
    handler = StdoutHandler(file)
    Letters(handlers=[handler]).batch(["ab", "c\n", "d"], max_concurrency=1)
    assert "ab\nc\nd\n" == file.getvalue()


@pytest.mark.parametrize(
    "stages",
    [(Letters(),), (Letters(), rxllm.text()), (Letters(), rxllm.message()), (Letters(), Letters(), rxllm.text())],
    ids=["chunks", "texts", "message", "two models"],
)
def test_pipelines_text_is_written_once(stages, file):
    """The pipeline's values are written, not those of the models inside; chunks, strings and messages work."""
    rxllm.pipe(*stages).with_config(handlers=[StdoutHandler(file)]).invoke("ab")
    assert "ab\n" == file.getvalue()


def test_transformed_text_of_a_pipeline_is_written(file):
    """The pipeline's strings are written; values that are not text are ignored."""
    handler = StdoutHandler(file)
    rxllm.pipe(Letters(), rxllm.text(), ops.map(str.upper)).with_config(handlers=[handler]).invoke("ab")
    rxllm.pipe(Letters(), rxllm.text(), ops.map(len)).with_config(handlers=[handler]).invoke("ab")
    assert "AB\n" == file.getvalue()


def test_handler_attached_inside_a_pipeline_writes_its_model(file):
    """The outermost run that the handler receives is written, here the model's."""
    rxllm.pipe(Letters(handlers=[StdoutHandler(file)]), rxllm.text(), ops.map(str.upper)).invoke("ab")
    assert "ab\n" == file.getvalue()


def test_handler_can_be_subscribed(file):
    """It accepts a model's answer, a pipeline's texts, all events, or only their chunks."""
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


async def test_cancellation_ends_the_line(file):
    """The next output starts on a line of its own."""

    class Hangs(LLM):
        async def chunks(self, request):
            yield "a"
            await asyncio.Event().wait()

    async with Hangs(handlers=[StdoutHandler(file)]).astream("x") as stream:
        await anext(stream)
    assert "a\n" == file.getvalue()


def test_standard_output_is_looked_up_at_each_write(capsys):
    """A handler that was created before `sys.stdout` was replaced writes to the replacement."""
    Letters(handlers=[StdoutHandler()]).invoke("ab")
    assert ("ab\n", "") == capsys.readouterr()


def test_provider_over_http_is_written():
    """A terminal shows its reasoning and its text."""
    file, terminal = io.StringIO(), Terminal()
    with FakeServer(Reply(Chat().stream(["He", "llo"], reasoning=["Hm", "."]))) as server:
        llm = rxllm.OpenAI("m", base_url=f"{server.url}/v1", handlers=[StdoutHandler(file), StdoutHandler(terminal)])
        llm.invoke("Hi")
    assert "Hello\n" == file.getvalue()
    assert f"{DIM}Hm{PLAIN}{DIM}.{PLAIN}\nHello\n" == terminal.getvalue()


# ── terminals ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_reasoning_is_dimmed_before_the_answer(terminal):
    """The reasoning has a line of its own."""
    Thinks(handlers=[StdoutHandler(terminal)]).invoke("x")
    assert f"{DIM}I th{PLAIN}{DIM}ink.{PLAIN}\nSo!\n" == terminal.getvalue()


def test_files_get_no_reasoning():
    """Without a terminal, only the answer's text is written."""
    file = io.StringIO()
    Thinks(handlers=[StdoutHandler(file)]).invoke("x")
    assert "So!\n" == file.getvalue()


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_color_and_dumb_terminals_get_no_styles(name, value, terminal, monkeypatch):
    """The text stays the same."""
    monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr", error := Terminal())
    Thinks(handlers=[StdoutHandler(terminal)]).invoke("x")
    with pytest.raises(Interrupted):
        Breaks(handlers=[StdoutHandler(terminal)]).invoke("x")
    assert "I think.\nSo!\na\n" == terminal.getvalue()
    assert "Interrupted: no\n" == error.getvalue()


def test_empty_no_color_keeps_the_styles(terminal, monkeypatch):
    """By the convention only a non-empty NO_COLOR counts."""
    monkeypatch.setenv("NO_COLOR", "")
    Thinks(handlers=[StdoutHandler(terminal)]).invoke("x")
    assert DIM in terminal.getvalue()


def test_failure_is_written_once_in_red(terminal, monkeypatch):
    """Standard error gets one line, styled by its own terminal, though model and pipeline both failed."""
    for error, expected in (Terminal(), f"{RED}Interrupted: no{PLAIN}\n"), (io.StringIO(), "Interrupted: no\n"):
        monkeypatch.setattr("sys.stderr", error)
        with pytest.raises(Interrupted):
            rxllm.pipe(Breaks(), rxllm.text()).with_config(handlers=[StdoutHandler(terminal)]).invoke("x")
        assert expected == error.getvalue()
    assert "a\na\n" == terminal.getvalue()


def test_recovered_failure_inside_a_pipeline_is_not_written(capsys):
    """Only the outermost run's failure is written."""
    pipeline = rxllm.pipe(Breaks(), rxllm.text(), ops.catch(rx.just("b")))
    pipeline.with_config(handlers=[StdoutHandler()]).invoke("x")
    assert ("ab\n", "") == capsys.readouterr()


def test_restart_of_an_answer_is_shown():
    """A note has its own line, dimmed on a terminal."""
    file, terminal = io.StringIO(), Terminal()
    StartsAgain(handlers=[StdoutHandler(file), StdoutHandler(terminal)]).invoke("x")
    assert "Hel\n[started again]\nHell\n[started again]\nHello\n" == file.getvalue()
    assert file.getvalue().replace("[started again]", f"{DIM}[started again]{PLAIN}") == terminal.getvalue()


# ── several runs ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_concurrent_runs_are_written_one_after_another(file, capsys):
    """In the order of their starts: the first as it arrives, each other one after it, failures included."""
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


async def test_next_run_is_written_as_it_arrives(file):
    """After the first run has ended, the second is written live."""
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
    """Each answer is whole, for runs on several event loops and on the portal."""
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
    """Tries to write to the terminal's clipboard, with split escape sequences in reasoning, text and error."""

    async def chunks(self, request):
        """Yield an escape sequence in pieces."""
        for half in ("\x1b", "]52;c;AA\x07"):
            yield Chunk(parts=[ReasoningPart(half)])
        yield "a\x1b"
        yield "]52;c;AA\x07\t\x9b2Jb\n"
        raise Interrupted("no\x1b[2J\nfake")


def test_control_characters_are_made_visible(capsys, monkeypatch):
    """Reasoning, text and errors never reach the terminal as commands, and the error stays on one line."""
    monkeypatch.setenv("NO_COLOR", "1")
    out, err = Terminal(), Terminal()
    monkeypatch.setattr("sys.stderr", err)
    with pytest.raises(Interrupted):
        Attacks(handlers=[StdoutHandler(out)]).invoke("x")
    sequence = "\\u001b]52;c;AA\\u0007"
    assert f"{sequence}\na{sequence}\t\\u009b2Jb\n" == out.getvalue()
    assert "Interrupted: no\\u001b[2J fake\n" == err.getvalue()
