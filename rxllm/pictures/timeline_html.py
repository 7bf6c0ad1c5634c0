"""A timeline as a page: one file that loads nothing, in which a reader zooms and asks for chunks."""

from __future__ import annotations

import base64
import hashlib
import html
from importlib.resources import files
from typing import Any

import msgspec

from .rows import WAITS, Dot, Row, View
from .timeline_svg import ROW, TOP, Drawing
from .timeline_text import written

__all__ = ["page"]

_STYLE = """
:root{color-scheme:light dark}
body{margin:16px;font:13px system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:16px;font-weight:600}
svg.rxllm-timeline{max-width:100%;height:auto;touch-action:pan-y;user-select:none}
button{font:inherit;min-width:32px}
pre{overflow-x:auto}
#tip{position:absolute;max-width:420px;padding:4px 8px;border:1px solid;border-radius:4px;background:Canvas;
white-space:pre-wrap;overflow-wrap:anywhere;pointer-events:none}
#tip[hidden]{display:none}
"""
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width"><title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1>
<p>
<button type="button" data-key="-" aria-label="Zoom out">−</button>
<button type="button" data-key="+" aria-label="Zoom in">+</button>
<button type="button" data-key="0">All</button>
Drag over a part to zoom into it. Keys: + − 0 ← →.
</p>
{svg}
<details><summary>As text</summary><pre>{text}</pre></details>
<div id="tip" role="status" hidden></div>
<script type="application/json" id="data">{data}</script>
<script type="module">{script}</script>
</body></html>
"""


def page(view: View, width: int) -> str:
    """Return the rows as a page."""
    drawing = Drawing(view, width, movable=True)
    data = {
        "left": drawing.left,
        "track": drawing.track,
        "width": width,
        "span": view.span,
        "top": TOP,
        "row": ROW,
        "rows": [_row(row, drawing.y(number)) for number, row in enumerate(view.rows)],
    }
    script = files("rxllm.pictures").joinpath("timeline.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _PAGE.format(
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        title=html.escape(view.title),
        style=_STYLE,
        svg=drawing.svg(),
        text=html.escape(written(view, 120)),
        # The only character by which a text could end the element or begin a comment.
        data=msgspec.json.encode(data).decode().replace("<", "\\u003c"),
        script=script,
    )


def _row(row: Row, y: int) -> dict[str, Any]:
    spans = [(start, end, WAITS[kind]) for kind, start, end, _ in row.waits]
    if row.is_leaf and row.kind != "tool":
        spans.append((row.start, row.end if row.first is None else row.first, "waits for the first chunk"))
    details = [f"{name}: {text}" for name, text in row.texts.items()]
    return {
        "name": row.name,
        "y": y,
        "said": [row.detail if row.detail != row.name else "", row.ending, *row.facts, *details],
        "d": _after(row.dots),
        "a": _after(row.asides),
        "spans": spans,
    }


def _after(dots: tuple[Dot, ...]) -> list[tuple[float, int, str]]:
    """Return each chunk with the time since the one before, which takes fewer digits."""
    past = 0.0
    chunks: list[tuple[float, int, str]] = []
    for time, count, text in dots:
        after = round(time - past, 6)
        past += after
        chunks.append((after, count, text))
    return chunks
