"""The speed and the memory of a model on this machine.

    python tests/benchmarks/local.py gguf:FILE
    python tests/benchmarks/local.py hf:NAME parallel=16

It prints the time to load the model, the time to the first token after a prompt of about 20 and of about 700 tokens,
the tokens per second of one answer and of several at once, and the memory of this process and its children.
"""

from __future__ import annotations

import ast
import statistics
import sys
import time
from pathlib import Path

import rxllm

STORY = "Write a long story about a robot that learns to paint."
LONG = "Sparkling water is made of water and carbon dioxide. " * 60 + STORY


def main(name: str, *settings: str) -> None:
    """Measure a model."""
    values = (setting.partition("=") for setting in settings)
    llm = rxllm.model(name, temperature=0, **{key: ast.literal_eval(value) for key, _, value in values})
    began = time.perf_counter()
    llm.invoke("Hi", max_tokens=1)
    print(f"first answer, with the load   {time.perf_counter() - began:8.2f} s")
    for kind, prompt in ("short", STORY), ("long", LONG):
        waits = [first(llm, f"{number}. {prompt}") for number in range(3)]
        print(f"first token, {kind:5} prompt     {statistics.median(waits):8.3f} s")
    print(f"one answer                    {statistics.median(rate(llm, 1) for _ in range(3)):8.1f} tokens/s")
    for count in 4, 8, 50:
        print(f"{count:2} answers at once            {rate(llm, count):8.1f} tokens/s")
    print(f"memory                        {memory():8.0f} MB")


def first(llm: rxllm.LLM, prompt: str) -> float:
    """Return the seconds until the first token."""
    began = time.perf_counter()
    for chunk in llm.stream(prompt, max_tokens=2):
        if chunk.text:
            break
    return time.perf_counter() - began


def rate(llm: rxllm.LLM, count: int) -> float:
    """Return the tokens per second of all answers together."""
    prompts = [f"{number}. {STORY}" for number in range(count)]
    began = time.perf_counter()
    answers = llm.batch(prompts, max_concurrency=count, max_tokens=64)
    tokens = sum(answer.usage.output_tokens or 0 for answer in answers if answer.usage)
    return tokens / (time.perf_counter() - began)


def memory() -> float:
    """Return the resident memory of this process and its children in MB."""
    total = 0
    parents = {"self"}
    for _ in range(2):
        for parent in parents:
            status = Path(f"/proc/{parent}/status").read_text()
            total += int(status.partition("VmRSS:")[2].split()[0])
        parents = {
            child
            for parent in parents
            for children in Path(f"/proc/{parent}/task").glob("*/children")
            for child in children.read_text().split()
        }
    return total / 1000


if __name__ == "__main__":
    main(*sys.argv[1:])
