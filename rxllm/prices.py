"""The price of an answer, from the list prices of the package genai-prices (extra ``prices``)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal

from .misuse import MisuseError

__all__ = ["check_prices", "has_prices", "price_of"]


def has_prices() -> bool:
    """Return whether genai-prices is installed."""
    return importlib.util.find_spec("genai_prices") is not None


def check_prices() -> None:
    """Check that genai-prices is installed.

    Raises:
        MisuseError: it is not.
    """
    if not has_prices():
        raise MisuseError("genai-prices is not installed: pip install 'rxllm[prices]'.")


def price_of(
    model: str,
    tokens: Mapping[str, int],
    provider: str,
    address: str | None,
    time: float,
    *,
    in_batch: bool = False,
) -> Decimal | None:
    """Return the price of an answer in US dollars; None if the price or a token count is unknown.

    Args:
        model: the name of the model.
        tokens: the token counts, by the names of the fields of `Usage`.
        provider: the name of the protocol.
        address: the server's host, which determines whose prices apply; for an unknown host the provider does.
        time: the time of the answer, in seconds since the epoch: prices change.
        in_batch: whether a vendor's batch API answers. Where the list has no price for it, the usual one counts.
    """
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price
    from genai_prices.data_snapshot import get_snapshot

    if not {"input_tokens", "output_tokens"} <= tokens.keys():
        return None
    counted = Tokens(
        input_tokens=tokens["input_tokens"],
        output_tokens=tokens["output_tokens"],
        cache_read_tokens=tokens.get("cache_read_input_tokens"),
        cache_write_tokens=tokens.get("cache_creation_input_tokens"),
    )
    if address:
        with suppress(LookupError):
            provider = get_snapshot().find_provider(None, None, f"https://{address}").id
    try:
        when = datetime.fromtimestamp(time, UTC)
        context = {"processing": "batch"} if in_batch else None
        return calc_price(
            counted, model, provider_id=provider, genai_request_timestamp=when, price_context=context
        ).total_price
    except (LookupError, ValueError):
        return None
