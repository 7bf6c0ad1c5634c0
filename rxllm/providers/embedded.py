"""The embedded model: a toy that needs no key, no network and no download.

The embedded model is a real but very small language model. It counts which word follows which in `embedded.txt`, a few
pages of verse and prose written for this purpose, and draws the next word from these counts. It lets a program, a test
or a lesson run before there is a key. It has no knowledge. For useful answers, use a real model::

    llm = rxllm.OpenAI("gpt-5-mini")
    llm = rxllm.Anthropic("claude-sonnet-4-5")

How it works:

* A token is a word with the space before it, a punctuation mark, or the end of a line.
* The score of a token is how often it followed the last three tokens. If it never followed them, the score is 0.4
  times its score after the last two, and then after the last one ("stupid back-off"). The algorithm's last step, the
  frequency of the token without any context, is left out, because every token of the text has a successor.
* Each count is weighted by the piece of text that it comes from. A piece weighs more if it shares more words, and rarer
  words, with the prompt. The prompt has no other influence.
* A step that the answer has already taken scores less, so that the answer does not repeat itself endlessly.

Source: Brants, Popat, Xu, Och, Dean, "Large Language Models in Machine Translation" (2007), section 4,
https://aclanthology.org/D07-1090/
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import math
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from importlib import resources
from typing import Any, Unpack

from attrs import frozen

from ..llm import LLM, Fields
from ..operators.rewriting import Ending, Patterns
from ..values.chunk import Chunk, text_chunk
from ..values.declaration import Declaration
from ..values.request import Request
from ..values.usage import Usage
from ..values.vocabulary import FinishReason

__all__ = ["Embedded"]

_ORDER = 4
_BACK_OFF = 0.4
_MAX_TOKENS = 128
_TEMPERATURE = 0.7
_FOCUS = 5  # a larger exponent prefers the pieces that fit the prompt best more strongly
_ELSEWHERE = 0.0005  # the weight of a piece that shares nothing with the prompt
_HEADING_WORTH = 3  # a word in the heading of a piece counts as much as three in its text

_EDGE = ""  # marks the start and the end of a piece
# Common words of questions and commands. They do not hint at the topic.
_ASKING = frozenset(
    (  # noqa: SIM905  (a list would be a page)
        "a about again an and any are as be can could do does for from give has have i in is it its like long make me"
        " my of on or please say short some something tell that the this to us want was what where which why will with"
        " would write you your"
    ).split()
)


@frozen(init=False)
class Embedded(LLM):
    """A toy model that is always available: `rxllm.Embedded()` needs no key, no network and no download.

    The model streams token by token. It takes `temperature` (default 0.7), `top_p`, `top_k`, `max_tokens` (default
    128), `stop_sequences` and `seed`. It reads only the user's last message, and ignores files, tools and
    `response_format`. It reports usage in its own tokens.
    """

    declaration = Declaration(takes_model=False, features=("usage",))

    def __init__(self, **settings: Unpack[Fields]) -> None:
        self._settle(**settings)

    async def chunks(self, request: Request) -> AsyncIterator[Chunk]:
        """Stream the answer token by token."""
        for chunk in _answer(request):
            yield chunk
            await asyncio.sleep(0)


def _answer(request: Request) -> Iterator[Chunk]:
    dice = random.Random(request.seed)  # noqa: S311  (the toy's random numbers protect nothing)
    # The first chunk with text carries these facts. An empty chunk of their own would clutter printed chunks.
    facts: dict[str, Any] = {"model": "embedded", "id": f"embedded-{dice.getrandbits(64):016x}"}
    prompts = (message.text for message in reversed(request.messages) if message.role == "user")
    tokens = _model().tokens(next(prompts, request.text), request, dice)
    limit = _MAX_TOKENS if request.max_tokens is None else request.max_tokens
    ending = Ending(Patterns(request.stop_sequences or ()))
    count, reason = 0, "length"
    while count < limit and not ending.found:
        token = next(tokens)
        if token == _EDGE:
            reason = "stop"
            break
        count += 1
        if text := ending.read(token):
            yield Chunk(text, **facts) if facts else text_chunk(text)
            facts = {}
    rest = "" if ending.found else ending.rest()
    finish_reason: FinishReason = "stop" if ending.found or reason == "stop" else "length"
    yield Chunk(
        rest,
        finish_reason=finish_reason,
        raw_finish_reason="stop_sequence" if ending.found else reason,
        usage=Usage(input_tokens=len(_tokens(request.text)), output_tokens=count),
        **facts,
    )


class _Model:
    """The counts of which token follows which, and in which piece of the text.

    Attributes:
        followers: for each context of one to three tokens, every token that followed it, with the piece's number.
        words: for each word, its occurrences in each piece; an occurrence in the heading counts three times.
        pieces: the number of pieces.
    """

    def __init__(self, corpus: str) -> None:
        self.followers: dict[tuple[str, ...], list[tuple[str, int]]] = {}
        self.words: dict[str, Counter[int]] = {}
        self.pieces = 0
        heading = ""
        for block in corpus.strip().split("\n\n"):
            if block.startswith("#"):
                heading, _, block = block.partition("\n")
            self._learn(heading, block.replace("\n/\n", "\n\n"))

    def _learn(self, heading: str, text: str) -> None:
        tokens = [_EDGE, *_tokens(text), _EDGE]
        for end in range(1, len(tokens)):
            follower = (tokens[end], self.pieces)
            for start in range(max(0, end - _ORDER + 1), end):
                self.followers.setdefault(tuple(tokens[start:end]), []).append(follower)
        for words, worth in (_words(heading), _HEADING_WORTH), (_words(text), 1):
            for word in words:
                self.words.setdefault(word, Counter())[self.pieces] += worth
        self.pieces += 1

    def weights(self, prompt: str) -> list[float]:
        """Return how well each piece fits the prompt; the best piece has the weight 1."""
        words = sorted(_words(prompt) & self.words.keys()) or ["unknown"]
        scores = [0.0] * self.pieces
        for word in words:
            rarity = math.log(self.pieces / len(self.words[word]))
            for piece, worth in self.words[word].items():
                scores[piece] += rarity * (1 + math.log(worth))
        best = max(scores)
        return [max((score / best) ** _FOCUS, _ELSEWHERE) for score in scores]

    def tokens(self, prompt: str, request: Request, dice: random.Random) -> Iterator[str]:
        """Yield the tokens of one answer after another, endlessly; an edge ends each answer."""
        weights = self.weights(prompt)
        context: tuple[str, ...] = (_EDGE,)
        said: Counter[tuple[str, ...]] = Counter()
        while True:
            scores = self._scores(context, weights)
            for token in scores:
                scores[token] /= 1 + said[*context, token]
            token = _draw(scores, request, dice)
            said[*context, token] += 1
            yield token
            context = (*context, token)[1 - _ORDER :] if token != _EDGE else (_EDGE,)

    def _scores(self, context: tuple[str, ...], weights: list[float]) -> dict[str, float]:
        scores: dict[str, float] = {}
        discount = 1.0
        for start in range(len(context)):
            found: dict[str, float] = {}
            for token, piece in self.followers.get(context[start:], ()):
                found[token] = found.get(token, 0.0) + weights[piece]
            total = sum(found.values())
            for token, weight in found.items():
                scores.setdefault(token, discount * weight / total)
            discount *= _BACK_OFF
        return scores


@functools.cache
def _model() -> _Model:
    return _Model(resources.files("rxllm.providers").joinpath("embedded.txt").read_text("utf-8"))


def _tokens(text: str) -> list[str]:
    return re.findall(r" ?\w+(?:['’-]\w+)*|\n+| ?[^\w\s]", text)


def _words(text: str) -> set[str]:
    """Return the words of a text that hint at its topic, without a plural s."""
    return {word.removesuffix("s") for word in re.findall(r"\w+", text.lower()) if word not in _ASKING}


def _draw(scores: dict[str, float], request: Request, dice: random.Random) -> str:
    temperature = _TEMPERATURE if request.temperature is None else request.temperature
    ranked = sorted(scores, key=scores.__getitem__, reverse=True)
    if temperature == 0:
        return ranked[0]
    if request.top_k:
        ranked = ranked[: request.top_k]
    # Each score is divided by the largest one, so that a low temperature does not round all chances to 0.
    chances = [(scores[token] / scores[ranked[0]]) ** (1 / temperature) for token in ranked]
    if request.top_p is not None:
        enough = request.top_p * sum(chances)
        size = 1 + sum(total < enough for total in itertools.accumulate(chances))
        ranked, chances = ranked[:size], chances[:size]
    return dice.choices(ranked, chances)[0]
