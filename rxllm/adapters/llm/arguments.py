"""The arguments of calls: JSON text in rxllm, a dict in `llm`, which keeps malformed text under the name ``_raw``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ...misuse import is_mapping
from ...values.tools import unquoted

__all__ = ["arguments_of", "text_of_arguments"]

_RAW = "_raw"


def arguments_of(text: str) -> dict[str, Any]:
    """Return the arguments as a dict."""
    value: object = None
    with suppress(ValueError):
        value = json.loads(unquoted(text) or "{}")
    return {**value} if is_mapping(value) else {_RAW: text}


def text_of_arguments(arguments: Mapping[str, Any]) -> str:
    """Return the arguments as JSON text."""
    raw = arguments.get(_RAW)
    if isinstance(raw, str) and len(arguments) == 1:
        return raw
    return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
