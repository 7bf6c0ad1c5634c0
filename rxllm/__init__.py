"""Reactive streams of large language models.

A model is a function from a prompt to a cold `reactivex.Observable` of chunks::

    import rxllm

    llm = rxllm.Embedded()                  # or rxllm.OpenAI("gpt-5-mini"), rxllm.Anthropic("claude-sonnet-4-6")
    for chunk in llm.stream("Write me a song about sparkling water."):
        print(chunk, end="", flush=True)

Models, handlers and operators are imported when they are first named, httpx with the first request.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._runtime import dispatch, scheduler
from .bridges import AsyncStream, SyncStream, astream, from_aiter, from_iter, stream
from .errors import (
    AuthenticationError,
    BadRequest,
    Interrupted,
    MisuseError,
    Overloaded,
    ParseError,
    ProtocolError,
    ProviderError,
    RateLimited,
    RxllmError,
    Timeout,
    TransportError,
)
from .events import (
    Cancelled,
    Custom,
    Emitted,
    Event,
    Failed,
    Finished,
    Handler,
    Retried,
    Run,
    RunChunk,
    Service,
    Started,
    ToolFinished,
    ToolStarted,
)
from .handlers import StdoutHandler
from .llm import LLM
from .messages import (
    Chunk,
    FilePart,
    FinishReason,
    Message,
    Parameters,
    Part,
    Prompt,
    RawPart,
    ReasoningPart,
    RefusalPart,
    Request,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from .operators.batches import batch, batch_as_completed
from .operators.folds import message, text, usage
from .pipeline import Pipeline, pipe

if TYPE_CHECKING:
    from .combinators import cached, fallback, hedge, limited, observe, retry, route
    from .handlers.callback import CallbackHandler
    from .handlers.logging import LoggingHandler
    from .handlers.opentelemetry import OpenTelemetryHandler
    from .handlers.progress import ProgressHandler
    from .handlers.usage import UsageMeter
    from .limiter import Limiter
    from .operators.cutting import split_reasoning, stop_at
    from .operators.delays import backoff
    from .operators.keeping import Store
    from .operators.limits import deadline, first_chunk_timeout, idle_timeout
    from .operators.sharing import share
    from .operators.smoothing import smooth
    from .operators.texts import lines, sentences, words
    from .providers import model
    from .providers.anthropic import Anthropic
    from .providers.embedded import Embedded
    from .providers.openai import OpenAI
    from .results import Generation, LLMResult
    from .stores import MemoryStore, SQLiteStore
    from .tools import Tool, tool
    from .wire.http import Timeouts

__all__ = [
    "LLM",
    "Anthropic",
    "AsyncStream",
    "AuthenticationError",
    "BadRequest",
    "CallbackHandler",
    "Cancelled",
    "Chunk",
    "Custom",
    "Embedded",
    "Emitted",
    "Event",
    "Failed",
    "FilePart",
    "FinishReason",
    "Finished",
    "Generation",
    "Handler",
    "Interrupted",
    "LLMResult",
    "Limiter",
    "LoggingHandler",
    "MemoryStore",
    "Message",
    "MisuseError",
    "OpenAI",
    "OpenTelemetryHandler",
    "Overloaded",
    "Parameters",
    "ParseError",
    "Part",
    "Pipeline",
    "ProgressHandler",
    "Prompt",
    "ProtocolError",
    "ProviderError",
    "RateLimited",
    "RawPart",
    "ReasoningPart",
    "RefusalPart",
    "Request",
    "Retried",
    "Run",
    "RunChunk",
    "RxllmError",
    "SQLiteStore",
    "Service",
    "Started",
    "StdoutHandler",
    "Store",
    "SyncStream",
    "TextPart",
    "Timeout",
    "Timeouts",
    "Tool",
    "ToolCallPart",
    "ToolFinished",
    "ToolResultPart",
    "ToolStarted",
    "TransportError",
    "Usage",
    "UsageMeter",
    "astream",
    "backoff",
    "batch",
    "batch_as_completed",
    "cached",
    "deadline",
    "dispatch",
    "fallback",
    "first_chunk_timeout",
    "from_aiter",
    "from_iter",
    "hedge",
    "idle_timeout",
    "limited",
    "lines",
    "message",
    "model",
    "observe",
    "pipe",
    "retry",
    "route",
    "scheduler",
    "sentences",
    "share",
    "smooth",
    "split_reasoning",
    "stop_at",
    "stream",
    "text",
    "tool",
    "usage",
    "words",
]

__version__ = "0.1.0"

_LAZY = {
    "Anthropic": ".providers.anthropic",
    "CallbackHandler": ".handlers.callback",
    "Embedded": ".providers.embedded",
    "Generation": ".results",
    "LLMResult": ".results",
    "Limiter": ".limiter",
    "LoggingHandler": ".handlers.logging",
    "MemoryStore": ".stores",
    "OpenAI": ".providers.openai",
    "OpenTelemetryHandler": ".handlers.opentelemetry",
    "ProgressHandler": ".handlers.progress",
    "SQLiteStore": ".stores",
    "Store": ".operators.keeping",
    "Timeouts": ".wire.http",
    "Tool": ".tools",
    "UsageMeter": ".handlers.usage",
    "backoff": ".operators.delays",
    "cached": ".combinators",
    "deadline": ".operators.limits",
    "fallback": ".combinators",
    "first_chunk_timeout": ".operators.limits",
    "hedge": ".combinators",
    "idle_timeout": ".operators.limits",
    "limited": ".combinators",
    "lines": ".operators.texts",
    "model": ".providers",
    "observe": ".combinators",
    "retry": ".combinators",
    "route": ".combinators",
    "sentences": ".operators.texts",
    "share": ".operators.sharing",
    "smooth": ".operators.smoothing",
    "split_reasoning": ".operators.cutting",
    "stop_at": ".operators.cutting",
    "tool": ".tools",
    "words": ".operators.texts",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'rxllm' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_LAZY[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
