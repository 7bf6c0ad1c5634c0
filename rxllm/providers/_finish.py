"""The translation of all vendors' finish reasons to rxllm's.

One table serves every protocol, because gateways speak one vendor's protocol with another vendor's words.
"""

from __future__ import annotations

import re

from ..errors import ProviderError
from ..values.message import FinishReason

__all__ = ["broken_off", "finish_of", "word_of"]

# Words in lower case without punctuation, so that MAX_TOKENS, max_tokens and maxTokens are one.
_WORDS: dict[FinishReason, str] = {
    "stop": "stop end endturn eos eostoken endoftext stopsequence stopword complete completed finish finished normal "
    "pauseturn",
    "length": "length maxtokens maxlength maxlen maxoutputtokens maxcontext tokenlimit modellength "
    "modelcontextwindowexceeded contextlengthexceeded",
    "tool_call": "toolcall toolcalls tooluse functioncall functioncalls",
    "content_filter": "contentfilter contentfiltered guardrailintervened sensitive refusal safety recitation blocklist "
    "prohibitedcontent spii modelarmor imagesafety imageprohibitedcontent imagerecitation imageother errortoxic",
    "error": "error errorlimit failed failure abort aborted cancel canceled cancelled usercancel interrupted timeout "
    "timelimit networkerror insufficientsystemresource malformedfunctioncall malformedresponse malformedmodeloutput "
    "malformedtooluse unexpectedtoolcall toomanytoolcalls missingthoughtsignature",
}
_FINISHES: dict[str, FinishReason] = {word: reason for reason, words in _WORDS.items() for word in words.split()}


def finish_of(raw: str) -> FinishReason:
    """Return rxllm's finish reason for a server's word, ``other`` for an unknown word.

    Gemini's compatible endpoint appends its own word to some reasons: ``content_filter: SAFETY``.
    """
    return _FINISHES.get(re.sub("[^a-z0-9]", "", raw.partition(":")[0].lower()), "other")


def word_of(reason: object) -> str:
    """A server's word for the end of an answer, empty if there is none. Anything but text is an unknown word."""
    return reason if isinstance(reason, str) else f"{reason!r:.100}" if reason else ""


def broken_off(raw: str | None, told: str = "") -> ProviderError | None:
    """Return the error for a finish reason that means a failure of the server; None for any other reason.

    The decoder emits the chunk with the reason before the reader raises the error, so that `partial` contains the
    reason. `told` is the server's explanation.
    """
    if raw is None or finish_of(raw) != "error":
        return None
    details = f": {told:.500}" if told else "."
    return ProviderError(
        f"The model failed in the middle of its answer (finish_reason {raw!r:.100}){details}", code=raw, retryable=True
    )
