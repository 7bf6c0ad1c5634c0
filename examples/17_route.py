"""`route` picks a model for each request: here by its length, and by whether a tool may be called.

It runs on rxllm's background loop, since a script has none: `invoke` waits for it.
"""

from attrs import frozen

import rxllm


@frozen
class Named(rxllm.LLM):
    """Says who it is, instead of an answer."""

    name: str

    async def complete(self, request: rxllm.Request) -> str:
        """Its name."""
        return self.name


small, large, handy = Named("small"), Named("large"), Named("handy")


def choose(request: rxllm.Request) -> rxllm.LLM:
    return handy if request.tools else small if len(request.text) < 100 else large


llm = rxllm.route(choose)  # a model like any other: rxllm.retry(llm), rxllm.pipe(llm, …)
print(llm.invoke("Hello?"), llm.invoke("Summarise this: " + "and so on, " * 20), llm.invoke("Rain?", tools=[{}]))
