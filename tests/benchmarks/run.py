"""What streaming costs the client: rxllm against the least that still streams, and against others that are installed.

    python tests/benchmarks/run.py                       about ten minutes
    python tests/benchmarks/run.py --quick               about one, for a first look
    python tests/benchmarks/run.py --only burst,openai   workloads, contestants or both
    pip install openai anthropic langchain-openai        others that take part where they are installed

Each figure comes from a fresh process, and repetitions take turns. A ratio compares within one repetition, so it holds on
a busy machine, too; shown are the medians and, of the ratios, the range. CPU is user and system time of the client; its
provider is another process, on another core where there is one. Everything stays on the loopback interface.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

HERE = Path(__file__).parent
DISTRIBUTIONS = ("reactivex", "httpx", "aiohttp", "msgspec", "openai", "anthropic", "langchain-openai")
PEERS = {"openai": "openai", "anthropic": "anthropic", "langchain": "langchain_openai"}
IMPORTS = {
    "python": "time",
    "floor": "httpx, httpx_aiohttp, msgspec",
    "rxllm": "rxllm",
    "rxllm-asking": "rxllm.providers.openai, httpx_aiohttp",
    **PEERS,
}
KEPT = ("HOME", "LD_LIBRARY_PATH", "PATH")  # no keys, no proxies, no tracing: nothing that leads elsewhere
PATIENCE = 300  # seconds for one figure


@dataclass(frozen=True)
class Workload:
    """What is measured, of whom; the first contestant is what the others are compared with."""

    title: str
    unit: str
    kind: str
    model: str = ""
    count: int = 1
    contestants: tuple[str, ...] = ("floor", "rxllm", *PEERS)

    def quick(self) -> Workload:
        """A tenth of it."""
        model = self.model.replace("0-", "-", 1) if self.kind == "cpu" and self.count > 1 else self.model
        return Workload(self.title, self.unit, self.kind, model, self.count, self.contestants)


WORKLOADS = {
    "burst": Workload("10,000 tokens back to back", "CPU µs/token", "cpu", "burst-10000"),
    "paced": Workload("2,000 tokens, each a packet", "CPU µs/token", "cpu", "paced-2000-1ms"),
    "first": Workload("call to first token, warm client", "wall µs", "first", "paced-2-1ms", 200),
    "streams-200": Workload("200 streams at once, 200 tokens each", "CPU µs/token", "cpu", "paced-200-20ms", 200),
    "streams-1000": Workload("1,000 streams at once, 100 tokens each", "CPU µs/token", "cpu", "paced-100-100ms", 1000),
}
