"""`agent`: a model that calls tools until it has its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, cast

from attrs import field, frozen
from attrs.validators import optional
from reactivex import Observable, abc

from ..extensible import evolved
from ..graph import Graph
from ..llm import LLM
from ..misuse import MisuseError, is_mapping, must_be, shown
from ..operators.adding_up import MESSAGE
from ..operators.observing import Identity, observed
from ..operators.prompting import asking
from ..runtime.scheduler import scheduler_for
from ..runtime.source import Source
from ..showing import shown_call, shown_code
from ..stages import graph_of_parts
from ..tools.tool import Tool, tool
from ..values.chunk import Chunk
from ..values.parameters import Settings, number
from ..values.request import Prompt, Request
from ..values.tools import ToolSpec, tools_of
from ._combined import parts_of
from .approvals import secret_of
from .limits import Limits, Spent
from .looping import Loop
from .remember import remembers

__all__ = ["Agent", "ApproveCall", "Prepare", "agent", "tools_of_agents"]

ApproveCall = Callable[[str, Mapping[str, Any]], bool]
"""Whether a call needs an approval, from the name of the tool and the arguments."""

Prepare = Callable[[int, Request], Request | None]
"""Changes the request of a round, from the number of the round, counted from 1, and the request."""


def _tools(tools: tuple[object, ...]) -> tuple[Tool[Any, Any] | Mapping[str, Any], ...]:
    return tuple(map(_tool_of, tools))


def _tool_of(item: object) -> Tool[Any, Any] | Mapping[str, Any]:
    if isinstance(item, Tool):
        return item  # pyright: ignore[reportUnknownVariableType]
    if is_mapping(item):
        return item
    if isinstance(item, ToolSpec):
        raise MisuseError(
            f"An agent runs its tools, but the ToolSpec {item.name!r} has no function. Pass rxllm.tool(function)."
        )
    if not callable(item) or isinstance(item, type | LLM):
        raise MisuseError(f"An agent takes tools and functions, not {shown(item)}.")
    return tool(item)


@frozen
class Agent(LLM):
    """A model with tools, as `agent` makes it.

    Attributes:
        llm: the model.
        tools: the tools that the agent runs, and dicts of tools that run on the provider's server.
        rounds: the maximum number of requests to the model.
        concurrency: the maximum number of tools that run at the same time.
        approve: says which calls need an approval, beside the tools themselves.
        prepare: changes the request of each round.
        errors: whether the model is told that a tool failed, or the answer fails.
        limits: what the agent may spend on one answer.
        inbox: messages that reach the agent while it runs; set by ``bind(inbox=…)``.
        secret: signs the calls that wait for an approval.
        specs: the definitions of the tools.
    """

    llm: LLM = field(validator=must_be("a model", lambda llm: isinstance(llm, LLM)))
    tools: tuple[Tool[Any, Any] | Mapping[str, Any], ...] = field(default=(), converter=_tools, hash=False)
    rounds: int = field(default=10, kw_only=True, validator=number(1, whole=True))
    concurrency: int = field(default=8, kw_only=True, validator=number(1, whole=True))
    approve: ApproveCall | None = field(
        default=None, kw_only=True, validator=optional(must_be("a function of the tool's name and arguments", callable))
    )
    prepare: Prepare | None = field(
        default=None, kw_only=True, validator=optional(must_be("a function of the round and its request", callable))
    )
    errors: Literal["tell", "raise"] = field(  # pyright: ignore[reportAssignmentType]
        default="tell", kw_only=True, validator=must_be("'tell' or 'raise'", lambda errors: errors in ("tell", "raise"))
    )
    limits: Limits = field(
        factory=Limits, kw_only=True, validator=must_be("rxllm.Limits(…)", lambda limits: isinstance(limits, Limits))
    )
    inbox: Observable[Any] | None = field(
        default=None,
        kw_only=True,
        eq=False,
        repr=False,
        validator=optional(must_be("an Observable of texts or messages", lambda inbox: isinstance(inbox, Observable))),
    )
    secret: bytes | None = field(default=None, kw_only=True, eq=False, repr=False, converter=secret_of)
    specs: tuple[ToolSpec | Mapping[str, Any], ...] = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # Before any request, because a tool without a schema is a mistake in the program.
        object.__setattr__(self, "specs", tools_of(self.tools) or ())

    def __repr__(self) -> str:
        return shown_call("agent", map(shown_code, (self.llm, *self.tools)), self)

    def _graph(self) -> Graph:
        return graph_of_parts("agent", self, "agent", (("", part) for part in (self.llm, *self.tools)))

    def __getstate__(self) -> object:
        """Return the state for `pickle`, which must not contain the secret."""
        if self.secret is not None:
            raise MisuseError("An agent with a secret cannot be pickled. Make the agent where it runs.")
        return object.__getstate__(self)

    @property
    def streaming(self) -> bool:
        """Whether the model emits chunks while it generates."""
        return self.llm.streaming

    def kind(self, request: Request) -> Literal["llm", "chat_model"]:
        """Return the kind of the model."""
        return self.llm.kind(request)

    def __call__(self, prompt: Prompt | Observable[Any], /) -> Observable[Chunk]:
        """Return the cold stream of all rounds, as every LLM does."""
        if isinstance(prompt, Observable):
            return asking(prompt, self)
        request = Request.ask(prompt, self.parameters)
        given = (*self.specs, *(request.tools or self.llm.parameters.tools or ()))
        with_tools = request.updated({"tools": given}) if given else request

        def subscribe(observer: abc.ObserverBase[Chunk], requested: abc.SchedulerBase | None) -> abc.DisposableBase:
            return Loop(self, with_tools, observer, scheduler_for(requested)).start()

        def identity() -> Identity:
            return Identity(self.run_name or "agent", "agent", self.tags, self.metadata, self.handlers)

        return observed(Source(subscribe), request, identity, self.handlers, MESSAGE)

    def _with_parameters(self, parameters: Settings) -> Self:
        """Return a copy with these parameters, which may have an ``inbox``."""
        if "inbox" not in parameters:
            return super()._with_parameters(parameters)
        others: Any = {name: value for name, value in parameters.items() if name != "inbox"}
        bound = super()._with_parameters(others) if others else self
        return evolved(bound, inbox=parameters["inbox"])

    def prepared(self, number: int, request: Request) -> Request:
        """Return the request of a round, which `prepare` may change."""
        prepared = None if self.prepare is None else self.prepare(number, request)
        if prepared is None:
            return request
        if not isinstance(cast("object", prepared), Request):
            raise MisuseError(f"prepare must return a Request or None, not {type(prepared).__name__}.")
        return prepared

    def needs_approval(self, tool: Tool[Any, Any], arguments: Mapping[str, Any]) -> bool:
        """Return whether the tool or the agent wants an approval of a call."""
        by_tool = tool.approve if isinstance(tool.approve, bool) else tool.approve(arguments)
        return bool(by_tool or (self.approve is not None and self.approve(tool.name, arguments)))

    def reached(self, number: int, spent: Spent) -> tuple[str, str] | None:
        """Return the name and the amount of a limit that forbids another round; None if there is none."""
        if number >= self.rounds:
            return "rounds", f"{self.rounds} round{'s' * (self.rounds > 1)}"
        return self.limits.reached(spent)


def agent(
    llm: LLM,
    *tools: Tool[Any, Any] | Callable[..., Any] | Mapping[str, Any],
    rounds: int = 10,
    concurrency: int = 8,
    approve: ApproveCall | None = None,
    prepare: Prepare | None = None,
    errors: Literal["tell", "raise"] = "tell",
    limits: Limits = Limits(),
    secret: str | bytes | None = None,
) -> LLM:
    """Give a model tools: send the request, run the tool calls, send the results, until an answer has no calls.

    ::

        llm                   -let_me_see-(call)|    ---It_rains-|
        weather                                 --r|
        agent(llm, weather)   -let_me_see-(call)--r-----It_rains-|

    The chunks of all rounds pass as they come, and the results of the tools pass as `ToolResultPart` when they are
    there. The tools of one round run at the same time; the model gets their results in the order of its calls. The sum
    of the chunks is one Message that holds all rounds. It goes back into a conversation as it is: the model then gets
    one message for each round, as it did the first time. Its usage is the sum of the rounds.

    The model is told of its mistakes, as the result of the call: a tool that does not exist, arguments that are not
    JSON or that do not fit. Calls of an answer that broke off (``length``, ``content_filter``) do not run. After a
    round, a forced ``tool_choice`` becomes ``auto``.

    A call that needs an approval does not run: its siblings run, then the stream completes with a `Pending` of each
    such call and the finish reason ``tool_call``. Ask again with the answer and an `Approval` of each call in the
    conversation. The approved calls then run, with exactly the arguments that the model wrote, and the model goes on.

    ``agent(…).bind(tools=specs)`` adds tools that the caller runs, such as a web page. After a call of such a tool, its
    siblings run, then the stream completes with the finish reason ``tool_call``. Ask again with the answer and a
    `ToolResultPart` of each such call in the conversation.

    ``agent(…).bind(inbox=observable)`` steers a running agent: each text or Message of the Observable goes into the
    next request as a message of the user. If the model has just answered, the agent asks it once more, unless this was
    the last round or one of the `limits` is reached. The answer contains these messages, so that the history stays
    whole; also those before a call that the caller approves or runs.

    Args:
        llm: a model.
        tools: tools, functions, and dicts that define tools of the provider's server, such as
            ``{"type": "web_search"}``.
        rounds: the maximum number of requests to the model.
        concurrency: the maximum number of tools that run at the same time.
        approve: a function of the tool's name and the dict of arguments. If it returns True, the call needs an
            approval, as with ``tool(approve=True)``.
        prepare: a function of the number of a round, from 1, and its request. It may return another request, with
            other tools, another model or fewer messages. The next round begins with the unchanged request again.
        errors: ``"tell"`` tells the model of an exception in a tool: the text of a `ToolFailure`, of any other
            exception only the class's name. ``"raise"`` lets any exception but a ToolFailure end the answer.
        limits: how many tokens, dollars and seconds one answer may take.
        secret: a text that only the program knows, at least 16 characters. The calls that wait for an approval are
            then signed with it, and only an approval with the signature counts.

    Errors: those of the model, with the content of all rounds as their `partial`. `LimitReached` if the model still
        calls tools in the last round, or when one of the `limits` is reached; the last calls then do not run. With
        ``errors="raise"``, the exception of a tool.

    Raises:
        MisuseError: an argument has a wrong type, a tool has no JSON schema, or two tools have the same name.
    """
    if isinstance(cast("object", llm), LLM) and remembers(llm):
        raise MisuseError(
            "agent() is around a model that remembers, so each round would repeat the messages in its Conversation. "
            "Write remember(agent(llm, …), conversation): it keeps the rounds."
        )
    return Agent(
        llm,
        tools,
        rounds=rounds,
        concurrency=concurrency,
        approve=approve,
        prepare=prepare,
        errors=errors,
        limits=limits,
        secret=secret,
    )


def tools_of_agents(model: object) -> frozenset[str] | None:
    """Return the names of the tools that the agents in a model or a pipeline run; None if there are no agents."""
    agents = [part for part in parts_of(model) if isinstance(part, Agent)]
    names = (tool.name for agent in agents for tool in agent.tools if isinstance(tool, Tool))
    return frozenset(names) if agents else None
