"""The cost of values that grow: CPU of `drafts` and `items`, beside what parses each prefix anew.

    python tests/benchmarks/growing.py             about half a minute
    python tests/benchmarks/growing.py --peers     also other parsers and clients, for a quarter of the records

The documents have 100 KB and come in 6,500 chunks from this process. What is not installed is left out. The program
fails if drafts are not 30 times cheaper than jiter on each chunk of the records, if four times the text takes more
than 4.5 times the time, or if the items of 100 KB take more than 10 ms. CPU times are the least of several rounds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import platform
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any

from attrs import frozen
from reactivex import abc
from reactivex.disposable import Disposable

import rxllm
from rxllm.runtime.source import Source

SIZE, CHUNK = 100_000, 15.4  # characters of a document and of a chunk, on average
ROUNDS = 7
CHEAPER, GROWTH, ITEMS = 30, 4.5, 0.010  # times, times, seconds


@frozen
class Origin:
    """A part of a record."""

    country: str
    year: int | None


@frozen
class Record:
    """An element of the list."""

    id: int
    name: str
    price: float
    stocked: bool
    tags: list[str]
    note: str
    origin: Origin


def records(size: int) -> Any:
    """A list of objects."""
    chance = random.Random(1)
    found: list[Any] = []
    while len(json.dumps(found[:1])) * len(found) < size:
        found.append(
            {
                "id": chance.randrange(10**6),
                "name": "".join(chance.choices("abcdefgh ", k=20)),
                "price": round(chance.random() * 100, 2),
                "stocked": chance.random() < 0.5,
                "tags": ["".join(chance.choices("abc", k=5)) for _ in range(3)],
                "note": 'a line\n"quoted" ' + "".join(chance.choices("abc défg", k=50)),
                "origin": {"country": "Denmark", "year": None},
            }
        )
    return found


def words(size: int) -> str:
    """One long text."""
    return "".join(random.Random(2).choices("abcdefg hij\n", k=size))


DOCUMENTS: dict[str, Callable[[int], Any]] = {
    "records": records,
    "six long texts": lambda size: {f"text {number}": words(size // 6) for number in range(6)},
    "one text": words,
    "numbers": lambda size: [12345] * (size // 7),
    "deep lists": lambda size: [json.loads("[" * 100 + "1" + "]" * 100)] * (size // 203),
}


def chunks(text: str) -> list[rxllm.Chunk]:
    """The text in chunks of random lengths."""
    cuts = sorted(random.Random(3).sample(range(1, len(text)), int(len(text) / CHUNK)))
    return [rxllm.Chunk(text[start:end]) for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


class Operated:
    """Runs an operator over chunks, and keeps the last value and the number of values."""

    def __init__(self, operator: Any) -> None:
        self.operator = operator

    def __call__(self, pieces: list[rxllm.Chunk]) -> tuple[int, Any]:
        """Return the number of values and the last one."""
        count, last = 0, None

        def emit(observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
            for piece in pieces:
                observer.on_next(piece)
            observer.on_completed()
            return Disposable()

        def take(value: object) -> None:
            nonlocal count, last
            count, last = count + 1, value

        Source(emit).pipe(self.operator).subscribe(take, _fail)
        return count, last


def _fail(error: Exception) -> None:
    raise error


Run = Callable[[list[rxllm.Chunk]], tuple[int, Any]]
"""Reads a document in pieces, and returns the number of values and the last one."""


def each_prefix(parse: Callable[[str], Any]) -> Run:
    """Parses the whole text so far at each chunk."""

    def run(pieces: list[rxllm.Chunk]) -> tuple[int, Any]:
        text, value = "", None
        for piece in pieces:
            text += piece.text
            value = parse(text)
        return len(pieces), value

    return run


def _jiter() -> Run:
    import jiter

    return each_prefix(lambda text: jiter.from_json(text.encode(), partial_mode="trailing-strings"))


def _pydantic() -> Run:
    from pydantic_core import from_json

    return each_prefix(lambda text: from_json(text, allow_partial="trailing-strings"))


def _langchain() -> Run:
    from langchain_core.utils.json import parse_partial_json

    return each_prefix(parse_partial_json)


def _partial_json_parser() -> Run:
    from partial_json_parser import loads

    return each_prefix(loads)


def _models() -> Any:
    """The document as a pydantic model, as instructor and pydantic-ai take it."""
    import pydantic

    class Where(pydantic.BaseModel):
        country: str
        year: int | None

    class Item(pydantic.BaseModel):
        id: int
        name: str
        price: float
        stocked: bool
        tags: list[str]
        note: str
        origin: Where

    class Document(pydantic.BaseModel):
        records: list[Item]

    return Document


def _instructor() -> Run:
    import instructor

    partial: Any = instructor.Partial[_models()]

    def run(pieces: list[rxllm.Chunk]) -> tuple[int, Any]:
        count, last = 0, None
        for value in partial.model_from_chunks(piece.text for piece in pieces):
            count, last = count + 1, value
        return count, last

    return run


def _pydantic_ai() -> Run:
    from pydantic_ai import Agent
    from pydantic_ai.models.function import DeltaToolCall, FunctionModel

    document = _models()

    def run(pieces: list[rxllm.Chunk]) -> tuple[int, Any]:
        async def arguments(messages: Any, info: Any) -> Any:
            yield {0: DeltaToolCall(name=info.output_tools[0].name)}
            for piece in pieces:
                yield {0: DeltaToolCall(json_args=piece.text)}

        async def main() -> tuple[int, Any]:
            count, last = 0, None
            agent: Any = Agent(FunctionModel(stream_function=arguments), output_type=document)
            async with agent.run_stream("") as result:
                async for value in result.stream_output(debounce_by=None):
                    count, last = count + 1, value
            return count, last

        return asyncio.run(main())

    return run


PEERS = {
    "jiter": _jiter,
    "pydantic": _pydantic,
    "langchain-core": _langchain,
    "partial-json-parser": _partial_json_parser,
    "instructor": _instructor,
    "pydantic-ai": _pydantic_ai,
}


def installed(names: Iterable[str]) -> Iterator[tuple[str, Run]]:
    """Return those that are installed."""
    for name in names:
        try:
            yield name, PEERS[name]()
        except ImportError:
            print(f"    {name} is not installed")


def timed(run: Run, pieces: list[rxllm.Chunk]) -> tuple[float, int, Any]:
    """The CPU seconds, the number of values and the last value."""
    gc.collect()
    gc.disable()  # as timeit does: its passes over all objects of the process would hide the difference
    began = time.process_time()
    count, last = run(pieces)
    took = time.process_time() - began
    gc.enable()
    return took, count, last


def least(run: Run, *documents: list[rxllm.Chunk]) -> list[float]:
    """The least CPU seconds for each document, of several rounds in which the documents take turns."""
    rounds = [[timed(run, document)[0] for document in documents] for _ in range(ROUNDS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def main() -> None:
    """Measures, prints the results, and checks them."""
    wrong: list[str] = []
    drafts = Operated(rxllm.drafts())
    print(f"Python {platform.python_version()}; ms of CPU for {SIZE // 1000} KB")
    for name, make in DOCUMENTS.items():
        value = make(SIZE)
        pieces = chunks(json.dumps(value))
        _, count, last = timed(drafts, pieces)
        assert value == last
        ours, more = least(drafts, pieces, chunks(json.dumps(make(4 * SIZE))))
        growth = more / ours
        print(f"{name}: {len(pieces):,} chunks, {count:,} drafts {ours * 1e3:.1f}; four times the text {growth:.1f} ×")
        if growth > GROWTH:
            wrong.append(f"Four times the text of {name} takes {growth:.1f} times the time.")
        if name in ("numbers", "deep lists"):
            continue
        for peer, run in installed(["jiter"]):
            theirs = timed(run, pieces)[0]
            print(f"    {peer} on each chunk {theirs * 1e3:,.0f}: {theirs / ours:.0f} ×")
            if (peer, name) == ("jiter", "records") and theirs < CHEAPER * ours:
                wrong.append(f"jiter takes only {theirs / ours:.0f} times as long as drafts.")
    value = records(SIZE)
    pieces = chunks(json.dumps(value))
    if "--peers" in sys.argv[1:]:
        quarter = chunks(json.dumps({"records": records(SIZE // 4)}))
        ours, count, _ = min((timed(drafts, quarter) for _ in range(ROUNDS)), key=itemgetter(0))
        print(f"a quarter of the records: {len(quarter):,} chunks, {count:,} drafts {ours * 1e3:.1f}")
        for peer, run in installed(PEERS):
            theirs, count, _ = timed(run, quarter)
            print(f"    {peer}: {count:,} values {theirs * 1e3:,.0f}: {theirs / ours:.0f} ×")
    items = Operated(rxllm.items(Record))
    [took] = least(items, pieces)
    print(f"items: {items(pieces)[0]} elements {took * 1e3:.1f}")
    if took > ITEMS:
        wrong.append(f"The items take {took * 1e3:.1f} ms.")
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()
