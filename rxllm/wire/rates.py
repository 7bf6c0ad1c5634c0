"""The rate limits that servers report in headers.

An invalid value is ignored: a server's mistake in a header must not stop its clients.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from attrs import frozen

from ..runtime.scheduler import Baggage

__all__ = ["ON_RESPONSE", "Allowance", "allowances", "retry_after", "wait_in"]

_LONGEST = 64  # characters; every valid number and date is shorter
_COUNT = r"[0-9]{1,15}"  # `re` compiles the patterns at their first use
_FRACTION = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"
_SPAN = rf"({_FRACTION})(ms|h|m|s)"
_ASKED = rf"(?i)\b(?:(?:try again|retry)(?: in| after)|wait)((?:(?:,| and)? ?{_FRACTION} ?(?:ms|[hms])[a-z]*)+)"
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
    """The remaining quota of a server.

    Attributes:
        of: the counted unit.
        remaining: the remaining number.
        seconds: the seconds until the server resets the count.
    """

    of: Literal["requests", "tokens"]
    remaining: int
    seconds: float


def allowances(headers: Mapping[str, str]) -> Iterator[Allowance]:
    """Yield the quotas in a response's headers.

    A limit of 0 is ignored: some gateways send zeros for units that they do not count.

    Source: https://platform.openai.com/docs/guides/rate-limits (``x-ratelimit-remaining-requests``, durations such as
    ``6m0s``; Groq and others do the same) and https://docs.claude.com/en/api/rate-limits
    (``anthropic-ratelimit-requests-remaining``, times by RFC 3339).
    """
    headers = {name: value for name, value in headers.items() if "ratelimit" in name}  # a look-up in all takes longer
    for of in ("requests", "tokens"):
        for start, end in (("x-ratelimit-", f"-{of}"), (f"anthropic-ratelimit-{of}-", "")):
            limit = headers.get(f"{start}limit{end}", "")
            count, seconds = headers.get(f"{start}remaining{end}", ""), _seconds(headers.get(f"{start}reset{end}", ""))
            if re.fullmatch(_COUNT, count) and seconds is not None and not re.fullmatch(_ZERO, limit):
                yield Allowance(of, int(count), seconds)


def _seconds(text: str) -> float | None:
    """Return the seconds of a duration such as ``1h6m0.5s`` or ``20ms``, or until a time."""
    if not text or len(text) > _LONGEST:
        return None
    if not re.sub(_SPAN, "", text):
        return _seconds_of(re.findall(_SPAN, text))
    try:
        return _until(datetime.fromisoformat(text))
    except (ValueError, TypeError, OverflowError):  # not a time, or a time without a time zone
        return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait that the headers (names in lower case) ask for.

    ``retry-after-ms`` is more precise and wins; ``retry-after`` is a number of seconds or an HTTP date.
    """
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        text = headers.get(name, "").strip()
        if re.fullmatch(_NUMBER, text):
            return float(text) / unit
    date = headers.get("retry-after", "")
    if not date or len(date) > _LONGEST:
        return None
    try:
        time = parsedate_to_datetime(date)
        return _until(time if time.tzinfo else time.replace(tzinfo=UTC))
    except (ValueError, TypeError, OverflowError):
        return None


def wait_in(message: str) -> float | None:
    """Return the seconds to wait that an error message asks for: "try again in 1m2.5s", "retry after 3 seconds".

    OpenAI, Azure, Groq, Gemini and others state the delay here, and often in no header.
    """
    if not (found := re.search(_ASKED, message)):
        return None
    return _seconds_of(re.findall(rf"({_FRACTION}) ?(ms|[hms])", found[1].lower()))


def _seconds_of(spans: Iterable[tuple[str, str]]) -> float:
    """Return the sum of durations, each a number and its unit."""
    return sum(float(number) * _SECONDS[unit] for number, unit in spans)


def _until(time: datetime) -> float:
    return max(0.0, (time - datetime.now(UTC)).total_seconds())
