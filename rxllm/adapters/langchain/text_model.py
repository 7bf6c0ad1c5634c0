"""`TextRxllm`: a model of rxllm as a completion model of LangChain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLLM
from langchain_core.outputs import Generation, GenerationChunk, LLMResult
from pydantic import ConfigDict, PrivateAttr
from reactivex import Observable

from ... import results
from ...bridges import AsyncStream, SyncStream
from ...llm import LLM
from ...values.message import Message
from ...values.request import Request
from .._written import written
from .calls import Identity, request_of, service_of
from .generations import TextWriter

__all__ = ["TextRxllm"]


class TextRxllm(BaseLLM):
    """A completion model of LangChain whose answers come from a model of rxllm; `to_langchain_llm` makes it."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    llm: LLM

    _identity: Identity = PrivateAttr(default_factory=Identity)

    @property
    def _llm_type(self) -> str:
        return "rxllm"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """The facts in traces and in the keys of LangChain's caches. A secret is not among them."""
        return {"model": service_of(self.llm).model, "identity": self._identity.of(self.llm)}

    def _request(self, prompt: str, stop: list[str] | None, settings: dict[str, Any]) -> Request:
        return request_of(self.llm, prompt, stop, settings)

    def _chunks(self, prompt: str, stop: list[str] | None, settings: dict[str, Any]) -> Observable[GenerationChunk]:
        return self.llm(self._request(prompt, stop, settings)).pipe(written(TextWriter))

    def _stream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[GenerationChunk]:
        with SyncStream(self._chunks(prompt, stop, kwargs)) as chunks:
            for chunk in chunks:
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    async def _astream(
        self,
        prompt: str,
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[GenerationChunk]:
        async with AsyncStream(self._chunks(prompt, stop, kwargs)) as chunks:
            async for chunk in chunks:
                if run_manager is not None:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _generate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        return _result(self.llm.batch([self._request(prompt, stop, kwargs) for prompt in prompts]))

    async def _agenerate(
        self,
        prompts: list[str],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        return _result(await self.llm.abatch([self._request(prompt, stop, kwargs) for prompt in prompts]))


def _result(answers: list[Message]) -> LLMResult:
    result = results.LLMResult.of(answers)
    generations = [
        [Generation(text=each.text, generation_info=dict(each.generation_info)) for each in several]
        for several in result.generations
    ]
    return LLMResult(generations=cast("Any", generations), llm_output=dict(result.llm_output))
