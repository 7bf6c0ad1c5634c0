"""The rows of a timeline: one for each run, as a tree, with times from the first start on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from attrs import field, frozen

from ..events import Kind
from ..prices import has_prices, price_of
from .axis import seconds
from .recording import Outcome, Record, Times, Wait, plain

__all__ = ["WAITS", "Dot", "Row", "View", "amount", "latest", "view_of"]

Dot = tuple[float, int, str]
"""The time of a chunk or of a group of chunks, the number of chunks, and the text."""

WAITS = {"queue": "waits for its turn", "retry": "waits to retry", "pause": "paused by its reader"}
"""Each kind of wait in words."""

_ROWS = 100  # in one picture
_DESCRIBED = 20  # rows
_NAME = 60  # characters
_MODELS = ("llm", "chat_model")


@frozen
class Row:
    """One run. All times are seconds since the start of the picture.

    Attributes:
        id: the id of the run.
        name: the name of the run.
        detail: the model, or the kind of the run.
        kind: the kind of the run.
        depth: the number of rows around it.
        is_leaf: whether no run is inside of it.
        start: its start.
        end: its end, or the present while it is running.
        outcome: how it ended.
        error: the class of its error.
        dots: its chunks with text, or the values of a pipeline.
        asides: its chunks with reasoning, tool calls or files only.
        waits: its waits, in the order of their starts.
        marks: other events.
        facts: what else there is to say.
        texts: details by name.
    """

    id: str
    name: str
    detail: str
    kind: Kind
    depth: int
    is_leaf: bool
    start: float
    end: float
    outcome: Outcome
    error: str
    dots: tuple[Dot, ...]
    asides: tuple[Dot, ...]
    waits: tuple[Wait, ...]
    marks: tuple[tuple[float, str], ...]
    facts: tuple[str, ...]
    texts: Mapping[str, str] = field(factory=dict[str, str])

    @property
    def first(self) -> float | None:
        """The time of the first chunk."""
        return min((dots[0][0] for dots in (self.dots, self.asides) if dots), default=None)

    @property
    def ending(self) -> str:
        """How the run ended, in words: the error's class for a failed one."""
        return self.error if self.outcome == "failed" else self.outcome


@frozen
class View:
    """All rows of a picture.

    Attributes:
        rows: the rows in the order of a tree.
        span: the length of the time axis in seconds.
        hidden: the number of runs that have no row, because there are too many.
    """

    rows: tuple[Row, ...]
    span: float
    hidden: int

    @property
    def title(self) -> str:
        """What the picture shows, in one line."""
        runs = len(self.rows) + self.hidden
        return f"Timeline of {runs} run{'' if runs == 1 else 's'} over {seconds(self.span)}"

    @property
    def description(self) -> str:
        """The runs in words, with how they ended."""
        words = "; ".join(f"{row.name}: {', '.join([row.ending, *row.facts])}" for row in self.rows[:_DESCRIBED])
        return f"{words}; …" if len(self.rows) > _DESCRIBED else words


def latest(records: list[Record], most: int) -> list[Record]:
    """Return the runs that go on, and those that ended last, in the order of their starts."""
    ordered = sorted(records, key=lambda record: (record.end is not None, -(record.end or 0.0)))
    kept = {record.run.id for record in ordered[:most]}
    return [record for record in records if record.run.id in kept]


def view_of(records: Iterable[Record], hidden: int) -> View:
    """Return the rows of the records, in the order of a tree."""
    by_id = {record.run.id: record for record in records}
    zero = min((record.start for record in by_id.values()), default=0.0)
    inner: dict[str | None, list[Record]] = {}
    for record in by_id.values():
        outer = next((other for other in reversed(record.run.parent_ids) if other in by_id), None)
        inner.setdefault(outer, []).append(record)
    costs = _costs(by_id.values())
    rows: list[Row] = []
    todo = [(record, 0) for record in reversed(inner.get(None, ()))]
    while todo and len(rows) < _ROWS:
        record, depth = todo.pop()
        children = inner.get(record.run.id, ())
        rows.append(_row(record, depth, not children, zero, costs.get(record.run.id)))
        todo += [(child, depth + 1) for child in reversed(children)]
    span = max((row.end for row in rows), default=0.0)
    return View(tuple(rows), max(span, 0.001), hidden + len(by_id) - len(rows))


def _row(record: Record, depth: int, is_leaf: bool, zero: float, cost: Decimal | None) -> Row:
    run = record.run
    until = record.gate.clock() if record.end is None else record.end
    waits = record.waits_until(until)
    dots, asides = _dots(record.chunks, zero), _dots(record.asides, zero)
    model = record.model or (run.service.model if run.service else None)
    return Row(
        run.id,
        plain(run.name)[:_NAME],
        plain(model or ("model" if run.kind in _MODELS else run.kind))[:_NAME],
        run.kind,
        depth,
        is_leaf,
        record.start - zero,
        until - zero,
        record.outcome,
        record.error,
        dots,
        asides,
        tuple(
            (kind, start - zero, min(end, until) - zero, label) for kind, start, end, label in waits if start < until
        ),
        tuple((time - zero, label) for time, label in record.marks),
        tuple(_facts(record, until, waits, cost)),
        record.texts,
    )


def _dots(times: Times, zero: float) -> tuple[Dot, ...]:
    moments = [time - zero for time in (*times.older, *times.latest)]
    texts = times.texts or [""] * len(moments)
    return tuple(zip(moments, times.counts, texts, strict=False))


def _facts(record: Record, until: float, waits: list[Wait], cost: Decimal | None) -> Iterator[str]:
    count = record.chunks.count + record.asides.count
    firsts = [times.first for times in (record.chunks, record.asides) if times.first is not None]
    if firsts and record.run.kind != "tool":
        wait = min(firsts) - record.start
        yield f"first after {seconds(wait)}" if wait else "first at once"
    if count:
        yield amount(count, "chunk" if record.run.kind in _MODELS else "value")
    usage = record.usage
    if usage is not None and usage.output_tokens and not usage.estimated and record.run.kind in _MODELS:
        lasted = until - record.start
        yield amount(usage.output_tokens, "token") + (f" ({_rate(usage.output_tokens / lasted)}/s)" if lasted else "")
    if retries := sum(kind == "retry" for kind, *_ in waits):
        yield "1 retry" if retries == 1 else f"{retries} retries"
    paused = record.paused_until(until)
    if paused >= 0.001:
        yield f"paused {seconds(paused)}"
    if cost is not None:
        yield f"${cost:.6f}".rstrip("0")


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.2g}"


def _costs(records: Iterable[Record]) -> dict[str, Decimal]:
    """Return the cost of each run in US dollars, with the runs inside of it; a run without a known price is absent."""
    costs: dict[str, Decimal] = {}
    for record in records:
        service, usage = record.run.service, record.usage
        if service is None or usage is None or usage.estimated or not record.ended_at or not has_prices():
            continue
        name = record.model or service.model or record.run.name
        price = price_of(name, usage.counts, service.provider, service.address, record.ended_at)
        if price is not None:
            for run_id in (record.run.id, *record.run.parent_ids):
                costs[run_id] = costs.get(run_id, Decimal(0)) + price
    return costs


def amount(count: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
