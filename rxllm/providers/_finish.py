"""The finish reasons of servers: their words, and the error for a word that means a failure."""

from __future__ import annotations

from ..errors import ProviderError
from ..values.vocabulary import FinishReason, finish_of

__all__ = ["broken_off", "finish_with", "is_early", "word_of"]


def word_of(reason: object) -> str:
    """Return a server's word for the end of an answer; empty if there is none. A value that is not text is unknown."""
    return reason if isinstance(reason, str) else f"{reason!r:.100}" if reason else ""


def finish_with(raw: str | None, *, calls: object) -> FinishReason | None:
    """Return rxllm's finish reason for a server's word. `calls` is true if the answer has calls of the program's tools.

    Gemini and Ollama have no word for an answer with calls; other servers say ``stop`` if the request forces the call.
    """
    finish = finish_of(raw) if raw else None
    return "tool_call" if finish == "stop" and calls else finish


def is_early(finish: FinishReason | None, *, has_content: bool) -> bool:
    """Return whether an answer may go on after a finish reason. Some gateways send ``stop`` before the first content.

    Source: https://github.com/open-webui/open-webui/issues/23921,
    https://github.com/router-for-me/CLIProxyAPI/issues/5651
    """
    return not has_content and finish not in ("length", "content_filter", "error")


def broken_off(raw: str | None, explanation: str = "") -> ProviderError | None:
    """Return the error for a finish reason that means a failure of the server; None for any other reason.

    The decoder emits the chunk with the reason before the reader raises the error, so that `partial` contains the
    reason. `explanation` is the server's.
    """
    if raw is None or finish_of(raw) != "error":
        return None
    details = f": {explanation:.500}" if explanation else "."
    return ProviderError(
        f"The model failed in the middle of its answer (finish_reason {raw!r:.100}){details}", code=raw, retryable=True
    )
