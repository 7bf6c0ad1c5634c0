"""The connection to an MCP server. A call opens it again after it broke.

States, all of which change on the event loop of the connection::

    idle ──► opening ──► open ──► broken ──► idle     the server or the network ended it, or the opening failed
     └──────────┴──────────┴────► closed              `close`: no call opens it again

The SDK must leave a client in the task that entered it. So the *owner*, a task of its own, holds the client while the
connection is open, and any task may close the connection. Calls run in the tasks of their callers. A call that runs
while the connection breaks is never sent again, because the server may have done its work.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..bounds import MCP_SCHEMA_BYTES, MCP_TOOLS
from ..errors import Interrupted, ProtocolError, RxllmError, Timeout, ToolFailure, TransportError
from ..misuse import MisuseError
from ..runtime.loops import Loop, expect, in_loop
from ..runtime.scheduler import Scheduler
from ..runtime.threads import in_thread
from ..secrecy import blanked, secrets_in
from ._mcp_transports import client_of, shown_target

if TYPE_CHECKING:
    from mcp import Client
    from mcp.shared.dispatcher import ProgressFnT
    from mcp_types import CallToolResult
    from mcp_types import Tool as Offer

__all__ = ["Connection"]

T = TypeVar("T")

_REFUSED = {  # the SDK's answers to requests of a server, which the server's tool needs
    "Elicitation not supported": "asked for input from the user",
    "Sampling not supported": "asked for an answer of a model",
    "List roots not supported": "asked for the directories of the user",
}

_FAILED = 400  # HTTP statuses from here on are errors

_log = logging.getLogger("rxllm")


def _retrieved(owner: asyncio.Task[None]) -> None:
    """Keep asyncio from logging an exception that the opening raises, or that comes after the opening was cancelled."""
    if not owner.cancelled():
        owner.exception()


class Connection:
    """A connection to an MCP server. The module describes its states.

    Attributes:
        name: the server, for error messages.
        loop: the event loop of the connection.
        lock: held while the connection opens.
        owner: the task that holds the client; None in the state idle.
        client: the client in the state open.
        broken: set when the connection broke or is closed; the owner then leaves the client.
        calls: the time limits of the running calls, which `close` brings forward.
        is_closed: whether the state is closed.
        status: the status of the latest HTTP response; 0 without one.
    """

    def __init__(self, target: object, headers: Mapping[str, str] | None, seconds: float) -> None:
        self.target = target
        self.headers = headers
        self.seconds = seconds
        in_headers = [*secrets_in({"headers": dict(headers or {})})]
        tokens = [word for text in in_headers for word in text.split()[1:]]  # without "Bearer"
        self.secrets = {*secrets_in(target), *in_headers, *tokens}
        self.name = shown_target(target)
        self.loop: Loop = asyncio.get_running_loop()
        self.lock = asyncio.Lock()
        self.owner: asyncio.Task[None] | None = None
        self.client: Client | None = None
        self.broken = asyncio.Event()
        self.calls: set[asyncio.Timeout] = set()
        self.is_closed = False
        self.status = 0

    # ── on the event loop of the connection ──────────────────────────────────────────────────────────────────────

    async def tools(self) -> list[Offer]:
        """Open the connection, and return the tools that the server offers.

        Raises:
            TransportError: the server cannot be reached, or refuses.
            ProtocolError: the server offers more than the bounds allow.
        """
        return await self._in_time(self._list())

    async def _list(self) -> list[Offer]:
        client = await self._opened()
        offers: list[Offer] = []
        size, cursor = 0, None
        for _ in range(MCP_TOOLS):
            page = await client.list_tools(cursor=cursor)
            offers += page.tools
            size += sum(len(offer.model_dump_json()) for offer in page.tools)
            if size > MCP_SCHEMA_BYTES:
                raise ProtocolError(
                    f"The MCP server {self.name} describes its tools in more than {MCP_SCHEMA_BYTES:,} bytes, "
                    "which would be part of each request. Connect to a server with fewer tools."
                )
            if (cursor := page.next_cursor) is None or len(offers) > MCP_TOOLS:
                break
        if cursor is not None or len(offers) > MCP_TOOLS:
            raise ProtocolError(f"The MCP server {self.name} offers more than {MCP_TOOLS:,} tools.")
        return offers

    async def _in_time(self, work: Awaitable[T]) -> T:
        """Return the result of the work, or raise what went wrong while the connection opened."""
        try:
            async with asyncio.timeout(self.seconds):
                return await work
        except TimeoutError:
            raise Timeout(f"The MCP server {self.name} was not ready within {self.seconds:g} s.") from None
        except (RxllmError, MisuseError):
            raise
        except Exception as error:
            raise TransportError(f"The MCP server {self.name} cannot be used: {self._reason(error)}") from error

    def _note(self, status: int) -> None:
        self.status = status

    def _reason(self, error: BaseException) -> str:
        while isinstance(error, BaseExceptionGroup):  # the SDK's task groups wrap the reason
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        text = f"{type(error).__name__}: {error}".removeprefix("MCPError: ")
        text = self.without_secrets(text)
        return text if self.status < _FAILED else f"{text} (HTTP status {self.status})"

    async def _opened(self) -> Client:
        async with self.lock:
            while self.owner is not None and self.broken.is_set() and not self.is_closed:
                await asyncio.wait([self.owner])
            if self.owner is None and not self.is_closed:
                await self._open()
            if self.is_closed:
                raise self._closed()
            if self.client is None:
                raise TransportError(f"The MCP server {self.name} ended the connection as soon as it was open.")
            return self.client

    def _closed(self) -> MisuseError:
        return MisuseError(
            f"The connection to the MCP server {self.name} is closed. Call its tools within `async with`."
        )

    async def _open(self) -> None:
        if "mcp" not in sys.modules:  # the import takes more than half a second, so other tasks go on meanwhile
            with suppress(ImportError):  # `client_of` says what to install
                await in_thread(Scheduler(self.loop), lambda: importlib.import_module("mcp"))
        self.broken = asyncio.Event()
        is_open: asyncio.Future[None] = self.loop.create_future()
        self.owner = owner = self.loop.create_task(self._own(is_open), name=f"rxllm-mcp {self.name}")
        owner.add_done_callback(_retrieved)
        try:
            await asyncio.wait([owner, is_open], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not is_open.done():
                owner.cancel()
                await asyncio.wait([owner])
                self.owner = None  # a task that is cancelled before it begins does not do this itself
                is_open.cancel()
        if is_open.cancelled() and not owner.cancelled():
            owner.result()  # raises why the connection did not open

    async def _own(self, is_open: asyncio.Future[None]) -> None:
        """Hold a client until the connection breaks or is closed.

        Raises:
            Exception: the connection did not open.
        """
        try:
            async with client_of(self.target, self.headers, self.broken.set, self._note) as client:
                self.client = client
                is_open.set_result(None)
                await self.broken.wait()
        except Exception as error:
            if not is_open.done():
                raise
            _log.debug("The connection to the MCP server %s broke: %s", self.name, self._reason(error))
        finally:
            self.broken.set()
            self.client = self.owner = None

    async def _call(
        self, name: str, arguments: Mapping[str, Any], progressed: ProgressFnT, *, is_second: bool = False
    ) -> CallToolResult:
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED, INVALID_REQUEST
        from pydantic import ValidationError

        client = await self._in_time(self._opened())
        limit = asyncio.timeout(None)
        self.calls.add(limit)
        try:
            async with limit:
                return await client.call_tool(name, dict(arguments), progress_callback=progressed)
        except TimeoutError:
            raise self._interrupted(name) from None
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise self._interrupted(name) from None
            if error.code == INVALID_REQUEST and error.message == "Session terminated" and not is_second:
                # The server has restarted: it knows nothing of the call.
                if client is self.client:
                    self.broken.set()
                return await self._call(name, arguments, progressed, is_second=True)
            if (asked := _REFUSED.get(error.message)) is not None:
                raise ToolFailure(f"The tool {name} {asked}, which is refused here.") from None
            raise ToolFailure(f"The tool {name} failed: {self.without_secrets(error.message)}") from None
        except (ValidationError, RuntimeError) as error:  # the SDK's, for content and for structured content
            raise ProtocolError(
                f"The MCP server {self.name} gave the tool {name} a result that violates the protocol: "
                f"{self._reason(error):.200}"
            ) from None
        finally:
            self.calls.discard(limit)

    def _interrupted(self, name: str) -> Interrupted:
        return Interrupted(
            f"The connection to the MCP server {self.name} ended while the tool {name} ran. The tool may or may not "
            "have done its work."
        )

    async def _close(self) -> None:
        self.is_closed = True
        self.broken.set()
        for call in self.calls.copy():
            call.reschedule(self.loop.time())
        if self.owner is not None:
            if self.client is None:  # it still opens, and a silent server would take long
                self.owner.cancel()
            await asyncio.wait([self.owner])

    # ── on any event loop ────────────────────────────────────────────────────────────────────────────────────────

    def without_secrets(self, text: str) -> str:
        """Return a text of the server with ``***`` for each secret of the connection."""
        return blanked(text, self.secrets)

    async def call(self, name: str, arguments: Mapping[str, Any], progressed: ProgressFnT) -> CallToolResult:
        """Call a tool of the server. `progressed` gets its progress on the event loop of the connection.

        Raises:
            ToolFailure: the server refused the call.
            TransportError: the server cannot be reached, or the connection broke while the tool ran.
            ProtocolError: the result violates the protocol.
            MisuseError: the connection is closed.
        """
        result: CallToolResult = await self._on_loop(lambda: self._call(name, arguments, progressed))
        return result

    async def close(self) -> None:
        """Close the connection. Calls that run are interrupted."""
        await self._on_loop(self._close)

    async def _on_loop(self, work: Callable[[], Any]) -> Any:
        if in_loop(self.loop):
            return await work()
        running = work()
        try:
            outcome = asyncio.run_coroutine_threadsafe(running, self.loop)
        except RuntimeError:
            running.close()
            raise MisuseError(
                f"The event loop of the connection to the MCP server {self.name} has ended. Connect on the event loop "
                "that calls the tools."
            ) from None
        return await expect(asyncio.wrap_future(outcome))
