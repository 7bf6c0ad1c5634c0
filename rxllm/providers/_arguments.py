"""What a constructor of a provider over HTTP is given: a sentence for each mistake, as early as it can be known."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Hashable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from ..errors import MisuseError, is_text, shown
from ..messages import is_name
from ..wire.http import address, check_headers

__all__ = ["check_base", "check_client", "check_given_headers", "check_key", "check_model", "without_credentials"]


def check_model(_: object, attribute: object, model: Any) -> None:
    """A name."""
    if not is_name(model):
        raise MisuseError(f"A model's name is text such as 'gpt-5-mini', not {shown(model)}.")


def check_base(_: object, attribute: object, url: Any) -> None:
    """An address to which a path can be added; an empty one is none."""
    if not is_text(url):
        raise MisuseError(f"base_url must be text like https://host/v1, not {type(url).__name__}.")
    if url:
        address(url)
    if "?" in url or "#" in url:
        raise MisuseError("base_url takes no query and no fragment, for the path goes on after it.")
    if url.rstrip("/").endswith(("/completions", "/messages")):
        raise MisuseError("base_url must end before /chat/completions or /v1/messages, which are added to it.")


def check_key(_: object, attribute: object, key: Any) -> None:
    """What a header can hold; white space around it is no part of it."""
    if not is_text(key):
        raise MisuseError(f"api_key must be text, not {type(key).__name__}.")
    if not key.isascii() or not key.strip().isprintable():
        raise MisuseError("The api_key has characters that HTTP does not allow.")


def check_given_headers(_: object, attribute: object, headers: Any) -> None:
    """Names and values that HTTP can send."""
    if not isinstance(headers, Mapping):
        raise MisuseError(f"headers must be a dict of texts, not {type(headers).__name__}.")
    given = cast("Mapping[str, str]", headers)
    check_headers(given)
    for name in given:
        if name.lower() in ("content-length", "transfer-encoding"):
            raise MisuseError(f"The header {name!r} follows from the request, and can't be given.")


def check_client(_: object, attribute: object, client: Any) -> None:
    """A client, or what may return one, which is known only when it is called."""
    if callable(client) and isinstance(cast("object", client), Hashable):
        wrong = "an async function" if _is_async(client) else None
    else:
        httpx = sys.modules.get("httpx")  # without it there is no client yet
        wrong = None if httpx and isinstance(client, httpx.AsyncClient) else type(client).__name__
    if wrong:
        raise MisuseError(f"client must be an httpx.AsyncClient or a function that makes one, not {wrong}.")


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def without_credentials(url: str | None) -> str:
    """The address as it may be shown."""
    if url is None or "@" not in url:
        return repr(url)
    return repr(urlsplit(url)._replace(netloc="***@" + urlsplit(url).netloc.rpartition("@")[2]).geturl())
