"""Answers over HTTP: server-sent events, and a server that speaks OpenAI's protocol.

::

    from rxllm.serve import openai, sse

    @app.post("/ask")                                       # in FastAPI or Starlette
    async def ask(question: str) -> Response:
        return sse(llm(question))

    app = openai({"fast": rxllm.OpenAI("gpt-5-mini")})      # an ASGI application with /v1/chat/completions

This package needs the extra ``serve``.
"""

from typing import TYPE_CHECKING, Any

try:
    import starlette as _starlette  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ImportError:
    raise ImportError("rxllm.serve needs Starlette: pip install 'rxllm[serve]'.") from None

from .ag_ui import ag_ui
from .chat_app import chat
from .config import Config
from .data_part import data_part
from .gateway import gateway
from .logs import Log
from .memory_log import MemoryLog
from .messages_of import messages_of
from .openai_app import openai
from .page_tools import page_tools
from .relay import Relay
from .response import Encoder, StreamResponse
from .sqlite_log import SQLiteLog
from .sse import sse
from .ui_messages import ui_messages

if TYPE_CHECKING:
    from .redis_log import RedisLog

__all__ = [
    "Config",
    "Encoder",
    "Log",
    "MemoryLog",
    "RedisLog",
    "Relay",
    "SQLiteLog",
    "StreamResponse",
    "ag_ui",
    "chat",
    "data_part",
    "gateway",
    "messages_of",
    "openai",
    "page_tools",
    "sse",
    "ui_messages",
]


def __getattr__(name: str) -> Any:
    """Import RedisLog at its first use, since it needs an extra of its own."""
    if name == "RedisLog":
        from .redis_log import RedisLog

        return RedisLog
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
