"""`remember`: a model that knows the earlier turns of a `Conversation`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import ClassVar, NoReturn, cast

from attrs import frozen
from reactivex import Observable

from ..extensible import evolved
from ..llm import LLM
from ..misuse import MisuseError, shown
from ..operators.attempts import Begin
from ..values.chunk import Chunk
from ..values.message import Message
from ..values.request import Request
from ..values.sendable import sendable
from ._combined import CombinedLLM, combined, model_of, parts_of
from .conversation import Conversation
from .turns import remembered

__all__ = ["View", "always_remembers", "remember", "remembers"]

View = Callable[[tuple[Message, ...]], Iterable[Message]]
"""Chooses what the model gets of a conversation: from all messages, those to send."""


@frozen
class _Remember:
    name: ClassVar[str] = "remember"

    conversation: Conversation
    view: View | None = None

    def identity(self, of: tuple[str, ...]) -> NoReturn:
        """Raise an error, because the conversation determines the answer, not the prompt alone.

        Raises:
            MisuseError: always.
        """
        raise MisuseError(
            "cached() cannot store answers of remember(), because the same prompt has another answer in the next turn. "
            "Write remember(cached(llm, store), conversation)."
        )

    def __call__(self, begins: tuple[Begin[Chunk], ...], request: Request) -> Observable[Chunk]:
        """Ask the model with the conversation and the new messages."""
        model = model_of(begins[0])

        def ask(messages: tuple[Message, ...], new: tuple[Message, ...]) -> Observable[Chunk]:
            sent = messages if self.view is None else tuple(self.view(messages))
            if not sent:
                raise MisuseError("The view of remember() returned no messages, so there is nothing to send.")
            return model(evolved(request, prompt=sendable(sent, new)))

        return remembered(ask, self.conversation._transcript, request)  # pyright: ignore[reportPrivateUsage]


def remembers(llm: LLM) -> bool:
    """Returns whether a part of the model is a model of `remember`."""
    return any(isinstance(getattr(part, "how", None), _Remember) for part in parts_of(llm))


def always_remembers(llm: object) -> bool:
    """Returns whether each model that may answer is asked by a model of `remember`."""
    return isinstance(llm, CombinedLLM) and (isinstance(llm.how, _Remember) or all(map(always_remembers, llm.of)))


def remember(llm: LLM, conversation: Conversation, view: View | None = None) -> LLM:
    """Send the conversation with each prompt, and add the prompt and its answer to the conversation.

    ::

        remember(llm, c)("I am Anna.")   ---Hel-lo-|       the model gets: I am Anna.
        remember(llm, c)("Who am I?")    ---An-na-|        the model gets: I am Anna. / Hello / Who am I?

    The conversation keeps everything; `view` decides what is sent, as in ``view=rxllm.trim(4000)``. The prompt is added
    when its turn begins, and the answer when it ends. An answer that an error or a dispose cuts short is kept as far as
    it came, with ``interrupted=True``; a dispose has done so when it returns. The next request mends
    what vendors would refuse of such an answer: a call without a result gets one that says so, for example.

    Turns of one conversation wait for each other, in the order of their subscriptions. So ``batch`` asks one prompt
    after another, and ``switch_map`` disposes the former turn before the next one begins.

    The same request after a failure that left no answer takes the place of the failed turn. So
    ``retry(remember(llm, conversation))`` keeps one question, as ``remember(retry(llm), conversation)`` does.

    Args:
        llm: a model.
        conversation: the conversation, which changes.
        view: chooses the messages to send, from all messages of the conversation and the new ones. By default all.

    Errors: those of the model. `MisuseError` for a turn that is asked within another turn of the same conversation.

    Raises:
        MisuseError: an argument has the wrong type.
    """
    if not isinstance(cast("object", llm), LLM):
        raise MisuseError(
            f"remember takes a model, not {type(llm).__name__}. In a pipeline, remember the model within it, as in "
            "shaped(remember(llm, conversation), T)."
        )
    if remembers(llm):
        raise MisuseError(
            "remember() is around a model that remembers already, so each prompt would repeat the whole conversation. "
            "Remember with one Conversation, as in remember(fallback(a, b), conversation)."
        )
    if not isinstance(cast("object", conversation), Conversation):
        raise MisuseError(f"remember takes a Conversation, such as rxllm.Conversation(), not {shown(conversation)}.")
    if inspect.iscoroutinefunction(view):
        raise MisuseError("view must be a plain function, not an async one: it is called while the request is made.")
    if view is not None and not callable(cast("object", view)):
        raise MisuseError(f"view must be a function of the messages, such as rxllm.trim(4000), not {shown(view)}.")
    return cast("LLM", combined(_Remember(conversation, view), llm))
