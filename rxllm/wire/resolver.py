"""`Resolver`: looks up host names in daemon threads of rxllm's own."""

from __future__ import annotations

import asyncio
import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from ..runtime.executor import EXECUTOR

__all__ = ["Resolver"]

NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class Resolver(AbstractResolver):
    """Looks up host names for an aiohttp connector.

    aiohttp's resolvers use the event loop's executor, which starts no thread after the end of the main thread, and for
    which ``asyncio.run`` waits: a look-up that hangs would delay the end of a program that has cancelled its request.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host. A cancelled caller does not wait for the look-up.

        Raises:
            OSError: the name has no address. MisuseError: the main thread has ended, and this Python can no longer
            start a thread.
        """
        return await asyncio.get_running_loop().run_in_executor(EXECUTOR, _addresses, host, port, family)

    async def close(self) -> None:
        """Keep the threads, because they serve all event loops."""


def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except socket.gaierror:
        if host.rstrip(".").lower() != "localhost":
            raise
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)  # without a network, only this finds it
    return [
        ResolveResult(
            hostname=host,
            # With its scope, as in fe80::1%eth0. Python without IPv6 gives such an address as two numbers.
            host=socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0],
            port=port,
            family=family,
            proto=protocol,
            flags=NUMERIC,
        )
        for family, _, protocol, _, address in found
        if isinstance(address[0], str)
    ]
