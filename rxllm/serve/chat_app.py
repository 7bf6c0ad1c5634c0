"""`chat`: an ASGI application with ``/api/chat``, whose answers outlive their readers."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response
from starlette.routing import Route

from ..pictures.timeline import Timeline
from ..values.characters import json_bytes
from ..values.chat_answer import new_id
from ..values.message import Message
from ..values.request import Request
from .chat_page import page_routes
from .failures import BUSY, HTTPFailure, Refused
from .incoming import Callers, Endpoint, ModelsOf, Served, guarded, json_body, model_named, models_by_caller, refusal
from .json_fields import WrongBody, with_wrong_bodies
from .logs import END, Entry, Key, Position
from .messages_of import messages_of
from .priced import PricedEvents, priced
from .relay import Relay
from .response import HOLD, PING, StreamResponse
from .timelines import Timelines
from .ui_messages import UI_HEADERS, UIEvents

__all__ = ["chat"]

Owner = Callable[[HTTPRequest], str]

_ID_LENGTH = 200
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
_NO_STORE = {"cache-control": "no-store"}


def chat(
    models: Mapping[str, Served] | ModelsOf,
    *,
    relay: Relay | None = None,
    owner: Owner | None = None,
    keys: Mapping[str, str] | None = None,
    secret: str | bytes | None = None,
    sdk: Literal[6, 7] = 6,
    page: bool = True,
    max_concurrency: int = 1000,
    hold: float = HOLD,
    ping: float = PING,
) -> Starlette:
    """Return an ASGI application for ``useChat`` of Vercel's AI SDK, with answers that outlive their readers.

    * ``POST /api/chat`` asks a model and streams the answer: the one that the body names as ``model``, else the first;
    * ``GET /api/chat/{id}/stream`` streams the answer that runs, from its start; 204 if none runs. With the header
      ``Last-Event-ID`` it streams what follows this event, also of an answer that has ended;
    * ``POST /api/chat/{id}/stop`` stops the answer;
    * ``GET /api/chat`` names the models;
    * ``GET /`` is a chat page. With it, ``GET /api/chat/{id}/timeline/{epoch}`` draws a `Timeline` of one of the latest
      answers of this process, as JSON with the SVG and its description. The epoch is the first number of the ids of the
      answer's events.

    A conversation belongs to its owner. For every other user its id looks like one that does not exist.

    Args:
        models: the models, pipelines and agents, by the names that pages send; or a function that returns these for the
            name of a caller in `keys`.
        relay: runs the answers; by default one whose log is in memory.
        owner: returns the user of a request, such as the name in a session. A request whose owner is empty or None
            gets the status 403. Without `owner` the owner is the caller's name
            in `keys`. Without either, only programs of this machine are answered.
        keys: the keys of the callers, by the caller's name; None asks for no key.
        secret: signs tool calls and results, as in `messages_of`; the same in all processes of a server.
        sdk: the major version of the AI SDK that reads the answers.
        page: whether ``/`` is the chat page.
        max_concurrency: answers of this process at the same time; a further request gets the status 429.
        hold: the seconds for which a stream's headers wait for its first event, so that an early error has a status.
        ping: the seconds of silence after which a stream sends a comment.

    Raises:
        MisuseError: `models` is empty, or a value is neither a model nor a pipeline.
    """
    chosen = Relay() if relay is None else relay
    encoder = partial(PricedEvents, sdk=sdk, secret=secret)
    read = partial(messages_of, secret=secret)
    timelines = Timelines() if page else None
    server = _Server(
        models_by_caller("chat", models),
        chosen,
        owner,
        Callers(keys),
        encoder,
        read,
        timelines,
        max_concurrency,
        hold,
        ping,
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        yield
        await chosen.aclose()

    def route(path: str, endpoint: Endpoint, method: str) -> Route:
        return Route(path, guarded(endpoint, UIEvents().refuse), methods=[method])

    return Starlette(
        routes=[
            route("/api/chat", server.ask, "POST"),
            route("/api/chat", server.describe, "GET"),
            route("/api/chat/{id}/stream", server.resume, "GET"),
            route("/api/chat/{id}/stop", server.stop, "POST"),
            *((route("/api/chat/{id}/timeline/{epoch:int}", server.timeline, "GET"), *page_routes()) if page else ()),
        ],
        lifespan=lifespan,
    )


class _Server:
    """Answers the requests of one application."""

    def __init__(
        self,
        models: ModelsOf,
        relay: Relay,
        owner: Owner | None,
        callers: Callers,
        encoder: Callable[..., UIEvents],
        read: Callable[[object], Sequence[Message]],
        timelines: Timelines | None,
        max_concurrency: int,
        hold: float,
        ping: float,
    ) -> None:
        self._models = models
        self._relay = relay
        self._owner = owner
        self._callers = callers
        self._encoder = encoder
        self._read = read
        self._timelines = timelines
        self._max_concurrency = max_concurrency
        self._hold = hold
        self._ping = ping

    async def ask(self, http: HTTPRequest) -> Response:
        """Begin an answer, and stream it."""
        owner = self._owner_of(http)
        body = await json_body(http)
        key = (owner, _checked_id(body.get("id")))
        models = self._models(http.state.caller)
        model = model_named(body.get("model", next(iter(models), None)), models)
        timeline = None if self._timelines is None else Timeline()
        observed = model if timeline is None else model.with_config(handlers=[timeline])
        request = Request(prompt=tuple(self._read(body)))
        source = with_wrong_bodies(priced(observed, request), request)
        if self._relay.active >= self._max_concurrency:
            raise Refused(BUSY)
        encoder = self._encoder(message_id=_message_id(body))
        position = await self._relay.start(key, source, encoder)
        if self._timelines is not None and timeline is not None:
            self._timelines.add(key, position.epoch, timeline)
        return self._stream(key, position)

    async def timeline(self, http: HTTPRequest) -> Response:
        """Draw what happened when in an answer."""
        key = self._key_of(http)
        drawn = None if self._timelines is None else self._timelines.drawn(key, http.path_params["epoch"])
        if drawn is None:
            raise refusal(404, "not_found", "This server no longer has the timeline of this answer.")
        return Response(json_bytes(drawn), 200, _NO_STORE, "application/json")

    async def describe(self, http: HTTPRequest) -> Response:
        """Name the models."""
        self._owner_of(http)
        return Response(json_bytes({"models": [*self._models(http.state.caller)]}), 200, _NO_STORE, "application/json")

    async def resume(self, http: HTTPRequest) -> Response:
        """Stream the answer that runs, or what follows an event."""
        key = self._key_of(http)
        sent = http.headers.get("last-event-id")
        if sent is None:
            running = await self._relay.running(key)
            return Response(status_code=204, headers=_NO_STORE) if running is None else self._stream(key, running)
        after = Position.parse(sent)
        if after is None:
            raise refusal(400, "invalid_event_id", "Last-Event-ID must be the id of an event, such as 1764412345678-7.")
        if not await self._relay.keeps(key, after):
            raise refusal(404, "not_found", "There is no such answer here.")
        if after.seq == END:  # the reader has it all
            return Response(status_code=204, headers=_NO_STORE)
        return self._stream(key, after)

    async def stop(self, http: HTTPRequest) -> Response:
        """Stop the answer that runs."""
        key = self._key_of(http)
        await json_body(http)
        if not await self._relay.stop(key):
            raise refusal(404, "not_found", "This conversation has no running answer.")
        return Response(status_code=204)

    def _stream(self, key: Key, after: Position) -> Response:
        source = self._relay.follow(key, after)
        return StreamResponse(source, EntryEvents(), headers=UI_HEADERS, hold=self._hold, ping=self._ping)

    def _key_of(self, http: HTTPRequest) -> Key:
        return self._owner_of(http), _checked_id(http.path_params["id"])

    def _owner_of(self, http: HTTPRequest) -> str:
        """Return the owner of the request's conversations.

        Raises:
            Refused: the key is missing or wrong; or there is neither a key nor `owner`, and the request may come from
                another machine, or from a web page under another name for this machine.
        """
        http.state.caller = caller = self._callers.name_of(http)
        if self._owner is not None:
            owner = self._owner(http)
            # Else all users without a name would share their conversations.
            if not isinstance(owner, str) or not owner:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise refusal(403, "no_owner", "This server knows no user of this request.")
            return owner
        if caller is not None:
            return caller
        if not _is_local(http):
            raise refusal(
                403, "no_owner", "This server knows no users, so it answers only programs of its own machine."
            )
        return ""


class EntryEvents:
    """Encodes entries of a log as the events that they are, each with its id."""

    media_type = "text/event-stream"
    ping = UIEvents.ping

    def begin(self) -> bytes:
        """Return no bytes: the first entry begins the message."""
        return b""

    def encode(self, entry: Entry) -> bytes:
        """Return the event of an entry."""
        data = UIEvents().abort() if entry.ending == "abort" else entry.data + b"\n\n"
        return b"id: %d-%d\n" % entry.id + data

    def end(self) -> bytes:
        """Return no bytes: the last entry ends the message."""
        return b""

    def fail(self, failure: HTTPFailure) -> bytes:
        """Return the event of an error."""
        return UIEvents().fail(failure)

    def refuse(self, failure: HTTPFailure) -> bytes:
        """Return the error as JSON."""
        return UIEvents().refuse(failure)


def _checked_id(id: object) -> str:
    if not isinstance(id, str) or not 0 < len(id) <= _ID_LENGTH:
        raise WrongBody(f"'id' must be the id of a conversation, a text of 1 to {_ID_LENGTH} characters.")
    return id


def _message_id(body: Mapping[str, Any]) -> str:
    """Return the id of the page's last answer if the new one continues it, else a new id.

    A replay has the same id as the first reading, so a page knows the message again.
    """
    match body["messages"][-1]:
        case {"role": "assistant", "id": str(id)}:
            return id
        case _:
            return new_id("msg_")


def _is_local(http: HTTPRequest) -> bool:
    """Return whether a program of this machine sent the request, to a name of this machine.

    A proxy on this machine passes on what others send, and a page of a foreign site may reach this machine under a name
    of that site.
    """
    if http.client is None or any(name in http.headers for name in _FORWARDED):
        return False
    try:
        is_loopback = ipaddress.ip_address(http.client.host).is_loopback
    except ValueError:
        return False
    return is_loopback and http.url.hostname in _LOCAL_NAMES
