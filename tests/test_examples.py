"""Each example runs offline, without a warning and without output on stderr."""

import os
import runpy
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import pytest
from reactivex import operators as ops

import rxllm
from rxllm.testing import on_virtual_time

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("[0-9]*.py"))
# Examples with a function of their own name, which makes a stream that can be read in several ways.
STREAMS = [path for path in EXAMPLES if f"\ndef {path.stem[3:]}()" in path.read_text("utf-8")]
# With -X dev asyncio logs steps of over 100 ms. On a busy machine they are not the example's fault.
SLOW = "Executing <"


@cache
def script(example):
    """Return the output of the example as a script; with -X dev and -W error, an unclosed resource fails it."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(example)],
        env={**os.environ, "PYTHONPATH": str(Path(rxllm.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )
    assert [] == [line for line in done.stderr.splitlines() if not line.startswith(SLOW)]
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example):
    """It ends with status 0 and prints something."""
    assert script(example).strip()


@pytest.mark.parametrize("example", STREAMS, ids=lambda path: path.stem)
@on_virtual_time
async def test_example_runs_inside_asyncio(example, capsys, monkeypatch):
    """On a running loop its stream has the same items, apart from white space, and starts no thread."""
    make = runpy.run_path(str(example), run_name="example")[example.stem[3:]]
    heard, started = set(), []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", started.append)
        stream = make().pipe(ops.do_action(lambda _: heard.add(threading.current_thread())))
        async for item in stream.pipe(rxllm.astream()):
            print(item)
    assert "".join(script(example).split()) == "".join(capsys.readouterr().out.split())
    assert {threading.current_thread()} == heard
    assert [] == started


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short(example):
    """It has at most 30 lines, and the first one says what it shows."""
    lines = example.read_text("utf-8").splitlines()
    assert len(lines) <= 30
    assert lines[0].startswith('"""')


def test_examples_are_numbered_without_a_gap():
    """The numbers begin at 1, and some examples can be read in several ways."""
    assert [int(path.name[:2]) for path in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))
    assert EXAMPLES
    assert STREAMS
