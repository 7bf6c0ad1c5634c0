"""`Timeline` draws what happened when: a slow model, a second one that answers first, two tools at the same time.

`python examples/49_timeline.py timeline.svg` writes the picture of the README, always the same, on virtual time.
"""

import asyncio
import sys
from pathlib import Path

import rxllm
from rxllm.testing import MarbleLLM, on_virtual_time


async def weather(city: str) -> None:
    await asyncio.sleep(0.9)


async def tides(city: str) -> None:
    await asyncio.sleep(1.4)


call = rxllm.Message("assistant", [rxllm.ToolCallPart(name, name, '{"city": "Oslo"}') for name in ("weather", "tides")])
first = MarbleLLM(["-" * 99, "---High_-water_--comes_-at_--noon_-and_--the_-sun_--shines.-|"], timespan=0.05)
second = MarbleLLM("------call---|", timespan=0.05, values={"call": call})
llm = rxllm.hedge(first.with_config(run_name="first"), second.with_config(run_name="second"), after=0.6)
timeline = rxllm.Timeline()
on_virtual_time(rxllm.agent(llm, weather, tides).ainvoke)("When can we sail?", handlers=[timeline])
print(timeline.text())
for path in sys.argv[1:]:
    Path(path).write_text(timeline.svg() + "\n", "utf-8")
