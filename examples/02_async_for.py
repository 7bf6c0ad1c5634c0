"""`async for` over the chunks of two answers at once; `await` for a whole answer."""

import asyncio

import rxllm

llm = rxllm.Embedded()


async def count(prompt: str) -> str:
    chunks = 0
    async for _ in llm.astream(prompt):
        chunks += 1
    return f"{prompt} {chunks} chunks"


async def main() -> None:
    for line in await asyncio.gather(count("The sea?"), count("The moon?")):
        print(line)
    answer = await llm.ainvoke("Write me a song about rain.")
    print(answer.text)


asyncio.run(main())
