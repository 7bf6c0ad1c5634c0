"""The reader of a server's list of its models."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

import reactivex as rx
from reactivex import Observable
from reactivex import operators as ops

from ..errors import ProtocolError
from ..wire.error_documents import excerpt
from ._documents import json_of, list_of, object_of, text_of

__all__ = ["listed"]

_PAGES = 100
_LISTS = ("data", "models", "modelSummaries", "publisherModels")
_NAMES = ("id", "name", "modelId")
_PREFIXES = ("models/", "publishers/google/models/")


def listed(get: Callable[[str], Observable[bytes]], url: str, pages: int = _PAGES) -> Observable[tuple[str, ...]]:
    """Return the names in the list at a URL, with those of the pages that follow.

    Args:
        get: returns the body of the response to a GET request, in pieces.
        url: the URL of the first page.
        pages: the maximum number of pages.

    Errors: those of `get`, and ProtocolError if the body is not a list of models or has too many pages.
    """

    def whole(page: tuple[tuple[str, ...], dict[str, str]]) -> Observable[tuple[str, ...]]:
        names, following = page
        if not following:
            return rx.just(names)
        if pages <= 1:
            return rx.throw(ProtocolError(f"The server's list of models has more than {_PAGES} pages."))
        separator = "&" if "?" in url else "?"
        rest = listed(get, f"{url}{separator}{urlencode(following)}", pages - 1)

        def all_names(others: tuple[str, ...]) -> tuple[str, ...]:
            return names + others

        return rest.pipe(ops.map(all_names))

    return get(url).pipe(ops.to_list(), ops.map(_page), ops.flat_map(whole))


def _page(pieces: list[bytes]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the names on one page, and the parameters of the next page; none on the last page.

    Raises:
        ProtocolError: it is not a list of models.
    """
    body = b"".join(pieces)
    document = json_of(body)
    fields = object_of(document)
    places = (document, *map(fields.get, _LISTS))
    if not any(isinstance(place, list) for place in places):
        raise ProtocolError(f"The answer is not a list of models: {excerpt(body)}", frame=body[:1000])
    names = dict.fromkeys(_name(item) for place in places for item in list_of(place))  # llama.cpp sends two lists
    if token := text_of(fields.get("nextPageToken")):
        following = {"pageToken": token}
    elif token := text_of(fields.get("next_page_token")):
        following = {"page_token": token}
    elif fields.get("has_more") is True and (last := text_of(fields.get("last_id"))):
        following = {"after_id": last}
    else:
        following = {}
    return tuple(name for name in names if name), following


def _name(item: object) -> str:
    fields = object_of(item)
    name = next((name for key in _NAMES if (name := text_of(fields.get(key)))), "")
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name
