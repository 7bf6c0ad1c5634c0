"""An item of a served model or pipeline as a chunk or a Message, and errors for what a protocol cannot carry."""

from __future__ import annotations

from ..errors import Interrupted
from ..misuse import MisuseError, shown
from ..values.characters import json_of
from ..values.chunk import Chunk, text_chunk
from ..values.message import Message
from ..values.parts import FilePart
from .failures import HTTPFailure, Refused

__all__ = ["chunk_of", "message_of", "refuse_file", "refuse_reset"]


def chunk_of(item: object) -> Chunk:
    """Return an item of a model or a Pipeline as a chunk. Text is text; any other value is the text of its JSON."""
    if isinstance(item, (Chunk, str, Message)):
        return Chunk.of(item)
    try:
        return text_chunk(json_of(item))
    except TypeError:
        raise MisuseError(
            f"A served pipeline must emit text, chunks or values with a JSON form, not {shown(item)}."
        ) from None


def message_of(answer: object) -> Message:
    """Return the answer of a model or a Pipeline as a Message."""
    return answer if isinstance(answer, Message) else chunk_of(answer).message()


def refuse_file(part: FilePart) -> Refused:
    """Return the error for a file of an answer, in a protocol that has no place for it."""
    sentence = f"The model answered with a file of the type {part.media_type}, which this protocol cannot carry."
    return Refused(HTTPFailure(502, "server_error", "UnsupportedFile", sentence))


def refuse_reset() -> Interrupted:
    """Return the error for an answer that begins again, in a protocol that cannot take text back."""
    return Interrupted(
        "The model began its answer again after a part of it was sent, and this protocol cannot take text back."
    )
