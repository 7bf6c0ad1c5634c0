"""Fifteen situations on virtual time, for pictures of them.

python tests/pictures/situations.py     writes the golden files again
"""

import asyncio
from pathlib import Path

import rxllm
from rxllm import Message, ToolCallPart
from rxllm.testing import MarbleLLM, on_virtual_time

SONG = "----The_--sea_-is_-wide_--and_-blue_--and_-deep.-|"
GOLDEN = Path(__file__).parent / "golden"
SITUATIONS = {}


def situation(coroutine):
    """Register a coroutine function that fills a timeline."""

    @on_virtual_time
    async def record():
        timeline = rxllm.Timeline(texts=True)
        await coroutine(timeline)
        return timeline

    SITUATIONS[coroutine.__name__] = record
    return record


def model(*diagrams, name="model", **options):
    """Return a model whose diagrams have 20 characters a second."""
    return MarbleLLM(list(diagrams), timespan=0.05, run_name=name, **options)


async def asked(llm, timeline, prompt="Write me a song."):
    """Ask, and ignore an error: the picture shows it."""
    try:
        return await llm.ainvoke(prompt, handlers=[timeline])
    except (rxllm.RxllmError, TimeoutError):
        return None


@situation
async def plain(timeline):
    """One answer."""
    await asked(model(SONG), timeline)


@situation
async def slow_first_chunk(timeline):
    """A model that thinks for five seconds."""
    await asked(model("-" * 100 + SONG), timeline)


@situation
async def long_gap(timeline):
    """A model that falls silent in the middle."""
    await asked(model(SONG.replace("blue", "blue_" + "-" * 90)), timeline)


@situation
async def retry(timeline):
    """Two failures, then an answer."""
    error = rxllm.RateLimited("Slow down.", status=429)
    llm = model("--#", "---#", SONG, error=error)
    await asked(rxllm.retry(llm, attempts=3, delay=rxllm.backoff(0.8, chance=lambda: 1.0)), timeline)


@situation
async def fallback(timeline):
    """A model that fails, and its deputy."""
    primary = model("-----#", name="primary", error=rxllm.Overloaded("Busy.", status=503))
    await asked(rxllm.fallback(primary, model(SONG, name="backup")), timeline)


@situation
async def hedge(timeline):
    """A slow model, and a second one that overtakes it."""
    await asked(rxllm.hedge(model("-" * 200, name="slow"), model(SONG, name="quick"), after=1), timeline)


@situation
async def race(timeline):
    """Three models that start at once."""
    models = [model("-" * wait + SONG, name=name) for wait, name in ((20, "paris"), (4, "oslo"), (30, "rome"))]
    await asked(rxllm.hedge(*models, after=0), timeline)


@situation
async def cancelled(timeline):
    """A reader that leaves after three chunks."""
    async with model(SONG).astream("Write me a song.", handlers=[timeline]) as chunks:
        async for chunk in chunks:
            if "wide" in chunk.text:
                break


@situation
async def interrupted(timeline):
    """A connection that breaks."""
    error = rxllm.Interrupted("The connection ended before the answer.")
    await asked(model(SONG[:30] + "--#", error=error), timeline)


@situation
async def deadline(timeline):
    """A stream that takes too long."""
    await asked(rxllm.pipe(model(SONG), rxllm.text(), rxllm.deadline(1.5)), timeline)


@situation
async def share(timeline):
    """Two readers of one answer; the second comes late and gets the beginning at once."""
    shared = model(SONG)("Write me a song.").pipe(rxllm.share())
    early = rxllm.pipe(lambda _: shared, rxllm.text()).with_config(run_name="early")
    late = rxllm.pipe(lambda _: shared, rxllm.text()).with_config(run_name="late")

    async def read_late():
        await asyncio.sleep(1.3)
        await asked(late, timeline)

    await asyncio.gather(asked(early, timeline), read_late())


@situation
async def batch(timeline):
    """Eight prompts, three at a time."""
    diagrams = ["-" * (4 + 5 * number % 13) + SONG for number in range(8)]
    await model(*diagrams).abatch([f"Song {number}" for number in range(8)], max_concurrency=3, handlers=[timeline])


@situation
async def agent(timeline):
    """Two tools at the same time, and a third that waits for an approval."""

    async def weather(city: str) -> str:
        await asyncio.sleep(0.8)
        return f"It rains in {city}."

    async def tides(place: str) -> str:
        await asyncio.sleep(1.4)
        return f"High water in {place}."

    def sail(place: str) -> str:
        return f"Sails to {place}."

    def called(*calls):
        parts = [ToolCallPart(f"{name}_1", name, arguments) for name, arguments in calls]
        return Message("assistant", parts)

    script = {
        "look": called(("weather", '{"city": "Oslo"}'), ("tides", '{"place": "Oslo"}')),
        "go": called(("sail", '{"place": "Oslo"}')),
    }
    llm = model("------look-|", "--Good_-wind._-go-|", values=script)
    await asked(rxllm.agent(llm, weather, tides, rxllm.tool(sail, approve=True)), timeline)


@situation
async def cached(timeline):
    """An answer, and the same from the store."""
    llm = rxllm.cached(model(SONG), rxllm.MemoryStore())
    await asked(llm, timeline)
    await asyncio.sleep(0.5)
    await asked(llm, timeline)


@situation
async def limiter(timeline):
    """Three requests, of which one may run at a time."""
    llm = rxllm.limited(model(SONG), rxllm.Limiter(concurrency=1))
    await asyncio.gather(*(asked(llm, timeline, f"Song {number}") for number in range(3)))


def main():
    """Write the golden files again. Look at them before they are committed."""
    for name, record in SITUATIONS.items():
        timeline = record()
        (GOLDEN / f"{name}.svg").write_text(timeline.svg() + "\n", "utf-8")
        (GOLDEN / f"{name}.txt").write_text(timeline.text() + "\n", "utf-8")


if __name__ == "__main__":
    main()
