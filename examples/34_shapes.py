"""Values instead of text: `shaped` asks for a type, checks the answer, and shows the model what does not fit."""

from typing import Literal

from attrs import field, frozen

import rxllm


@frozen
class Recipe:
    """How to cook one dish."""

    title: str = field(converter=str.title)
    difficulty: Literal["easy", "hard"]
    steps: list[str]


class Cook(rxllm.LLM):
    """Stands for any model. Its first answer has a wrong word."""

    async def complete(self, request: rxllm.Request) -> str:
        """Mend the answer when the request says what is wrong."""
        word = "easy" if "Answer again" in request.text else "simple"
        return f'{{"title": "pancakes", "difficulty": "{word}", "steps": ["Mix.", "Fry."]}}'


print(rxllm.shaped(Cook(), Recipe).invoke("A recipe for pancakes, please."))
