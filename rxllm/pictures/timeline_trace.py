"""A timeline as a trace file, for https://ui.perfetto.dev and Chromium's ``chrome://tracing``.

Each run is an async event of its own: a begin and an end with the run's id. Runs of one thread overlap, so the plain
begin and end events, which nest by thread, do not fit. The waits of a run are async events within it.

Source: "Trace Event Format", https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from .rows import WAITS, Row, View

__all__ = ["traced"]

_PROCESS = {"ph": "M", "name": "process_name", "pid": 1, "tid": 1, "ts": 0, "args": {"name": "rxllm"}}


def traced(view: View) -> str:
    """Return the rows as a JSON object in the Trace Event format."""
    events = [event for row in view.rows for event in _events(row)]
    events.sort(key=lambda event: event["ts"])  # stable, so begins and ends of a run stay nested
    return msgspec.json.encode({"traceEvents": [_PROCESS, *events], "displayTimeUnit": "ms"}).decode()


def _events(row: Row) -> Iterator[dict[str, Any]]:
    def event(phase: str, name: str, time: float, **arguments: object) -> dict[str, Any]:
        common = {"ph": phase, "cat": row.kind, "id": row.id, "name": name, "pid": 1, "tid": 1}
        return {**common, "ts": round(time * 1e6), "args": arguments}

    yield event("b", row.name, row.start, model=row.detail, outcome=row.ending, facts=[*row.facts], **row.texts)
    waits = [(start, end, WAITS[kind]) for kind, start, end, _ in row.waits]
    points = [(time, label) for time, label in row.marks]
    if row.first is not None and row.kind != "tool":
        points.append((row.first, "first chunk"))
        if row.is_leaf:
            begin = max([row.start, *(end for _, end, _ in waits if end <= row.first)])
            waits.append((begin, row.first, "waits for the first chunk"))
    past = row.start
    for start, end, name in sorted(waits):
        start, past = max(start, past), max(end, past)
        yield event("b", name, start)
        yield event("e", name, past)
    for time, name in sorted(points):
        yield event("n", name, time)
    yield event("e", row.name, row.end)
