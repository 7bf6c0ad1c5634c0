"""`lines` and `words`: whole pieces, wherever the chunks were cut; `sentences` is in example 10.

With `lines`, JSON Lines are objects while the answer is still on its way. It runs on rxllm's background loop.
"""

import json
from collections.abc import AsyncIterator

from reactivex import operators as ops

import rxllm


class Harbour(rxllm.LLM):
    """Lists ships, cut where it happens."""

    async def chunks(self, request: rxllm.Request) -> AsyncIterator[str]:
        """JSON Lines, nine characters at a time."""
        text = '{"ship": "Petrel", "masts": 2}\n{"ship": "Tern", "masts": 3}\n'
        for place in range(0, len(text), 9):
            yield text[place : place + 9]


ships = rxllm.pipe(Harbour(), rxllm.lines(), ops.map(json.loads))
for ship in ships.stream("Which ships are in?"):
    print(ship["ship"], "has", ship["masts"], "masts")

print(list(rxllm.pipe(Harbour(), rxllm.words()).stream("Which ships are in?")))
