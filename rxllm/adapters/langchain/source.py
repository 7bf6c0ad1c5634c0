"""`from_langchain`: a model or a chain of LangChain as a model of rxllm."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Literal, Unpack, cast

from attrs import field, frozen
from attrs.validators import optional
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.runnables import Runnable
from pydantic import BaseModel, SecretStr

from ...errors import Interrupted, ParseError
from ...events import Service
from ...llm import LLM, Fields
from ...misuse import MisuseError, must_be
from ...runtime.loops import do_nothing
from ...runtime.portal import portal
from ...shapes.dialects import ANY
from ...shapes.modes import Offer
from ...values.chunk import Chunk
from ...values.refusing import about, refusing
from ...values.request import Request
from .._failures import Reading, with_causes
from .._foreign import raise_known
from .asking import bound_model, keywords_of
from .history import langchain_messages
from .reading import Reader
from .vendors import rxllm_name

__all__ = ["LangChainLLM", "from_langchain"]

_TRIES = 10  # of a request that finds connections of another event loop
_LACKING = re.compile(r"unexpected keyword argument '(\w+)'")
_OTHER_LOOP = ("Event loop is closed", "different event loop", "different loop")
_READING = Reading("LangChain", ("ainvoke", "astream", "invoke", "stream"), (BaseChatModel, BaseLLM))
_ENDING = ("openai", "anthropic")  # vendors whose answers always tell why they ended


@frozen
class LangChainLLM(LLM):
    """A model or a chain of LangChain; see `from_langchain`.

    Attributes:
        runnable: the model or the chain.
        prompt: returns the input for a request; None for the messages, or the text of a completion model.
    """

    runnable: Runnable[Any, Any] = field(
        validator=must_be("a model or another Runnable of LangChain", lambda value: isinstance(value, Runnable))
    )
    prompt: Callable[[Request], Any] | None = field(
        default=None, kw_only=True, validator=optional(must_be("a function of the request", callable))
    )

    @property
    def _model(self) -> Runnable[Any, Any]:
        return bound_model(self.runnable)

    def kind(self, request: Request) -> Literal["llm", "chat_model"]:
        """Return ``"llm"`` for a completion model of LangChain, else ``"chat_model"``."""
        return "llm" if isinstance(self._model, BaseLLM) else "chat_model"

    def service(self, request: Request) -> Service:
        """Return LangChain's facts about the model."""
        model = self._model
        if not isinstance(model, (BaseChatModel, BaseLLM)):
            return Service(type(model).__name__.lower(), streaming=request.stream is not False)
        facts = model._get_ls_params()  # pyright: ignore[reportPrivateUsage]
        provider = rxllm_name(facts.get("ls_provider")) or type(model).__name__.lower()
        name = request.model or facts.get("ls_model_name")
        return Service(provider, name, streaming=request.stream is not False)

    def _offers(self, request: Request) -> tuple[Offer, ...]:
        model = self._model
        has_tools = isinstance(model, BaseChatModel) and type(model).bind_tools is not BaseChatModel.bind_tools
        return (Offer("tool", ANY),) if has_tools else ()

    async def chunks(self, request: Request) -> AsyncIterator[Chunk]:
        """Stream the answer. With ``stream=False``, await LangChain's whole answer."""
        with refusing(request):
            keywords = keywords_of(request, self._model)
        asked = self._input(request)
        for attempt in range(1, _TRIES + 1):
            reader, started = Reader(), False
            try:
                async with aclosing(self._items(asked, keywords, request)) as items:
                    async for item in items:
                        for chunk in reader.read(item):
                            started = True
                            yield chunk
                for chunk in reader.end():
                    yield chunk
                self._check_end(reader, request)
            except Exception as error:
                if _is_of_another_loop(error) and not started and attempt < _TRIES:
                    portal().call_soon_threadsafe(do_nothing)  # if the connection is of that loop, it closes it now
                    continue
                secrets, known = _secrets(self._model), _parse_error(error) or self._refusal(error, keywords, request)
                raise_known(error, has_begun=started, secrets=secrets, known=known, reading=_READING, request=request)
            return

    async def _items(self, asked: Any, keywords: dict[str, Any], request: Request) -> AsyncGenerator[Any]:
        if request.stream is False:
            yield await self.runnable.ainvoke(asked, **keywords)
            return
        stream = cast("AsyncGenerator[Any]", self.runnable.astream(asked, **keywords))
        async with aclosing(stream):  # LangChain closes its request only then
            async for item in stream:
                yield item

    def _input(self, request: Request) -> Any:
        if self.prompt is not None:
            return self.prompt(request)
        if isinstance(self._model, BaseLLM):
            return request.text
        if isinstance(request.prompt, str) and not isinstance(self._model, BaseChatModel):
            return request.prompt
        with refusing(request):
            return langchain_messages(request.messages, self.service(request).provider)

    def _refusal(self, error: Exception, keywords: Mapping[str, Any], request: Request) -> MisuseError | None:
        """Return the error for a parameter of the request that a function of the model lacks; None for others."""
        lacking = _LACKING.search(str(error)) if isinstance(error, TypeError) else None
        if lacking is None or lacking[1] not in keywords:
            return None
        kind = type(self._model).__name__
        return about(request, MisuseError(f"{kind} of LangChain has no parameter {lacking[1]!r}. Leave it out."))

    def _check_end(self, reader: Reader, request: Request) -> None:
        """Raise Interrupted for an answer that broke off, which LangChain takes for whole."""
        if reader.reason is None and isinstance(self._model, BaseChatModel):
            provider = self.service(request).provider
            if provider in _ENDING:
                raise Interrupted(f"The answer of {provider} ended without its finish reason, so it may be cut off.")


def _parse_error(error: Exception) -> ParseError | None:
    """Return the error for text that a parser of LangChain refused; None for any other exception."""
    if not isinstance(error, OutputParserException):
        return None
    return ParseError(str(error), reason="mismatch", text=error.llm_output or "")


def _is_of_another_loop(error: Exception) -> bool:
    """Return whether a request failed because its kept connection belongs to another event loop."""
    return any(
        isinstance(each, RuntimeError) and any(words in str(each) for words in _OTHER_LOOP)
        for each in with_causes(error)
    )


def _secrets(model: object) -> list[str]:
    """Return the keys of a model."""
    values = vars(model).values() if isinstance(model, BaseModel) else ()
    return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]


def from_langchain(
    runnable: Runnable[Any, Any],
    *,
    prompt: Callable[[Request], Any] | None = None,
    **settings: Unpack[Fields],
) -> LLM:
    """Return a model of rxllm that asks a chat model, a completion model or another runnable of LangChain.

    ::

        llm = rxllm.fallback(from_langchain(ChatOpenAI(model="gpt-5-mini")), rxllm.Anthropic("claude-sonnet-4-6"))
        llm = from_langchain(chain, prompt=lambda request: {"question": request.text})

    Parameters, stop sequences and tools reach a chat model, in the words that LangChain's packages share; `extra` has
    further keywords of the call. Each answer has its text, reasoning, tool calls, usage and finish reason. If the
    subscriber leaves, LangChain's request is closed.

    A chain may give text or messages. It gets the text of a prompt that is a text, else LangChain's messages.

    Args:
        runnable: the model or the chain.
        prompt: returns the input of the chain for a request. None passes the prompt.
        settings: parameters, and the config of the runs.

    Errors: those of rxllm, with LangChain's exception as the cause, unless that shows a key. `ParseError` for an
        `OutputParserException`; `ProtocolError` for a response that the model of LangChain cannot read. Exceptions that
        belong to no request, such as those of a function in a chain, stay as they are.

    Raises:
        MisuseError: the argument is not a runnable of LangChain. When asked: a parameter has no counterpart.
    """
    if not isinstance(cast("object", runnable), Runnable):
        raise MisuseError(f"from_langchain takes a model or a Runnable of LangChain, not {type(runnable).__name__}.")
    return LangChainLLM(runnable, prompt=prompt, **cast("Any", settings))
