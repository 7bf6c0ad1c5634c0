"""Runs an ASGI application on a real server in a thread, for tests of `rxllm.serve`."""

import asyncio
import os
import socket
import threading

import uvicorn
from granian.constants import Interfaces
from granian.server.common import SocketSpec
from granian.server.embed import Server as Granian
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config

import rxllm

SERVERS = ("h11", "httptools", "hypercorn", "granian")


class Serving:
    """``with Serving(app) as server``: the application at `server.url`."""

    def __init__(self, app, server="h11", *, port=0, lifespan="off"):
        self.app = app
        self.kind = server
        self.lifespan = lifespan
        self.socket = socket.create_server(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.loop = None

    def __enter__(self):
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.run()), name="Serving")
        self.thread.start()
        assert self.ready.wait(30)
        return self

    def __exit__(self, *error):
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.socket.close()

    async def run(self):
        """Serve until the end of the block."""
        self.loop = asyncio.get_running_loop()
        self.stop = asyncio.Event()
        if self.kind == "hypercorn":
            config = Config()
            config.bind = [f"fd://{os.dup(self.socket.fileno())}"]  # hypercorn closes it
            config.graceful_timeout = 0.2
            config.loglevel = "CRITICAL"
            self.ready.set()
            await hypercorn_serve(self.app, config, shutdown_trigger=self.stop.wait)
            return
        if self.kind == "granian":
            await self.run_granian()
            return
        config = uvicorn.Config(
            self.app, http=self.kind, log_level="critical", timeout_graceful_shutdown=1, lifespan=self.lifespan
        )
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None
        server.capture_signals = _no_signals
        task = asyncio.create_task(server.serve(sockets=[self.socket]))
        self.ready.set()
        await self.stop.wait()
        server.should_exit = True
        await task

    async def run_granian(self):
        """Serve with granian, which binds the port itself."""
        self.socket.close()
        server = _Granian(self.app, port=self.port, interface=Interfaces.ASGI, log_enabled=False, websockets=False)
        task = asyncio.create_task(server.serve())
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
        self.ready.set()
        await self.stop.wait()
        server.stop()
        await task


class _Granian(Granian):
    """granian, without the socket that it opens to try the address, and leaves open."""

    def _init_shared_socket(self):
        self._ssp = SocketSpec(self.bind_addr, self.bind_port, self.backlog)


class _NoSignals:
    def __enter__(self):
        return None

    def __exit__(self, *error):
        return None


def _no_signals():
    return _NoSignals()


class Scripted(rxllm.LLM):
    """Answers with the same chunks each time, and keeps the requests that it was asked."""

    def __init__(self, *script):
        super().__init__()
        self.script = script
        self.asked = []

    def chunks(self, request):
        """Yield the chunks; raise where an error stands."""
        self.asked.append(request)
        for chunk in self.script:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


class Gated(rxllm.LLM):
    """A model whose second word waits for `gate`; it keeps the requests that it was asked."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.asked = []

    def chunks(self, request):
        """Yield two words."""
        self.asked.append(request)
        yield "one "
        assert self.gate.wait(50)
        yield "two"


class Client:
    """A raw HTTP client that can leave at any moment."""

    def __init__(self, port, path="/", body=None, headers=(), length=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        method = "GET" if body is None else "POST"
        content = body or b""
        length = len(content) if length is None else length
        more = "".join(f"{name}: {value}\r\n" for name, value in dict(headers).items())
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {length}\r\n"
        self.socket.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + content)

    def read_until(self, mark):
        """Read until the mark has arrived, and return everything read."""
        data = b""
        while mark not in data:
            piece = self.socket.recv(65536)
            assert piece, data
            data += piece
        return data

    def leave(self):
        """Close the connection."""
        self.socket.close()
