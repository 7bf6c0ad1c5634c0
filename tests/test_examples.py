"""Every example runs offline, without a warning and without a word on stderr."""

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
# Those with a function of their own name, which makes a stream that is read in more than one way.
STREAMS = [path for path in EXAMPLES if f"\ndef {path.stem[3:]}()" in path.read_text("utf-8")]
# With -X dev the loop tells which steps took over 100 ms: true on a busy machine, and no fault of the example.
SLOW = "Executing <"


@cache
def script(example):
    """What it says as a plain script; it leaves nothing unclosed, as -X dev and -W error would tell."""
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
    """It ends with 0, and says something."""
    assert script(example).strip()


@pytest.mark.parametrize("example", STREAMS, ids=lambda path: path.stem)
@on_virtual_time
async def test_example_runs_inside_asyncio(example, capsys, monkeypatch):
    """Its stream says the same on a running loop, and on its thread only; the space between is whoever's prints it."""
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
    """It is read at one glance: at most 30 lines, and the first says what it shows."""
    lines = example.read_text("utf-8").splitlines()
    assert len(lines) <= 30
    assert lines[0].startswith('"""')


def test_there_are_examples():
    """They are found, and numbered without a gap."""
    assert [int(path.name[:2]) for path in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))
    assert EXAMPLES
    assert STREAMS
