"""The stream of an agent: rounds of a model and of tools.

States of an agent's stream, and what changes them::

    asking ─► running tools ─► asking …     the model's answer has calls
      │            └─────────► pending      a call needs an approval, or is the caller's: the stream completes
      ├──────────────────────► answered     the model's answer has no calls: the stream completes
      └──────────────────────► failed       the model failed, a limit was reached, a tool raised

All changes happen on the event loop of the scheduler; a dispose on another thread calls that loop. In each state at
most one thing is subscribed: the model's answer (`upstream`), or the tools (`calls`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
from reactivex import abc

from ..errors import LimitReached, RxllmError
from ..extensible import evolved
from ..operators.attempts import RETRIED_ABOVE, must_not_repeat
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.scheduler import Scheduler
from ..runtime.source import connect
from ..tools.tool import Tool
from ..values.chunk import Chunk
from ..values.message import Message
from ..values.parts import Part, Pending, ToolCallPart, ToolResultPart, ends_round
from ..values.request import Request
from ..values.rounds import inserted, separated
from ..values.tools import name_of_tool
from ..values.usage import Usage
from ..values.vocabulary import FinishReason
from .approvals import decisions_of, pending_of
from .calling import Calls, Ready, Waiting, decided, not_run, planned
from .inbox import Inbox
from .limits import Spent
from .one_round import PAUSED, Round
from .shaped_round import ShapedRound
from .unfinished import Unfinished

if TYPE_CHECKING:
    from .agent import Agent

__all__ = ["Loop"]

Plan = Ready | Waiting | ToolResultPart

_WHOLE: tuple[FinishReason | None, ...] = (None, "stop", "tool_call")
"""The finish reasons of answers whose calls may run. Servers send ``stop`` with calls, too."""


class Loop(abc.DisposableBase):
    """One subscription to an agent. The module describes its states.

    Attributes:
        parts: the content of all rounds that have ended, and the results of their calls.
        history: the messages of the conversation up to the part with the number `sent`.
        usage: the sum of these rounds.
        number: the number of the current round, counted from 1.
        answer: the model's answer in this round, until it ends.
        allowed: the tools of the round, which `prepare` may have changed; None for a tool that the caller runs.
        calls: the running tools of the round.
        emit: the subscriber's `on_next`.
        ended: whether the stream completed, failed or was disposed.
    """

    def __init__(self, agent: Agent, request: Request, observer: abc.ObserverBase[Chunk], scheduler: Scheduler) -> None:
        self.agent = agent
        self.request = request
        self.observer = observer
        self.emit = observer.on_next
        self.spent = Spent(priced=agent.limits.cost is not None)
        scheduler = scheduler.evolve(lifetime=scheduler.lifetime.handled_also_by(self.broken))
        self.scheduler = self.spent.heard(scheduler) if agent.limits.counts else scheduler
        self.history = request.messages
        self.tools = {tool.name: tool for tool in agent.tools if isinstance(tool, Tool)}
        self.parts: list[Part] = []
        self.sent = 0
        self.usage: Usage | None = None
        self.number = 0
        self.answer: Round | None = None
        self.allowed: Mapping[str, Tool[Any, Any] | None] = self.tools
        self.calls: Calls | None = None
        self.upstream = LockFreeSerialDisposable()
        self.alarm = LockFreeSerialDisposable()
        self.inbox = Inbox(self.scheduler, self.fail)
        self.unfinished = Unfinished(self)
        self.ended = False

    def start(self) -> abc.DisposableBase:
        """Run the approved calls, or else send a request to the model."""
        self.scheduler.call(self.begin)
        return self

    def begin(self) -> None:
        """Run the approved calls of the prompt. Without such calls, send a request to the model."""
        if self.ended:
            return
        try:
            decisions = decisions_of(self.history, self.agent.secret)
            plans = [] if decisions is None else [decided(each, self.tools) for each in decisions.approvals]
            self.inbox.open(self.agent.inbox)
        except Exception as error:
            self.fail(error)
            return
        if (seconds := self.agent.limits.seconds) is not None:
            self.alarm.disposable = self.scheduler.schedule_relative(seconds, self.late)
        if decisions is None:
            self.ask()
        else:
            # Emitted before any tool runs: a combinator around the agent then never begins this answer again.
            self.add(*decisions.approvals)
            self.run([*plans, *map(Waiting, decisions.undecided)])

    # ── the model ────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self, *_: object) -> None:
        """Begin the next round."""
        if self.ended:
            return
        self.add(*map(inserted, self.inbox.take()))
        scheduler = self.scheduler
        if self.parts:  # an outer retry has seen the first round and does not repeat this one
            scheduler = scheduler.with_baggage(RETRIED_ABOVE, False)
        try:
            self.number += 1
            request = self.agent.prepared(self.number, self.next_request())
            names = map(name_of_tool, request.tools or ())
            self.allowed = {name: self.tools.get(name) for name in names if name is not None}
            self.answer = Round(self) if self.request.shape is None else ShapedRound(self)
            self.upstream.disposable = connect(self.agent.llm(request), self.answer, scheduler)
        except Exception as error:  # such as a missing key, or of `prepare`
            self.fail(error)

    def next_request(self) -> Request:
        """Return the request of this round: the prompt, and the content of all earlier rounds."""
        if not self.parts:
            return self.request
        answer = Message("assistant", tuple(self.parts[self.sent :]))
        # The results in the first answer may be those of approved calls in the prompt; later ones are of its own calls.
        before, open_ones = (self.history, ()) if self.sent else ((), self.history)
        messages = (*before, *separated((*open_ones, answer)))
        if ends_round(self.parts[-1]):  # else the answer paused, and continues in the same message
            self.history, self.sent = messages, len(self.parts)
        request = evolved(self.request, prompt=messages)
        if request.tool_choice not in (None, "auto", "none"):
            request = request.updated({"tool_choice": "auto"})  # a forced choice would call the tool for ever
        return request

    def answered(self, answer: Round) -> None:
        """Continue after the model's answer of a round."""
        if self.ended:
            return
        parts, self.answer = answer.joined(), None
        self.parts += parts
        self.usage = answer.total()
        done = {part.id for part in parts if isinstance(part, ToolResultPart)}  # a server may have run the tool
        calls = [part for part in parts if isinstance(part, ToolCallPart) and part.id not in done]
        reason, raw = answer.finish
        if not calls and raw not in PAUSED and not self.inbox.messages:
            self.complete()
        elif calls and reason not in _WHOLE:
            self.skip(calls, "the answer broke off, so the call may be incomplete")
            self.complete(finish_reason=reason, raw_finish_reason=raw)
        else:
            self.go_on_with(calls, answer)

    def go_on_with(self, calls: Sequence[ToolCallPart], answer: Round) -> None:
        """Run the agent's calls of a round, unless a limit forbids the round after them."""
        own = [call for call in calls if call.name not in self.allowed or self.allowed[call.name]]
        has_callers = len(own) < len(calls)
        try:
            reached = None if has_callers and not own else self.agent.reached(self.number, self.spent)
            plans = [] if reached else [planned(call, self.allowed, self.agent.needs_approval) for call in own]
        except Exception as error:  # of a function that decides about approvals
            self.fail(error)
            return
        reason, raw = answer.finish
        if reached and not calls and raw not in PAUSED:  # only the inbox asks for another round, and comes too late
            self.complete(finish_reason=reason, raw_finish_reason=raw)
        elif reached:
            limit, amount = reached
            self.skip(calls, f"the agent reached its limit of {amount}")
            self.stop_at(limit, amount)
        elif plans or has_callers:
            self.run(plans, has_callers=has_callers)
        else:
            self.go_on()

    def go_on(self) -> None:
        """Begin the next round soon: not here, because 300 rounds would then be 300 calls deep."""
        if not self.ended:
            self.upstream.disposable = self.scheduler.schedule(self.ask)

    # ── the tools ────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self, plans: Sequence[Plan], *, has_callers: bool = False) -> None:
        """Run the ready calls, and emit the results of the refused calls.

        Args:
            plans: the states of the agent's calls.
            has_callers: whether the round also has calls that the caller runs.
        """
        pending = [pending_of(plan.call, self.agent.secret) for plan in plans if isinstance(plan, Waiting)]
        self.add(*(plan for plan in plans if isinstance(plan, ToolResultPart)))
        if self.ended:  # the subscriber has left
            return
        self.calls = Calls(
            [plan for plan in plans if isinstance(plan, Ready)],
            self.scheduler,
            self.agent.concurrency,
            self.agent.errors,
            on_result=self.add,
            on_failure=self.fail,
            on_done=partial(self.pause, pending) if pending or has_callers else self.go_on,
        )
        self.calls.start()

    def pause(self, pending: Sequence[Pending]) -> None:
        """Complete, because the caller approves or runs the remaining calls."""
        self.complete(*map(inserted, self.inbox.take()), *pending, finish_reason="tool_call")

    def skip(self, calls: Iterable[ToolCallPart], reason: str) -> None:
        """Emit results for calls that do not run, so that the answer is a valid history."""
        self.add(*(not_run(call, reason) for call in calls))

    def add(self, *parts: Part, **facts: Any) -> None:
        """Emit parts of the agent's own."""
        if self.ended or not (parts or any(facts.values())):
            return
        self.parts += parts
        try:
            self.emit(Chunk(parts=parts, **facts))
        except Exception as error:
            self.scheduler.report("A subscriber or an operator raised in on_next. The agent was stopped.", error)
            self.leave()

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def late(self, *_: object) -> None:
        """Stop the request and the tools, because the time limit has passed."""
        amount = f"{self.agent.limits.seconds:g} seconds"
        for result in [] if self.calls is None else self.calls.interrupt(f"the agent reached its limit of {amount}"):
            self.add(result)
        self.stop_at("seconds", amount)

    def stop_at(self, limit: str, amount: str) -> None:
        """Fail because a limit was reached."""
        self.fail(LimitReached(f"The agent has not ended within its limit of {amount}.", limit=limit))

    def complete(self, *parts: Part, **facts: Any) -> None:
        """Complete the stream, after a chunk with these parts and facts."""
        self.add(*parts, **facts)
        if not self.ended:
            self.leave()
            self.observer.on_completed()

    def fail(self, error: Exception) -> None:
        """End the stream with an error, whose `partial` has the content of all rounds."""
        if self.ended:
            return
        self.leave()
        if isinstance(error, RxllmError):
            self.complete_partial(error)
        if self.calls is not None:
            must_not_repeat(error)
        self.observer.on_error(error)

    def complete_partial(self, error: RxllmError) -> None:
        """Put the content of the earlier rounds before the partial answer of the failed round."""
        partial = error.partial or Message("assistant")
        answer = self.answer
        parts, usage = ((), None) if answer is None else (answer.joined(), partial.usage or answer.usage)
        usage = self.usage + usage if self.usage and usage else usage or self.usage
        error.partial = attrs.evolve(partial, parts=(*self.parts, *parts), usage=usage)
        if error.request is None:
            error.request = self.request.without_secrets()

    def broken(self, error: BaseException) -> None:
        """End after an exception that reaches no observer: the subscriber raised, or the event loop ends."""
        self.leave()

    def leave(self) -> None:
        """Dispose the request and the tools."""
        self.ended = True
        self.unfinished.ended()
        self.alarm.dispose()
        self.inbox.close()
        self.upstream.dispose()
        if self.calls is not None:
            self.calls.dispose()

    def dispose(self) -> None:
        """Stop the stream, from any thread."""
        self.scheduler.call(self.leave)
