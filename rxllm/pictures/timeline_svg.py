"""A timeline as SVG.

Time runs from left to right. Each row has the run's name at its left, its times in the middle, and facts at its right.
A label finds a free place above or below its row, or is left out.

The style applies inside of the picture only, also when a web page contains the SVG. Texts have the page's colour
(``currentColor``). A picture in a file of its own follows the light or dark scheme of its reader. Shapes differ, too,
not only colours, which are those of Okabe and Ito for all kinds of colour vision: https://jfly.uni-koeln.de/color/.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from itertools import pairwise
from statistics import median
from textwrap import wrap

from ..terminal import shortened
from .axis import seconds, ticks
from .rows import WAITS, Dot, Row, View

__all__ = ["ROW", "TOP", "Drawing"]

_RIGHT = 206  # the width of the column of facts
ROW, TOP, _BOTTOM = 44, 8, 50  # heights
_INDENT = 14
_NAME, _LABEL = 6.7, 5.5  # the widths of the characters of a name and of a label, about
_NAMES = (60, 200)  # the least and the greatest width of the column of names
_FACTS = 34  # characters of a line of facts
_LONG = 0.07  # of the span: a silence that gets a label
_UNUSUAL = 3  # times as long as the usual silence between two chunks
_APART = 2.0  # pixels: chunks that are closer are drawn as one
_BURST = 3  # chunks at one place that get a halo

_BLUE = "stroke:#0072b2;stroke:light-dark(#0072b2,#56b4e9)"  # viewers that do not know light-dark() take the first
_RULES = {
    "text": "fill:currentColor",
    ".s": "font-size:10.5px;opacity:.75",
    ".m": "text-anchor:middle",
    ".bad": "fill:#d55e00",
    "path": "fill:none;stroke:currentColor",
    ".g": "opacity:.13",
    ".l": "stroke-width:1.5;opacity:.45",
    ".c": "stroke-dasharray:5 4",
    ".w": "stroke:#e69f00;stroke-width:8;opacity:.6",
    ".t": "stroke:#cc79a7;stroke-width:8;opacity:.8",
    ".queue": "stroke-width:8;stroke-dasharray:2 3;opacity:.45",
    ".retry": "stroke:#e69f00;stroke-width:3;stroke-dasharray:.1 6;stroke-linecap:round",
    ".pause": "stroke-width:8;stroke-dasharray:7 2;opacity:.25",
    ".d": f"{_BLUE};stroke-width:7;stroke-linecap:round",
    ".a": f"{_BLUE};stroke-width:4;stroke-linecap:round",
    ".h": f"{_BLUE};stroke-width:14;stroke-linecap:round;opacity:.3",
    ".o .d": "stroke:currentColor;stroke-width:4;opacity:.55",
    ".o .a": "stroke:currentColor;stroke-width:3;opacity:.55",
    ".o .h": "stroke:currentColor;stroke-width:9;opacity:.2",
    ".finished": f"{_BLUE};stroke-width:3",
    ".failed": "stroke:#d55e00;stroke-width:3",
    ".cancelled": "stroke-width:2.5;opacity:.75",
    ".running": "stroke-width:2;opacity:.75",
    ".k": "stroke-width:1.5",
}
_STYLE = (
    '.rxllm-timeline{font:12px system-ui,-apple-system,"Segoe UI",sans-serif}'
    ".rxllm-timeline:root{color-scheme:light dark;color:#1f2328}"
    "@media(prefers-color-scheme:dark){.rxllm-timeline:root{color:#e6edf3}}"
) + "".join(f".rxllm-timeline {selector}{{{rule}}}" for selector, rule in _RULES.items())
_ENDS = {
    "finished": "M0 -9V9",
    "failed": "M-6 -6L6 6M6 -6L-6 6",
    "cancelled": "M-4 9L4 -9",
    "running": "M-4 -5L2 0L-4 5",
}
_LEGEND = {
    "w": "waits for the first chunk",
    "d": "chunk",
    "h": "several at once",
    "a": "reasoning or tool call",
    "t": "tool works",
    **WAITS,
    **{outcome: outcome for outcome in _ENDS},
}


class Drawing:
    """A picture of the rows.

    Attributes:
        left: where the time axis begins.
        track: the length of the time axis.
    """

    def __init__(self, view: View, width: int, *, movable: bool = False) -> None:
        """Measure the columns. A `movable` picture has the times of its parts as attributes, for a script."""
        longest = max((8 + _INDENT * row.depth + _NAME * len(row.name) + 12 for row in view.rows), default=0.0)
        self.view = view
        self.width = width
        self.movable = movable
        self.left = round(min(max(longest, _NAMES[0]), _NAMES[1]))
        self.track = max(width - self.left - _RIGHT, 100)
        self.parts: list[str] = []
        self.used: set[str] = set()
        self.above: list[tuple[float, float]] = []  # where the labels above and below the present row are
        self.below: list[tuple[float, float]] = []

    def svg(self) -> str:
        """Return the SVG document."""
        view, rows = self.view, self.view.rows
        bottom = TOP + ROW * len(rows)
        self._axis(bottom)
        for number, row in enumerate(rows):
            self._row(row, self.y(number))
        if view.hidden:
            self._text(8, bottom + 14, f"… and {view.hidden:,} more", "s")
        self._legend(bottom + 38)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="rxllm-timeline" width="{self.width}" '
            f'height="{bottom + _BOTTOM}" viewBox="0 0 {self.width} {bottom + _BOTTOM}" role="img">'
            f"<title>{html.escape(view.title)}</title><desc>{html.escape(view.description)}</desc>"
            f"<style>{_STYLE}</style>{''.join(self.parts)}</svg>"
        )

    @staticmethod
    def y(number: int) -> int:
        """Return the height at which a row is drawn."""
        return TOP + ROW * number + 24

    def _x(self, time: float) -> float:
        return self.left + time / self.view.span * self.track

    def _axis(self, bottom: int) -> None:
        self.parts.append("<g>" if not self.movable else f'<g data-axis="{bottom}">')
        for time, label in ticks(self.view.span, self.track // 80):
            x = self._x(time)
            self.parts.append(f'<path class="g" d="M{x:.1f} {TOP}V{bottom}"/>')
            self._text(x, bottom + 14, label, "s m")
        self.parts.append("</g>")

    def _row(self, row: Row, y: int) -> None:
        self.above, self.below = [], []
        indent = 8 + _INDENT * row.depth
        room = int((self.left - indent - 6) / _NAME)
        detail = "" if row.detail in (row.name, "chain") else row.detail[: int(room * 1.2)]
        self._text(indent, y if detail else y + 4, shortened(row.name, room))
        if detail:
            self._text(indent, y + 13, detail, "s")
        self.parts.append("<g>" if row.is_leaf else '<g class="o">')
        begin = self._work(row, y) if row.is_leaf else row.start
        self._span("l c" if row.outcome == "cancelled" else "l", begin, row.end, y)
        for kind, start, end, label in row.waits:
            if kind != "pause" or row.is_leaf:
                self._span(kind, start, end, y)
                lasted = seconds(end - start)
                shorter = label.rpartition(", ")[2]
                self._label(self._x(start), self._x(end), y, f"{label} {lasted}", f"{shorter} {lasted}", lasted)
        self._dots(row, y)
        for time, label in row.marks:
            self._point("k", time, y, "M0 -8V8")
            self._label(self._x(time), self._x(time), y, label)
        self._point(row.outcome, row.end, y, _ENDS[row.outcome])
        self.parts.append("</g>")
        self._facts(row, y)

    def _work(self, row: Row, y: int) -> float:
        """Draw the wait for the first chunk, or the work of a tool. Return its end."""
        if row.kind == "tool":
            self._span("t", row.start, row.end, y)
            return row.end
        until = row.end if row.first is None else row.first
        waited = [end for kind, start, end, _ in row.waits if kind != "pause" and start < until]
        begin = max([row.start, *waited])
        if until > begin:
            self._span("w", begin, until, y)
            self._label(self._x(begin), self._x(until), y, seconds(until - begin))
        return until if not waited else row.start

    def _places(self, dots: Iterable[Dot]) -> list[tuple[float, int]]:
        """Return where the chunks are, with their number. Those that would cover each other are one place."""
        places: list[tuple[float, int]] = []
        for time, count, _ in dots:
            x = self._x(time)
            if places and x - places[-1][0] < _APART:
                places[-1] = (places[-1][0], places[-1][1] + count)
            else:
                places.append((x, count))
        return places

    def _dots(self, row: Row, y: int) -> None:
        """Draw the chunks, and label each silence between two that is long, and longer than usual in this row."""
        for kind, dots in ("a", row.asides), ("d", row.dots):
            places = self._places(dots)
            if kind == "d":
                self._circles("h", [x for x, count in places if count >= _BURST], y)
            self._circles(kind, [x for x, _ in places], y)
        if not row.is_leaf or row.first is None:
            return
        places = self._places(sorted([*row.asides, *row.dots]))
        ends = [*(x for x, _ in places), self._x(row.end)]
        gaps = [(later - sooner, sooner, later) for sooner, later in pairwise(ends)]
        usual = median(gap for gap, _, _ in gaps) if len(gaps) > 3 else 0.0
        waits = [(self._x(start), self._x(end)) for _, start, end, _ in row.waits]
        for gap, sooner, later in gaps:
            if gap > max(_LONG * self.track, _UNUSUAL * usual) and not any(
                start < later and end > sooner for start, end in waits
            ):
                self._label(sooner, later, y, seconds(gap / self.track * self.view.span))

    def _circles(self, kind: str, places: list[float], y: int) -> None:
        if places:
            self.used.add(kind)
            data = f' data-dots="{kind}" data-row="{y}"' if self.movable else ""
            self.parts.append(f'<path class="{kind}"{data} d="{"".join(f"M{x:.1f} {y}h0" for x in places)}"/>')

    def _facts(self, row: Row, y: int) -> None:
        x = self.width - _RIGHT + 18
        lasted = seconds(row.end - row.start)
        facts = row.facts
        if row.outcome == "failed":
            self._text(x, y, row.error[:_FACTS], "bad")
            facts = (f"after {lasted}", *facts)
        else:
            self._text(x, y, lasted if row.outcome == "finished" else f"{row.outcome} after {lasted}")
        lines = wrap(", ".join(fact.replace(" ", "\xa0") for fact in facts), _FACTS, break_long_words=False)
        for number, line in enumerate(lines[:2]):
            self._text(x, y + 13 + 12 * number, line.replace("\xa0", " "), "s")

    def _legend(self, y: int) -> None:
        x = float(self.left)
        for kind, meaning in _LEGEND.items():
            if kind not in self.used:
                continue
            if kind in _ENDS:
                wide, shape = 8, f'transform="translate({x + 4:.1f} {y - 4}) scale(.7)" d="{_ENDS[kind]}"'
            elif kind in ("d", "a", "h"):
                wide, shape = 8, f'd="M{x + 4:.1f} {y - 4}h0"'
            else:
                wide, shape = 18, f'd="M{x:.1f} {y - 4}h18"'
            self.parts.append(f'<path class="{kind}" {shape}/>')
            self._text(x + wide + 6, y, meaning, "s")
            x += wide + 6 + len(meaning) * _LABEL + 14

    def _span(self, kind: str, start: float, end: float, y: int) -> None:
        self.used.add(kind)
        data = f' data-a="{start:.6g}" data-b="{end:.6g}" data-y="{y}"' if self.movable else ""
        self.parts.append(f'<path class="{kind}"{data} d="M{self._x(start):.1f} {y}H{self._x(end):.1f}"/>')

    def _point(self, kind: str, time: float, y: int, shape: str) -> None:
        self.used.add(kind)
        data = f' data-t="{time:.6g}" data-y="{y}"' if self.movable else ""
        place = f"translate({self._x(time):.1f} {y})"
        self.parts.append(f'<path class="{kind}"{data} transform="{place}" d="{shape}"/>')

    def _label(self, left: float, right: float, y: int, *labels: str) -> None:
        """Write the first of the labels that is not longer than its span, or the last one, where there is room."""
        label = next((label for label in labels if len(label) * _LABEL <= right - left), labels[-1])
        half = len(label) * _LABEL / 2
        x = min(max((left + right) / 2, self.left + half), self.left + self.track - half)
        for taken, height in (self.above, y - 12), (self.below, y + 20):
            if any(x + half >= one and x - half <= other for one, other in taken):
                continue
            taken.append((x - half, x + half))
            time = ((left + right) / 2 - self.left) / self.track * self.view.span
            data = f' data-t="{time:.6g}"' if self.movable else ""
            self.parts.append(f'<text class="s m"{data} x="{x:.1f}" y="{height}">{html.escape(label)}</text>')
            return

    def _text(self, x: float, y: int, text: str, kind: str = "") -> None:
        style = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text{style} x="{x:.1f}" y="{y}">{html.escape(text)}</text>')
