"""A job with worker processes loses no answer and asks for none again, whoever is killed, and leaves no process.

Each case is a job of 60 rows. At random moments, also while processes start, SIGKILL ends the job or some of its
workers; then the job goes on, or another run with another number of workers does. The server counts: each row is paid,
and a kill pays at most what was in flight again. After each run no worker is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from soaking import CONTEXT, Soak, run

sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

from job_models import PayingServer, held, is_alive, workers_of
from job_models import work as work_job

ROWS, CONCURRENCY, PATIENCE = 60, 8, 60.0


def attempt(soak: Soak, server: PayingServer, path: Path) -> int:
    """Run the job until it ends or is killed. Return the number of kills."""
    workers, seconds = soak.random.randrange(4), soak.random.random() * 1.5
    here, there = CONTEXT.Pipe()
    process = CONTEXT.Process(target=work_job, args=[there, server.url, path, ROWS, CONCURRENCY, workers])
    process.start()
    there.close()
    here.recv()
    process.join(seconds)
    pids = workers_of(process.pid)
    victims = [pid for pid in (process.pid, *pids) if process.is_alive() and soak.random.random() < 0.4]
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.join(PATIENCE)
    if process.is_alive():
        soak.fault(f"a job with {workers} workers did not end after the kill of {len(victims)} processes")
        process.kill()
        process.join()
    here.close()
    deadline = time.monotonic() + PATIENCE
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    if left := [pid for pid in pids if is_alive(pid)]:
        soak.fault(f"{len(left)} workers outlived their job")
    return len(victims)


def work(soak: Soak) -> None:
    """Begin jobs, kill, and continue until each has ended."""
    kills = 0
    for _ in soak.cases():
        with PayingServer() as server, tempfile.TemporaryDirectory() as directory:
            path, own = Path(directory, "out.jsonl"), 0
            while not path.exists() or len(held(path)) < ROWS:
                own += attempt(soak, server, path)
            texts = {str(number): f"A p{number}" for number in range(ROWS)}
            if held(path) != texts or len(path.read_bytes().splitlines()) != ROWS:
                soak.fault(f"the journal holds {len(held(path))} answers in {path.read_bytes().count(10)} lines")
            again = server.paid.total() - ROWS
            if len(server.paid) != ROWS or again > own * CONCURRENCY:
                soak.fault(f"{again} answers were paid again at {own} kills")
        kills += own
    soak.numbers["kills"] = kills


if __name__ == "__main__":
    run(work, count=40)
