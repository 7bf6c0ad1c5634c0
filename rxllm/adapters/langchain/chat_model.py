"""`ChatRxllm`: a model of rxllm as a chat model of LangChain."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Self, cast

from attrs import frozen
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator
from reactivex import Observable

from ...bridges import AsyncStream, SyncStream
from ...llm import LLM
from ...misuse import MisuseError
from ...providers import model as model_named
from ...values.message import Message
from ...values.request import Request
from ...values.tools import Effort, ToolSpec
from .._written import written
from .answers import message_of
from .calls import CONNECTION, Identity, request_of, runs_tools, service_of
from .generations import ChatWriter
from .messages import prompt_of
from .structured import Method, Schema, structured
from .tools import choice_of, tools_of

__all__ = ["ChatRxllm"]

_SAMPLING = ("model", "temperature", "top_p", "top_k", "max_tokens", "seed", "parallel_tool_calls", "effort")
_FIELDS = ("llm", "streaming", *_SAMPLING, *CONNECTION)


@frozen
class _Made:
    """What the fields of a chat model make.

    Attributes:
        fields: the fields.
        llm: the model that answers.
        has_agent: whether it runs tools.
    """

    fields: Mapping[str, Any]
    llm: LLM
    has_agent: bool


class ChatRxllm(BaseChatModel):
    """A chat model of LangChain whose answers come from a model of rxllm.

    ::

        chat = ChatRxllm(model="openai:gpt-5-mini", temperature=0)
        chat = ChatRxllm(llm=rxllm.fallback(primary, backup))          # the same as to_langchain(…)

    The keywords of a call, as in ``chat.invoke(prompt, top_k=5)``, are parameters of rxllm. A keyword that rxllm does
    not know becomes a field of the request's body. rxllm sends the request and stops it: if a task is cancelled, or an
    iterator is closed or dropped, the connection is closed.

    Attributes:
        model: the model, as `rxllm.model` takes it, such as ``openai:gpt-5-mini``. None takes it from the environment
            variable ``RXLLM_MODEL``. With `llm`, the vendor's name of another model than that of `llm`.
        llm: a model of rxllm. None makes one from `model`.
        stop: the texts at which an answer ends, also under the name ``stop_sequences``.
        model_kwargs: further fields of the request's body, in the vendor's own form.
        streaming: False asks the provider for whole answers.
        timeout: the limit of every wait, in seconds.
        max_retries: how often to send a request again after a transient failure, before the first chunk.
        api_key: the key. None takes it from the vendor's environment variable.
        base_url: the base URL. None takes it from the vendor's environment variable, else it is the vendor's own.

    `temperature`, `top_p`, `top_k`, `max_tokens`, `seed`, `effort` and `parallel_tool_calls` are those of
    `rxllm.Parameters`.

    Raises:
        MisuseError: an argument has an invalid value, or there is no such provider.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", populate_by_name=True)

    model: str | None = None
    llm: LLM | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    seed: int | None = None
    effort: Effort | None = None
    parallel_tool_calls: bool | None = None
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    streaming: bool | None = None
    timeout: float | None = None
    max_retries: int | None = None
    api_key: SecretStr | None = None
    base_url: str | None = None

    _made: _Made | None = PrivateAttr(default=None)
    _identity: Identity = PrivateAttr(default_factory=Identity)

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Make the model that answers, which checks the fields."""
        if self.llm is None and self.model is None:
            self.model = os.environ.get("RXLLM_MODEL")
        self._current()
        return self

    @property
    def _llm(self) -> LLM:
        """The model that answers."""
        return self._current().llm

    def _current(self) -> _Made:
        """Return what the fields make. A program may have changed them, as LangChain's ``model_copy`` does."""
        stop, kwargs = self.stop and [*self.stop], dict(self.model_kwargs)
        fields = {name: getattr(self, name) for name in _FIELDS} | {"stop": stop, "model_kwargs": kwargs}
        made = self._made
        if made is None or made.fields != fields:
            llm = self._make_llm()
            made = self._made = _Made(fields, llm, runs_tools(llm))
        return made

    def _make_llm(self) -> LLM:
        settings = {name: value for name in _SAMPLING if (value := getattr(self, name)) is not None}
        settings |= {"stop_sequences": self.stop} if self.stop else {}
        settings |= {"extra": self.model_kwargs} if self.model_kwargs else {}
        settings |= {"stream": False} if self.streaming is False else {}
        connection = {name: value for name in CONNECTION if (value := getattr(self, name)) is not None}
        if self.llm is None:
            if self.api_key is not None:
                connection["api_key"] = self.api_key.get_secret_value()
            return model_named(settings.pop("model", None), **connection, **settings)
        if connection:
            raise MisuseError(
                f"{', '.join(connection)} cannot change a model that is made already. Pass them where you make the llm."
            )
        return self.llm.bind(**settings) if settings else self.llm

    def __getstate__(self) -> dict[Any, Any]:
        """Return the state for a pickle: without the key, as that of each model of rxllm."""
        state = super().__getstate__()
        private: dict[str, Any] = {**(state["__pydantic_private__"] or {}), "_made": None}
        return {**state, "__dict__": {**state["__dict__"], "api_key": None}, "__pydantic_private__": private}

    @property
    def _llm_type(self) -> str:
        return "rxllm"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """The facts in traces and in the keys of LangChain's caches. A secret is not among them."""
        return {"model": self._named_model(), "identity": self._identity.of(self._llm)}

    def _named_model(self) -> str | None:
        """Return the vendor's name of the model."""
        return service_of(self._llm).model

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        parameters = self._llm.parameters
        facts: dict[str, Any] = {
            "ls_provider": service_of(self._llm).provider,
            "ls_model_name": kwargs.get("model") or self._named_model(),
            "ls_model_type": "chat",
            "ls_temperature": kwargs.get("temperature", parameters.temperature),
            "ls_max_tokens": kwargs.get("max_tokens", parameters.max_tokens),
            "ls_stop": stop or list(parameters.stop_sequences or ()) or None,
        }
        return cast("LangSmithParams", {name: fact for name, fact in facts.items() if fact is not None})

    def _request(self, messages: Sequence[BaseMessage], stop: list[str] | None, settings: dict[str, Any]) -> Request:
        prompt = prompt_of(messages, service_of(self._llm).provider)
        return request_of(self._llm, prompt, stop, settings, prefix=self.model if self.llm is None else None)

    def _own_tools(self, request: Request) -> Collection[str] | None:
        """Return the tools that LangChain runs, if the model runs tools of its own."""
        if not self._current().has_agent:
            return None
        return {tool.name for tool in request.tools or () if isinstance(tool, ToolSpec)}

    def _generations(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, settings: dict[str, Any]
    ) -> Observable[ChatGenerationChunk]:
        request = self._request(messages, stop, settings)
        model = request.model or self._named_model()
        in_blocks = self.output_version == "v1"
        own_tools = self._own_tools(request)
        return self._llm(request).pipe(
            written(lambda: ChatWriter(model=model, own_tools=own_tools, in_blocks=in_blocks))
        )

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        return SyncStream(self._generations(messages, stop, kwargs))

    def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        return AsyncStream(self._generations(messages, stop, kwargs))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs)
        return self._result(self._llm.invoke(request), request)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request = self._request(messages, stop, kwargs)
        return self._result(await self._llm.ainvoke(request), request)

    def _result(self, answer: Message, request: Request) -> ChatResult:
        model = request.model or self._named_model()
        message = message_of(answer, model=model, own_tools=self._own_tools(request))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | Mapping[str, Any] | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return a model that may call these tools.

        Args:
            tools: tools of LangChain, functions, Pydantic classes, dicts that define a tool, or tools of rxllm.
            tool_choice: ``"auto"``, ``"none"``, ``"any"`` or True for any of them, or the name of one.
            strict: whether the arguments must fit the schemas exactly; None leaves that to the provider.
            kwargs: further keywords of each call.
        """
        choice = choice_of(tool_choice)
        chosen = {} if choice is None else {"tool_choice": choice}
        return self.bind(tools=tools_of(tools, strict), **chosen, **kwargs)

    def with_structured_output(
        self,
        schema: Schema,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Return a model whose answers are values of a schema.

        Args:
            schema: a Pydantic class, a TypedDict or a JSON schema.
            method: ``"json_schema"`` asks by the surest way that the provider has: its field for a schema, a forced
                call, or the prompt; ``"json_mode"`` is the same. ``"function_calling"`` forces the call of a tool.
            include_raw: True gives a dict of ``raw``, ``parsed`` and ``parsing_error``.
            strict: True asks only by a way in which the provider enforces the schema.
            kwargs: further keywords of each call.
        """
        return structured(self, schema, method, include_raw=include_raw, strict=strict, settings=kwargs)
