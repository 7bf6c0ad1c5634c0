"""The programs of ``tests/soak/`` at a small size: they run, and find nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).with_name("soak")
SIZES = {
    "batches": 2,
    "cuts": 150,
    "conversations": 1,
    "crowd": 40,
    "disconnects": 8,
    "forks": 9,
    "frames": 150,
    "graphs": 150,
    "interrupts": 30,
    "jobs": 1000,
    "kills": 1,
    "leaks": 120,
    "relays": 2,
    "streams": 50,
    "tabs": 20,
    "whatwg": 2000,
    "workers": 1,
}


@pytest.mark.parametrize("name", SIZES)
def test_a_program_at_a_small_size_finds_no_fault(name):
    """It exits with 0 and says in one line what it did, with the seed that repeats it."""
    command = [sys.executable, "-W", "error", str(SOAK / f"{name}.py"), "--count", str(SIZES[name])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{name} faults=0 ")
    assert " seed=1 " in line


def test_each_program_is_tried():
    """None of them rots unseen."""
    programs = {path.stem for path in SOAK.glob("*.py")} - {"soaking"}
    assert set(SIZES) == programs


def test_a_fault_is_printed_and_is_the_exit_status(tmp_path):
    """So that a script that runs them all notices."""
    program = tmp_path / "faulty.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(SOAK)!r})\n"
        "from soaking import run\n"
        "run(lambda soak: [soak.fault(f'case {number}') for number in soak.cases(30)], count=20)\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=50, check=False)
    expected = 1, [f"FAULT: case {number}" for number in range(10)]
    assert expected == (done.returncode, done.stderr.splitlines())
    assert done.stdout.startswith("faulty faults=20 cases=20 seed=1 seconds=")
