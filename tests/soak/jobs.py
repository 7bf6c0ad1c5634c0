"""A job of many rows keeps a flat memory: at most 60 bytes a row, and its journal holds each row once.

The model answers in this process. The memory is read after a tenth of the rows, and its peak at the end: the index of
the journal is there twice while it grows.
"""

from __future__ import annotations

import gc
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from soaking import Soak, run

import rxllm

PER_ROW = 60  # bytes
SLACK = 4 << 20  # bytes: allocators keep pages


class Trivial(rxllm.LLM):
    """A model in this process."""

    async def complete(self, request: rxllm.Request) -> str:
        """Return the prompt."""
        return request.text


def resident() -> int:
    """The bytes of memory that this process has now."""
    fields = Path("/proc/self/statm").read_text("ascii").split()
    return int(fields[1]) * 4096


def highest() -> int:
    """The most bytes of memory that this process has had; `getrusage` counts its parent's before the exec, too."""
    (found,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    return int(found) * 1024


def work(soak: Soak) -> None:
    """Answers as many rows as there are cases."""

    def rows() -> Iterator[dict[str, str]]:
        for number in soak.cases():
            yield {"custom_id": str(number), "prompt": f"p{number}"}

    with tempfile.TemporaryDirectory() as directory:
        journal = rxllm.Journal(Path(directory, "out.jsonl"))
        began, count, first = time.process_time(), 0, 0
        job = rxllm.job(Trivial(), journal, concurrency=64)
        with rxllm.from_iter(rows).pipe(job, rxllm.stream()) as results:
            for result in results:
                count += 1
                if result.failure is not None:
                    soak.fault(f"row {result.id} failed: {result.failure}")
                if count == max(1000, soak.count // 10):
                    gc.collect()
                    first = resident()
        grown = highest() - first if first else 0
        if grown > PER_ROW * count + SLACK:
            soak.fault(f"the memory grew by {grown:,} bytes in {count:,} rows")
        held = sum(1 for _ in journal.results())
        if held != count:
            soak.fault(f"the journal holds {held:,} of {count:,} rows")
        microseconds = (time.process_time() - began) / max(count, 1) * 1e6
        soak.numbers["bytes_a_row"] = round(grown / max(count, 1))
        soak.numbers["microseconds_a_row"] = round(microseconds)


if __name__ == "__main__":
    run(work, count=1_000_000, seconds=1800)
