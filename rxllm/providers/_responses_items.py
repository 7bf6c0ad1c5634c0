"""The items of a response of the Responses protocol: their state while they arrive, and readers for their fields."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ..errors import ProtocolError
from ..values.parts import FilePart, Part, ToolCallPart
from ..values.usage import Usage
from ..wire.error_documents import excerpt
from ._documents import count, identity_of, is_same_object, list_of, object_of, text_of

__all__ = ["Item", "arguments_in", "image_of", "keys_of", "logprobs_of", "usage_of"]


class Item(Struct, eq=False):
    """An item of the answer.

    Attributes:
        kind: the type of the item.
        place: the position of the item in the answer.
        emitted: whether content was emitted.
        arguments: the pieces of the arguments of a call that were emitted.
        is_blank: the server gave a call the arguments ``{}``, which stand for none if it sends others.
        source: for reasoning, the field whose text is emitted; a server may send the same reasoning in two fields.
        section: the number of the latest part of a summary of reasoning.
        facts: the further fields that the server requires back; None until the item has arrived.
        call: the position among the tool calls; None until the call is emitted.
        held: a call that arrived complete, until the server repeats it or the response ends.
        has_citations: whether citations of the item were emitted.
        has_gap: whether the next text of the item begins a new paragraph.
        is_done: whether the item is complete.
    """

    kind: str
    place: int
    emitted: bool = False
    arguments: list[str] = []
    is_blank: bool = False
    source: str = ""
    section: Any = None
    facts: dict[str, Any] | None = None
    call: int | None = None
    held: dict[str, Any] | None = None
    has_citations: bool = False
    has_gap: bool = False
    is_done: bool = False

    @property
    def lacks_content(self) -> bool:
        """Whether nothing of a message or of the arguments of a call was emitted."""
        return not (self.emitted or self.arguments) and (self.kind == "message" or self.call is not None)

    def missing(self, whole: str) -> str:
        """Return the rest of the whole arguments of a call, and count it as emitted.

        Raises:
            ProtocolError: the whole arguments do not begin with those that were emitted.
        """
        if whole == "{}" and self.kind == "function_call":  # some gateways send it before they know the arguments
            self.is_blank = True
            return ""
        emitted = "".join(self.arguments) if whole else ""
        if whole.startswith(emitted):
            missing = whole[len(emitted) :]
            self.arguments += [missing] if missing else []
            return missing
        if not (is_same_object(emitted, whole) or emitted.strip() == whole.strip()):
            raise ProtocolError(
                "The server sent the arguments of a tool call in pieces and then as a whole, and the two differ. "
                f"The whole begins: {excerpt(whole.encode('utf-8', 'replace'))}"
            )
        return ""

    def rest(self, whole: str) -> list[Part]:
        """Return the same as `missing`, as a part, if the call was emitted."""
        if self.call is None or not (text := self.missing(whole)):
            return []
        return [ToolCallPart("", "", text, self.call)]

    def end(self) -> list[Part]:
        """Return the ``{}`` of a call that no other arguments followed."""
        if self.call is None or self.arguments or not self.is_blank:
            return []
        self.arguments.append("{}")
        return [ToolCallPart("", "", "{}", self.call)]


def keys_of(index: object, identity: object, item: Mapping[str, Any]) -> tuple[Sequence[object], Sequence[object]]:
    """Return the keys of the item of an event: those that name it surely, and all, the surest first.

    Args:
        index: the number that the event has for the item, if any.
        identity: the id that the event has for the item, if any.
        item: the item in the event, which may be empty.
    """
    ids = [name for name in (identity, item.get("id"), item.get("call_id")) if name and isinstance(name, str)]
    if type(index) is not int:
        return ids, ids
    pairs = [(index, name) for name in ids]
    return pairs or [index], [*pairs, *ids, index]


def arguments_in(item: Mapping[str, Any]) -> str:
    """Return the arguments of a call as text."""
    arguments = item.get("arguments", item.get("input"))
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(arguments).decode()


def logprobs_of(item: Mapping[str, Any]) -> list[object]:
    """Return the log probabilities of a message."""
    contents = map(object_of, list_of(item.get("content")))
    return [each for content in contents for each in list_of(content.get("logprobs"))]


def image_of(item: Mapping[str, Any], maker: str) -> FilePart | None:
    """Return a picture that the server's own tool made. The next request contains its id."""
    kind = f"image/{text_of(item.get('output_format')) or 'png'}"
    try:
        data = base64.b64decode(text_of(item.get("result")), validate=True)
    except binascii.Error:
        return None
    return FilePart(kind, data, file_id=identity_of(item.get("id")) or None, provider=maker) if data else None


def usage_of(document: object) -> Usage | None:
    """Return the token counts; None if there are none."""
    if not object_of(document):
        return None
    return Usage(
        input_tokens=count(document, "input_tokens"),
        output_tokens=count(document, "output_tokens"),
        cache_read_input_tokens=count(document, "input_tokens_details", "cached_tokens"),
        cache_creation_input_tokens=count(document, "input_tokens_details", "cache_write_tokens"),
        reasoning_output_tokens=count(document, "output_tokens_details", "reasoning_tokens"),
    )
