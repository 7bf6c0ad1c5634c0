"""`from_llm`: a model of `llm` as a model of rxllm."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, closing
from importlib import import_module
from typing import Any, Literal, NoReturn, Unpack, cast

import attrs
from attrs import field, frozen

from ...errors import ProviderError
from ...events import Service
from ...llm import LLM, Fields
from ...misuse import MisuseError, shown
from ...runtime.scheduler import Scheduler
from ...runtime.source import Source, source
from ...runtime.threads import pull
from ...secrecy import blanked
from ...shapes.dialects import ANY
from ...shapes.modes import Offer
from ...values.chunk import Chunk
from ...values.refusing import about
from ...values.request import Request
from .._failures import Reading
from .._foreign import raise_known
from .asking import response_for
from .clients import Clients
from .reading import Reader

__all__ = ["from_llm"]


@frozen
class _FromLlm(LLM):
    """The base of both kinds of models.

    Attributes:
        model: the model of llm.
    """

    model: Any = field(repr=lambda model: repr(model.model_id))

    def kind(self, request: Request) -> Literal["llm", "chat_model"]:
        """Return ``"chat_model"``: the prompt is a conversation."""
        return "chat_model"

    def service(self, request: Request) -> Service:
        """Return the description of the service: llm knows the provider by the name of its key."""
        service = super().service(request)
        return attrs.evolve(
            service,
            provider=self.model.needs_key or "llm",
            model=self.model.model_id,
            streaming=service.streaming and self.model.can_stream,
        )

    def _offers(self, request: Request) -> tuple[Offer, ...]:
        return (Offer("native", ANY),) if self.model.supports_schema else ()

    def _fail(self, error: Exception, response: Any, reader: Reader, request: Request) -> NoReturn:
        """Raise the error of rxllm for an exception of llm, of a plugin, or of a vendor's library."""
        secrets = _secrets(self.model)
        library = import_module("llm")
        owners = (library.AsyncKeyModel, library.AsyncModel, library.KeyModel, library.Model)
        reading = Reading("llm", ("execute",), owners)
        known = _known(error, secrets, request)
        raise_known(
            error,
            has_begun=reader.has_begun,
            secrets=secrets,
            known=known,
            reading=reading,
            request=request,
            document=response.response_json,
        )


@frozen
class Llm(_FromLlm):
    """A synchronous model of llm; see `from_llm`."""

    def chunks(self, request: Request) -> Source[Chunk]:
        """Stream the answer, in a thread. If `request.stream` is False, request the whole answer."""
        return source(lambda scheduler: self._pulled(request, scheduler))

    async def _pulled(self, request: Request, scheduler: Scheduler) -> AsyncGenerator[Chunk]:
        clients, has_ended = Clients(self.model), False
        pulled = pull(scheduler, lambda: self._read(clients, request))
        try:
            async with aclosing(cast("AsyncGenerator[Chunk]", pulled)) as chunks:
                async for chunk in chunks:
                    yield chunk
            has_ended = True
        finally:
            if not has_ended:
                clients.cut()

    def _read(self, clients: Clients, request: Request) -> Iterator[Chunk]:
        response = response_for(clients.model, request)
        reader = Reader(response, request)
        try:
            with closing(response.stream_events()) as events:
                for event in events:
                    yield from reader.read(event)
            yield reader.end(response.messages(), response.tool_calls())
        except Exception as error:
            self._fail(error, response, reader, request)
        finally:
            for client in clients.opened:
                client.close()


@frozen
class AsyncLlm(_FromLlm):
    """An asynchronous model of llm; see `from_llm`."""

    async def chunks(self, request: Request) -> AsyncGenerator[Chunk]:
        """Stream the answer. If `request.stream` is False, request the whole answer."""
        clients = Clients(self.model)
        response = response_for(clients.model, request)
        reader = Reader(response, request)
        try:
            async with aclosing(response.astream_events()) as events:
                async for event in events:
                    for chunk in reader.read(event):
                        yield chunk
            yield reader.end(await response.messages(), await response.tool_calls())
        except Exception as error:
            self._fail(error, response, reader, request)
        finally:
            for client in clients.opened:
                await client.close()


def from_llm(model: Any, **settings: Unpack[Fields]) -> LLM:
    """Return a model of rxllm that asks a model of the library `llm`, from any of its plugins.

    ::

        llm = from_llm("gemini-3-flash")                # a name or an alias
        llm = from_llm(llm.get_model("my-own-server"))

    Text, reasoning, tool calls, schemas, attachments and usage go both ways, and an answer goes back into a
    conversation as it came, with what its vendor wants back. The errors are those of rxllm, with the exception of the
    plugin as their cause.

    The parameters become options of the model, under the name that it has for them, and the fields of `extra` become
    options, too: ``extra={"image_detail": "low"}``. `llm` has no choice of tools.

    Leaving a stream closes the connection of an asynchronous model at once. A synchronous model runs in a thread. If it
    uses OpenAI's SDK, as those of llm itself do, leaving closes its connection at once after the response has begun;
    any other closes it when its next piece comes. So a name takes the asynchronous model, if its plugin has one.

    Args:
        model: an `llm.Model` or `llm.AsyncModel`; or the name of one.
        settings: parameters, and the config of the runs.

    Raises:
        MisuseError: there is no such model, or `llm` is not installed. When asked: the model lacks an option or a
            feature.
    """
    try:
        library = import_module("llm")
        import_module("llm.parts")
    except ImportError:
        raise MisuseError("from_llm needs llm 0.32 or newer: pip install -U llm.") from None
    found = _named(library, model) if isinstance(model, str) else model
    if isinstance(found, (library.AsyncModel, library.AsyncKeyModel)):
        return AsyncLlm(found, **cast("Any", settings))
    if isinstance(found, (library.Model, library.KeyModel)):
        return Llm(found, **cast("Any", settings))
    raise MisuseError(
        f"from_llm needs a model of llm, such as llm.get_model('gpt-5-mini'), or a name, not {shown(model)}."
    )


def _named(library: Any, name: str) -> Any:
    for lookup in library.get_async_model, library.get_model:
        try:
            return lookup(name)
        except library.UnknownModelError:
            continue
    raise MisuseError(f"llm knows no model {name!r}. The command 'llm models' lists them; a plugin may be missing.")


def _secrets(model: Any) -> list[str]:
    try:
        key = model.get_key(None)
    except Exception:  # there is none
        return []
    return [key] if key and isinstance(key, str) else []


def _known(error: Exception, secrets: list[str], request: Request) -> Exception | None:
    """Return the error for an exception of llm itself; None for any other exception."""
    library = import_module("llm")
    text = blanked(str(error), secrets)
    if isinstance(error, library.NeedsKeyException):
        return MisuseError(text)
    if isinstance(error, NotImplementedError):
        return about(request, MisuseError(text))
    return ProviderError(text) if isinstance(error, library.ModelError) else None
