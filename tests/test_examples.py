"""Every example runs offline, without a warning and without a word on stderr."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rxllm

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("[0-9]*.py"))
# With -X dev the loop tells which steps took over 100 ms: true on a busy machine, and no fault of the example.
SLOW = "Executing <"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example):
    """It ends with 0, says something, and leaves nothing unclosed: with -X dev and -W error that would be told."""
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
    assert done.stdout.strip()


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
