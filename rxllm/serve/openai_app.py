"""`openai`: an ASGI application that speaks OpenAI's protocol in front of models and pipelines."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

from reactivex import Observable
from starlette.applications import Starlette
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from ..runtime.forks import reset_in_child
from ..values.characters import json_bytes
from ..values.request import Request
from .failures import BUSY, Refused
from .idempotency import Repeats, idempotency_key
from .incoming import (
    Callers,
    Endpoint,
    ModelsOf,
    Served,
    failed,
    guarded,
    json_body,
    model_named,
    models_by_caller,
    refusal,
)
from .json_fields import WrongBody, flag_in, with_wrong_bodies, wrong_body
from .openai_bodies import asks_for_usage, chat_request, check_tools, completion_request, tool_names
from .openai_chat import ChatEvents, CompletionEvents, WholeChat, WholeCompletion, error_body
from .openai_inputs import echoed, response_request
from .openai_responses import ResponseEvents, WholeResponse
from .response import HOLD, PING, Encoder, StreamResponse

__all__ = ["openai"]

_METHODS = ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"]
_CREATED = 1_750_000_000  # clients require the field; a served model has no date

_Asked = tuple[Request, Encoder[Any], Encoder[Any]]
"""The request of a client, and the encoders of its answer: as a stream, and as a whole."""


def openai(
    models: Mapping[str, Served] | ModelsOf,
    *,
    keys: Mapping[str, str] | None = None,
    usage: Literal["asked", "always"] = "asked",
    max_concurrency: int = 1000,
    hold: float = HOLD,
    ping: float = PING,
) -> Starlette:
    """Return an ASGI application that answers OpenAI's clients with these models and pipelines.

    It serves ``/v1/chat/completions``, ``/v1/responses``, ``/v1/completions`` and ``/v1/models``. Run it with an ASGI
    server, or mount it in FastAPI or Starlette. A client that leaves closes the request to the model. A stream that
    fails ends with an error frame, never as if it were whole. A request with an ``Idempotency-Key`` is answered once. A
    client sees the calls of the tools that it sent; the calls of an agent's own tools stay hidden.

    Args:
        models: the models, pipelines and agents to serve, by the name that clients send as ``model``. Or a function
            that returns these for the name of a caller in `keys`, so that callers have limits or caches of their own.
        keys: the keys of the callers, by the caller's name; None serves every caller.
        usage: whether a stream ends with its usage only when the client asks for it, or always.
        max_concurrency: answers at the same time; a further request gets the status 429.
        hold: the seconds for which a stream's headers wait for its first chunk, so that an early error has a status.
        ping: the seconds of silence after which a stream sends a comment, which keeps proxies from closing it.

    Raises:
        MisuseError: `models` is empty, or a value is neither a model nor a pipeline.
    """
    server = _Server(models_by_caller("openai", models), Callers(keys), usage, max_concurrency, hold, ping)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        yield
        await server.repeats.relay.aclose()

    routes = [
        Route("/v1/chat/completions", server.answering(server.chat), methods=["POST"]),
        Route("/v1/responses", server.answering(server.responses), methods=["POST"]),
        Route("/v1/completions", server.answering(server.completions), methods=["POST"]),
        Route("/v1/models", server.guarded(server.list_models), methods=["GET"]),
        Route("/v1/models/{name:path}", server.guarded(server.one_model), methods=["GET"]),
    ]
    missing = Route("/v1/{path:path}", server.guarded(_missing(routes)), methods=_METHODS)
    return Starlette(lifespan=lifespan, routes=[*routes, missing])


class _Server:
    """Answers the requests of one application."""

    def __init__(
        self,
        models: ModelsOf,
        callers: Callers,
        usage: str,
        max_concurrency: int,
        hold: float,
        ping: float,
    ) -> None:
        self._models = models
        self.repeats = Repeats()
        self._callers = callers
        self._usage_always = usage == "always"
        self._max_concurrency = max_concurrency
        self._hold = hold
        self._ping = ping
        reset_in_child(self._reset)

    def _reset(self) -> None:
        """Forget the answers of the parent in a forked child, where they never end."""
        self.active = 0  # answers that are being sent

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that checks the caller's key and answers errors in OpenAI's form."""

        async def checked(http: HTTPRequest) -> Response:
            http.state.caller = self._callers.name_of(http)
            return await endpoint(http)

        return guarded(checked, error_body)

    def answering(self, read: Callable[[Mapping[str, Any]], _Asked]) -> Endpoint:
        """Return an endpoint that answers what `read` finds in the body of a request."""
        return self.guarded(lambda http: self._answer(http, read))

    def chat(self, body: Mapping[str, Any]) -> _Asked:
        """Return what a chat completion asks."""
        request = chat_request(body)
        name, tools = _model_name(body), tool_names(request)
        usage = asks_for_usage(body) or self._usage_always
        return request, ChatEvents(name, tools=tools, usage=usage), WholeChat(name, tools)

    def responses(self, body: Mapping[str, Any]) -> _Asked:
        """Return what a request of the Responses protocol asks."""
        request = response_request(body)
        name, tools, repeated = _model_name(body), tool_names(request), echoed(body)
        events = ResponseEvents(name, tools=tools, echoed=repeated)
        return request, events, WholeResponse(name, tools=tools, echoed=repeated)

    def completions(self, body: Mapping[str, Any]) -> _Asked:
        """Return what a completion asks."""
        name = _model_name(body)
        usage = asks_for_usage(body) or self._usage_always
        return completion_request(body), CompletionEvents(name, usage=usage), WholeCompletion(name)

    async def list_models(self, http: HTTPRequest) -> Response:
        """List the models."""
        return _document({"object": "list", "data": [*map(_model_card, self._models(http.state.caller))]})

    async def one_model(self, http: HTTPRequest) -> Response:
        """Describe one model."""
        name = http.path_params["name"]
        self._model(http, name)
        return _document(_model_card(name))

    async def _answer(self, http: HTTPRequest, read: Callable[[Mapping[str, Any]], _Asked]) -> StreamResponse[Any]:
        body = await json_body(http)
        with wrong_body():
            request, events, whole = read(body)
            is_stream = flag_in(body, "stream")
        model = self._model(http, _model_name(body))
        with wrong_body():
            check_tools(model, request)
        key = idempotency_key(http)
        if max(self.active, self.repeats.relay.active) >= self._max_concurrency:
            raise Refused(BUSY)
        answer, encoder = (model(request), events) if is_stream else (model.answer(request), whole)
        source: Observable[Any] = with_wrong_bodies(answer, request)
        # A whole answer sends nothing before its end, so that an error has its status.
        hold = self._hold if is_stream else None
        if key is not None:
            caller = http.state.caller or ""
            asked = {"path": http.url.path, "body": body}
            source, encoder = await self.repeats.answer(caller, key, asked, source, encoder)
        return _Counted(self, source, encoder, hold=hold, ping=self._ping)

    def _model(self, http: HTTPRequest, name: str) -> Served:
        return model_named(name, self._models(http.state.caller))


class _Counted(StreamResponse[Any]):
    """A response that its server counts while it is sent."""

    def __init__(self, server: _Server, source: Observable[Any], encoder: Encoder[Any], **options: Any) -> None:
        super().__init__(source, encoder, **options)
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        self._server.active += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._server.active -= 1


def _missing(routes: Sequence[Route]) -> Endpoint:
    """Return the endpoint of all other requests. It tells a client what this server has."""
    known = ", ".join(route.path for route in routes[:-1])

    async def missing(http: HTTPRequest) -> Response:
        path = f"/v1/{http.path_params['path']}"
        found = [route for route in routes if route.matches(http.scope)[0] is Match.PARTIAL]
        if not found:
            raise refusal(404, "not_found", f"This server has no {path}. It has {known}.")
        methods = sorted(found[0].methods or [])
        wrong = refusal(405, "method_not_allowed", f"{path} takes {' and '.join(methods)}, not {http.method}.")
        response = failed(wrong.failure, error_body)
        response.headers["allow"] = ", ".join(methods)
        return response

    return missing


def _model_name(body: Mapping[str, Any]) -> str:
    name = body.get("model")
    if not isinstance(name, str):
        raise WrongBody("'model' must be the name of a model of this server; see /v1/models.")
    return name


def _model_card(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "rxllm"}


def _document(value: object) -> Response:
    return Response(json_bytes(value), media_type="application/json")
