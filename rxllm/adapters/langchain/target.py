"""`to_langchain` and `to_langchain_llm`: models and pipelines of rxllm in programs of LangChain."""

from __future__ import annotations

from typing import Any, TypedDict, overload

from ...llm import LLM
from ...misuse import MisuseError, shown
from ...pipeline import Pipeline
from .chat_model import ChatRxllm
from .runnable import RxllmRunnable
from .text_model import TextRxllm

__all__ = ["to_langchain", "to_langchain_llm"]


@overload
def to_langchain(stage: LLM) -> ChatRxllm: ...
@overload
def to_langchain(stage: Pipeline[Any, Any, Any]) -> RxllmRunnable: ...


def to_langchain(stage: LLM | Pipeline[Any, Any, Any]) -> ChatRxllm | RxllmRunnable:
    """Return a model of rxllm as a chat model of LangChain, or a pipeline as a runnable.

    ::

        chain = prompt | to_langchain(rxllm.fallback(primary, backup)) | StrOutputParser()
        agent = create_agent(to_langchain(llm), tools)
        chain = to_langchain(rxllm.pipe(outline, llm, rxllm.text())) | RunnableLambda(publish)

    The runs in LangChain's traces have the name, the tags and the metadata of the runs of rxllm. LangChain's callbacks
    hear of the runs within a pipeline, too. Handlers of rxllm still hear their events.

    Raises:
        MisuseError: the argument is neither a model nor a pipeline.
    """
    if isinstance(stage, Pipeline):
        return RxllmRunnable(stage)
    return ChatRxllm(llm=_model("to_langchain takes a model or a pipeline", stage), **_config(stage))


def to_langchain_llm(llm: LLM) -> TextRxllm:
    """Return a model of rxllm as a completion model of LangChain, which takes a text and gives a text.

    Raises:
        MisuseError: the argument is not a model of rxllm.
    """
    return TextRxllm(llm=_model("to_langchain_llm takes a model", llm), **_config(llm))


def _model(takes: str, value: object) -> LLM:
    if not isinstance(value, LLM):
        raise MisuseError(f"{takes} of rxllm, not {shown(value)}.")
    return value


class _Config(TypedDict):
    name: str
    tags: list[str] | None
    metadata: dict[str, Any] | None


def _config(llm: LLM) -> _Config:
    """Return the config of LangChain's runs."""
    name = llm.run_name or type(llm).__name__
    return {"name": name, "tags": [*llm.tags] or None, "metadata": dict(llm.metadata) or None}
