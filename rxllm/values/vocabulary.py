"""The fixed words of messages and chunks: roles, finish reasons, log-probabilities."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

__all__ = ["FinishReason", "Logprobs", "Role", "finish_of", "is_whole"]


Role = Literal["system", "user", "assistant", "tool"]


Logprobs = Mapping[str, Sequence[Any]]
"""Log-probabilities: for each of the provider's names, such as ``content`` or ``tokens``, a list with its tokens."""


FinishReason = Literal["stop", "length", "content_filter", "tool_call", "error", "other"]
"""Why an answer ended. ``other`` stands for every reason that rxllm does not know; it never means a normal end."""


def is_whole(reason: FinishReason | None) -> bool:
    """Return whether a cache may keep an answer that ended for this reason.

    A cache may not keep an answer that was filtered, that failed, or that ended for an unknown reason. An answer
    without a finish reason counts as complete.
    """
    return reason in _WHOLE


_WHOLE = (None, "stop", "length", "tool_call")


# The vendors' words, in lower case without punctuation, so that MAX_TOKENS, max_tokens and maxTokens are one. One table
# serves every protocol, because gateways speak one vendor's protocol with another vendor's words.
_WORDS: dict[FinishReason, str] = {
    "stop": "stop end endturn eos eostoken endoftext stopsequence stopword complete completed finish finished normal "
    "pauseturn compaction",
    "length": "length maxtokens maxlength maxlen maxoutputtokens maxcontext tokenlimit modellength "
    "modelcontextwindowexceeded contextlengthexceeded",
    "tool_call": "toolcall toolcalls tooluse functioncall functioncalls requiresaction",
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
