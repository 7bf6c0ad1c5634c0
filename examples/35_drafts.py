"""A value that grows: `drafts` shows an answer in JSON while it is still being written.

A draft takes nothing back: a text grows, and a number appears when it is whole. `parse` gives the typed value at the
end. Both read the same answer, which `share` requests once.
"""

from attrs import frozen

import rxllm
from rxllm.testing import MarbleLLM


@frozen
class Recipe:
    """The shape of the answer."""

    title: str
    minutes: int
    steps: list[str]


pieces = ['{"title": "Pan', 'cakes", "min', 'utes": 2', '0, "steps": [', '"Mix eggs and', ' flour.", "Fry."]}']
cook = MarbleLLM("-a-b-c-d-e-f|", values=dict(zip("abcdef", pieces, strict=True)), timespan=0.01)

answer = cook("A recipe for pancakes, as JSON.").pipe(rxllm.share())
for draft in answer.pipe(rxllm.drafts(Recipe), rxllm.stream()):
    print(draft)
for recipe in answer.pipe(rxllm.parse(Recipe), rxllm.stream()):
    print(recipe)
