"""``rxllm chat``: at a pseudo-terminal, and with text that is piped in."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import COMMAND as RXLLM
from commands import environment, openai, run_here
from protocols import Chat, ToolCall
from terminals import PATIENCE, Terminal, needs_pty

import rxllm
from rxllm.cli import chat
from rxllm.testing import End, FakeServer, Reply

CHAT = Chat()
HELLO = CHAT.stream(["Hel", "lo"])
COMMAND = (*RXLLM, "chat")


@pytest.fixture
def server():
    """A server that answers Hello in OpenAI's protocol."""
    with FakeServer(Reply(HELLO)) as server:
        yield server


@pytest.fixture
def variables(server, tmp_path):
    """The environment: the server is OpenAI's, and the data of applications is in a new folder."""
    return environment(**openai(server), RXLLM_MODEL="openai:m", XDG_DATA_HOME=str(tmp_path), TERM="dumb")


def piped(variables, text, *arguments):
    """Run the command to its end in this process, with this text on standard input."""
    return run_here(["chat", *arguments], text, variables)


def sent(server):
    """The texts of the messages of each request."""
    return [[message["content"] for message in request.json["messages"]] for request in server.requests]


@pytest.fixture
def terminal(variables):
    """Start the command at a pseudo-terminal."""
    running = []

    def start(*arguments):
        running.append(Terminal(variables, *COMMAND, *arguments))
        return running[-1]

    yield start
    for each in running:
        each.close()


# ── at a terminal ────────────────────────────────────────────────────────────────────────────────────────────────


@needs_pty
def test_conversation_at_a_terminal(server, terminal):
    """Each question has the earlier turns before it; Ctrl-D ends with 0."""
    chat = terminal("--system", "Be brief.")
    assert "Ctrl-C stops an answer, Ctrl-D ends." in chat.wait_for("> ")
    for question in ("one", "two"):
        chat.type(f"{question}\n")
        assert "Hello" in chat.wait_for(r"Hello\r\n> ")
    assert 0 == chat.end("\x04")
    assert "Traceback" not in chat.shown
    assert [["Be brief.", "one"], ["Be brief.", "one", "Hello", "two"]] == sent(server)


@needs_pty
def test_ctrl_c_stops_the_answer_and_not_the_program(server, terminal):
    """The request is closed, what came is in the conversation, and the next question is asked."""
    server.reply(Reply([*HELLO[:2], End.HANG]), Reply(HELLO))
    chat = terminal()
    chat.wait_for("> ")
    chat.type("one\n")
    chat.wait_for("Hel")
    chat.type("\x03")
    assert "rxllm: interrupted." in chat.wait_for("> ")
    server.exchange().wait_closed()
    assert server.exchange().aborted
    chat.type("two\n")
    chat.wait_for(r"Hello\r\n> ")
    assert ["one", "Hel", "two"] == sent(server)[-1]
    assert 130 == chat.end("\x03")
    assert "Traceback" not in chat.shown


@needs_pty
def test_ctrl_c_before_the_answer_stops_it(server, terminal):
    """While the server is silent."""
    server.reply(Reply([End.HANG]), Reply(HELLO))
    chat = terminal()
    chat.wait_for("> ")
    chat.type("one\n")
    assert server.exchange().arrived.wait(PATIENCE)
    chat.type("\x03")
    chat.wait_for(r"interrupted\.\r\n> ")
    chat.type("two\n")
    chat.wait_for(r"Hello\r\n> ")
    assert ["one", "two"] == sent(server)[-1]
    assert 0 == chat.end("\x04")


@needs_pty
def test_control_characters_of_an_answer_are_shown(server, terminal):
    """They do not reach the terminal."""
    server.reply(Reply(CHAT.stream(["a\x1b]52;c;!\x07b\r"])))
    chat = terminal()
    chat.wait_for("> ")
    chat.type("one\n")
    shown = chat.wait_for(r"b\\u000d\r\n> ")
    assert "a\\u001b]52;c;!\\u0007b" in shown
    assert "\x1b]" not in shown


@needs_pty
def test_failure_at_a_terminal_keeps_the_conversation(server, terminal):
    """One line says what failed; the same question again takes the place of the failed one."""
    server.reply(Reply.json(CHAT.error_body(400, "It went wrong"), status=400), Reply(HELLO))
    chat = terminal()
    chat.wait_for("> ")
    chat.type("one\n")
    assert "It went wrong" in chat.wait_for(r"\r\n> ")
    chat.type("one\n")
    chat.wait_for(r"Hello\r\n> ")
    assert [["one"], ["one"]] == sent(server)
    assert 0 == chat.end("\x04")


TOOLS = """
import rxllm

def forecast(city: str) -> str:
    return f"rain in {city}"

@rxllm.tool(approve=True)
def delete(path: str) -> str:
    return f"{path} is gone"

both = [forecast, delete]
"""


def called(name, arguments, id="c1"):
    """An answer that calls a tool."""
    return Reply(CHAT.stream(tool_call=ToolCall(id, name, [json.dumps(arguments)])))


@needs_pty
def test_tools_of_a_conversation_at_a_terminal(server, terminal, tmp_path, monkeypatch):
    """The user decides on a call that needs it, and the next question has the results of all calls before it."""
    monkeypatch.chdir(tmp_path)
    Path("mytools.py").write_text(TOOLS)
    server.reply(called("forecast", {"city": "Oslo"}), Reply(HELLO), called("delete", {"path": "/a"}), Reply(HELLO))
    chat = terminal("--tools", "mytools:both")
    chat.wait_for("> ")
    chat.type("one\n")
    assert 'rxllm: forecast {"city": "Oslo"}' in chat.wait_for(r"Hello\r\n> ")
    chat.type("two\n")
    assert 'rxllm: delete {"path": "/a"}' in chat.wait_for(r"run it\? \[y/N\] ")
    chat.type("y\n")
    chat.wait_for(r"Hello\r\n> ")
    assert 0 == chat.end("\x04")
    messages = server.requests[-1].json["messages"]
    assert ["user", "assistant", "tool", "assistant", "user", "assistant", "tool"] == [m["role"] for m in messages]
    assert ("rain in Oslo", "/a is gone") == (messages[2]["content"], messages[6]["content"])


@needs_pty
def test_ctrl_c_at_the_question_for_an_approval_denies_the_call(server, terminal, tmp_path, monkeypatch):
    """The conversation goes on, and the tool has not run."""
    monkeypatch.chdir(tmp_path)
    Path("mytools.py").write_text(TOOLS)
    server.reply(called("delete", {"path": "/a"}), Reply(HELLO))
    chat = terminal("--tools", "mytools:delete")
    chat.wait_for("> ")
    chat.type("one\n")
    chat.wait_for(r"run it\? \[y/N\] ")
    chat.type("\x03")
    chat.wait_for(r"interrupted\.\r\n> ")
    chat.type("two\n")
    chat.wait_for(r"Hello\r\n> ")
    assert 0 == chat.end("\x04")
    messages = server.requests[-1].json["messages"]
    assert ["user", "assistant", "tool", "user"] == [message["role"] for message in messages]
    assert "gone" not in messages[2]["content"]


def test_tools_of_questions_that_are_piped_in(server, variables, tmp_path, monkeypatch):
    """--yes approves each call; without it, a call is denied. An MCP server stays connected for all questions."""
    monkeypatch.chdir(tmp_path)
    script = f"{sys.executable} -S {Path(__file__).parent / 'tools' / 'mcp_script.py'}"
    add = called("add", {"a": 1, "b": 2})
    server.reply(add, Reply(HELLO), add, Reply(HELLO))
    done = piped(variables, "one\ntwo\n", "--mcp", script, "--yes")
    assert (0, "Hello\nHello\n") == (done.returncode, done.stdout)
    assert 2 == done.stderr.count('rxllm: add {"a": 1, "b": 2}')
    assert ["3", "3"] == [m["content"] for m in server.requests[-1].json["messages"] if m["role"] == "tool"]
    server.reply(add, Reply(HELLO))
    assert "add did not run" in piped(variables, "one\n", "--mcp", script).stderr


@needs_pty
def test_conversation_goes_on_after_kill_9(server, terminal, tmp_path):
    """Text that came before the last half second is in the file."""
    history = rxllm.SQLiteHistory(tmp_path / "rxllm" / "conversations.sqlite")
    server.reply(Reply([*HELLO[:2], End.HANG]), Reply(HELLO))
    first = terminal()
    name = re.search(r"conversation (\w+)\.", first.wait_for("> "))[1]
    first.type("one\n")
    first.wait_for("Hel")
    deadline = time.monotonic() + PATIENCE
    while len(history.load(name)) < 2:  # it is written within half a second, unless the machine is busy
        assert time.monotonic() < deadline
    first.process.kill()
    first.process.wait()
    second = terminal("--continue")
    assert f"conversation {name}, which has 2 messages." in second.wait_for("> ")
    second.type("two\n")
    second.wait_for(r"Hello\r\n> ")
    assert ["one", "Hel", "two"] == sent(server)[-1]


@needs_pty
def test_prompt_is_not_part_of_redirected_answers(server, variables, tmp_path):
    """Standard output is a file; the prompt is on standard error."""
    ours, theirs = os.openpty()
    with (tmp_path / "answers").open("wb") as answers:
        process = subprocess.Popen(COMMAND, env=variables, stdin=theirs, stdout=answers, stderr=subprocess.PIPE)
        os.close(theirs)
        try:
            os.write(ours, b"one\n\x04")
            errors = process.communicate(timeout=PATIENCE)[1].decode()
        finally:
            os.close(ours)
    assert (0, "Hello\n") == (process.returncode, (tmp_path / "answers").read_text())
    assert errors.endswith("> > \n")


# ── piped in ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_piped_line_is_a_question(server, variables):
    """Empty lines are skipped, and standard output has the answers only."""
    done = piped(variables, "one\r\n\n  \ntwo")
    assert (0, "Hello\nHello\n", "") == (done.returncode, done.stdout, done.stderr)
    assert [["one"], ["one", "Hello", "two"]] == sent(server)


def test_conversation_is_stored_and_continued(server, variables, tmp_path):
    """By its id, or as the latest one; the file is the user's alone."""
    piped(variables, "one", "--conversation", "anna", "--system", "Be brief.")
    piped(variables, "other")
    piped(variables, "two", "--conversation", "anna")
    piped(variables, "three", "--continue", "--temperature", "0")
    assert ["Be brief.", "one", "Hello", "two", "Hello", "three"] == sent(server)[-1]
    assert 0 == server.requests[-1].json["temperature"]
    path = tmp_path / "rxllm" / "conversations.sqlite"
    assert ["anna"] == rxllm.SQLiteHistory(path).ids()[:1]
    assert 2 == len(rxllm.SQLiteHistory(path).ids())
    if os.name == "posix":
        assert [0o600, 0o700] == [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)]


def test_history_can_be_elsewhere_or_nowhere(server, variables, tmp_path):
    """The usual file is then not made."""
    path = tmp_path / "mine.sqlite"
    piped(variables, "one", "--history", str(path), "--conversation", "anna")
    piped(variables, "two\nthree", "--no-history")
    assert 2 == len(rxllm.SQLiteHistory(path).load("anna"))
    assert ["two", "Hello", "three"] == sent(server)[-1]
    assert not (tmp_path / "rxllm").exists()


@pytest.mark.parametrize("arguments", [[], ["--continue"]])
@pytest.mark.parametrize("name", ["notes.txt", ".", "missing/talk.sqlite"])
def test_history_that_cannot_be_used_is_named(server, variables, tmp_path, name, arguments):
    """A file that is no database, a folder, and a file in a folder that is missing: nothing is asked or changed."""
    (tmp_path / "notes.txt").write_text("Not a database, but longer than the header of one. " * 9)
    path = tmp_path / name
    done = piped(variables, "one", "--history", str(path), *arguments)
    assert (2, "", 1, 0) == (done.returncode, done.stdout, done.stderr.count("\n"), len(server.requests))
    assert f"The history {str(path)!r} cannot be used: " in done.stderr


def test_continue_without_a_conversation_begins_one(server, variables):
    """And says so."""
    done = piped(variables, "one", "--continue")
    assert (0, "Hello\n") == (done.returncode, done.stdout)
    assert "rxllm: no conversation is stored yet, so a new one begins.\n" == done.stderr


def test_conversation_longer_than_the_context_goes_on(server, variables, tmp_path):
    """Its oldest turns are no longer sent; the file keeps them. A single question that is too long is an error."""
    full = Reply.json(CHAT.error_body(400, "This model's maximum context length is 9 tokens."), status=400)
    hello = Reply(HELLO)
    server.reply(hello, hello, hello, full, full, hello, hello, full, full, full)
    done = piped(variables, "a\nb\nc\nd\ne\nf", "--system", "Be brief.", "--conversation", "anna")
    assert (1, "Hello\n" * 5) == (done.returncode, done.stdout)
    notes = done.stderr.splitlines()
    assert ["longer than the model takes" in note for note in notes] == [True] * 4 + [False]
    assert "maximum context length is 9 tokens" in notes[-1]
    questions = [[text for text in texts if text != "Hello"] for texts in sent(server)]
    assert ["Be brief.", "a", "b", "c", "d"] == questions[3]
    assert [["Be brief.", *kept] for kept in ("cd", "d", "de", "def", "ef", "f")] == questions[4:]
    assert 12 == len(rxllm.SQLiteHistory(tmp_path / "rxllm" / "conversations.sqlite").load("anna"))


def test_failure_ends_the_piped_conversation(server, variables):
    """With 1 and one line; later questions would have another meaning without the answer."""
    server.reply(Reply.json(CHAT.error_body(400, "It went wrong"), status=400), Reply(HELLO))
    done = piped(variables, "one\ntwo")
    assert (1, "") == (done.returncode, done.stdout)
    assert "It went wrong" in done.stderr
    assert 1 == done.stderr.count("\n") == len(server.requests)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--continue", "--conversation", "anna"], "exclude each other"),
        (["--no-history", "--continue"], "--no-history stores nothing"),
        (["--no-history", "--history", "x"], "--no-history stores nothing"),
        (["--conversation", ""], "id of a Conversation must be text"),
        (["hello"], "to ask with these words, write rxllm -- chat …"),
        (["-m", "nope"], "nope"),
        (["--system", "Be verbose.", "--conversation", "anna"], "begins with other messages"),
    ],
)
def test_usage_error_is_one_line(server, variables, arguments, hint):
    """It exits with 2, and nothing is asked."""
    piped(variables, "one", "--conversation", "anna", "--system", "Be brief.")
    done = piped(variables, "two", *arguments)
    assert (2, "", 1) == (done.returncode, done.stdout, done.stderr.count("\n"))
    assert hint in done.stderr
    assert 1 == len(server.requests)


@pytest.mark.skipif(os.name != "posix", reason="needs a signal")
def test_ctrl_c_ends_a_piped_conversation(server, variables):
    """The command ends and asks no further question."""
    server.reply(Reply([*HELLO[:2], End.HANG]))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            COMMAND, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert b"Hel" == process.stdout.read(3)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=PATIENCE)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (130, b"\n", b"") == (process.returncode, rest, errors)


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/rxllm/conversations.sqlite"),
        ("linux", {"XDG_DATA_HOME": "relative"}, "/home/anna/.local/share/rxllm/conversations.sqlite"),
        ("linux", {}, "/home/anna/.local/share/rxllm/conversations.sqlite"),
        ("darwin", {}, "/home/anna/Library/Application Support/rxllm/conversations.sqlite"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/rxllm/conversations.sqlite"),
        ("win32", {}, "/home/anna/AppData/Local/rxllm/conversations.sqlite"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="compares POSIX paths")
def test_usual_path_is_that_of_the_system(monkeypatch, platform, variables, expected):
    """The place for the data of applications."""
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/anna", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert Path(expected) == chat._usual_path()
