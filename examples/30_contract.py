"""`LLMContract`: what any model has to do, tried on one of one's own, with pytest.

Each test has an event loop of its own, or rxllm's background loop where it is synchronous.
"""

import pytest

import rxllm
from rxllm.testing import LLMContract


class Shouter(rxllm.LLM):
    """Answers with the prompt."""

    async def complete(self, request: rxllm.Request) -> str:
        """In capitals."""
        return request.text.upper()


class TestShouter(LLMContract):
    """All that it inherits."""

    def create_model(self) -> rxllm.LLM:
        """The model to try."""
        return Shouter()


if __name__ == "__main__":
    raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", __file__]))
