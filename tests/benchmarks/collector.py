"""What Python's garbage collector costs ``rxllm batch``: the CPU of its collections, and the longest pause.

    python tests/benchmarks/collector.py            10,000 requests that are open at the same moment; about two minutes
    python tests/benchmarks/collector.py 1000       another number of them

Each setting runs in a fresh process: the thresholds of Python, those of ``rxllm batch``, the latter after
``gc.freeze()``, and fewer collections of new objects.
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "soak"))

from streams import rows_of, serving

from rxllm.cli import batch, draining

SETTINGS = ("python", "rxllm", "frozen", "few")


def measure(setting: str, words: list[str]) -> int:
    """Run the command in this process with one setting, and print what its collections took."""
    counts, seconds, pauses = [0, 0, 0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    began = 0.0
    standard, room_for_many = gc.get_threshold(), draining.room_for_many

    def watch(phase: str, info: dict[str, Any]) -> None:
        nonlocal began
        if phase == "start":
            began = time.thread_time()
            return
        generation, took = info["generation"], time.thread_time() - began
        counts[generation] += 1
        seconds[generation] += took
        pauses[generation] = max(pauses[generation], took)

    @contextlib.contextmanager
    def room() -> Iterator[None]:
        with room_for_many():
            if setting == "python":
                gc.set_threshold(*standard)
            elif setting == "frozen":
                gc.collect()
                gc.freeze()
            elif setting == "few":
                gc.set_threshold(50_000, 20, 100)
            gc.callbacks.append(watch)
            yield
            gc.callbacks.remove(watch)

    vars(batch)["room_for_many"] = room
    code = batch.run(words)
    full = f"{counts[2]:3} full ones, at most {pauses[2] * 1000:5.0f} ms"
    young = f"{counts[0] + counts[1]:5} others, at most {max(pauses[:2]) * 1000:4.0f} ms"
    print(f"{setting:7}{time.process_time():6.1f} s of CPU,{sum(seconds):5.1f} of them collecting: {full}; {young}")
    return code


def main() -> None:
    """Measure each setting in a process of its own."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    for setting in SETTINGS:
        with tempfile.TemporaryDirectory() as directory, serving(count) as (url, pipe):
            rows = rows_of(directory, count)
            words = [str(rows), "-o", f"{directory}/out.jsonl", "-m", "openai:m", "--concurrency", str(count)]
            environment = {**os.environ, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "k"}
            command = [sys.executable, __file__, setting, *words]
            process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
            pipe.recv()
            pipe.send("release")
            if process.wait():
                sys.exit(f"{setting}: rxllm batch ended with {process.returncode}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(measure(sys.argv[1], sys.argv[2:]))
    main()
