"""Tools at the command line: ``rxllm --tools module:function --mcp URL "…"``."""

import json
import sys
from pathlib import Path

import pytest
from commands import COMMAND, environment, openai
from protocols import Chat, ToolCall
from terminals import Terminal, needs_pty

from rxllm import cli
from rxllm.testing import FakeServer, Reply

CHAT = Chat()
SCRIPT = f"{sys.executable} -S {Path(__file__).parent / 'tools' / 'mcp_script.py'}"
TOOLS = """
import pathlib
import rxllm
from rxllm import cli

def forecast(city: str) -> str:
    "Forecast the weather."
    if city == "Atlantis":
        raise rxllm.ToolFailure("No such city: \\x1b[2J")
    return f"rain in {city}"

@rxllm.tool(approve=True)
async def delete(path: str) -> str:
    pathlib.Path("deleted").write_text(path)
    return f"{path} is gone"

both = [forecast, delete]

class Group:
    forecast = forecast

number = 5
"""


def called(name, arguments, id="c1"):
    """An answer that calls a tool."""
    return Reply(CHAT.stream(["Let me see."], tool_call=ToolCall(id, name, [json.dumps(arguments)])))


@pytest.fixture
def server():
    """A server that calls a tool, and then answers."""
    with FakeServer() as server:
        yield server


@pytest.fixture
def variables(server, tmp_path, monkeypatch):
    """The environment of the command; the tools are in the working directory."""
    (tmp_path / "mytools.py").write_text(TOOLS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, value in {**openai(server), "RXLLM_MODEL": "openai:m"}.items():
        monkeypatch.setenv(name, value)
    yield environment()
    sys.modules.pop("mytools", None)


@pytest.fixture
def run(variables, capsys):
    """Return a function that runs the command without a terminal, and returns its output, its errors and its status."""

    def command(*arguments):
        status = cli.main(arguments)
        written = capsys.readouterr()
        return written.out, written.err, status

    return command


def test_calls_are_shown_on_standard_error(server, run):
    """The name and the arguments, cut to a line; the failure of a tool, too. Control characters are escaped."""
    server.reply(
        called("forecast", {"city": "Oslo\x1b[2J" + "o" * 200}),
        called("forecast", {"city": "Atlantis"}, "c2"),
        Reply(CHAT.stream(["It rains."], usage=(5, 5))),
    )
    out, err, status = run("--tools", "mytools:forecast", "Rain?")
    assert ("Let me see.\nLet me see.\nIt rains.\n", 0) == (out, status)
    shown, second, failed = err.splitlines()
    assert shown.startswith('rxllm: forecast {"city": "Oslo\\u001b[2Jooo')
    assert (True, 107) == (shown.endswith("ooo…"), len(shown))
    assert ['rxllm: forecast {"city": "Atlantis"}', "rxllm: forecast: No such city: \\u001b[2J"] == [second, failed]
    assert "forecast" == server.requests[0].json["tools"][0]["function"]["name"]


def test_call_is_denied_without_a_terminal(server, run, tmp_path):
    """The call does not run, and the model is told. With --yes it runs."""
    server.reply(called("delete", {"path": "/a"}), Reply(CHAT.stream(["Then not."])))
    out, err, status = run("--tools", "mytools:both", "Clean up.")
    assert ("Let me see.\nThen not.\n", 0) == (out, status)
    assert "rxllm: delete did not run: it needs an approval, and there is no terminal to ask at." in err
    assert "There is no terminal" in server.requests[1].json["messages"][-1]["content"]
    assert not (tmp_path / "deleted").exists()
    server.reply(called("delete", {"path": "/a"}), Reply(CHAT.stream(["Gone."])))
    out, err, _ = run("--yes", "--json", "--tools", "mytools:both", "Clean up.")
    assert ("/a", 'rxllm: delete {"path": "/a"}\n') == ((tmp_path / "deleted").read_text(), err)
    lines = [json.loads(line) for line in out.splitlines()]
    assert "Let me see.Gone." == "".join(line.get("text", "") for line in lines)


@needs_pty
@pytest.mark.parametrize(("typed", "runs"), [("y\n", True), ("\x04", False)])
def test_approval_at_a_terminal(server, variables, tmp_path, typed, runs):
    """The whole call is shown before the question. Only a yes approves it."""
    path = "/a" + "a" * 200
    server.reply(called("delete", {"path": path}), Reply(CHAT.stream(["Well."])))
    terminal = Terminal(variables, *COMMAND, "--tools", "mytools:delete", "Clean up.")
    try:
        assert f'{{"path": "{path}"}}' in terminal.wait_for(r"run it\? \[y/N\] ")
        terminal.type(typed)
        assert "Well." in terminal.wait_for(r"Well\.")
        assert 0 == terminal.end()
    finally:
        terminal.close()
    assert runs == (tmp_path / "deleted").exists()


def test_tools_of_an_mcp_server_need_an_approval(server, run):
    """The server is a command here."""
    server.reply(called("add", {"a": 1, "b": 2}), Reply(CHAT.stream(["3"])))
    assert ("Let me see.\n3\n", 'rxllm: add {"a": 1, "b": 2}\n', 0) == run("--mcp", SCRIPT, "--yes", "1 + 2?")
    assert "3" == server.requests[1].json["messages"][-1]["content"]
    server.reply(called("add", {"a": 1, "b": 2}), Reply(CHAT.stream(["Then not."])))
    assert "add did not run" in run("--mcp", SCRIPT, "1 + 2?")[1]


def test_progress_of_an_mcp_server_is_shown_on_standard_error(server, run, monkeypatch):
    """Each half second one line, because a server may send any number of them."""
    server.reply(called("count", {}), Reply(CHAT.stream(["0"])))
    _, err, _ = run("--mcp", SCRIPT, "--yes", "Count.")
    assert ["rxllm: count {}", "rxllm: count: 1 of 3: step 1 of a-secret-word"] == err.splitlines()
    monkeypatch.setattr("rxllm.cli.calls._PROGRESS_INTERVAL", 0)
    server.reply(called("count", {}), Reply(CHAT.stream(["0"])))
    _, err, _ = run("--mcp", SCRIPT, "--yes", "Count.")
    assert [f"rxllm: count: {step} of 3: step {step} of a-secret-word" for step in (1, 2, 3)] == err.splitlines()[1:]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("mytools", "--tools takes a module and a function of it, as in weather:forecast, not 'mytools'"),
        ("nothing:x", "there is no module 'nothing' here"),
        ("mytools:nothing", "mytools has no 'nothing'"),
        ("mytools:number", "function must be a function, not 5"),
    ],
)
def test_wrong_tools_are_a_usage_error(server, run, option, sentence):
    """Nothing is sent."""
    _, err, status = run("--tools", option, "hi")
    assert (2, []) == (status, server.requests)
    assert sentence in err


def test_preview_has_the_tools(server, run):
    """It sends nothing."""
    assert '"name": "forecast"' in run("--preview", "--tools", "mytools:Group.forecast", "hi")[0]
    assert [] == server.requests


def test_usage_is_the_sum_of_all_requests(server, run):
    """Also of those before an approval."""
    first = CHAT.stream(tool_call=ToolCall("c", "delete", ['{"path": "/a"}']), usage=(5, 7))
    server.reply(Reply(first), Reply(CHAT.stream(["Gone."], usage=(10, 20))))
    _, err, _ = run("--yes", "--usage", "--tools", "mytools:delete", "Clean up.")
    assert "rxllm: 15 input tokens, 27 output tokens, stop." == err.splitlines()[-1]
