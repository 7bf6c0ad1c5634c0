"""A random graph of operators gives what the same graph over lists gives, through every bridge.

A graph is a source of texts and up to eight stages after it. Each stage is written twice: as an operator, and as a
function of a list with nothing of ours in it. The source is an Observable, an iterator, an asynchronous iterator or a
model; the result is read by ``stream``, ``astream`` or a subscription, to its end or only in part.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import reactivex as rx
from attrs import frozen
from reactivex import operators as ops
from soaking import Soak, run

import rxllm
from rxllm import LLM, Chunk

PATIENCE = 10.0  # seconds
WORDS = (
    "Hel",
    "lo",
    " ",
    "wor",
    "ld.",
    "\n",
    " ",
    "Dr. ",
    "Who?",
    "\r\n",
    " Yes!",
    "STOP",
    "ST",
    "OP",
    "水。",
    "x",
    "",
)
KINDS = ("observable", "iterator", "asynchronous iterator", "model")
BRIDGES = ("stream", "astream", "subscribe")


@frozen
class Stage:
    """An operator, and the equivalent function of a list."""

    name: str
    takes: type
    gives: type
    operator: Callable[[Any], Any]
    on_list: Callable[[list[Any]], list[Any]]


@frozen
class Spelled(LLM):
    """A model that repeats its prompt."""

    async def chunks(self, request: rxllm.Request) -> AsyncIterator[str]:
        """Emits three letters at a time, with random turns of the loop between them."""
        for start in range(0, len(request.text), 3):
            if start % 2:
                await asyncio.sleep(0)
            yield request.text[start : start + 3]


def spelled(prompts: list[str]) -> list[str]:
    """The chunks of `Spelled` for each prompt."""
    return [prompt[start : start + 3] for prompt in prompts for start in range(0, len(prompt), 3)]


def twice(join: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """An operator that subscribes to its source twice through `share`."""

    def operator(source: Any) -> Any:
        shared = source.pipe(rxllm.share())
        return join(shared, shared)

    return operator


def zipped(one: Any, other: Any) -> Any:
    """The values of both subscriptions, joined."""
    return rx.zip(one, other).pipe(ops.map("".join))


def stages() -> list[Stage]:
    """All stages."""
    llm = Spelled()
    lines = r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+"

    def split(texts: list[str]) -> list[str]:
        return re.findall(lines, "".join(texts))

    def stopped(texts: list[str]) -> list[str]:
        return split([re.split("STOP|x", "".join(texts))[0]])

    return [
        Stage("map", str, str, ops.map(str.upper), lambda texts: [text.upper() for text in texts]),
        Stage("filter", str, str, ops.filter(bool), lambda texts: [text for text in texts if text]),
        Stage("len", str, int, ops.map(len), lambda texts: [len(text) for text in texts]),
        Stage("str", int, str, ops.map(str), lambda numbers: [str(number) for number in numbers]),
        Stage("scan", int, int, ops.scan(lambda a, b: a + b), lambda numbers: list(itertools.accumulate(numbers))),
        Stage("take", str, str, ops.take(3), lambda texts: texts[:3]),
        Stage("skip", str, str, ops.skip(1), lambda texts: texts[1:]),
        Stage("take_last", int, int, ops.take_last(2), lambda numbers: numbers[-2:]),
        Stage("start_with", str, str, ops.start_with("<"), lambda texts: ["<", *texts]),
        Stage("text", str, str, lambda source: source.pipe(ops.map(Chunk), rxllm.text()), non_empty),
        Stage("lines", str, str, rxllm.lines(), split),
        Stage("words", str, str, lambda source: source.pipe(rxllm.words(), rxllm.lines()), split),
        Stage("sentences", str, str, lambda source: source.pipe(rxllm.sentences(), rxllm.lines()), split),
        Stage(
            "stop_at", str, str,
            lambda source: source.pipe(ops.map(Chunk), rxllm.stop_at("STOP", "x"), rxllm.lines()), stopped,
        ),
        Stage("share", str, str, rxllm.share(), list),
        Stage("share, concat", str, str, twice(rx.concat), lambda texts: texts * 2),
        Stage("share, zip", str, str, twice(zipped), lambda texts: [text + text for text in texts]),
        Stage("smooth", str, str, rxllm.smooth(0.001), list),
        Stage("idle_timeout", str, str, rxllm.idle_timeout(60), list),
        Stage("deadline", str, str, rxllm.deadline(60), list),
        Stage(
            "concat_map", str, str,
            lambda source: source.pipe(ops.filter(bool), ops.concat_map(llm), rxllm.text()), spelled,
        ),
        Stage(
            "batch", str, str,
            lambda source: source.pipe(ops.filter(bool), rxllm.batch(llm, max_concurrency=3), ops.map(str)), non_empty,
        ),
        Stage(
            "model", str, str,
            lambda source: rxllm.pipe(ops.start_with(">"), llm, rxllm.text())(source),
            lambda texts: spelled([">" + "".join(texts)]),
        ),
    ]  # fmt: skip


def non_empty(texts: list[str]) -> list[str]:
    """The texts that have letters."""
    return [text for text in texts if text]


@frozen
class Graph:
    """A random graph, its source and its bridge.

    Attributes:
        only: The number of values to read; None for all.
    """

    texts: list[str]
    kind: str
    stages: list[Stage]
    bridge: str
    only: int | None

    def __str__(self) -> str:
        names = " | ".join(stage.name for stage in self.stages)
        return f"{self.texts!r} by {self.kind} | {names} | {self.bridge}, {self.only or 'all'}"

    def expected(self) -> list[Any]:
        """The values that the lists give."""
        values: list[Any] = spelled(["".join(self.texts)]) if self.kind == "model" else self.texts
        for stage in self.stages:
            values = stage.on_list(values)
        return values[: self.only]

    def source(self) -> Any:
        """The values that must be read."""

        async def slowly() -> AsyncIterator[str]:
            for text in self.texts:
                await asyncio.sleep(0)
                yield text

        match self.kind:
            case "observable":
                return rx.from_iterable(self.texts)
            case "iterator":
                return rxllm.from_iter(self.texts)
            case "asynchronous iterator":
                return rxllm.from_aiter(slowly())
            case _:
                return Spelled()("".join(self.texts)).pipe(rxllm.text())

    def actual(self) -> list[Any]:
        """The values that the operators give."""
        whole = self.source().pipe(*(stage.operator for stage in self.stages))
        match self.bridge:
            case "stream":
                with whole.pipe(rxllm.stream()) as stream:
                    return list(itertools.islice(stream, self.only))
            case "astream":
                return asyncio.run(self.read(whole))
            case _:
                return asyncio.run(self.subscribed(whole))

    async def read(self, whole: Any) -> list[Any]:
        """Reads by ``async for``."""
        values: list[Any] = []
        async with asyncio.timeout(PATIENCE), whole.pipe(rxllm.astream()) as stream:
            async for value in stream:
                values.append(value)
                if len(values) == self.only:
                    break
        return values

    async def subscribed(self, whole: Any) -> list[Any]:
        """Reads by an observer on a loop; a wrong end is recorded as a value."""
        values: list[Any] = []
        ended = asyncio.Event()

        def failed(error: Exception) -> None:
            values.append(error)
            ended.set()

        taken = whole if self.only is None else whole.pipe(ops.take(self.only))
        taken.subscribe(values.append, failed, ended.set)
        try:
            async with asyncio.timeout(PATIENCE):
                await ended.wait()
        except TimeoutError:
            values.append("no end")
        return values


def graph(soak: Soak, known: list[Stage]) -> Graph:
    """Makes a random graph."""
    chosen: list[Stage] = []
    kind: type = str
    for _ in range(soak.random.randrange(9)):
        stage = soak.random.choice([stage for stage in known if stage.takes is kind])
        chosen.append(stage)
        kind = stage.gives
    texts = [*soak.random.choices(WORDS, k=soak.random.randrange(1, 12)), "end"]
    only = soak.random.choice((None, None, 1, 3))
    return Graph(texts, soak.random.choice(KINDS), chosen, soak.random.choice(BRIDGES), only)


def work(soak: Soak) -> None:
    """Makes graphs, and compares the results."""
    known = stages()
    used = 0
    for _ in soak.cases():
        made = graph(soak, known)
        used += len(made.stages)
        try:
            actual: object = made.actual()
        except Exception as error:
            actual = error
        if made.expected() != actual:
            soak.fault(f"{made}: lists give {made.expected()!r}, operators {actual!r}")
    soak.numbers["stages"] = used


if __name__ == "__main__":
    run(work, count=20_000)
