"""A server that sends bytes as they are given, in a thread of its own, and counts what it is asked."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from rxllm.testing import Signal

CERTIFICATE = Path(__file__).parent / "wire" / "loopback.pem"  # of 127.0.0.1, signed by itself
Step = bytes | Signal | Callable[[socket.socket], None]


def fin(connection):
    """Ends a reply: the connection is closed."""
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def rst(connection):
    """Ends a reply: the connection is reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def ok(body=b"ok", **headers):
    """A whole response."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n{lines}\r\n".encode("latin-1") + body


def chunked(*pieces, end=b"0\r\n\r\n"):
    """A response in chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body + end


class RawServer:
    """``with RawServer([ok()], [ok(), fin]) as server``: each request is answered with the next steps.

    Attributes:
        requests: the bytes of each request, in order.
        connections: how many connections were accepted.
    """

    def __init__(self, *replies: Iterable[Step], tls: bool = False) -> None:
        self.tls = tls
        self.replies = [list(reply) for reply in replies]
        self.requests: list[bytes] = []
        self.connections = 0
        self.latest: socket.socket | None = None
        self.answered = [Signal() for _ in replies]
        self._open: list[socket.socket] = []

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"{'https' if self.tls else 'http'}://{self.host}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def send(self, data):
        """Sends bytes that nobody asked for, over the latest connection."""
        self.latest.sendall(data)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self.latest = connection
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        received = b""
        try:
            if self.tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(CERTIFICATE)
                connection = context.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            while True:
                head, end, rest = received.partition(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                if not end or len(rest) < length:
                    data = connection.recv(65536)
                    if not data:
                        return
                    received += data
                    continue
                self.requests.append(received[: len(head) + 4 + length])
                received = rest[length:]
                number = len(self.requests) - 1
                for step in self.replies[number]:
                    if isinstance(step, bytes):
                        connection.sendall(step)
                    elif isinstance(step, Signal):
                        step.wait()
                    else:
                        step(connection)
                self.answered[number].set()
        except OSError:
            return
