"""A row of the input: its id and its request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any, cast

import msgspec
from attrs import frozen

from ..misuse import MisuseError, is_mapping, shown
from ..prompts import template
from ..values.chat_body import CHAT_PARAMETERS, message_in, parameters_in
from ..values.request import Prompt, Request

__all__ = ["Placed", "Row", "filled", "id_of", "prompt_of"]

_ID = "custom_id"  # the column that names a row, if it has one
_CHAT = "/v1/chat/completions"
_FIELDS = {"model": "model", **CHAT_PARAMETERS}  # all other fields of a body are sent as they are
_NOT_SENT = ("messages", "stream", "stream_options")


@frozen
class Placed:
    """A row with its position in the whole input, for a job that gets a part of the input."""

    item: Any
    number: int


@frozen
class Row:
    """A row that must be asked.

    Attributes:
        id: the name of the row in the journal.
        number: the position of the row in the input, from 0.
        request: its request.
        digest: a digest of the model and the request.
        attempt: how often the row gets a result, with this one.
    """

    id: str
    number: int
    request: Request
    digest: str
    attempt: int = 1

    @property
    def key(self) -> str:
        """The name of the result that the row gets: the same one after a crash, another one after a failure."""
        return blake2b(f"{self.id}\0{self.digest}\0{self.attempt}".encode(), digest_size=16).hexdigest()


def id_of(row: object, column: str) -> str | None:
    """Return the id of a row; None if it has none.

    Raises:
        MisuseError: the id is neither text nor a whole number; or the row lacks a column that the user has named.
    """
    if column != _ID and is_mapping(row) and column not in row:
        raise MisuseError(f"The row has no column {column!r} for its id; its columns are {_names(row)}.")
    name = row.get(column) if is_mapping(row) else None
    if name is not None and (not isinstance(name, (str, int)) or isinstance(name, bool)):
        raise MisuseError(f"The {column} of a row must be text or a whole number, not {shown(name)}.")
    return None if name is None or name == "" else str(name)


def prompt_of(row: Any) -> Prompt:
    """Return the prompt of a row: of a line of OpenAI's batch input, or of the column ``messages`` or ``prompt``.

    A row that is not a dict, or is a message, is its prompt itself.

    Raises:
        MisuseError: the row has no prompt.
    """
    if not is_mapping(row) or ("role" in row and "content" in row):
        return cast("Prompt", row)
    if is_mapping(body := row.get("body")):
        return _body_request(row, body)
    for column in ("messages", "prompt"):
        if row.get(column) is not None:
            return _messages_in(row[column]) if column == "messages" else cast("Prompt", row[column])
    if empty := [column for column in ("messages", "prompt") if column in row]:
        raise MisuseError(f"The row has no value in its column {empty[0]!r}.")
    raise MisuseError(
        f"The row has neither a column 'messages' nor 'prompt'; its columns are {_names(row)}. Pass a template, "
        "such as prompt='Translate: {text}'."
    )


def _messages_in(value: Any) -> Prompt:
    """Return the messages of a column. Tables, such as CSV, hold them as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(msgspec.MsgspecError, RecursionError):
            return cast("Prompt", msgspec.json.decode(value, type=list[dict[str, Any]]))
    return cast("Prompt", value)


def filled(text: str) -> Callable[[Any], Prompt]:
    """Return a function that fills a template with the columns of a row.

    Raises:
        MisuseError: the text is not a template.
    """
    prompt = template(text)
    variables = prompt.variables

    def fill(row: Any) -> Prompt:
        if not is_mapping(row):
            return prompt(row)
        if missing := [variable for variable in variables if row.get(variable) is None]:
            raise MisuseError(f"The row has no value for {{{missing[0]}}}; its columns are {_names(row)}.")
        return prompt({variable: row[variable] for variable in variables})

    return fill


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(map(str, row)) or "none"


def _body_request(row: Mapping[str, Any], body: Mapping[str, Any]) -> Request:
    """Return the request in a line of OpenAI's batch input."""
    url = row.get("url") or _CHAT
    if url != _CHAT:
        raise MisuseError(f"A job reads batch lines for {_CHAT}, not for {shown(url)}.")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise MisuseError("The 'messages' of a batch line must be a list with at least one message.")
    conversation = tuple(map(message_in, cast("list[object]", messages)))
    extra = {field: value for field, value in body.items() if field not in _FIELDS and field not in _NOT_SENT}
    return Request(prompt=conversation, extra=extra, **parameters_in(body, _FIELDS))
