"""`to_litellm`: a model of rxllm as a provider of LiteLLM."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from importlib import import_module
from typing import Any, cast

from reactivex import Observable

from ...bridges import AsyncStream, SyncStream
from ...combinators.agent import tools_of_agents
from ...errors import Interrupted, RxllmError
from ...llm import LLM
from ...misuse import MisuseError, is_text, shown
from ...values.chat_answer import ChatDeltas, chat_message, finish_reason, new_id, usage_counts
from ...values.chunk import Chunk, join
from ...values.message import Message
from .._echo import ECHO, echo_of
from .._written import Writer, refused_reset, written
from .failures import litellm_error
from .reading import request_of

__all__ = ["to_litellm"]

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def to_litellm(llm: LLM, name: str) -> Any:
    """Register a model of rxllm as a provider of LiteLLM, and return the handler, a `litellm.CustomLLM`.

    ::

        to_litellm(rxllm.fallback(rxllm.OpenAI("gpt-5-mini"), rxllm.Embedded()), "mine")
        answer = litellm.completion("mine/songs", messages=[{"role": "user", "content": "A song, please"}])

    `litellm.completion`, `litellm.acompletion` and LiteLLM's routers answer ``mine/…`` with the model, streamed and
    whole. The word after the slash names the model in LiteLLM's logs only. Text, reasoning, tools, response formats,
    files and usage go both ways. Data that a vendor requires back, such as signatures, travels in the message's
    ``provider_specific_fields``. Closing a stream closes its request. An agent of rxllm answers its own calls itself.

    A parameter that rxllm does not have is a field of the request's body. LiteLLM itself refuses ``reasoning_effort``,
    unless the call has ``allowed_openai_params=["reasoning_effort"]``. Its ``timeout`` and ``api_key`` have no effect:
    these belong to the model.

    Errors: the exceptions of LiteLLM, with the error of rxllm as the cause. In a stream, LiteLLM wraps the exceptions
    that its router may handle in a `MidStreamFallbackError`. A stream that begins its answer again fails so, because
    LiteLLM cannot take text back.

    Args:
        llm: the model.
        name: the name of the provider. A second model with a name replaces the first one.

    Raises:
        MisuseError: the value is not a model, the name is not usable, or LiteLLM is not installed.
    """
    if not isinstance(llm, LLM):  # pyright: ignore[reportUnnecessaryIsInstance]  (callers are untyped)
        raise MisuseError(f"to_litellm needs a model, such as rxllm.OpenAI('gpt-5-mini'), not {shown(llm)}.")
    if not is_text(name) or not _NAME.fullmatch(name):
        raise MisuseError(
            f"The name of a provider must have only letters, digits, '.', '_' and '-', not {shown(name)}."
        )
    try:
        litellm = import_module("litellm")
    except ImportError:
        raise MisuseError("to_litellm needs LiteLLM: pip install litellm.") from None
    if name in [provider.value for provider in litellm.LlmProviders] or name in litellm.openai_compatible_providers:
        raise MisuseError(f"LiteLLM has a provider {name!r} of its own. Choose another name.")
    handler = _class()(llm, name)
    others = [item for item in litellm.custom_provider_map if item["provider"] != name]
    litellm.custom_provider_map[:] = [*others, {"provider": name, "custom_handler": handler}]
    litellm.utils.custom_llm_setup()
    return handler


@functools.cache
def _class() -> Any:
    """Return the class of handlers. Its base exists only where LiteLLM is installed."""
    return type("RxllmHandler", (_Handler, import_module("litellm").CustomLLM), {})


class _Handler:
    """The calls of LiteLLM, for the class of handlers. LiteLLM makes them by keyword."""

    def __init__(self, llm: LLM, name: str) -> None:
        cast("Any", super()).__init__()
        self.llm = llm
        self.name = name
        own = tools_of_agents(llm) or frozenset[str]()
        self._is_visible: Callable[[str], bool] = lambda tool: tool not in own

    def completion(self, *, model: str, messages: Any, optional_params: Any, **_: Any) -> Any:
        """Return a whole answer."""
        with self._errors(model):
            answer = self.llm.invoke(request_of(messages, optional_params, stream=False))
        return self._response(answer, model)

    async def acompletion(self, *, model: str, messages: Any, optional_params: Any, **_: Any) -> Any:
        """Return a whole answer."""
        with self._errors(model):
            answer = await self.llm.ainvoke(request_of(messages, optional_params, stream=False))
        return self._response(answer, model)

    def streaming(self, *, model: str, messages: Any, optional_params: Any, **_: Any) -> SyncStream[Any]:
        """Return a stream."""
        return SyncStream(self._chunks(model, messages, optional_params))

    def astreaming(self, *, model: str, messages: Any, optional_params: Any, **_: Any) -> AsyncStream[Any]:
        """Return a stream. LiteLLM calls this in a thread, and reads the stream on its event loop."""
        return AsyncStream(self._chunks(model, messages, optional_params))

    def _chunks(self, model: str, messages: Any, parameters: Any) -> Observable[Any]:
        with self._errors(model):
            answer = self.llm(request_of(messages, parameters, stream=True))
        return answer.pipe(written(lambda: _ChunkWriter(self.name, model, self._is_visible)))

    @contextmanager
    def _errors(self, model: str) -> Generator[None]:
        """Raise the exceptions of LiteLLM for the errors of the block."""
        try:
            yield
        except (RxllmError, MisuseError) as error:
            raise litellm_error(error, self.name, model) from error

    def _response(self, answer: Message, model: str) -> Any:
        with self._errors(model):
            _check_reason(answer)
        message = chat_message(answer, self._is_visible)
        if record := echo_of(answer):
            message["provider_specific_fields"] = {ECHO: record}
        reason = finish_reason(answer.finish_reason, calls="tool_calls" in message)
        return import_module("litellm").ModelResponse(
            id=answer.id or new_id("chatcmpl-"),
            created=int(answer.created or time.time()),
            model=answer.model or model,
            choices=[{"index": 0, "message": message, "finish_reason": reason}],
            **_usage(answer),
        )


def _check_reason(answer: Message | Chunk) -> None:
    """Check that the answer did not break off on the provider's side, for which LiteLLM has no finish reason.

    Raises:
        Interrupted: it did.
    """
    if answer.finish_reason == "error":
        raw = f" ({answer.raw_finish_reason})" if answer.raw_finish_reason else ""
        raise Interrupted(f"The provider broke the answer off: its finish reason is an error{raw}.")


def _usage(answer: Message) -> dict[str, Any]:
    """Return the usage as a keyword. LiteLLM counts the tokens itself if it gets none."""
    if answer.usage is None:
        return {}
    counts = usage_counts(answer.usage)
    if cached := answer.usage.cache_creation_input_tokens:
        counts["cache_creation_input_tokens"] = cached
    return {"usage": counts}


class _ChunkWriter(Writer[Chunk, Any]):
    """Writes LiteLLM's chunks: content as it comes, then the usage, and last the finish reason."""

    def __init__(self, provider: str, model: str, is_visible: Callable[[str], bool]) -> None:
        self._provider = provider
        self._model = model
        self._deltas = ChatDeltas(is_visible)
        self._chunks: list[Chunk] = []
        self._facts: dict[str, Any] = {"id": new_id("chatcmpl-"), "created": int(time.time()), "model": model}
        self._has_begun = False
        types = import_module("litellm.types.utils")
        self._response, self._choice, self._delta = types.ModelResponseStream, types.StreamingChoices, types.Delta

    def write(self, value: Chunk) -> Iterable[Any]:
        """Return the chunks for a chunk."""
        if value.reset and self._has_begun:
            raise refused_reset("LiteLLM")
        _check_reason(value)
        self._chunks.append(value)
        if value.rest is not None:
            self._facts |= {name: fact for name in ("id", "model") if (fact := getattr(value, name))}
        return [self._written(**delta) for part in value.parts if (delta := self._deltas.of(part))]

    def end(self) -> Iterable[Any]:
        """Return the last chunks."""
        answer = join(self._chunks).message()
        record = echo_of(answer)
        fields = {"provider_specific_fields": {ECHO: record}} if record else {}
        usage = _usage(answer)
        reason = finish_reason(answer.finish_reason, calls=self._deltas.calls.count > 0)
        last = self._response(**self._facts, choices=[self._choice(finish_reason=reason, delta=self._delta())])
        if not fields and not usage:
            return [last]
        return [self._response(**self._facts, choices=[self._choice(delta=self._delta(**fields))], **usage), last]

    def fail(self, error: Exception) -> Exception:
        """Return the exception of LiteLLM."""
        return litellm_error(error, self._provider, self._model)

    def _written(self, **delta: Any) -> Any:
        role = {} if self._has_begun else {"role": "assistant"}
        self._has_begun = True
        return self._response(**self._facts, choices=[self._choice(delta=self._delta(**role, **delta))])
