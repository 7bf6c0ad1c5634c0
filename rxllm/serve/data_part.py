"""`data_part`: data of the program's own for a chat page, in the middle of an answer."""

from __future__ import annotations

from typing import Any

from ..misuse import MisuseError, shown
from ..values.chunk import Chunk
from ..values.parts import RawPart

__all__ = ["data_part"]


def data_part(name: str, value: Any, *, id: str | None = None, transient: bool = False) -> Chunk:
    """Return a chunk with data for a chat page. A pipeline emits it among the chunks of an answer.

    ``useChat`` gets a part of the type ``data-NAME``, and clients of AG-UI a custom event with this name. Programs over
    ``/v1`` do not see it.

    Args:
        name: the name of the data.
        value: the data, as JSON.
        id: a later part with the same id replaces this one in the page.
        transient: whether the page hears of the data without keeping it in its message.

    Raises:
        MisuseError: the name is not a word.
    """
    if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():  # pyright: ignore[reportUnnecessaryIsInstance]
        raise MisuseError(f"The name of a data part must be a word, such as 'weather', not {shown(name)}.")
    facts: dict[str, Any] = {"name": name, "value": value}
    if id is not None:
        facts["id"] = id
    if transient:
        facts["transient"] = True
    return Chunk(parts=[RawPart("page", facts)])  # a part of another provider, so no vendor gets it
