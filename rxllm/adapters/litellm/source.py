"""`from_litellm`: a model that LiteLLM reaches as a model of rxllm."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing
from importlib import import_module
from typing import Any, Literal

import attrs
from attrs import field, frozen
from reactivex import Observable

from ...errors import Interrupted
from ...events import Service
from ...extensible import state_of
from ...llm import LLM, Fields
from ...misuse import MisuseError, is_text, must_be, shown
from ...operators.attempts import RETRIED_ABOVE
from ...runtime.scheduler import Scheduler
from ...runtime.source import source
from ...secrecy import hidden, is_secret, secrets_in
from ...shapes.dialects import ANY
from ...shapes.modes import Offer
from ...values.chat_body import CHAT_PARAMETERS
from ...values.chunk import Chunk
from ...values.request import Request
from .._failures import OF_DATA, rxllm_error, unreadable
from .._foreign import raise_known
from .chat_form import ChatForm, ChatStream

__all__ = ["from_litellm"]

_OURS = Fields.__optional_keys__ | Fields.__required_keys__
_WRITTEN = ("functions", "messages", "n", "stream_options")  # fields that rxllm writes by itself
_KEYS = re.compile(r"[A-Z0-9_]*_(API_KEY|ACCESS_KEY|TOKEN)")  # environment variables that LiteLLM reads
_MIN_KEY = 8  # characters
_OK = 200


@frozen
class LiteLLM(LLM):
    """The model.

    Attributes:
        model: the name of the model for LiteLLM, such as ``anthropic/claude-sonnet-4-6``.
        options: the further keywords of `litellm.acompletion`.
    """

    model: str = field(validator=must_be("a name of LiteLLM, such as 'anthropic/claude-sonnet-4-6'", is_text))
    options: Mapping[str, Any] = field(converter=dict, repr=lambda options: repr(hidden(options)), hash=False)

    def __getstate__(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Return the state without keys. In the other process, LiteLLM reads its environment variables."""
        values, fields = state_of(self)
        options = {name: value for name, value in self.options.items() if not is_secret(name)}
        return values, {**fields, "options": options}

    def kind(self, request: Request) -> Literal["llm", "chat_model"]:
        """Return ``"chat_model"``: the prompt is a conversation."""
        return "chat_model"

    def service(self, request: Request) -> Service:
        """Return the description of the service: LiteLLM's names of the vendor and of the model."""
        service = super().service(request)
        try:
            name, vendor = self.names(request)
        except MisuseError:  # `chunks` raises it again, so that the program sees it as the request's error
            return service
        return attrs.evolve(service, provider=vendor, model=name)

    def names(self, request: Request) -> tuple[str, str]:
        """Return the vendor's name of the model, and LiteLLM's name of the vendor."""
        vendor, address = self.options.get("custom_llm_provider"), self.options.get("api_base")
        return _names_of(request.model or self.model, vendor, address)

    def _offers(self, request: Request) -> tuple[Offer, ...]:
        litellm = import_module("litellm")
        name, vendor = self.names(request)
        supported = litellm.get_supported_openai_params(name, custom_llm_provider=vendor) or ()
        has_schema = litellm.supports_response_schema(name, custom_llm_provider=vendor)
        native = (Offer("native", ANY),) if has_schema and "response_format" in supported else ()
        return (*native, Offer("tool", ANY)) if "tools" in supported else native

    def chunks(self, request: Request) -> Observable[Chunk]:
        """Stream the answer. If `request.stream` is False, request the whole answer, as one chunk."""
        form = ChatForm(request.model or self.model, f"litellm.{self.names(request)[1]}")
        keywords = {**self.options, **form.keywords(request)}
        return source(lambda scheduler: self._read(request, form, keywords, scheduler))

    async def _read(
        self, request: Request, form: ChatForm, keywords: dict[str, Any], scheduler: Scheduler
    ) -> AsyncGenerator[Chunk]:
        litellm = import_module("litellm")
        if scheduler.carried(RETRIED_ABOVE):
            keywords = {**keywords, "max_retries": 0, "num_retries": 0}
        has_begun = False
        try:
            answer = await litellm.acompletion(**keywords)
            if request.stream is False:
                yield form.whole(answer, request)
                return
            reader = ChatStream(form, request)
            async with aclosing(answer):  # LiteLLM closes its request only then
                async for item in answer:
                    if (chunk := reader.chunk(item)) is not None:
                        has_begun = True
                        yield chunk
            if rest := reader.rest():
                yield rest
            _check_end(answer)
        except Exception as error:
            secrets = [*_secrets(self.options, request.extra)]
            raise_known(error, has_begun=has_begun, secrets=secrets, known=_known(error, secrets, started=has_begun))


def from_litellm(model: str, **options: Any) -> LLM:
    """Return a model of rxllm whose requests LiteLLM sends.

    ::

        llm = from_litellm("anthropic/claude-sonnet-4-6")
        llm = from_litellm("azure/my-deployment", api_base="https://…", api_version="2024-10-21", temperature=0)

    LiteLLM chooses the vendor by the name, and adds its address, its key and its retries. Text, reasoning, tools, JSON
    schemas, files and usage go both ways, and reasoning goes back with its signature. Leaving a stream closes LiteLLM's
    connection. The errors are those of rxllm, and the exception of LiteLLM is their cause, unless it shows a secret.
    LiteLLM is imported here, which takes seconds.

    Args:
        model: the name of the model for LiteLLM.
        options: parameters and the config of the runs, as for each model of rxllm. Further keywords are those of
            `litellm.acompletion`, such as `api_key`, `api_base`, `timeout`, `num_retries` or a vendor's own.

    Raises:
        MisuseError: LiteLLM does not know the vendor, or is not installed; or rxllm has another name for an option.
    """
    for name in options.keys() - _OURS:
        if name in _WRITTEN or name in CHAT_PARAMETERS:
            other = CHAT_PARAMETERS.get(name, "a prompt" if name == "messages" else None)
            advice = f"Write {other} instead." if other else "Leave it out."
            raise MisuseError(f"rxllm writes the field {name!r} of the request itself. {advice}")
    settings = {name: options.pop(name) for name in options.keys() & _OURS}
    try:
        import_module("litellm")
    except ImportError:
        raise MisuseError("from_litellm needs LiteLLM: pip install litellm.") from None
    llm = LiteLLM(model, options, **settings)
    llm.names(Request.ask("", llm.parameters))  # raises for an unknown vendor
    return llm


@functools.lru_cache(256)
def _names_of(model: str, vendor: str | None, address: str | None) -> tuple[str, str]:
    """Return the vendor's name of the model, and LiteLLM's name of the vendor.

    Raises:
        MisuseError: LiteLLM does not know the vendor.
    """
    litellm = import_module("litellm")
    try:
        name, vendor, *_ = litellm.get_llm_provider(model, custom_llm_provider=vendor, api_base=address)
    except litellm.exceptions.BadRequestError:
        raise MisuseError(
            f"LiteLLM does not know the vendor of {shown(model)}. Write vendor/model, as in 'openai/gpt-5-mini'."
        ) from None
    return str(name), str(vendor)


def _check_end(answer: Any) -> None:
    """Check that the finish reason has come. LiteLLM takes any other stream for a whole answer, which it ends itself.

    Raises:
        Interrupted: there was none.
    """
    reasons = ("received_finish_reason", "intermittent_finish_reason", "received_any_finish_reason", "is_mock")
    if hasattr(answer, reasons[0]) and not any(getattr(answer, name, None) for name in reasons):
        raise Interrupted("The stream ended before the answer did: its finish reason is missing.")


def _known(error: Exception, secrets: Iterable[str], *, started: bool) -> Exception:
    """Return the error of rxllm for an exception.

    LiteLLM gives a status to errors that had none. So the exceptions of the HTTP library and of the SDKs, which LiteLLM
    handled, tell more than its own.
    """
    handled = [*_handled(error)]
    own = [each for each in handled if type(each).__module__.startswith("litellm.")]
    others = [each for each in handled if each not in own]
    found = rxllm_error(error, started=started, secrets=secrets, causes=others)
    if found is error and own:
        is_answered = any(getattr(each, "status_code", None) == _OK for each in own)
        if is_answered or any(isinstance(each, OF_DATA) for each in others):
            return unreadable("LiteLLM", error, secrets)
        return rxllm_error(error, started=started, secrets=secrets, causes=own)
    return found


def _handled(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, and those that were handled when it was raised."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        inner: BaseException | None = getattr(each, "original_exception", None)
        if inner is None:  # else LiteLLM has only wrapped the exception, for its router
            yield each
        each = inner or each.__cause__ or each.__context__


def _secrets(*settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys in the settings, and those that LiteLLM reads elsewhere."""
    yield from secrets_in(settings)
    yield from (key for name, key in os.environ.items() if _KEYS.fullmatch(name) and len(key) >= _MIN_KEY)
    if key := import_module("litellm").api_key:
        yield key
