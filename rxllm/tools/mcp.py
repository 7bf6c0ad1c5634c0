"""`mcp`: the tools of a server that speaks the Model Context Protocol.

Source: https://modelcontextprotocol.io/specification, as the official SDK speaks it, the package ``mcp``. It is
imported when a connection opens, because that takes more than half a second.
"""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from attrs import define, field, frozen
from attrs.validators import optional

from ..bridges.stream import stream
from ..misuse import MisuseError, is_mapping, is_text, must_be
from ..observation import reporting_progress
from ..operators.timeouts import check_seconds
from ..public import Public
from ..runtime.scheduler import Scheduler
from ..runtime.source import source
from ..showing import brief
from ..values.parts import Part
from ._mcp_connection import Connection
from ._mcp_results import value_of
from ._mcp_transports import checked, shown_target
from .tool import Tool

if TYPE_CHECKING:
    from mcp_types import Tool as Offer

__all__ = ["MCP", "ApproveOffer", "MCPProgress", "mcp"]

T = TypeVar("T")

ApproveOffer = bool | Callable[[Mapping[str, Any]], bool]
"""Whether the calls of a tool need an approval: always, never, or by a function of the server's hints."""

_LONGEST = 64  # characters of a tool's name
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_-]")


@frozen
class MCPProgress(metaclass=Public):
    """How far a running tool of an MCP server is. Handlers receive it as the value of an `Emitted`.

    ``str(progress)`` is a line for people, such as ``3 of 10: reading``.

    Attributes:
        done: how much is done, in a unit of the server's choice.
        total: how much there is to do; None if the server does not know it.
        message: what the tool does now; empty if the server does not say it.
    """

    done: float
    total: float | None = None
    message: str = ""

    __repr__ = brief

    def __str__(self) -> str:
        amount = f"{self.done:g}" if self.total is None else f"{self.done:g} of {self.total:g}"
        return f"{amount}: {self.message}" if self.message else amount


@define(eq=False, repr=False)
class MCP:
    """A connection to an MCP server, as `mcp` makes it: ``async with`` or ``with`` gives the server's tools.

    Attributes:
        target: the server.
        prefix: the text before the name of each tool.
        headers: the headers of each HTTP request.
        approve: which tools need an approval.
        timeout: the maximum number of seconds of a call.
        ready_timeout: the maximum number of seconds until the server has listed its tools.
    """

    target: object = field(converter=checked)
    prefix: str = field(validator=must_be("text", is_text))
    headers: Mapping[str, str] | None = field(validator=optional(must_be("a dict of headers", is_mapping)))
    approve: ApproveOffer = field(
        validator=must_be("True, False or a function of the hints", lambda a: isinstance(a, bool) or callable(a))
    )
    timeout: float | None
    ready_timeout: float
    _connection: Connection | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        check_seconds("ready_timeout", self.ready_timeout)
        if self.timeout is not None:
            check_seconds("timeout", self.timeout)

    def __repr__(self) -> str:
        return f"mcp({shown_target(self.target)!r})"

    async def __aenter__(self) -> tuple[Tool[Any, Any], ...]:
        if self._connection is not None and not self._connection.is_closed:
            raise MisuseError("This mcp(…) is open already. Make another one for a second connection.")
        self._connection = connection = Connection(self.target, self.headers, self.ready_timeout)
        try:
            return tuple(self._tool(connection, offer) for offer in await connection.tools())
        except BaseException:
            await connection.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.close()

    def __enter__(self) -> tuple[Tool[Any, Any], ...]:
        return _wait(self.__aenter__)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _wait(functools.partial(self.__aexit__, None, None, None))

    def _tool(self, connection: Connection, offer: Offer) -> Tool[Any, Any]:
        async def call(**arguments: Any) -> str | list[Part]:
            with reporting_progress() as report:

                async def progressed(progress: float, total: float | None, message: str | None) -> None:
                    report(MCPProgress(progress, total, connection.without_secrets(message or "")))

                return value_of(await connection.call(offer.name, arguments, progressed), offer.name)

        hints = {} if offer.annotations is None else offer.annotations.model_dump(by_alias=True, exclude_none=True)
        made = cast("Any", Tool)(
            call,
            name=_FORBIDDEN.sub("_", self.prefix + offer.name)[:_LONGEST],
            description=offer.description or "",
            parameters=offer.input_schema,
            timeout=self.timeout,
            approve=self.approve if isinstance(self.approve, bool) else bool(self.approve(hints)),
        )
        return cast("Tool[Any, Any]", made)


def _wait(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return the result of a coroutine on rxllm's background event loop."""

    async def once(_: Scheduler) -> AsyncIterator[T]:
        yield await work()

    [result] = source(once).pipe(stream())
    return result


def mcp(
    target: str | Sequence[str] | object,
    *,
    prefix: str = "",
    headers: Mapping[str, str] | None = None,
    approve: ApproveOffer = False,
    timeout: float | None = None,
    ready_timeout: float = 60.0,
) -> MCP:
    """Connect to an MCP server. Within ``async with``, or ``with`` in a program without an event loop, its tools work.

    ::

        async with rxllm.mcp("https://example.com/mcp") as tools:
            await rxllm.agent(llm, *tools).ainvoke("What is new?")

        with rxllm.mcp(["uvx", "mcp-server-time"]) as tools:
            rxllm.agent(llm, *tools).invoke("What time is it in Oslo?")

    The schemas of the tools go to the model as they came, and the server checks the arguments. Pictures and other files
    in a result are parts. The tools are those that the server lists when the connection opens. A name that no vendor
    would take is changed: each character but letters, digits, ``_`` and ``-`` becomes ``_``, and 64 characters stay.

    Any task, thread and event loop may call the tools, and any task may close the connection. If the server or the
    network ends it, the next call opens it again. A call that ran meanwhile is not repeated: its result is that it may
    or may not have run.

    Progress that the server reports while a tool runs reaches handlers as an `Emitted` with an `MCPProgress`.

    A server that asks for input of the user (elicitation), for an answer of a model (sampling) or for directories gets
    a refusal, and the model is told.

    The server's descriptions and results reach the model as they are. So connect only to servers that you trust as much
    as a prompt, and let a person approve calls that may do harm.

    Args:
        target: the server. A URL, for streamable HTTP. The words of a command, which speaks on its standard input and
            output. Or, of the package ``mcp``: a ``StdioServerParameters``, a server of this process, or a function
            that returns a transport.
        prefix: the text before the name of each tool, so that two servers may have tools of one name.
        headers: the headers of each HTTP request, such as ``{"Authorization": "Bearer …"}``.
        approve: whether calls need an approval; see `agent`. A function gets the hints of each tool as the server wrote
            them, such as ``{"readOnlyHint": True}``. Nothing proves that they are true.
        timeout: the maximum number of seconds of a call. A call that takes longer is cancelled at the server.
        ready_timeout: the maximum number of seconds until the server has listed its tools.

    Errors: of a tool: `ToolFailure` with the server's text; `Interrupted` if the connection broke while it ran;
        `TransportError` if it cannot be opened again; `ProtocolError` for a result that violates the protocol.

    Raises:
        MisuseError: an argument is invalid, or the package ``mcp`` is not installed.
        TransportError: on entering: the server cannot be reached, or refuses.
        ProtocolError: on entering: the server's tools exceed a bound.
    """
    return MCP(target, prefix, headers, approve, timeout, ready_timeout)
