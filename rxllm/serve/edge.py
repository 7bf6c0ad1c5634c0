"""`Edge`: what surrounds the applications of a server: request ids, access logs, metrics, health, and the end."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..handlers.usage import UsageMeter
from ..runtime.forks import reset_in_child
from ..values.characters import json_bytes
from .failures import HTTPFailure, Refused
from .incoming import Callers, failed
from .openai_chat import error_body

__all__ = ["Edge"]

_access = logging.getLogger("rxllm.serve.access")

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/models", "/api/chat", "/")
_ENDING = HTTPFailure(503, "server_error", "ending", "This server is ending. Try again.", retry_after=1, again=True)


class Edge:
    """An ASGI application around another one.

    Each response has an ``x-request-id``: that of the request, if it is a plain word, else a new one. The log
    ``rxllm.serve.access`` gets one line a request, without what was asked or answered. ``/health`` says whether the
    server takes requests; ``/metrics`` has counts in Prometheus' format, for callers with a key if callers have keys.

    Args:
        application: the application inside.
        meters: the usage of each model, by its name, for the metrics.
        keys: the keys of the callers, by the caller's name.
        hosts: the host names under which ``/metrics`` answers, so that no page of a foreign name reads the counts.
    """

    def __init__(
        self,
        application: ASGIApp,
        meters: Mapping[str, UsageMeter],
        keys: Mapping[str, str] | None = None,
        hosts: Sequence[str] = ("*",),
    ) -> None:
        self._application = application
        self._meters = meters
        self._callers = Callers(keys)
        self._shown_metrics = TrustedHostMiddleware(self._show_metrics, allowed_hosts=hosts, www_redirect=False)
        self._requests: Counter[tuple[str, int]] = Counter()  # by path and status
        self._seconds: defaultdict[str, float] = defaultdict(float)  # by path
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Forget the running requests and the end of the parent in a forked child."""
        self._active = 0
        self._ending = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def end(self, grace: float) -> bool:
        """Take no more requests, and wait for the running ones for `grace` seconds. Return whether all have ended."""
        self._ending = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle.wait()
        return not self._active

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request: the entry point for ASGI servers."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        http = HTTPRequest(scope)
        if http.url.path == "/health":
            status = "ending" if self._ending else "ok"
            await _document({"status": status}, 503 if self._ending else 200)(scope, receive, send)
        elif http.url.path == "/metrics":
            await self._shown_metrics(scope, receive, send)
        else:
            await self._answer(http, receive, send)

    async def _answer(self, http: HTTPRequest, receive: Receive, send: Send) -> None:
        sent = http.headers.get("x-request-id", "")
        identity = sent if _ID.fullmatch(sent) else f"req_{secrets.token_hex(12)}"
        begun, status = time.perf_counter(), 499

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", identity.encode())]}
            await send(message)

        self._active += 1
        self._idle.clear()
        try:
            if self._ending:
                await failed(_ENDING, error_body)(http.scope, receive, with_id)
            else:
                await self._application(http.scope, receive, with_id)
        except BaseException as error:
            status = 500 if status == 499 else status
            # After the grace, uvicorn cancels this task and closes the connection. It would log where the task waited.
            if not (self._ending and isinstance(error, asyncio.CancelledError)):
                raise
        finally:
            self._active -= 1
            if not self._active:
                self._idle.set()
            seconds = time.perf_counter() - begun
            path = http.url.path if http.url.path in _PATHS else "other"
            self._requests[path, status] += 1
            self._seconds[path] += seconds
            caller = http.scope.get("state", {}).get("caller") or "-"
            _access.info("%s %s %s %s %d %.3fs", identity, caller, http.method, path, status, seconds)

    async def _show_metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._metrics_for(HTTPRequest(scope))(scope, receive, send)

    def _metrics_for(self, http: HTTPRequest) -> Response:
        try:
            self._callers.name_of(http)
        except Refused as refused:
            return failed(refused.failure, error_body)
        return Response("".join(f"{line}\n" for line in self._metrics()), media_type="text/plain; version=0.0.4")

    def _metrics(self) -> Iterator[str]:
        yield from _metric("rxllm_requests_active", "gauge", [("", self._active)])
        counts = ((f'{{path="{path}",status="{status}"}}', count) for (path, status), count in self._requests.items())
        yield from _metric("rxllm_requests_total", "counter", counts)
        seconds = ((f'{{path="{path}"}}', round(spent, 6)) for path, spent in self._seconds.items())
        yield from _metric("rxllm_request_seconds_total", "counter", seconds)
        tokens: list[tuple[str, float]] = []
        for name, meter in self._meters.items():
            total, label = meter.total, _label(name)
            tokens.append((f'{{model="{label}",kind="input"}}', total.input_tokens or 0))
            tokens.append((f'{{model="{label}",kind="output"}}', total.output_tokens or 0))
        yield from _metric("rxllm_tokens_total", "counter", tokens)


def _metric(name: str, kind: str, values: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    for labels, value in values:
        yield f"{name}{labels} {value}"


def _label(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _document(value: object, status: int) -> Response:
    return Response(json_bytes(value), status, {"cache-control": "no-store"}, "application/json")
