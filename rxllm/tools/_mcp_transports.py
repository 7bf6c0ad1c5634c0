"""The ways to an MCP server: over HTTP, over a command's standard input and output, and within this process."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from ..misuse import MisuseError, shown
from ..secrecy import hidden

if TYPE_CHECKING:
    from mcp import Client
    from mcp.client._transport import ReadStream, Transport, TransportStreams

_SILENCE = 300  # seconds; the SDK's own, because a server may keep a response open

__all__ = ["checked", "client_of", "shown_target"]


def checked(target: object) -> object:
    """Return the target of a connection; the words of a command as a tuple.

    Raises:
        MisuseError: nothing can connect to it.
    """
    if isinstance(target, (list, tuple)):
        words = tuple(cast("list[object]", target))
        if words and all(isinstance(word, str) for word in words):
            return words
    elif isinstance(target, str):
        if target.startswith(("http://", "https://")):
            return target
    elif target is not None and not isinstance(target, (int, float, bytes, Mapping)):
        return target
    raise MisuseError(
        "mcp takes the URL of a server, such as 'http://localhost:8000/mcp', the words of a command, such as "
        f"['uvx', 'mcp-server-time'], or a server of the package mcp, not {shown(cast('object', target))}."
    )


def shown_target(target: object) -> str:
    """Return the server for an error message, without secrets. The words after a command's first may be secrets."""
    if isinstance(target, str):
        return hidden(target)
    if isinstance(target, tuple):
        return str(cast("tuple[object, ...]", target)[0])
    return str(getattr(target, "command", None) or getattr(target, "name", type(target).__name__))


def client_of(
    target: Any, headers: Mapping[str, str] | None, on_end: Callable[[], object], on_status: Callable[[int], object]
) -> Client:
    """Return the client for a target. It is not connected yet.

    Args:
        target: the target.
        headers: the headers of each HTTP request.
        on_end: called when no message can come any more.
        on_status: called with the status of each HTTP response.

    Raises:
        MisuseError: the package mcp is not installed, or nothing can connect to the target.
    """
    try:
        from mcp import Client, StdioServerParameters
        from mcp.client.stdio import stdio_client
        from mcp.server import Server
        from mcp.server.mcpserver import MCPServer
    except ImportError:
        raise MisuseError("The package mcp is not installed: pip install 'rxllm[mcp]'.") from None
    if isinstance(target, (Server, MCPServer)):
        return Client(cast("Server[Any]", target))
    if isinstance(target, str):
        return Client(_watched(_over_http(target, headers, on_status), on_end))
    if isinstance(target, tuple):
        command, *arguments = cast("tuple[str, ...]", target)
        target = StdioServerParameters(command=command, args=arguments)
    if isinstance(target, StdioServerParameters):
        # Notebooks and tests replace sys.stderr by an object that is not a file, which a process cannot inherit.
        return Client(_watched(stdio_client(target, errlog=sys.__stderr__ or sys.stderr), on_end))
    if callable(target):
        return Client(_watched(cast("Transport", target()), on_end))
    raise MisuseError(
        f"mcp cannot connect to an object of type {type(target).__name__}. Pass a URL, the words of a command, a "
        "StdioServerParameters, a server, or a function that returns a transport of the package mcp."
    )


@asynccontextmanager
async def _over_http(
    url: str, headers: Mapping[str, str] | None, on_status: Callable[[int], object]
) -> AsyncGenerator[TransportStreams]:
    """Connect to a URL with these headers. The SDK's own errors do not name the status of a response."""
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    async def note(response: httpx2.Response) -> None:
        on_status(response.status_code)

    timeout = httpx2.Timeout(30, read=_SILENCE)
    client = httpx2.AsyncClient(headers=headers, timeout=timeout, event_hooks={"response": [note]})
    async with client, streamable_http_client(url, http_client=client) as streams:
        yield streams


@asynccontextmanager
async def _watched(transport: Transport, on_end: Callable[[], object]) -> AsyncGenerator[TransportStreams]:
    """Connect as the transport does, and call `on_end` when no message can come any more."""
    async with transport as (received, sent):
        yield cast("Any", _Received(received, on_end)), sent


class _Received:
    """The messages of a server, as the SDK reads them."""

    def __init__(self, stream: ReadStream[Any], on_end: Callable[[], object]) -> None:
        self.stream = stream
        self.on_end = on_end

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self.stream)
        except BaseException:
            self.on_end()
            raise

    async def __aenter__(self) -> Self:
        await self.stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.on_end()
        await self.stream.__aexit__(kind, error, traceback)
