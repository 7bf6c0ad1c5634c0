"""Reactive streams of large language models.

A model is a function from a prompt to a cold `reactivex.Observable` of chunks::

    import rxllm

    llm = rxllm.Embedded()                  # or rxllm.OpenAI("gpt-5-mini"), rxllm.Anthropic("claude-sonnet-4-6")
    for chunk in llm.stream("Write me a song about sparkling water."):
        print(chunk, end="", flush=True)

To keep the import cheap, rxllm imports each name on first use, and httpx with the first request.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .branches import Assign, Parallel, assign, parallel
    from .bridges import AsyncStream, SyncStream, astream, from_aiter, from_iter, stream
    from .combinators.agent import agent
    from .combinators.budget import Budget
    from .combinators.budgeted import budgeted
    from .combinators.cached import cached
    from .combinators.conversation import Conversation
    from .combinators.fallback import fallback
    from .combinators.hedge import hedge
    from .combinators.history import History
    from .combinators.limited import limited
    from .combinators.limiter import Limiter
    from .combinators.limits import Limits
    from .combinators.observe import observe
    from .combinators.redis_limits import RedisLimits
    from .combinators.redis_store import RedisStore
    from .combinators.remember import remember
    from .combinators.retry import retry
    from .combinators.route import route
    from .combinators.shaped import Shaped, shaped
    from .combinators.sqlite_history import SQLiteHistory
    from .combinators.stores import MemoryStore, SQLiteStore
    from .combinators.trim import trim
    from .errors import (
        AuthenticationError,
        BadRequest,
        Interrupted,
        LimitReached,
        Overloaded,
        ParseError,
        ProtocolError,
        ProviderError,
        RateLimited,
        RxllmError,
        Timeout,
        ToolFailure,
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
        Queued,
        Retried,
        Reused,
        Run,
        RunChunk,
        Service,
        Started,
        ToolFinished,
        ToolStarted,
    )
    from .graph import Graph
    from .handlers.callback import CallbackHandler
    from .handlers.logging import LoggingHandler
    from .handlers.opentelemetry import OpenTelemetryHandler
    from .handlers.progress import ProgressHandler
    from .handlers.stdout import StdoutHandler
    from .handlers.usage import UsageMeter
    from .jobs.job import job
    from .jobs.journal import Journal
    from .jobs.result import Failure, Result
    from .llm import LLM
    from .local.gguf import LlamaCpp
    from .local.hf import Transformers
    from .misuse import MisuseError
    from .observation import dispatch
    from .operators.backoff import backoff, is_retryable
    from .operators.batch import batch, batch_as_completed
    from .operators.caching import Store
    from .operators.call_drafts import CallDraft, call_drafts
    from .operators.drafts import drafts
    from .operators.items import items
    from .operators.lines import lines
    from .operators.message import message, usage
    from .operators.parse import parse
    from .operators.sentences import sentences
    from .operators.share import share
    from .operators.smooth import smooth
    from .operators.snapshots import snapshots
    from .operators.split_reasoning import split_reasoning
    from .operators.stage import stage
    from .operators.stop_at import stop_at
    from .operators.text import text
    from .operators.timeouts import deadline, first_chunk_timeout, idle_timeout
    from .operators.words import words
    from .pictures.show import show
    from .pictures.timeline import Timeline
    from .pipeline import Pipeline, pipe
    from .prompts import Template, template
    from .providers import model
    from .providers._registry import providers
    from .providers.anthropic import Anthropic
    from .providers.bedrock import Bedrock
    from .providers.cohere import Cohere
    from .providers.compatible import register_provider
    from .providers.embedded import Embedded
    from .providers.gemini import Gemini
    from .providers.ollama import Ollama
    from .providers.openai import OpenAI
    from .results import Generation, LLMResult
    from .runtime.scheduler import scheduler
    from .tools.mcp import MCPProgress, mcp
    from .tools.tool import Tool, tool
    from .values.chunk import Chunk, join
    from .values.declaration import Declaration
    from .values.file import file
    from .values.message import Message
    from .values.parameters import Parameters, Settings
    from .values.parts import (
        Approval,
        CachePoint,
        FilePart,
        Part,
        Pending,
        RawPart,
        ReasoningPart,
        RefusalPart,
        TextPart,
        ToolCallPart,
        ToolResultPart,
    )
    from .values.preview import Preview
    from .values.provider_info import ProviderInfo
    from .values.request import Prompt, Request
    from .values.tools import ResponseSchema, ToolSpec
    from .values.usage import Usage
    from .values.vocabulary import FinishReason
    from .wire.timeouts import Timeouts

__all__ = [
    "LLM",
    "Anthropic",
    "Approval",
    "Assign",
    "AsyncStream",
    "AuthenticationError",
    "BadRequest",
    "Bedrock",
    "Budget",
    "CachePoint",
    "CallDraft",
    "CallbackHandler",
    "Cancelled",
    "Chunk",
    "Cohere",
    "Conversation",
    "Custom",
    "Declaration",
    "Embedded",
    "Emitted",
    "Event",
    "Failed",
    "Failure",
    "FilePart",
    "FinishReason",
    "Finished",
    "Gemini",
    "Generation",
    "Graph",
    "Handler",
    "History",
    "Interrupted",
    "Journal",
    "LLMResult",
    "LimitReached",
    "Limiter",
    "Limits",
    "Listener",
    "LlamaCpp",
    "LoggingHandler",
    "MCPProgress",
    "MemoryStore",
    "Message",
    "MisuseError",
    "Ollama",
    "OpenAI",
    "OpenTelemetryHandler",
    "Overloaded",
    "Parallel",
    "Parameters",
    "ParseError",
    "Part",
    "Pending",
    "Pipeline",
    "Preview",
    "ProgressHandler",
    "Prompt",
    "ProtocolError",
    "ProviderError",
    "ProviderInfo",
    "Queued",
    "RateLimited",
    "RawPart",
    "ReasoningPart",
    "RedisLimits",
    "RedisStore",
    "RefusalPart",
    "Request",
    "ResponseSchema",
    "Result",
    "Retried",
    "Reused",
    "Run",
    "RunChunk",
    "RxllmError",
    "SQLiteHistory",
    "SQLiteStore",
    "Service",
    "Settings",
    "Shaped",
    "Started",
    "StdoutHandler",
    "Store",
    "SyncStream",
    "Template",
    "TextPart",
    "Timeline",
    "Timeout",
    "Timeouts",
    "Tool",
    "ToolCallPart",
    "ToolFailure",
    "ToolFinished",
    "ToolResultPart",
    "ToolSpec",
    "ToolStarted",
    "Transformers",
    "TransportError",
    "Usage",
    "UsageMeter",
    "agent",
    "assign",
    "astream",
    "backoff",
    "batch",
    "batch_as_completed",
    "budgeted",
    "cached",
    "call_drafts",
    "deadline",
    "dispatch",
    "drafts",
    "fallback",
    "file",
    "first_chunk_timeout",
    "from_aiter",
    "from_iter",
    "hedge",
    "idle_timeout",
    "is_retryable",
    "items",
    "job",
    "join",
    "limited",
    "lines",
    "mcp",
    "message",
    "model",
    "observe",
    "parallel",
    "parse",
    "pipe",
    "providers",
    "register_provider",
    "remember",
    "retry",
    "route",
    "scheduler",
    "sentences",
    "shaped",
    "share",
    "show",
    "smooth",
    "snapshots",
    "split_reasoning",
    "stage",
    "stop_at",
    "stream",
    "template",
    "text",
    "tool",
    "trim",
    "usage",
    "words",
]

__version__ = "0.1.0"

# The public names, by the module of each.
_NAMES = {
    ".branches": "Assign Parallel assign parallel",
    ".bridges": "AsyncStream SyncStream astream from_aiter from_iter stream",
    ".combinators.agent": "agent",
    ".combinators.budget": "Budget",
    ".combinators.budgeted": "budgeted",
    ".combinators.cached": "cached",
    ".combinators.conversation": "Conversation",
    ".combinators.fallback": "fallback",
    ".combinators.hedge": "hedge",
    ".combinators.history": "History",
    ".combinators.limited": "limited",
    ".combinators.limiter": "Limiter",
    ".combinators.limits": "Limits",
    ".combinators.observe": "observe",
    ".combinators.redis_limits": "RedisLimits",
    ".combinators.redis_store": "RedisStore",
    ".combinators.remember": "remember",
    ".combinators.retry": "retry",
    ".combinators.route": "route",
    ".combinators.shaped": "Shaped shaped",
    ".combinators.sqlite_history": "SQLiteHistory",
    ".combinators.stores": "MemoryStore SQLiteStore",
    ".combinators.trim": "trim",
    ".errors": (
        "AuthenticationError BadRequest Interrupted LimitReached Overloaded ParseError ProtocolError "
        "ProviderError RateLimited RxllmError Timeout ToolFailure TransportError"
    ),
    ".events": (
        "Cancelled Custom Emitted Event Failed Finished Handler Listener Queued Retried Reused Run RunChunk "
        "Service Started ToolFinished ToolStarted"
    ),
    ".graph": "Graph",
    ".handlers.callback": "CallbackHandler",
    ".handlers.logging": "LoggingHandler",
    ".handlers.opentelemetry": "OpenTelemetryHandler",
    ".handlers.progress": "ProgressHandler",
    ".handlers.stdout": "StdoutHandler",
    ".handlers.usage": "UsageMeter",
    ".jobs.job": "job",
    ".jobs.journal": "Journal",
    ".jobs.result": "Failure Result",
    ".llm": "LLM",
    ".local.gguf": "LlamaCpp",
    ".local.hf": "Transformers",
    ".misuse": "MisuseError",
    ".observation": "dispatch",
    ".operators.backoff": "backoff is_retryable",
    ".operators.batch": "batch batch_as_completed",
    ".operators.caching": "Store",
    ".operators.call_drafts": "CallDraft call_drafts",
    ".operators.drafts": "drafts",
    ".operators.items": "items",
    ".operators.lines": "lines",
    ".operators.message": "message usage",
    ".operators.parse": "parse",
    ".operators.sentences": "sentences",
    ".operators.share": "share",
    ".operators.smooth": "smooth",
    ".operators.snapshots": "snapshots",
    ".operators.split_reasoning": "split_reasoning",
    ".operators.stage": "stage",
    ".operators.stop_at": "stop_at",
    ".operators.text": "text",
    ".operators.timeouts": "deadline first_chunk_timeout idle_timeout",
    ".operators.words": "words",
    ".pictures.show": "show",
    ".pictures.timeline": "Timeline",
    ".pipeline": "Pipeline pipe",
    ".prompts": "Template template",
    ".providers": "model providers",
    ".providers.anthropic": "Anthropic",
    ".providers.bedrock": "Bedrock",
    ".providers.cohere": "Cohere",
    ".providers.compatible": "register_provider",
    ".providers.embedded": "Embedded",
    ".providers.gemini": "Gemini",
    ".providers.ollama": "Ollama",
    ".providers.openai": "OpenAI",
    ".results": "Generation LLMResult",
    ".runtime.scheduler": "scheduler",
    ".tools.mcp": "MCPProgress mcp",
    ".tools.tool": "Tool tool",
    ".values.chunk": "Chunk join",
    ".values.declaration": "Declaration",
    ".values.file": "file",
    ".values.message": "Message",
    ".values.parameters": "Parameters Settings",
    ".values.parts": (
        "Approval CachePoint FilePart Part Pending RawPart ReasoningPart RefusalPart TextPart ToolCallPart "
        "ToolResultPart"
    ),
    ".values.preview": "Preview",
    ".values.provider_info": "ProviderInfo",
    ".values.request": "Prompt Request",
    ".values.tools": "ResponseSchema ToolSpec",
    ".values.usage": "Usage",
    ".values.vocabulary": "FinishReason",
    ".wire.timeouts": "Timeouts",
}
_LAZY = {name: module for module, names in _NAMES.items() for name in names.split()}
_ROOMS = ("errors", "events", "operators")  # the modules that programs use as attributes of the package


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name not in _LAZY:
        raise AttributeError(f"module 'rxllm' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_LAZY[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return __all__
