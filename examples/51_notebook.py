"""Answers that grow in a notebook, as Markdown. As a script, it prints the text as it arrives."""

import asyncio
from typing import Any

import rxllm

llm = rxllm.Embedded(seed=1).bind(max_tokens=12)
poem = rxllm.pipe(llm, rxllm.text())
joke = rxllm.pipe(rxllm.Embedded(seed=2).bind(max_tokens=12), rxllm.text())

shown = rxllm.show(llm.stream("Explain tea."))
print(shown.answer.usage)  # the whole answer, after it was shown


async def cell() -> Any:  # in a notebook: await rxllm.show(…)
    return await rxllm.show(poem.astream("A song about rain."))


print(len(asyncio.run(cell()).answer), "characters")

rxllm.show(rxllm.parallel(poem=poem, joke=joke).stream("The sea"))  # in a notebook, one below the other
