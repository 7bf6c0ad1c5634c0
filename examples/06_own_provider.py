"""A provider of one's own overrides one method: `complete` for whole answers, or `chunks` for a stream."""

from collections.abc import AsyncIterator

from attrs import frozen

import rxllm


@frozen
class Parrot(rxllm.LLM):
    """Says it back."""

    async def complete(self, request: rxllm.Request) -> str:
        """The whole answer: text, a Message or a Chunk."""
        return request.text


@frozen
class Speller(rxllm.LLM):
    """Says it back letter by letter."""

    async def chunks(self, request: rxllm.Request) -> AsyncIterator[str]:
        """The answer as it comes: texts or Chunks."""
        for letter in request.text:
            yield letter


for llm in Parrot(), Speller():
    print(llm.streaming, [str(chunk) for chunk in llm.stream("Hello")], str(llm.invoke("Hello")))
