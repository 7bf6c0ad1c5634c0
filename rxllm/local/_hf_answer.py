"""`Answer`: the tokens of one answer, on the event loop of its reader.

An answer is in one of these states, which only its event loop changes:

* *generating*: the engine works at the request `_id`;
* *paused*: `_id` is empty. The reader is behind by `HIGH_WATER` tokens, so the request was cancelled. When the reader
  has taken all tokens, a new request continues after them. transformers keeps the pages of its cache until another
  answer needs them;
* *ended*: by the end of the text, by a failure, or because the reader left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from ..errors import ProviderError
from ..runtime.gate import HIGH_WATER

__all__ = ["Answer", "Output"]


class Output(Protocol):
    """The attributes of transformers' GenerationOutput that are read: the tokens of a request so far."""

    request_id: str
    generated_tokens: list[int]
    error: str | None

    def is_finished(self) -> bool:
        """Return whether these are all tokens of the request."""
        ...


class Generator(Protocol):
    """The methods of the engine that an answer calls."""

    def ask(self, answer: Answer, prompt: Sequence[int], limit: int, sampling: Mapping[str, float]) -> str:
        """Start a request, and return its id."""
        ...

    def cancel(self, request: str) -> None:
        """End a request."""
        ...


class Answer:
    """The tokens of an answer, which `read` returns as they arrive.

    Attributes:
        loop: the event loop of the reader.
        tokens: the tokens that have arrived.
    """

    def __init__(self, engine: Generator, prompt: Sequence[int], limit: int, sampling: Mapping[str, float]) -> None:
        self.loop = asyncio.get_running_loop()
        self.tokens: list[int] = []
        self._engine = engine
        self._prompt = prompt
        self._limit = limit
        self._sampling = sampling
        self._id = ""
        self._before = 0  # the tokens that arrived before the present request
        self._read = 0
        self._is_ended = False
        self._failure: str | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._generate()

    def _generate(self) -> None:
        self._before = len(self.tokens)
        left = self._limit - self._before
        self._id = self._engine.ask(self, [*self._prompt, *self.tokens], left, self._sampling)

    def receive(self, output: Output) -> None:
        """Take the tokens of the present request; those of a cancelled one are dropped."""
        if output.request_id != self._id:
            return
        self.tokens[self._before :] = output.generated_tokens
        if output.is_finished():
            self._id, self._is_ended, self._failure = "", True, output.error
        elif len(self.tokens) - self._read >= HIGH_WATER:
            self._cancel()
        self._wake()

    def fail(self, reason: str) -> None:
        """End the answer with a failure."""
        if not self._is_ended:
            self._id, self._is_ended, self._failure = "", True, reason
            self._wake()

    async def read(self) -> list[int]:
        """Return the next tokens; an empty list at the end.

        Raises:
            ProviderError: the model failed.
        """
        while self._read == len(self.tokens):
            if self._failure is not None:
                raise ProviderError(f"The model failed while it generated: {self._failure}.")
            if self._is_ended:
                return []
            if not self._id:
                self._generate()
            self._arrival = self.loop.create_future()
            await self._arrival
        new = self.tokens[self._read :]
        self._read = len(self.tokens)
        return new

    def leave(self) -> None:
        """End the answer, because its reader needs no more tokens."""
        self._is_ended = True
        self._cancel()

    def _cancel(self) -> None:
        if self._id:
            self._engine.cancel(self._id)
            self._id = ""

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
