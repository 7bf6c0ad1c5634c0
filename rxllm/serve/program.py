"""`serve`: an application on uvicorn, from the first request to the end of the process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Generator

import uvicorn

from .config import Config
from .edge import Edge

__all__ = ["serve"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, which end open answers or wait for them for ever."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals to `serve`."""
        yield


async def serve(application: Edge, listener: socket.socket, config: Config) -> None:
    """Serve until SIGINT or SIGTERM.

    After the signal the server takes no more requests, and ``/health`` says so with 503. Open answers have
    ``config.grace`` seconds to end; then their requests to the models are closed. A second signal ends them at once.
    """
    server = _Server(
        uvicorn.Config(
            application,
            log_level="warning",
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=1,
            ssl_certfile=None if config.tls is None else config.tls.cert,
            ssl_keyfile=None if config.tls is None else config.tls.key,
        )
    )
    loop, ending = asyncio.get_running_loop(), asyncio.Event()
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            loop.add_signal_handler(number, _heard, server, ending)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    ended = asyncio.create_task(_end(server, application, ending, config.grace))
    try:
        await running
    finally:
        ended.cancel()


def _heard(server: uvicorn.Server, ending: asyncio.Event) -> None:
    if ending.is_set():
        server.should_exit = server.force_exit = True
    ending.set()


async def _end(server: uvicorn.Server, application: Edge, ending: asyncio.Event, grace: float) -> None:
    await ending.wait()
    if not await application.end(grace):
        server.config.timeout_graceful_shutdown = 0
    server.should_exit = True
