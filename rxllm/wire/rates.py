"""What servers say in headers about how much more they will take."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from attrs import frozen

__all__ = ["Allowance", "allowances", "retry_after"]

_SPAN = r"(\d+(?:\.\d+)?)(ms|h|m|s)"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@frozen
class Allowance:
    """How much a server will still take.

    Attributes:
        of: what is counted.
        remaining: how many more.
        seconds: after which it counts anew.
    """

    of: Literal["requests", "tokens"]
    remaining: int
    seconds: float


def allowances(headers: Mapping[str, str]) -> Iterator[Allowance]:
    """What the headers of an answer allow, where they say it.

    Source: https://platform.openai.com/docs/guides/rate-limits (``x-ratelimit-remaining-requests``, spans such as
    ``6m0s``; Groq and others do the same) and https://docs.claude.com/en/api/rate-limits
    (``anthropic-ratelimit-requests-remaining``, moments by RFC 3339).
    """
    for of in ("requests", "tokens"):
        for remaining, reset in (
            (f"x-ratelimit-remaining-{of}", f"x-ratelimit-reset-{of}"),
            (f"anthropic-ratelimit-{of}-remaining", f"anthropic-ratelimit-{of}-reset"),
        ):
            count, seconds = headers.get(remaining, ""), _seconds(headers.get(reset, ""))
            if count.isdecimal() and seconds is not None:
                yield Allowance(of, int(count), seconds)


def _seconds(text: str) -> float | None:
    """A span such as ``1h6m0.5s`` or ``20ms``, or the time until a moment."""
    if text and not re.sub(_SPAN, "", text):
        return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_SPAN, text))
    try:
        return max(0.0, (datetime.fromisoformat(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no moment, or one without a time zone
        return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds to wait that the headers (names in lower case) ask for.

    ``retry-after-ms`` is the finer one and wins; ``retry-after`` is a number of seconds or an HTTP date.
    """
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
