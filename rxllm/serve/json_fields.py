"""Readers of the JSON that clients send. Each raises MisuseError with the name of the wrong field."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops
from starlette.exceptions import HTTPException

from ..misuse import MisuseError, is_mapping, shown
from ..values.request import Request

__all__ = [
    "WrongBody",
    "flag_in",
    "is_web_address",
    "object_of",
    "objects_of",
    "optional_text",
    "signature_in",
    "text_in",
    "with_wrong_bodies",
    "wrong_body",
]

T = TypeVar("T")


class WrongBody(MisuseError, HTTPException):
    """The body of a request is wrong. Starlette and FastAPI answer it with the status 400 and the sentence."""

    def __init__(self, sentence: str) -> None:
        HTTPException.__init__(self, 400, sentence)

    def __str__(self) -> str:
        return self.detail


@contextmanager
def wrong_body() -> Generator[None]:
    """Raise WrongBody for each error of the block, which reads the body of a request.

    Raises:
        WrongBody: the block raised MisuseError, or the body is nested too deeply or is not valid Unicode.
    """
    try:
        yield
    except MisuseError as error:
        raise WrongBody(str(error)) from None
    except RecursionError:
        raise WrongBody("The request is nested too deeply.") from None
    except UnicodeEncodeError:  # Python's json decodes half of a surrogate pair, which has no UTF-8
        raise WrongBody("The request has a text that is not valid Unicode.") from None


def with_wrong_bodies(answer: Observable[T], request: Request) -> Observable[T]:
    """Return an answer that fails with `WrongBody` where the vendor's protocol cannot carry the client's request.

    The protocol may lack a parameter that the client sends, or a kind of files. Where a pipeline or an agent wrote the
    request itself, the `MisuseError` stays: it is a mistake of the program that serves.

    Args:
        answer: the answer of a model or a pipeline to the request.
        request: the request of the client.
    """

    def caught(error: Exception, _: object) -> Observable[T]:
        refused = error.request if isinstance(error, MisuseError) else None
        is_of_client = isinstance(refused, Request) and refused.messages == request.messages
        return rx.throw(WrongBody(str(error)) if is_of_client else error)

    return answer.pipe(ops.catch(caught))


def signature_in(metadata: object) -> str | None:
    """Return the signature that a client kept in some metadata."""
    match metadata:
        case {"rxllm": {"signature": str(signature)}}:
            return signature
        case _:
            return None


def flag_in(fields: Mapping[str, Any], name: str) -> bool:
    """Return a field that is true or false; False if it is absent or null."""
    value = fields.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise MisuseError(f"{name!r} must be true or false, not {shown(value)}.")
    return value


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
