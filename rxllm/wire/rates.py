"""What servers say in headers about how much more they will take.

A figure that makes no sense is ignored: a server that writes nonsense must not stop its clients.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from attrs import frozen

from ..runtime.scheduler import Baggage

__all__ = ["ON_RESPONSE", "Allowance", "allowances", "retry_after"]

_LONGEST = 64  # characters; no figure and no date is longer
_COUNT = r"[0-9]{1,15}"  # compiled when the first header comes
_SPAN = r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|h|m|s)"
_ZERO = r"0+"
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{0,15})?"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _ignore_response(server: str, status: int, headers: Mapping[str, str]) -> None:
    """Ignore the response: no limiter stands around the request."""


ON_RESPONSE: Baggage[Callable[[str, int, Mapping[str, str]], object]] = Baggage(_ignore_response)
"""Called with each response of a server: its address, such as ``https://host:8000``, the HTTP status, and the headers.

The names of the headers are in lower case.
"""


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

    A limit of 0 is no figure: some gateways fill in zeros for what they do not count, and answer all the same.

    Source: https://platform.openai.com/docs/guides/rate-limits (``x-ratelimit-remaining-requests``, spans such as
    ``6m0s``; Groq and others do the same) and https://docs.claude.com/en/api/rate-limits
    (``anthropic-ratelimit-requests-remaining``, moments by RFC 3339).
    """
    for of in ("requests", "tokens"):
        for start, end in (("x-ratelimit-", f"-{of}"), (f"anthropic-ratelimit-{of}-", "")):
            limit = headers.get(f"{start}limit{end}", "")
            count, seconds = headers.get(f"{start}remaining{end}", ""), _seconds(headers.get(f"{start}reset{end}", ""))
            if re.fullmatch(_COUNT, count) and seconds is not None and not re.fullmatch(_ZERO, limit):
                yield Allowance(of, int(count), seconds)


def _seconds(text: str) -> float | None:
    """A span such as ``1h6m0.5s`` or ``20ms``, or the time until a moment."""
    if not text or len(text) > _LONGEST:
        return None
    if not re.sub(_SPAN, "", text):
        return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_SPAN, text))
    try:
        return _until(datetime.fromisoformat(text))
    except (ValueError, TypeError, OverflowError):  # not a moment, or one without a time zone
        return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds to wait that the headers (names in lower case) ask for.

    ``retry-after-ms`` is the finer one and wins; ``retry-after`` is a number of seconds or an HTTP date.
    """
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        text = headers.get(name, "").strip()
        if re.fullmatch(_NUMBER, text):
            return float(text) / unit
    date = headers.get("retry-after", "")
    if not date or len(date) > _LONGEST:
        return None
    try:
        moment = parsedate_to_datetime(date)
        return _until(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, TypeError, OverflowError):
        return None


def _until(moment: datetime) -> float:
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
