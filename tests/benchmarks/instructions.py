"""The instructions of the client, beside the floor's: a measure of CPU that no busy machine changes.

    python tests/benchmarks/instructions.py             about two minutes; needs valgrind
    python tests/benchmarks/instructions.py whole       one row

valgrind counts what the process executes outside of the kernel. The kernel's work for a packet is the same for both
clients. Each client runs twice, with few and with many items, and the difference belongs to the further items. The hash
seed is fixed and the garbage collector is off, so another run differs by less than a hundredth. `burst` varies more,
because the kernel chooses how many bytes a read gets.
"""

from __future__ import annotations

import asyncio
import gc
import re
import shutil
import subprocess
import sys

import contestants
import run

# The row, its unit, the clients, and for few and for many items: the model, how often it is asked, and the items.
ROWS = {
    "whole": ("an answer", ("floor-whole", "rxllm-whole"), ("whole-20", 50, 50), ("whole-20", 250, 250)),
    "paced": ("a token", ("floor", "rxllm"), ("paced-50-25ms", 1, 50), ("paced-450-25ms", 1, 450)),
    "burst": ("a token", ("floor", "rxllm"), ("burst-2000", 1, 2_000), ("burst-22000", 1, 22_000)),
}
COUNT = re.compile(r"I +refs: +([\d,]+)")


async def ask(name: str, model: str, times: str, address: str) -> None:
    """Ask the model so many times, one after the other, after a first answer."""
    read = getattr(contestants, name.replace("-", "_"))(address)
    await read(model.split("-")[0] + "-20", lambda _: None)
    gc.disable()
    for _ in range(int(times)):
        await read(model, lambda _: None)


def instructions(name: str, model: str, times: int, address: str) -> int:
    """Return the number of instructions of a process that asks."""
    counted = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    command = [*counted, sys.executable, __file__, name, model, str(times), address]
    settings = {**run.environment(), "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=run.PATIENCE, env=settings, check=False)
    count = COUNT.search(done.stderr)
    if done.returncode or count is None:
        raise SystemExit(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}")
    return int(count[1].replace(",", ""))


def main() -> None:
    """Print a line for each row: the thousands of instructions of both clients, and the ratio."""
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed. On Debian: apt-get install valgrind")
    with run.provider() as address:
        for row in sys.argv[1:] or ROWS:
            unit, clients, (short, seldom, few), (long, often, many) = ROWS[row]
            costs = []
            for name in clients:
                instructions(name, short, 1, address)  # compiles the modules
                further = instructions(name, long, often, address) - instructions(name, short, seldom, address)
                costs.append(further / (many - few) / 1000)
            print(f"{row:6} {unit:10} floor {costs[0]:8,.1f}  rxllm {costs[1]:8,.1f}  ratio {costs[1] / costs[0]:.2f}")


if __name__ == "__main__":
    if len(sys.argv) == 5:
        asyncio.run(ask(*sys.argv[1:]))
    else:
        main()
