"""Three models side by side, merged into one stream whose lines say who speaks.

It runs on the loop of who reads: `stream` reads from rxllm's own, `astream` from the running one.
"""

import asyncio

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

import rxllm


def sung(name: str, llm: rxllm.LLM) -> Observable[str]:
    return llm("Write me a song about the sea.").pipe(rxllm.lines(), ops.map(lambda line: f"{name}: {line.rstrip()}"))


def three_models() -> Observable[str]:
    calm, warm, wild = (rxllm.Embedded(seed=1, max_tokens=60, temperature=heat) for heat in (0.2, 0.9, 1.5))
    return rx.merge(sung("calm", calm), sung("warm", warm), sung("wild", wild))


async def main() -> None:
    async for line in three_models().pipe(rxllm.astream()):
        print(line)


if __name__ == "__main__":
    asyncio.run(main())  # in a plain script: for line in three_models().pipe(rxllm.stream()): print(line)
