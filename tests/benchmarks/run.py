"""The cost of streaming for the client: rxllm beside a minimal client, and beside other installed clients.

    python tests/benchmarks/run.py                       about ten minutes
    python tests/benchmarks/run.py --quick               about two minutes, for a first look
    python tests/benchmarks/run.py --only burst,openai   some workloads, clients or both
    pip install openai anthropic langchain-openai litellm 'pydantic-ai-slim[openai]' uvloop    adds these clients
    npm install --no-package-lock --prefix tests/benchmarks/node    adds clients of Node

Each figure comes from a fresh process, and the clients take turns. Ratios are computed within a repetition, so they are
valid on a busy machine, too. The tables show medians, and the least and greatest ratio. CPU is the client's user and
system time. The provider is another process, on another CPU if there are two. All traffic stays on the loopback
interface. A client that cannot keep up with many streams reads several tokens at once, and so looks cheaper than it is.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
PEERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "langchain": "langchain_openai",
    "litellm": "litellm",
    "pydantic-ai": "pydantic_ai",
}
DISTRIBUTIONS = ("rxllm", "reactivex", "httpx", "aiohttp", "msgspec", "uvloop", *PEERS.values())
NODE = ("node-http", "node-openai", "node-ai")
NODE_PROGRAM = shutil.which("node") or ""
STREAMING = ("floor", "rxllm", "rxllm-uvloop", "protocol", "aiohttp", *PEERS, *NODE)
IMPORTS = {
    "python": "time",
    "floor": "httpx, httpx_aiohttp, msgspec",
    "rxllm": "rxllm",
    "rxllm-model": "rxllm.providers.openai",
    "rxllm-asking": "rxllm.providers.openai, httpx_aiohttp",
    **PEERS,
}
KEPT = ("HOME", "LD_LIBRARY_PATH", "PATH")  # no keys, proxies or tracing
PATIENCE = 1_200  # seconds for one figure
FILES = 4096  # open files; each stream needs one


@dataclass(frozen=True)
class Workload:
    """A workload and its clients; the others are compared with the first."""

    title: str
    unit: str
    kind: str
    model: str = ""
    tokens: int = 0
    count: int = 1
    contestants: tuple[str, ...] = STREAMING


OBSERVED = ("rxllm-handler", "rxllm-timeline", "rxllm-events", "rxllm-dicts")
CPU, WALL = "CPU µs per token", "µs by the clock"
WORKLOADS = {
    "burst": Workload("{:,} tokens back to back", CPU, "cpu", "burst-{}", 10_000),
    "paced": Workload("{:,} tokens, each in a packet of its own", CPU, "cpu", "paced-{}-1ms", 2_000),
    "first": Workload("from the call to the first token, warm client", WALL, "first", "paced-{}-1ms", 2, 200),
    "streams-200": Workload("200 streams at once, {} tokens each", CPU, "cpu", "paced-{}-20ms", 200, 200),
    "streams-1000": Workload("1,000 streams at once, {} tokens each", CPU, "cpu", "paced-{}-100ms", 100, 1_000),
    "whole": Workload(
        "answers of {} tokens that are not streamed, 100 at a time; the unit is CPU µs per answer",
        *("CPU", "cpu", "whole-{}", 20, 100),
        ("floor-whole", "rxllm-whole", "rxllm-whole-uvloop", "aiohttp-whole", *PEERS),
    ),
    "mapped": Workload(
        "{:,} tokens back to back, through three async generators or three ops.map",
        *(CPU, "cpu", "burst-{}", 10_000, 1, ("floor-mapped", "rxllm-mapped")),
    ),
    "sync": Workload(
        "{:,} tokens back to back, by `for` instead of `async for`",
        *(CPU, "cpu", "burst-{}", 10_000, 1, ("rxllm", "rxllm-sync")),
    ),
    "observed": Workload(
        "{:,} tokens back to back, with a handler, with a timeline, as typed events, as dicts",
        *(CPU, "cpu", "burst-{}", 10_000, 1, ("rxllm", *OBSERVED)),
    ),
    "import": Workload("import, the interpreter's start included", "CPU ms", "import", contestants=tuple(IMPORTS)),
}


def environment() -> dict[str, str]:
    """The environment of the processes: this checkout, and few variables."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT}
    return kept | {"PYTHONPATH": str(HERE.parent.parent)}


@contextmanager
def provider() -> Iterator[str]:
    """Yields the address of a running provider. It starts first, because child processes inherit this one's CPUs."""
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cpus) > 1:
        os.sched_setaffinity(0, cpus[-1:])
    command = [sys.executable, HERE / "provider.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as process:
        if len(cpus) > 1:
            os.sched_setaffinity(0, cpus[:1])
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


def figure(workload: Workload, contestant: str, tokens: int, address: str) -> float | None:
    """Measures one figure in a new process. None if the client fails: not every one connects 1,000 streams in time."""
    if workload.kind == "import":
        command = [sys.executable, "-c", f"import {IMPORTS[contestant]}\nimport time\nprint(time.process_time() * 1e3)"]
    else:
        program, name = [sys.executable, HERE / "measure.py"], contestant
        if contestant in NODE:
            program, name = [NODE_PROGRAM, HERE / "node" / "measure.mjs"], contestant.removeprefix("node-")
        command = [*program, workload.kind, name, workload.model.format(tokens), str(workload.count), address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment(), check=False)
    if done.returncode:
        print(f"{contestant} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return float(done.stdout)


def table(workload: Workload, contestants: list[str], tokens: int, repetitions: int, address: str) -> Iterator[str]:
    """The lines of one workload's table."""
    yield f"\n{workload.title.format(tokens)}; {workload.unit}"
    figures = {name: list[float | None]() for name in contestants}
    for _ in range(repetitions):
        for name in contestants:
            figures[name].append(figure(workload, name, tokens, address))
    for name in contestants:
        both = zip(figures[name], figures[contestants[0]], strict=True)
        pairs = [(own, least) for own, least in both if own is not None and least is not None]
        if not pairs:
            yield f"  {name:13} failed"
            continue
        ratios = [own / least for own, least in pairs]
        spread = f"   {min(ratios):.2f} to {max(ratios):.2f}" if name != contestants[0] and len(pairs) > 1 else ""
        yield f"  {name:13} {median(own for own, _ in pairs):9,.1f} {median(ratios):8.2f} x{spread}"


def is_installed(contestant: str) -> bool:
    """Whether a client can be measured here."""
    if contestant in NODE:
        return NODE_PROGRAM != "" and (HERE / "node" / "node_modules").exists()
    module = "uvloop" if contestant.endswith("-uvloop") else PEERS.get(contestant)
    return module is None or util.find_spec(module) is not None


def main() -> None:
    """Measures the selected workloads, and prints the tables."""
    compared = {name for workload in WORKLOADS.values() for name in workload.contestants[1:]}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="use a tenth of the tokens and one repetition")
    parser.add_argument("--only", default="", metavar="a,b", help=f"of {', '.join([*WORKLOADS, *sorted(compared)])}")
    parser.add_argument("--repetitions", type=int, metavar="n", help="number of repetitions (default: 3)")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    if unknown := only - compared - WORKLOADS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    workloads = only & WORKLOADS.keys() or WORKLOADS.keys()
    chosen = (only & compared or compared) - {name for name in compared if not is_installed(name)}
    repetitions = options.repetitions or (1 if options.quick else 3)

    owners = metadata.packages_distributions()
    found = [owners.get(name, [name])[0] for name in DISTRIBUTIONS if util.find_spec(name)]
    print(f"Python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in found), sep=", ")
    if chosen & {*NODE}:
        print(
            "Node",
            subprocess.run([NODE_PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout.strip(),
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with provider() as address:
        for workload in (workload for name, workload in WORKLOADS.items() if name in workloads):
            baseline, *others = workload.contestants
            contestants = [baseline, *(name for name in others if name in chosen)]
            tokens = max(2, workload.tokens // 10) if options.quick else workload.tokens
            if len(contestants) > 1:
                print(*table(workload, contestants, tokens, repetitions, address), sep="\n", flush=True)


if __name__ == "__main__":
    main()
