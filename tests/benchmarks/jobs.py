"""Rows a second of a job, beside other ways to answer many prompts: the same server and rows, in turns.

    python tests/benchmarks/jobs.py                     about two minutes; --rows 2000 --rounds 1 for a first look
    python tests/benchmarks/jobs.py --workers 0,1,2     the job alone, with so many worker processes
    pip install openai aiohttp bespokelabs-curator      adds the others; curator needs an environment of its own
    python tests/benchmarks/jobs.py --curator curator/bin/python    the Python of that environment

The server answers at once, from memory, in a process of its own. Each contestant answers the rows in a fresh process,
64 at a time, and writes one line of JSON for each. The figures are the medians of the rounds: rows a second by the
clock, and CPU µs a row of the contestant with its processes. The time begins after the imports and the first answers,
and includes the start of worker processes.

* ``gather``: `asyncio.gather` and a semaphore around httpx; all answers are in memory until the end.
* ``gather-openai``: the same around the SDK of OpenAI.
* ``paced``: one loop that admits requests by buckets of requests and tokens, starts a task for each, and appends each
  answer to the file, as OpenAI's cookbook advises for rate limits.
* ``rxllm``: `rxllm.job`; ``rxllm-2`` with two workers; ``command`` is ``rxllm batch``, with its limiter and retries.
* ``curator``: bespokelabs-curator, without its viewer and telemetry.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
MODEL, AT_ONCE, PLENTY = "whole-20", 64, 10_000_000
# Nothing may leave this machine: a proxy that is not there, and no telemetry.
ENVIRONMENT = {
    "PYTHONPATH": str(HERE.parents[1]),
    "OPENAI_API_KEY": "k",
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"),
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
    "TELEMETRY_ENABLED": "false",
    "CURATOR_VIEWER": "0",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "HF_HUB_OFFLINE": "1",
}


def prompts(count: int) -> Iterator[str]:
    """Yield the prompts."""
    return (f"Translate sentence number {number} to French." for number in range(count))


def body(prompt: str) -> dict[str, Any]:
    """Return the request of a prompt."""
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}


def gather(address: str, count: int, out: Path) -> None:
    """Answer by `asyncio.gather`, with httpx."""
    import httpx

    async def run() -> None:
        slots, limits = asyncio.Semaphore(AT_ONCE), httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:

            async def ask(prompt: str) -> Any:
                async with slots:
                    response = await client.post(f"{address}/v1/chat/completions", json=body(prompt))
                    return response.raise_for_status().json()

            _write(out, await asyncio.gather(*map(ask, prompts(count))))

    asyncio.run(run())


def gather_openai(address: str, count: int, out: Path) -> None:
    """Answer by `asyncio.gather`, with the SDK of OpenAI."""
    from openai import AsyncOpenAI

    async def run() -> None:
        slots = asyncio.Semaphore(AT_ONCE)
        async with AsyncOpenAI(base_url=f"{address}/v1") as client:

            async def ask(prompt: str) -> Any:
                async with slots:
                    return (await client.chat.completions.create(**body(prompt))).model_dump()

            _write(out, await asyncio.gather(*map(ask, prompts(count))))

    asyncio.run(run())


def _write(out: Path, answers: list[Any]) -> None:
    with out.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(answer) + "\n" for answer in answers)


def paced(address: str, count: int, out: Path) -> None:
    """Answer by one loop with buckets of requests and tokens."""
    import aiohttp

    async def run() -> None:
        running: set[asyncio.Task[None]] = set()
        requests = tokens = float(PLENTY)
        looked = time.monotonic()
        async with aiohttp.ClientSession() as session:

            async def ask(prompt: str) -> None:
                async with session.post(f"{address}/v1/chat/completions", json=body(prompt)) as response:
                    answer = await response.json()
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(answer) + "\n")

            for prompt in prompts(count):
                needed = len(prompt) / 4 + 20
                while requests < 1 or tokens < needed or len(running) >= AT_ONCE:
                    await asyncio.sleep(0.001)
                    now = time.monotonic()
                    requests = min(PLENTY, requests + PLENTY * (now - looked) / 60)
                    tokens = min(PLENTY, tokens + PLENTY * (now - looked) / 60)
                    looked = now
                requests, tokens = requests - 1, tokens - needed
                running.add(task := asyncio.create_task(ask(prompt)))
                task.add_done_callback(running.discard)
            await asyncio.gather(*running)

    asyncio.run(run())


def rxllm(address: str, count: int, out: Path, workers: int = 0) -> None:
    """Answer by a job."""
    import rxllm

    llm = rxllm.OpenAI(MODEL, api="chat", base_url=f"{address}/v1")
    job = rxllm.job(llm, rxllm.Journal(out), concurrency=AT_ONCE, workers=workers)
    with rxllm.from_iter(prompts(count)).pipe(job, rxllm.stream()) as results:
        for _ in results:
            pass


def command(address: str, count: int, out: Path) -> None:
    """Answer by the command line."""
    from rxllm.cli import main

    rows = out.with_name("in.jsonl")
    rows.write_text("".join(f'"{prompt}"\n' for prompt in prompts(count)), "utf-8")
    os.environ["OPENAI_BASE_URL"] = f"{address}/v1"
    with contextlib.redirect_stderr(io.StringIO()):
        code = main(["batch", str(rows), "-o", str(out), "-m", f"openai:{MODEL}", "--concurrency", str(AT_ONCE)])
    if code:
        raise SystemExit("the command failed")


def curator(address: str, count: int, out: Path) -> None:
    """Answer by bespokelabs-curator."""
    package = find_spec("litellm")
    assert package is not None
    assert package.origin is not None
    # It counts tokens with tiktoken, whose vocabulary would be downloaded; litellm brings a copy.
    tokenizers = Path(package.origin).with_name("litellm_core_utils") / "tokenizers"
    os.environ |= {"TIKTOKEN_CACHE_DIR": str(tokenizers), "CURATOR_CACHE_DIR": str(out.parent / out.stem)}
    from bespokelabs import curator

    limits = {"max_requests_per_minute": PLENTY, "max_tokens_per_minute": PLENTY, "max_concurrent_requests": AT_ONCE}
    parameters = {"base_url": f"{address}/v1", "require_all_responses": True, **limits}
    llm = curator.LLM(model_name=MODEL, backend="openai", backend_params=parameters)
    answers = llm([*prompts(count)])
    rows = getattr(answers, "dataset", answers)
    _write(out, [{"answer": row} for row in rows])


CONTESTANTS = {
    "gather": gather,
    "gather-openai": gather_openai,
    "paced": paced,
    "rxllm": rxllm,
    "command": command,
    "curator": curator,
}
NEEDS = {"gather": "httpx", "gather-openai": "openai", "paced": "aiohttp"}


def measure(name: str, address: str, count: int) -> None:
    """Answer the rows, check the answers, and print the seconds and the CPU seconds."""
    name, _, workers = name.partition("-") if name.startswith("rxllm") else (name, "", "")
    arguments = [int(workers)] if workers else []
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "out.jsonl")
        if name in ("rxllm", "command"):
            import rxllm

            rxllm.OpenAI  # noqa: B018  (imports it)
        CONTESTANTS[name](address, AT_ONCE, Path(directory, "warm.jsonl"))
        used, began = _cpu(), time.perf_counter()
        CONTESTANTS[name](address, count, out, *arguments)  # type: ignore[operator]
        seconds = time.perf_counter() - began
        lines = out.read_text("utf-8").splitlines()
        if len(lines) != count or not all("w19 " in line for line in lines):
            raise SystemExit(f"{name} answered {len(lines)} of {count} rows")
    print(seconds, _cpu() - used)


def _cpu() -> float:
    """The CPU seconds of this process and of its processes that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def figure(name: str, address: str, count: int, python: str) -> tuple[float, float]:
    """Measure a contestant in a fresh process: rows a second, and CPU µs a row."""
    environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ} | ENVIRONMENT
    words = [python, str(HERE / "jobs.py"), "--measure", name, address, str(count)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    seconds, cpu = map(float, done.stdout.split()[-2:])
    return count / seconds, cpu / count * 1e6


def main() -> None:
    """Measure all contestants in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--workers", metavar="N,N", help="measure the job alone, with these numbers of workers")
    parser.add_argument("--curator", metavar="PYTHON", help="a Python with bespokelabs-curator")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*options.measure[:2], int(options.measure[2]))
        return
    pythons = {name: sys.executable for name in CONTESTANTS if find_spec(NEEDS.get(name, "rxllm"))}
    pythons["rxllm-2"] = sys.executable
    if options.workers:
        pythons = {f"rxllm-{workers}": sys.executable for workers in options.workers.split(",")}
    elif options.curator:
        pythons["curator"] = options.curator
    else:
        del pythons["curator"]
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in pythons}
    with subprocess.Popen(
        [sys.executable, HERE / "provider.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as provider:
        assert provider.stdin is not None
        assert provider.stdout is not None
        address = f"http://127.0.0.1:{int(provider.stdout.readline())}"
        for _ in range(options.rounds):
            for name, python in pythons.items():
                figures[name].append(figure(name, address, options.rows, python))
        provider.stdin.close()
    print(f"{options.rows:,} rows, {AT_ONCE} at once, {options.rounds} rounds, {os.cpu_count()} CPUs")
    print(f"{'':14}{'rows a second':>14}{'least to most':>20}{'CPU µs a row':>14}")
    for name, each in figures.items():
        rates = sorted(rate for rate, _ in each)
        spread = f"{rates[0]:,.0f} to {rates[-1]:,.0f}"
        print(f"{name:14}{median(rates):14,.0f}{spread:>20}{median(cpu for _, cpu in each):14,.0f}")


if __name__ == "__main__":
    main()
