"""Readers of the JSON that clients send. Each raises MisuseError with the name of the wrong field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from ..misuse import MisuseError, is_mapping, shown

__all__ = ["WrongBody", "is_web_address", "object_of", "objects_of", "optional_text", "signature_in", "text_in"]


class WrongBody(MisuseError, HTTPException):
    """The body of a request is wrong. Starlette and FastAPI answer it with the status 400 and the sentence."""

    def __init__(self, sentence: str) -> None:
        HTTPException.__init__(self, 400, sentence)

    def __str__(self) -> str:
        return self.detail


def signature_in(metadata: object) -> str | None:
    """Return the signature that a client kept in some metadata."""
    match metadata:
        case {"rxllm": {"signature": str(signature)}}:
            return signature
        case _:
            return None


def optional_text(value: object) -> str | None:
    """Return a text; None for anything else."""
    return value if isinstance(value, str) else None


def text_in(part: Mapping[str, Any]) -> str:
    """Return the text of a part of a message."""
    text = part.get("text")
    if not isinstance(text, str):
        raise MisuseError(f"The 'text' of a part must be text, not {shown(text)}.")
    return text


def is_web_address(url: str) -> bool:
    """Return whether a URL is one of http or https. A malformed URL is not."""
    try:
        return urlsplit(url).scheme in ("http", "https")
    except ValueError:
        return False


def object_of(value: object, what: str) -> Mapping[str, Any]:
    """Return a JSON object."""
    if not is_mapping(value):
        raise MisuseError(f"The request needs {what} as a JSON object, not {shown(value)}.")
    return value


def objects_of(value: object, what: str) -> list[Mapping[str, Any]]:
    """Return a list of JSON objects."""
    if not isinstance(value, list):
        raise MisuseError(f"The request needs {what} as a list, not {shown(value)}.")
    return [object_of(item, f"each item of {what}") for item in cast("list[object]", value)]
