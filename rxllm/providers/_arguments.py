"""Validators for the arguments of HTTP providers. Each raises MisuseError as early as possible."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Hashable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from ..misuse import MisuseError, check_numbers, is_text, shown
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

_QUOTES = ("'", '"')


def check_model(_: object, attribute: object, model: Any) -> None:
    """Check that the model is a non-empty name."""
    if not is_name(model):
        raise MisuseError(f"A model's name must be text such as 'gpt-5-mini', not {shown(model)}.")


def check_base(_: object, attribute: object, url: Any) -> None:
    """Check that a path can be appended to the base URL. An empty base URL counts as missing."""
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
            f"{name} can't have a query or a fragment, because rxllm appends a path to it. Set a query in the client: "
            "client=lambda: httpx.AsyncClient(params={'api-version': …})."
        )
    if url.rstrip("/").endswith(("/completions", "/messages", "/responses")):
        raise MisuseError(
            f"{name} must not contain /chat/completions, /responses or /v1/messages, because rxllm appends these "
            "paths. Remove it."
        )


def check_key(_: object, attribute: object, key: Any) -> None:
    """Check that an HTTP header can carry the key. White space around the key is ignored."""
    if not is_text(key):
        raise MisuseError(f"api_key must be text, not {type(key).__name__}.")
    _check_key("The api_key", key)


def _check_key(name: str, key: str) -> None:
    plain = key.strip()
    if not key.isascii() or not plain.isprintable():
        raise MisuseError(f"{name} has characters that HTTP does not allow. Copy the key again.")
    if plain.startswith(_QUOTES) or plain.endswith(_QUOTES):  # docker run --env-file keeps those of the file
        raise MisuseError(f"{name} has quotation marks around the key, which belong to no key. Remove them.")
    if plain.lower().startswith("bearer "):
        raise MisuseError(f"{name} begins with the word Bearer, which rxllm adds where it is needed. Remove it.")


def base_from(variable: str, read: Callable[[str], str] = str) -> str:
    """Return the base URL in an environment variable, without the white space around it, or an empty text.

    `read` converts another form to a URL.

    Raises:
        MisuseError: the variable does not contain a valid base URL.
    """
    url = read(os.environ.get(variable, "").strip())
    _check_base(variable, url)
    return url


def key_from(variable: str) -> str:
    """Return the key in an environment variable, without the white space around it, or an empty text.

    Raises:
        MisuseError: an HTTP header cannot carry the key.
    """
    key = os.environ.get(variable, "")
    _check_key(variable, key)
    return key.strip()


def check_extra(extra: Mapping[str, Any]) -> None:
    """Check that `extra` does not contain a field that a parameter sets, nor a number that JSON cannot express.

    Raises:
        MisuseError: `extra` contains such a field or such a number.
    """
    for name, value in extra.items():
        if name in ("messages", "prompt", "contents"):
            raise MisuseError(
                f"extra can't contain {name!r}. Pass the messages as the prompt, as in llm.invoke([('user', 'hi')])."
            )
        parameter = "stop_sequences" if name == "stop" else name
        if value is None and name in ("model", "stream"):
            continue  # the provider leaves out the field
        if parameter in PARAMETERS:
            raise MisuseError(f"extra can't contain {name!r}, because it is a parameter. Write {parameter}=….")
        check_numbers(f"extra[{name!r}]", value)


def check_given_headers(_: object, attribute: object, headers: Any) -> None:
    """Check that HTTP can send the names and values of the headers."""
    if not isinstance(headers, Mapping):
        raise MisuseError(f"headers must be a dict of texts, not {type(headers).__name__}.")
    texts = cast("Mapping[str, str]", headers)
    check_headers(texts)
    for name in texts:
        if name.lower() in ("content-length", "transfer-encoding"):
            raise MisuseError(f"headers can't contain {name!r}, because rxllm derives it from the request. Remove it.")


def check_client(_: object, attribute: object, client: Any) -> None:
    """Check that the client is an httpx.AsyncClient or a function. The result of the function is checked later."""
    if callable(client) and isinstance(cast("object", client), Hashable):
        wrong = "an async function" if _is_async(client) else None
    else:
        httpx = sys.modules.get("httpx")  # if httpx is not loaded, the value cannot be a client
        wrong = None if httpx and isinstance(client, httpx.AsyncClient) else type(client).__name__
    if wrong:
        raise MisuseError(f"client must be an httpx.AsyncClient or a function that returns one, not {wrong}.")


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def without_credentials(url: str | None) -> str:
    """Return the repr of a URL with its user name and password replaced by ``***``."""
    if url is None or "@" not in url:
        return repr(url)
    return repr(urlsplit(url)._replace(netloc="***@" + urlsplit(url).netloc.rpartition("@")[2]).geturl())
