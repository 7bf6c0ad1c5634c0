"""Reactive streams of large language models.

A model is a function from a prompt to a cold `reactivex.Observable` of chunks::

    import rxllm

    llm = rxllm.Embedded()                  # or rxllm.OpenAI("gpt-5-mini"), rxllm.Anthropic("claude-sonnet-4-6")
    for chunk in llm.stream("Write me a song about sparkling water."):
        print(chunk, end="", flush=True)

To keep the import cheap, rxllm imports models, handlers and operators on first use, and httpx with the first request.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .bridges import AsyncStream, SyncStream, astream, from_aiter, from_iter, stream
from .errors import (
    AuthenticationError,
    BadRequest,
    Interrupted,
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
    Listener,
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
from .misuse import MisuseError
from .observation import dispatch
from .operators.batch import batch, batch_as_completed
from .operators.message import message, usage
from .operators.stage import stage
from .operators.text import text
from .pipeline import Pipeline, pipe
from .runtime.scheduler import scheduler
from .values.chunk import Chunk, join
from .values.message import FinishReason, Message
from .values.parameters import Parameters, Settings
from .values.parts import (
    CachePoint,
    FilePart,
    Part,
    RawPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from .values.request import Prompt, Request
from .values.tools import ResponseSchema, ToolSpec
from .values.usage import Usage

if TYPE_CHECKING:
    from .combinators.cached import cached
    from .combinators.fallback import fallback
    from .combinators.hedge import hedge
    from .combinators.limited import limited
    from .combinators.limiter import Limiter
    from .combinators.observe import observe
    from .combinators.retry import retry
    from .combinators.route import route
    from .combinators.stores import MemoryStore, SQLiteStore
    from .handlers.callback import CallbackHandler
    from .handlers.logging import LoggingHandler
    from .handlers.opentelemetry import OpenTelemetryHandler
    from .handlers.progress import ProgressHandler
    from .handlers.usage import UsageMeter
    from .operators.backoff import backoff, is_retryable
    from .operators.caching import Store
    from .operators.lines import lines
    from .operators.sentences import sentences
    from .operators.share import share
    from .operators.smooth import smooth
    from .operators.snapshots import snapshots
    from .operators.split_reasoning import split_reasoning
    from .operators.stop_at import stop_at
    from .operators.timeouts import deadline, first_chunk_timeout, idle_timeout
    from .operators.words import words
    from .providers import model
    from .providers.anthropic import Anthropic
    from .providers.bedrock import Bedrock
    from .providers.cohere import Cohere
    from .providers.compatible import register_provider
    from .providers.embedded import Embedded
    from .providers.gemini import Gemini
    from .providers.listing import ProviderInfo, providers
    from .providers.ollama import Ollama
    from .providers.openai import OpenAI
    from .providers.preview import Preview
    from .results import Generation, LLMResult
    from .tools.tool import Tool, tool
    from .wire.http import Timeouts

__all__ = [
    "LLM",
    "Anthropic",
    "AsyncStream",
    "AuthenticationError",
    "BadRequest",
    "Bedrock",
    "CachePoint",
    "CallbackHandler",
    "Cancelled",
    "Chunk",
    "Cohere",
    "Custom",
    "Embedded",
    "Emitted",
    "Event",
    "Failed",
    "FilePart",
    "FinishReason",
    "Finished",
    "Gemini",
    "Generation",
    "Handler",
    "Interrupted",
    "LLMResult",
    "Limiter",
    "Listener",
    "LoggingHandler",
    "MemoryStore",
    "Message",
    "MisuseError",
    "Ollama",
    "OpenAI",
    "OpenTelemetryHandler",
    "Overloaded",
    "Parameters",
    "ParseError",
    "Part",
    "Pipeline",
    "Preview",
    "ProgressHandler",
    "Prompt",
    "ProtocolError",
    "ProviderError",
    "ProviderInfo",
    "RateLimited",
    "RawPart",
    "ReasoningPart",
    "RefusalPart",
    "Request",
    "ResponseSchema",
    "Retried",
    "Run",
    "RunChunk",
    "RxllmError",
    "SQLiteStore",
    "Service",
    "Settings",
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
    "ToolSpec",
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
    "is_retryable",
    "join",
    "limited",
    "lines",
    "message",
    "model",
    "observe",
    "pipe",
    "providers",
    "register_provider",
    "retry",
    "route",
    "scheduler",
    "sentences",
    "share",
    "smooth",
    "snapshots",
    "split_reasoning",
    "stage",
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
    "Bedrock": ".providers.bedrock",
    "CallbackHandler": ".handlers.callback",
    "Cohere": ".providers.cohere",
    "Embedded": ".providers.embedded",
    "Gemini": ".providers.gemini",
    "Generation": ".results",
    "LLMResult": ".results",
    "Limiter": ".combinators.limiter",
    "LoggingHandler": ".handlers.logging",
    "MemoryStore": ".combinators.stores",
    "Ollama": ".providers.ollama",
    "OpenAI": ".providers.openai",
    "OpenTelemetryHandler": ".handlers.opentelemetry",
    "ProgressHandler": ".handlers.progress",
    "SQLiteStore": ".combinators.stores",
    "Store": ".operators.caching",
    "Timeouts": ".wire.http",
    "Tool": ".tools.tool",
    "UsageMeter": ".handlers.usage",
    "backoff": ".operators.backoff",
    "cached": ".combinators.cached",
    "deadline": ".operators.timeouts",
    "fallback": ".combinators.fallback",
    "first_chunk_timeout": ".operators.timeouts",
    "hedge": ".combinators.hedge",
    "idle_timeout": ".operators.timeouts",
    "limited": ".combinators.limited",
    "lines": ".operators.lines",
    "model": ".providers",
    "Preview": ".providers.preview",
    "ProviderInfo": ".providers.listing",
    "providers": ".providers",
    "register_provider": ".providers.compatible",
    "observe": ".combinators.observe",
    "retry": ".combinators.retry",
    "route": ".combinators.route",
    "sentences": ".operators.sentences",
    "share": ".operators.share",
    "smooth": ".operators.smooth",
    "split_reasoning": ".operators.split_reasoning",
    "stop_at": ".operators.stop_at",
    "tool": ".tools.tool",
    "words": ".operators.words",
    "is_retryable": ".operators.backoff",
    "snapshots": ".operators.snapshots",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'rxllm' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_LAZY[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
