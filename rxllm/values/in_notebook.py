"""Messages as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from ..notebook import as_html
from .parts import FilePart, Part, Pending, ReasoningPart, RefusalPart, TextPart, ToolCallPart, ToolResultPart

if TYPE_CHECKING:
    from .message import Message

__all__ = ["message_html"]


def message_html(message: Message) -> str:
    """Return the content as HTML, and below it the model, the tokens and an unusual end.

    Reasoning is open until the text begins. Nothing of the content can run; see `as_html`.
    """
    is_open = not any(isinstance(part, TextPart) for part in message.parts)
    html = "".join(_html(list(parts), is_open=is_open) for _, parts in groupby(message.parts, type))
    facts = " · ".join(_facts(message))
    return f'{html}<p style="opacity:.6;font-size:85%">{escape(facts)}</p>' if facts else html


def _html(parts: list[Part], *, is_open: bool) -> str:
    """Return neighbouring parts of one class as HTML. The text of several parts may be one paragraph."""
    match parts[0]:
        case TextPart() | RefusalPart():
            return as_html(_joined(parts))
        case ReasoningPart():
            text = _joined(parts)
            return _folded("Reasoning", as_html(text), is_open=is_open) if text else ""
        case ToolCallPart() | Pending() | ToolResultPart() | FilePart():
            return "".join(map(_fact, parts))
        case _:  # an approval, or data that only its provider can read
            return ""


def _joined(parts: list[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, (TextPart, RefusalPart, ReasoningPart)))


def _fact(part: Part) -> str:
    match part:
        case ToolCallPart(name=name, arguments=arguments):
            return _code(f"{name}({arguments})")
        case Pending(call=call):
            return _code(f"{call.name}({call.arguments})", " waits for an approval")
        case ToolResultPart(text=text, outcome=outcome, name=name):
            title = f"Result of {name}" if name else "Result"
            return _folded(f"{title}{'' if outcome == 'ok' else f' ({outcome})'}", f"<pre>{escape(text)}</pre>")
        case _:
            return _code(repr(part))


def _code(text: str, remark: str = "") -> str:
    return f"<p><code>{escape(text)}</code>{remark}</p>"


def _folded(title: str, html: str, *, is_open: bool = False) -> str:
    return f"<details{' open' * is_open}><summary>{escape(title)}</summary>{html}</details>"


def _facts(message: Message) -> Iterator[str]:
    if message.model:
        yield message.model
    if message.usage is not None:
        yield from (f"{count:,} {name.replace('_', ' ')}" for name, count in message.usage.counts.items())
    if message.finish_reason not in (None, "stop"):
        yield f"ended by {message.finish_reason}"
    if message.interrupted:
        yield "interrupted"
