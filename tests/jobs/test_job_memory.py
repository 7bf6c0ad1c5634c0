"""The memory of a job does not grow with its rows, but for some bytes each."""

import gc
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from job_models import Echo, run

import rxllm
from rxllm.jobs.index import Index, short_digest

pytestmark = pytest.mark.slow


def test_index_of_many_rows_takes_at_most_60_bytes_a_row():
    """Also while it grows, when it is there twice."""
    count, index, peaks = 50_000, Index(), set()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(count):
            index.set(short_digest(str(number)), number + 1)
            peak = tracemalloc.get_traced_memory()[1]
            if number > 10_000 and peak not in peaks:
                peaks.add(peak)
                assert peak - before <= 60 * number
    finally:
        tracemalloc.stop()
    assert len(peaks) > 1  # it has grown
    assert count == len(index)
    assert 4712 == index.get(short_digest("4711"))


def test_job_keeps_no_object_for_a_row_that_is_done(tmp_path):
    """Nor for its answer: after many rows there are as many objects as after few."""
    counts = []
    rows = (f"p{number}" for number in range(1500))
    job = rxllm.job(Echo(), rxllm.Journal(tmp_path / "out.jsonl"))
    with rxllm.from_iter(rows).pipe(job, rxllm.stream()) as results:
        for number, _ in enumerate(results):
            if number in (300, 1300):
                gc.collect()
                counts.append(len(gc.get_objects()))
    assert counts[1] - counts[0] < 500


def test_journal_of_many_rows_is_opened_with_its_index_alone(tmp_path):
    """50,000 lines are read in blocks, and none of them stays in memory."""
    path, count = tmp_path / "out.jsonl", 50_000
    run(["a"], path)
    line = path.read_bytes()
    name = rxllm.Journal(path).results().__next__().id
    path.write_bytes(b"".join(line.replace(name.encode(), b"row-%d" % number, 1) for number in range(count)))
    gc.collect()
    before = len(gc.get_objects())
    with rxllm.Journal(path).open() as file:
        gc.collect()
        assert count == len(file)
        assert len(gc.get_objects()) - before < 500
        assert file.find("row-49999") is not None


@pytest.mark.timeout(240)
def test_memory_of_50_000_rows_is_flat():
    """The process grows by at most 60 bytes a row, besides some pages; `tests/soak/jobs.py` does a million rows."""
    program = Path(__file__).parents[1] / "soak" / "jobs.py"
    command = [sys.executable, "-W", "error", str(program), "--count", "50000"]
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(command, env=unmeasured, capture_output=True, text=True, timeout=220, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    assert "jobs faults=0 cases=50000 " in done.stdout
