"""What a constructor of a provider over HTTP is given: a sentence for each mistake, as early as it can be known."""

from __future__ import annotations

import functools
import inspect
import math
import os
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

from ..misuse import MisuseError, is_text, shown
from ..values.parameters import PARAMETERS, is_name
from ..wire.http import address, check_headers

__all__ = [
    "base_from",
    "check_base",
    "check_client",
    "check_extra",
    "check_given_headers",
    "check_key",
    "check_model",
    "key_from",
    "without_credentials",
]


def check_model(_: object, attribute: object, model: Any) -> None:
    """A name."""
    if not is_name(model):
        raise MisuseError(f"A model's name is text such as 'gpt-5-mini', not {shown(model)}.")


def check_base(_: object, attribute: object, url: Any) -> None:
    """An address to which a path can be added; an empty one is none."""
    if not is_text(url):
        raise MisuseError(f"base_url must be text like https://host/v1, not {type(url).__name__}.")
    _check_base("base_url", url)


@functools.lru_cache(64)
def _check_base(name: str, url: str) -> None:
    if url:
        try:
            address(url)
        except MisuseError as error:
            raise MisuseError(str(error).replace("base_url", name, 1)) from None
    if "?" in url or "#" in url:
        raise MisuseError(
            f"{name} takes no query and no fragment, for the path goes on after it; a query is the client's: "
            "client=lambda: httpx.AsyncClient(params={'api-version': …})."
        )
    if url.rstrip("/").endswith(("/completions", "/messages")):
        raise MisuseError(f"{name} must end before /chat/completions or /v1/messages, which are added to it.")


def check_key(_: object, attribute: object, key: Any) -> None:
    """What a header can hold; white space around it is no part of it."""
    if not is_text(key):
        raise MisuseError(f"api_key must be text, not {type(key).__name__}.")
    _check_key("The api_key", key)


def _check_key(name: str, key: str) -> None:
    if not key.isascii() or not key.strip().isprintable():
        raise MisuseError(f"{name} has characters that HTTP does not allow.")


def base_from(variable: str, read: Callable[[str], str] = str) -> str:
    """The address that an environment variable holds, if any; `read` makes a URL of another spelling.

    Raises:
        MisuseError: it is none.
    """
    url = read(os.environ.get(variable, ""))
    _check_base(variable, url)
    return url


def key_from(variable: str) -> str:
    """The key that an environment variable holds, if any, without the white space around it.

    Raises:
        MisuseError: no header can hold it.
    """
    key = os.environ.get(variable, "")
    _check_key(variable, key)
    return key.strip()


def check_extra(extra: Mapping[str, Any]) -> None:
    """Fields that nobody else fills in, of values that JSON has.

    Raises:
        MisuseError: another parameter says this, or it holds a number without end or value.
    """
    for name, value in extra.items():
        if name in ("messages", "prompt", "contents"):
            raise MisuseError(f"extra can't hold {name!r}: that is the prompt, as in llm.invoke([('user', 'hi')]).")
        parameter = "stop_sequences" if name == "stop" else name
        if parameter in PARAMETERS:
            raise MisuseError(f"extra can't hold {name!r}: say {parameter}=….")
        _check_numbers(f"extra[{name!r}]", value)


def _check_numbers(place: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise MisuseError(f"{place} is {value}, which JSON does not have.")
    if isinstance(value, Mapping):
        for key, item in cast("dict[Any, Any]", value).items():
            _check_numbers(f"{place}[{key!r}]", item)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(cast("Sequence[Any]", value)):
            _check_numbers(f"{place}[{index}]", item)


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
