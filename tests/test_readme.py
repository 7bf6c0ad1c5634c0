"""The README is true: its programs run offline and in silence, its commands are those that the build extracts."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from protocols import Chat, Completions, Messages

import rxllm
from rxllm import cli
from rxllm.testing import FakeServer, Reply

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = [
    pytest.param(block[2], id=f"line {README.count(chr(10), 0, block.start()) + 1}")
    for block in BLOCK.finditer(README)
    if block[1] == "python"
]
# With -X dev the loop tells which steps took over 100 ms: true on a busy machine, and no fault of the program.
SLOW = "Executing <"


def answer(request):
    """What the vendor whose path this is would answer."""
    protocol = next(protocol for protocol in (Chat(), Completions(), Messages()) if protocol.path == request.path)
    if request.json.get("stream"):
        return Reply(protocol.stream(["Oh, ", "sparkling ", "water"]))
    return Reply.json(protocol.whole(["Oh, sparkling water"]))


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_runs(program):
    """Each block of Python is a program: copied as it is, it prints something, warns of nothing and fails in nothing.

    Where it asks OpenAI or Anthropic, a local server answers in their place.
    """
    with FakeServer(answer) as server:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", program],
            env={
                **os.environ,
                "PYTHONPATH": str(Path(rxllm.__file__).parents[1]),
                "PYTHONIOENCODING": "utf-8",
                "OPENAI_API_KEY": "key",
                "OPENAI_BASE_URL": f"{server.url}/v1",
                "ANTHROPIC_API_KEY": "key",
                "ANTHROPIC_BASE_URL": server.url,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=50,
            check=False,
        )
    assert [] == [line for line in done.stderr.splitlines() if not line.startswith(SLOW)]
    assert done.returncode == 0
    assert done.stdout.strip()


def test_every_line_of_code_is_in_a_known_block():
    """Blocks are python (which runs), sh (which is checked here) or plain drawings; a typo would hide one from this."""
    assert {"python", "sh", ""} >= {block[1] for block in BLOCK.finditer(README)}
    assert README.count("```") == 2 * len(BLOCK.findall(README))
    assert PROGRAMS


@pytest.mark.parametrize(("mark", "command"), [("run", "rxllm"), ("test", "pytest")])
def test_marked_command_is_one_line(mark, command):
    """Directly after its mark, once, stands a sh block of one command that begins on a bare Python 3.11."""
    [found] = re.findall(rf"^<!-- ci: {mark} -->\n```sh\n(.*)\n```$", README, re.MULTILINE)
    assert found.startswith("python3.11 -m venv .venv && .venv/bin/pip install -q ")
    assert f" && .venv/bin/{command} " in found


@pytest.mark.parametrize("line", re.findall(r"^rxllm .*", README, re.MULTILINE))
def test_command_line_is_understood(line):
    """The command line knows every option that the README uses."""
    arguments = shlex.split(line.partition(" < ")[0])[1:]
    options = cli._parser().parse_intermixed_args(arguments)
    assert options.prompt


def test_files_exist():
    """What the README links to in the checkout is there."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert all((Path(__file__).parents[1] / link).exists() for link in links)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/\S+::\S+)`", README))))
def test_named_test_exists(name):
    """A test that the README refers to is there."""
    path, _, function = name.partition("::")
    assert re.search(
        rf"^(async )?def {function}\(", (Path(__file__).parents[1] / path).read_text("utf-8"), re.MULTILINE
    )
