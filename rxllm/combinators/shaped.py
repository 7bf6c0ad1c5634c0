"""`shaped`: a model whose answer is a Python value."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from attrs import field, frozen
from reactivex import Observable, abc
from typing_extensions import TypeForm

from ..errors import ParseError
from ..events import Retried
from ..extensible import evolved
from ..graph import Graph
from ..llm import LLM
from ..misuse import MisuseError, shown
from ..observation import notify
from ..operators.adding_up import LAST, Fold
from ..operators.answering import tracked
from ..operators.observing import Identity
from ..operators.parse import parse
from ..operators.prompting import asking
from ..pipeline import Pipeline
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.scheduler import Timers, timers
from ..runtime.source import Source, connect
from ..shapes.shape import Shape, shape_of
from ..showing import shown_call, shown_code
from ..stages import graph_of_parts
from ..values.message import Message
from ..values.parameters import Settings, ShapeMode
from ..values.parts import ends_round
from ..values.request import Prompt, Request
from ..values.usage import Usage
from ._combined import CombinedLLM
from .remember import always_remembers, remembers

__all__ = ["Shaped", "shaped"]

T = TypeVar("T")

_FINAL = ("refused", "filtered")  # the model would say the same again


@frozen
class Shaped(Pipeline["Prompt | Observable[Any]", T, T]):
    """A model that answers with values of a type, as `shaped` makes it: a pipeline from a prompt to a value.

    Attributes:
        stages: the model, with the shape bound to it.
        shape: the shape of the answer.
        attempts: the number of attempts, including the first.
    """

    shape: Shape[T] = field(kw_only=True, metadata={"shown": False})
    attempts: int = field(default=2, kw_only=True)

    def __repr__(self) -> str:
        llm = cast("LLM", self.stages[0])
        return shown_call("shaped", [shown_code(llm), shown_code(self.shape.type)], self)

    def _graph(self) -> Graph:
        return graph_of_parts("shaped", self, "sequence", [("", self.stages[0])], shown_code(self.shape.type))

    @property
    def _fold(self) -> Fold:
        return LAST

    def _identity(self) -> Identity:
        return Identity(self.run_name or "shaped", "chain", self.tags, self.metadata, self.handlers)

    def _composed(self, prompt: Prompt | Observable[Any]) -> Observable[T]:
        if isinstance(prompt, Observable):
            return asking(prompt, self._asked)
        return self._asked(prompt)

    def _asked(self, prompt: Prompt) -> Observable[T]:
        llm = cast("LLM", self.stages[0])
        request = Request.ask(prompt)

        def subscribe(observer: abc.ObserverBase[T], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
            asking_again = _AskingAgain(observer, llm, self.shape, self.attempts, request, timers(requested))
            asking_again.start()
            return asking_again.current

        return tracked(request, Source(subscribe))

    def _with_parameters(self, parameters: Settings) -> Any:
        if "shape" in parameters:
            raise MisuseError(
                f"This model answers in the shape {shown_code(self.shape.type)}. For another one, call shaped again."
            )
        return super()._with_parameters(parameters)


class _AskingAgain(abc.ObserverBase[Any]):
    """Makes one attempt after another, until an answer has the shape.

    Attributes:
        number: the number of the attempt that runs, counted from 1.
        usage: the tokens that the failed attempts took.
        request: the request of the attempt that runs.
        value: the value, which is emitted when its attempt completes.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[Any],
        llm: LLM,
        shape: Shape[Any],
        attempts: int,
        request: Request,
        scheduler: Timers,
    ) -> None:
        self.observer = observer
        self.llm = llm
        self.shape = shape
        self.attempts = attempts
        self.request = request
        self.scheduler = scheduler
        self.number = 0
        self.usage: Usage | None = None
        self.current = LockFreeSerialDisposable()

    def start(self) -> None:
        """Ask the model."""
        self.number += 1
        self.current.disposable = attempt = LockFreeSerialDisposable()
        try:
            answer = self.llm(self.request).pipe(parse(cast("Any", self.shape)))
            attempt.disposable = connect(answer, self, self.scheduler)
        except Exception as error:  # such as a missing key
            self.observer.on_error(error)

    def on_next(self, value: Any) -> None:
        self.observer.on_next(value)

    def on_completed(self) -> None:
        self.observer.on_completed()

    def on_error(self, error: Exception) -> None:
        if not isinstance(error, ParseError):
            self.observer.on_error(error)
            return
        if error.usage is not None:
            self.usage = error.usage if self.usage is None else self.usage + error.usage
        error.usage = self.usage
        if self.number >= self.attempts or not _may_succeed(error):
            self.observer.on_error(error)
            return
        notify(self.scheduler, lambda run: Retried(self.number, error, run=run))
        self.request = _with_correction(self.llm, self.request, error)
        self.start()


def _may_succeed(error: ParseError) -> bool:
    """Return whether another attempt may have the shape.

    It may not after a refusal, a filter or the end of the tokens. After a call that the caller approves or runs,
    another attempt would lose the call.
    """
    reason = None if error.partial is None else error.partial.finish_reason
    return error.reason not in _FINAL and reason not in ("length", "tool_call")


def _with_correction(llm: LLM, request: Request, error: ParseError) -> Request:
    """Return the request with the answer and with what is wrong with it."""
    listed = "\n".join(f"- {problem}" for problem in error.problems or (str(error),))
    correction = f"does not fit:\n{listed}\nAnswer again, with the whole value, and mend this."
    answer, partial = error.text.strip(), error.partial
    if remembers(llm):  # the conversation has the question; another turn may have come after the answer
        quoted = f"Your answer\n\n{answer}\n\n{correction}" if answer else f"Your answer {correction}"
        return evolved(request, prompt=(Message("user", quoted),))
    correction = f"Your answer {correction}"
    turns: tuple[Message, ...] = ()
    if partial is not None and any(map(ends_round, partial.parts)):  # an agent's tools must not run again
        turns = (Message("assistant", partial.parts),)
    elif _continues_text(llm, request):
        return evolved(request, prompt="\n\n".join(filter(None, (request.text, answer, correction))))
    elif answer:
        turns = (Message("assistant", answer),)
    return evolved(request, prompt=(*request.messages, *turns, Message("user", correction)))


def _continues_text(llm: object, request: Request) -> bool:
    """Return whether the model takes a text rather than a conversation."""
    while isinstance(llm, CombinedLLM):
        llm = llm.of[0]
    return isinstance(request.prompt, str) and isinstance(llm, LLM) and llm.kind(request) == "llm"


def shaped(llm: LLM, shape: TypeForm[T], attempts: int = 2, mode: ShapeMode = "auto") -> Shaped[T]:
    """Ask a model for a value of a type. If the answer does not fit, show the model what is wrong, and ask again.

    ::

        llm                    -{"title":-4}-|   -{"title":-"Soup"}-|
        shaped(llm, Recipe)    ------------------------------------(Recipe('Soup'))|

    It is ``pipe(llm.bind(shape=T), parse(T))`` with a second attempt: the model gets its answer back, with each problem
    and its path. An answer that the model refused, that a content filter stopped or that ended at `max_tokens` is not
    asked for again. An answer with a call that the caller approves or runs isn't either: the `partial` of the
    `ParseError` is the answer, with its ``pending`` calls.

    ``shaped(remember(llm, conversation), T)`` adds each attempt to the conversation as a turn: the question and its
    answer, then what is wrong with the answer and the next one.

    The values are emitted whole. To see them grow, use ``pipe(llm.bind(shape=T), drafts(T))``.

    Handlers get a run of the kind ``chain`` with one run of the model for each attempt, and `Retried` between them.

    Args:
        llm: a model.
        shape: the type of the value, as for `parse`.
        attempts: the number of attempts, including the first.
        mode: how the model is asked: ``"auto"``, ``"native"``, ``"tool"`` or ``"prompted"``; see `Parameters`.

    Errors: those of the model, and the `ParseError` of the last attempt. Its ``usage`` is that of all attempts.

    Raises:
        MisuseError: an argument has a wrong type or value, or the type cannot be the shape of an answer.
    """
    if not isinstance(cast("object", llm), LLM):
        raise MisuseError(
            f"shaped takes a model, not {type(llm).__name__}. In a pipeline, write pipe(…, shaped(llm, T))."
        )
    if not isinstance(cast("object", attempts), int) or attempts < 1:
        raise MisuseError(f"attempts must be a whole number of at least 1, not {shown(attempts)}.")
    if remembers(llm) and not always_remembers(llm):
        raise MisuseError(
            "Some models in this one remember a Conversation, and others don't, so not every model would get a second "
            "attempt with its question. Remember around all of them, as in remember(fallback(a, b), conversation)."
        )
    known = shape_of(shape)
    asked = llm.bind(shape=known.type, shape_mode=mode)
    return Shaped((asked,), shape=known, attempts=attempts)
