"""``--markdown`` and ``--live``: what a terminal shows while an answer grows, and what no terminal gets."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import COMMAND, environment, openai
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from protocols import Chat, ToolCall
from terminals import PATIENCE, Display, needs_pty

import rxllm
from rxllm import cli
from rxllm.cli.live import LivePaper
from rxllm.cli.markdown import Blocks
from rxllm.testing import End, FakeServer, MarbleLLM, Reply, Signal, on_virtual_time

CHAT = Chat()
ALLOWED = re.compile(rb"\x1b\[(\?25[hl]|\d*[AK]|[\d;]*m)")  # the cursor, erasing, and colours
TOOLS = """
import pathlib, time

def forecast(city: str) -> str:
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    return "rain"
"""


@pytest.fixture
def server():
    """A server of OpenAI's protocol."""
    with FakeServer() as server:
        yield server


@pytest.fixture
def variables(server, tmp_path, monkeypatch):
    """The environment of the command, in a new folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    Path("mytools.py").write_text(TOOLS)
    return environment(**openai(server), RXLLM_MODEL="openai:m", XDG_DATA_HOME=str(tmp_path))


@pytest.fixture
def display(variables):
    """Start the command at a pseudo-terminal."""
    running = []

    def start(*arguments, lines=24, columns=80, **more):
        running.append(Display({**variables, **more}, *COMMAND, *arguments, lines=lines, columns=columns))
        return running[-1]

    yield start
    for each in running:
        each.close()


def growing(*pieces):
    """An answer in pieces, and the signals that let all pieces but the first one go out."""
    first, *others = events = CHAT.stream(pieces)
    signals = [Signal() for _ in pieces[1:]]
    parts = [first]
    for event, signal in zip(others, [None, *signals, *[None] * len(events)], strict=False):
        parts += [event] if signal is None else [signal, event]
    return Reply(parts), *signals


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────────────────────


@needs_pty
def test_markdown_grows_and_what_is_finished_is_printed_once(server, display):
    """The last block changes until the next one begins. At the end the screen has each block once."""
    answer, second, third = growing("# Title\n\nSome **bo", "ld** text.\n\n- one\n- tw", "o\n\n```python\nx = 1\n```\n")
    server.reply(answer)
    screen = display("--markdown", "hi")
    screen.wait_until(lambda lines: "Some **bo" in lines)
    second.set()
    screen.wait_until(lambda lines: lines[-2:] == [" • one", " • tw"])
    assert "Some bold text." in screen.lines
    third.set()
    assert 0 == screen.end()
    assert ["Title", "", "Some bold text.", "", " • one", " • two", "", "", " x = 1"] == [
        line.strip() if "Title" in line else line for line in screen.lines
    ]
    assert not screen.screen.cursor.hidden


@needs_pty
def test_long_markdown_scrolls_without_a_trace_of_its_growth(server, display):
    """More blocks, and a larger last block, than the screen has lines."""
    paragraphs = [f"Paragraph {number}." for number in range(30)]
    code = [f"line {number}" for number in range(30)]
    text = "\n\n".join([*paragraphs, "\n".join(["```", *code, "```", ""])])
    answer, *signals = growing(*(text[start : start + 60] for start in range(0, len(text), 60)))
    server.reply(answer)
    screen = display("--markdown", "hi", lines=9, columns=40)
    for signal in signals:
        signal.set()
        screen.read(0.02)
    assert 0 == screen.end()
    assert [*paragraphs, *code] == [line.strip() for line in screen.lines if line.strip()]


@needs_pty
def test_answer_cannot_send_control_sequences(server, display):
    """Neither as they are, nor as entities, nor in a link, whose address is shown. HTML is shown, too."""
    hostile = (
        "a\x1b]0;title\x07 \x1b[2J &#x1b;]52;c;x&#7; &#13; &#x202e;b \x9b2J\n\n[bank](https://evil.example/\x1b)\n\n"
        "<script>x</script>\n\n`c\x1b`\n\n```\x1b[31m\nd\x1b[31m\n```\n\n![i](https://e/\x1b)\n"
    )
    server.reply(Reply(CHAT.stream([hostile])))
    for option in "--markdown", "--live":
        screen = display(option, "hi", columns=200)
        assert 0 == screen.end()
        assert b"\x1b" not in ALLOWED.sub(b"", screen.written)
        assert not set("\x07\x0c\x9b\u202e") & set(screen.written.decode())
        assert screen.screen.title == ""
        shown = "\n".join(screen.lines)
        for part in (
            "\\u001b]0;title\\u0007",
            "https://evil.example/",
            "<script>x</script>",
            *([r"\u202e", r"\u000d"] if option == "--markdown" else ["&#x202e;", "&#13;"]),
            "c\\u001b",
            "d\\u001b[31m",
        ):
            assert part in shown


@needs_pty
@pytest.mark.parametrize(("more", "has_colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color(server, display, more, has_colours):
    """NO_COLOR removes the colours."""
    server.reply(Reply(CHAT.stream(["> quote\n\n`code`\n"])))
    screen = display("--markdown", "hi", **more)
    assert 0 == screen.end()
    assert has_colours == bool(re.search(rb"\x1b\[(\d+;)*(3|4|9)\d", screen.written))
    assert ["▌ quote", "", "code"] == screen.lines


@needs_pty
def test_dumb_terminal_gets_plain_text(server, variables):
    """It knows no control sequences."""
    server.reply(Reply(CHAT.stream(["# Ti", "tle\n"])))
    screen = Display(variables, sys.executable, "-c", DUMB)
    try:
        assert 0 == screen.end()
    finally:
        screen.close()
    assert b"# Title\r\n" == screen.written


DUMB = (
    "import os; os.environ['TERM'] = 'dumb'; from rxllm.cli import main; raise SystemExit(main(['--markdown', 'hi']))"
)


def test_without_a_terminal_the_text_stays_as_it_is(server, variables):
    """For files and other programs, also if colours are forced."""
    server.reply(Reply(CHAT.stream(["# Ti", "tle\n\n- a\n"])))
    done = subprocess.run(
        [*COMMAND, "--markdown", "--live", "hi"],
        env={**variables, "FORCE_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    assert (b"# Title\n\n- a\n", b"") == (done.stdout, done.stderr)


@needs_pty
def test_chat_shows_each_answer_as_markdown(server, display):
    """And asks for the next question below it."""
    server.reply(Reply(CHAT.stream(["- one\n- two"])), Reply(CHAT.stream(["**three**"])))
    chat = display("chat", "--markdown", "--no-history")
    chat.wait_until(lambda lines: lines[-1:] == [">"])
    chat.type("a\n")
    chat.wait_until(lambda lines: lines[-4:] == ["> a", " • one", " • two", ">"])
    chat.type("b\n")
    chat.wait_until(lambda lines: lines[-3:] == ["> b", "three", ">"])
    assert 0 == chat.end("\x04")


# ── the timeline ─────────────────────────────────────────────────────────────────────────────────────────────────


@needs_pty
def test_timeline_is_drawn_below_the_text_while_runs_go_on(server, display):
    """The rows of an agent and of its tools, below the text and the notes. At the end the timeline is gone."""
    call = ToolCall("c1", "forecast", [json.dumps({"city": "Oslo"})])
    answer, more = growing("It rains in Os", "lo.\nBye.")
    server.reply(Reply(CHAT.stream(["Let me see."], tool_call=call)), answer)
    screen = display("--live", "--tools", "mytools:forecast", "hi", columns=120)
    texts = ["Let me see.", 'rxllm: forecast {"city": "Oslo"}']
    screen.wait_until(lambda lines: lines[:2] == texts and any("forecast  " in line for line in lines))
    rows = [line.split()[0] for line in screen.lines[2:6]]
    assert ["remember", "agent", "OpenAI", "forecast"] == rows
    Path("go").touch()
    screen.wait_until(lambda lines: lines[2:3] == ["It rains in Os"])
    assert 2 == sum("OpenAI" in line for line in screen.lines)
    more.set()
    assert 0 == screen.end()
    assert [*texts, "It rains in Oslo.", "Bye."] == screen.lines


@needs_pty
def test_timeline_stays_below_a_file(server, variables):
    """If the answer goes to a file, the terminal has the timeline only."""
    answer, more = growing("Hel", "lo")
    server.reply(answer)
    script = f"exec {sys.executable} -m rxllm --live hi > answer.txt"
    screen = Display(variables, "/bin/sh", "-c", script)
    try:
        screen.wait_until(lambda lines: any("OpenAI" in line and "o" in line[8:] for line in lines))
        more.set()
        assert 0 == screen.end()
        assert [] == screen.lines
    finally:
        screen.close()
    assert Path("answer.txt").read_text() == "Hello\n"


@needs_pty
def test_ctrl_c_leaves_the_text_and_the_cursor(server, display):
    """What had come is on the screen, the timeline is not."""
    server.reply(Reply([*CHAT.stream(["Hello\nwor", "ld"])[:2], End.HANG]))
    screen = display("--live", "hi")
    screen.wait_until(lambda lines: lines[:2] == ["Hello", "wor"])
    assert 130 == screen.end("\x03")
    assert ["Hello", "wor"] == [line.removeprefix("^C") for line in screen.lines if line not in ("^C", "")]
    assert not screen.screen.cursor.hidden
    server.exchange().wait_closed()


@needs_pty
def test_failure_stands_below_the_text(server, display):
    """And the drawn timeline of --timeline below that."""
    server.reply(Reply([*CHAT.stream(["Hello\nwor", "ld"])[:2], End.FIN]))
    screen = display("--live", "--timeline", "hi")
    assert 1 == screen.end()
    assert ["Hello", "wor"] == screen.lines[:2]
    assert 1 == sum(line.startswith("OpenAI") for line in screen.lines)


@on_virtual_time
async def test_terminal_is_drawn_at_most_ten_times_a_second():
    """However many chunks come."""
    paper = LivePaper.__new__(LivePaper)
    llm = MarbleLLM("a-" * 1000 + "|", timespan=0.002)
    items = [item async for item in paper.paced(llm("hi")).pipe(rxllm.astream())]
    assert 1000 == sum(item is not None for item in items)
    assert 38 <= sum(item is None for item in items) <= 40  # in four seconds


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("words", [("--json", "--markdown"), ("--raw", "--live"), ("chat", "--raw", "--markdown")])
def test_options_that_contradict_each_other_are_refused(server, variables, monkeypatch, capsys, words):
    """Before anything is sent."""
    monkeypatch.setattr("sys.stdin", None)
    assert 2 == cli.main([*words, "-m", "embedded", *(["hi"] if words[0] != "chat" else [])])
    assert " excludes --markdown and --live" in capsys.readouterr().err


@needs_pty
def test_missing_rich_is_named(server, variables):
    """With the extra that brings it."""
    script = "import sys; sys.modules['rich'] = sys.modules['rich.console'] = None; from rxllm.cli import main; "
    screen = Display(variables, sys.executable, "-c", f"{script}raise SystemExit(main(['--live', 'hi']))", columns=200)
    try:
        assert 2 == screen.end()
    finally:
        screen.close()
    assert [
        "rxllm: --markdown and --live need rich, which is not installed: pip install 'rxllm[progress]'."
    ] == screen.lines
    assert [] == server.requests


# ── blocks ───────────────────────────────────────────────────────────────────────────────────────────────────────

LINES = [
    "", "", "text", "more *text*", "# Head", "#", "---", "===", "- item", "- ", "  inner", "    deep", "1. one",
    "2) two", "> quote", ">", "```", "```python", "~~~", "| a | b |", "|---|---|", "| 1 | 2 |", "[a]: https://x.y",
    "[a]", "<div>", "</div>", "<!--", "-->", "\tx", "***", "![i](x)", "+ plus", " ",
]  # fmt: skip


@example(["[a]", "", "text", "", "[a]: https://x.y"], [1])
@given(st.lists(st.sampled_from(LINES), max_size=25), st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_later_text_changes_no_finished_block(lines, sizes):
    """The finished parts, parsed each by itself, are the blocks of the whole text, wherever the pieces end."""
    text, parser = "\n".join(lines), Blocks()._parser
    blocks, rest, printed, place, turn = Blocks(), "", [], 0, 0
    while place < len(text):
        size = sizes[turn % len(sizes)]
        rest += text[place : place + size]
        place, turn = place + size, turn + 1
        finished, rest = blocks.split(rest)
        printed += [finished] if finished else []
    assert text == "".join([*printed, rest])
    assert facts(parser, text) == [fact for part in [*printed, rest] for fact in facts(parser, part)]


def facts(parser: MarkdownIt, text):
    """The kinds and the contents of the parts of a text."""
    return [
        (token.type, token.content, token.level, [child.type for child in token.children or ()])
        for token in parser.parse(text)
    ]
