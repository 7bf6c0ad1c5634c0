"""A timeline as marble diagrams, for terminals."""

from __future__ import annotations

from ..terminal import shortened
from .axis import seconds, ticks
from .rows import WAITS, Row, View

__all__ = ["AROUND", "written"]

AROUND = 4  # lines of a drawing that are not runs: the number of others, the axis, an empty one, and the legend
_NAMES = 28  # the longest column of names, in characters
_CELLS = 40  # the shortest diagram, in characters
_TICK = 12  # characters between two ticks, at least
_ENDS = {"finished": "|", "failed": "x", "cancelled": "/", "running": ">"}
_WAITS = {"queue": "=", "retry": "~", "pause": "_"}
_LEGEND = {
    "o": "chunk",
    ".": "reasoning or tool call",
    **{mark: WAITS[kind] for kind, mark in _WAITS.items()},
    **{mark: outcome for outcome, mark in _ENDS.items()},
}


def written(view: View, width: int) -> str:
    """Return the rows as marble diagrams, with an axis and a legend."""
    if not view.rows:
        return "No runs yet."
    names = ["  " * row.depth + row.name for row in view.rows]
    column = min(max(map(len, names)), _NAMES)
    facts = [_facts(row) for row in view.rows]
    cells = max(width - column - 3 - max(map(len, facts)), _CELLS)
    diagrams = [_diagram(row, view.span, cells) for row in view.rows]
    lines = [
        f"{shortened(name, column):{column}} {diagram}  {fact}"
        for name, diagram, fact in zip(names, diagrams, facts, strict=True)
    ]
    if view.hidden:
        lines.append(f"… and {view.hidden:,} more")
    used = set("".join(diagrams))
    legend = "  ".join(f"{mark} {meaning}" for mark, meaning in _LEGEND.items() if mark in used)
    return "\n".join([*lines, f"{'':{column}} {_axis(view.span, cells)}".rstrip(), "", f"{'':{column}} {legend}"])


def _diagram(row: Row, span: float, cells: int) -> str:
    def cell(time: float) -> int:
        return min(max(round(time / span * (cells - 1)), 0), cells - 1)

    start, end = cell(row.start), cell(row.end)
    marks = [" "] * start + ["-"] * (end - start + 1) + [" "] * (cells - 1 - end)
    for kind, since, until, _ in row.waits:
        for place in range(cell(since), max(cell(until), cell(since) + 1)):
            marks[place] = _WAITS[kind]
    for mark, dots in (".", row.asides), ("o", row.dots):
        for time, _, _ in dots:
            place = cell(time)
            marks[place - 1 if place == end > start else place] = mark
    marks[end] = _ENDS[row.outcome]
    return "".join(marks)


def _facts(row: Row) -> str:
    lasted = seconds(row.end - row.start)
    ending = lasted if row.outcome == "finished" else f"{row.ending} after {lasted}"
    return ", ".join([ending, *(label for _, label in row.marks[:3]), *row.facts])


def _axis(span: float, cells: int) -> str:
    axis = [" "] * (cells + _TICK)
    for time, label in ticks(span, cells // _TICK):
        place = round(time / span * (cells - 1))
        axis[place : place + len(label)] = label
    return "".join(axis)
