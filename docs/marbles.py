"""The marble diagrams of operators and combinators, as the docstrings' lines of text and as SVG files.

    .venv/bin/python docs/marbles.py        writes docs/operators/marbles/*.svg and docs/combinators/marbles/*.svg

The docstring of an operator says what comes in, and which call is made. This program runs the call on virtual time, on
which a character of the docstring takes a second. `Run.lines` are the lines that the docstring must show, and `Run.svg`
draws them. tests/test_marble_pictures.py compares both with the docstrings and the files.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from html import escape
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from attrs import Factory, define, frozen
from reactivex import Observable, abc
from reactivex.disposable import Disposable

import rxllm
from rxllm.testing import MarbleLLM, VirtualLoop

__all__ = ["DIAGRAMS", "DOCS", "Combination", "Diagram", "Marble", "Row", "Run", "lines_of", "run"]

DOCS = Path(__file__).parent


@frozen
class Recipe:
    """A shape."""

    title: str


@frozen
class Person:
    """Another shape."""

    name: str


@frozen
class Diagram:
    """What a docstring does not say about its diagram.

    Attributes:
        operator: the public function; its docstring has the diagram.
        values: the values of the input's words. Any other word is a Chunk of this text.
        answers: the answers of ``llm`` in the call, one diagram for each prompt.
        by_letter: whether each letter of the input is an item.
        late: the second at which a second subscriber comes; None if there is only one.
    """

    operator: Callable[..., Any]
    values: Mapping[str, object] = Factory(dict)
    answers: tuple[str, ...] = ("a|",)
    by_letter: bool = False
    late: float | None = None


@frozen
class Combination:
    """What a docstring does not say about the diagram of a combinator. Its last line has the call.

    Attributes:
        operator: the public function; its docstring has the diagram.
        models: the models in the call by their names, each with the diagrams of its answers to one request after
            another.
        names: further names in the call.
    """

    operator: Callable[..., Any]
    models: Mapping[str, tuple[str, ...]]
    names: Mapping[str, object] = Factory(dict)


@frozen
class Marble:
    """An item of a diagram: its second, its text, and whether it is reasoning."""

    at: float
    text: str
    is_reasoning: bool = False


@define
class Row:
    """A line of a diagram.

    Attributes:
        marbles: the items.
        start: the second of the subscription.
        end: the second of the completion or of the error.
        failed: whether the end is an error.
        cut: whether the end is a dispose.
        disposed: the second at which the subscriber disposed the stream before its end; None if it did not.
        by_letter: whether each letter is an item.
    """

    marbles: list[Marble] = Factory(list)
    start: float = 0
    end: float = 0
    failed: bool = False
    cut: bool = False
    disposed: float | None = None
    by_letter: bool = False

    def line(self) -> str:
        """Return the row as text. Each item stands at its second, or as soon after it as there is room."""
        text = " " * round(self.start)
        last = self.start
        for at, together in groupby(self.marbles, lambda marble: marble.at):
            texts = [marble.text for marble in together]
            is_apart = len(text) > at if self.by_letter else bool(text.strip("- "))  # from the marble before
            text = _padded(text, at, is_apart=is_apart)
            text += texts[0] if len(texts) == 1 else f"({','.join(texts)})"
            last = at
        text = _padded(text, self.end, is_apart=self.end > last)
        return text + ("x" if self.failed else "/" if self.cut else "|")

    def described(self) -> str:
        """Return the row in words."""
        items = [f"{'reasoning ' * marble.is_reasoning}“{marble.text}” at {marble.at:.3g}" for marble in self.marbles]
        end = "an error" if self.failed else "disposed" if self.cut else "the end"
        begin = [f"from {self.start:g} on"] if self.start else []
        return ", ".join([*begin, *items, f"{end} at {self.end:g}"])


def _padded(text: str, at: float, *, is_apart: bool) -> str:
    """Return the line up to a second, with at least one ``-`` if `is_apart`."""
    return text + "-" * max(round(at) - len(text), int(is_apart))


@frozen
class Run:
    """A diagram that has run.

    Attributes:
        name: the name of the function.
        folder: the folder of its page.
        call: the call.
        sources: what came in: the rows of each source, by the name of a model, or under the empty text.
        results: what each subscriber got.
    """

    name: str
    folder: str
    call: str
    sources: Mapping[str, tuple[Row, ...]]
    results: tuple[Row, ...]

    def lines(self) -> list[str]:
        """Return the lines of the docstring."""
        sources = {name: _joined(row.line() for row in rows) for name, rows in self.sources.items()}
        results = [result.line() for result in self.results]
        if "" in sources:
            return [sources[""], self.call, *results]
        width = max(map(len, (self.call, *sources))) + 3
        return [f"{name:{width}}{line}" for name, line in {**sources, self.call: results[0]}.items()]

    def description(self) -> str:
        """Return the diagram in words, as the alternative text of the picture."""
        came = "; ".join(f"{name or 'In'}: {row.described()}" for name, rows in self.sources.items() for row in rows)
        out = "; a late subscriber: ".join(result.described() for result in self.results)
        return f"Marble diagram of {self.call}. {came}. Out: {out}."

    @property
    def file(self) -> Path:
        """The file of the picture."""
        return DOCS / self.folder / "marbles" / f"{self.name}.svg"

    def image(self) -> str:
        """Return the line of a page that shows the picture. Marks of Markdown become their numbers."""
        alt = re.sub(r"[^\w\s“”.,:;()/='-]", lambda mark: f"&#{ord(mark[0])};", self.description())
        return f"![{alt}](marbles/{self.name}.svg)"

    def svg(self) -> str:
        """Return the picture."""
        return _Picture(self).svg()


def _joined(lines: Iterable[str]) -> str:
    """Return rows, each of which begins after the one before it, as one line."""
    joined = ""
    for line in lines:
        joined += line[len(joined) :]
    return joined


# ── running ──────────────────────────────────────────────────────────────────────────────────────────────────────


def run(diagram: Diagram | Combination) -> Run:
    """Run the diagram in the docstring of an operator or of a combinator, on virtual time."""
    return _run_combination(diagram) if isinstance(diagram, Combination) else _run_operator(diagram)


def _evaluated(call: str, **names: object) -> Any:
    public = {name: getattr(rxllm, name) for name in rxllm.__all__}
    return eval(call, {**public, "Recipe": Recipe, "Person": Person, **names})  # noqa: S307  (of our own docstring)


def _run_operator(diagram: Diagram) -> Run:
    first, call, *_ = lines_of(diagram.operator)
    llm = rxllm.pipe(MarbleLLM(diagram.answers), rxllm.text())
    operator = _evaluated(call, llm=llm)
    source, values = _read(first, diagram)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        results = runner.run(_observed(lambda: operator(_emitting(source, values)), diagram.late))
    for result in results:
        result.by_letter = diagram.by_letter
    return Run(diagram.operator.__name__, "operators", call, {"": (source,)}, results)


def _run_combination(diagram: Combination) -> Run:
    call = re.split(r" {2,}", lines_of(diagram.operator)[-1])[0]
    models = {name: Scripted(answers) for name, answers in diagram.models.items()}
    combined = _evaluated(call, **models, **diagram.names)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        results = runner.run(_observed(lambda: combined("?"), None))
    sources = {name: tuple(map(_cut, model.rows)) for name, model in models.items()}
    return Run(diagram.operator.__name__, "combinators", call, sources, results)


def _cut(row: Row) -> Row:
    """Return the row up to its dispose."""
    if row.disposed is None:
        return row
    marbles = [marble for marble in row.marbles if marble.at <= row.disposed]
    return Row(marbles, row.start, row.disposed, cut=True)


@frozen
class Scripted(rxllm.LLM):
    """A model that keeps a row of each request.

    Attributes:
        answers: the diagram of each answer.
        rows: what has been emitted, by request.
    """

    answers: tuple[str, ...]
    rows: list[Row] = Factory(list)

    def chunks(self, request: rxllm.Request) -> Observable[object]:
        """Emit the next answer."""
        script, now = self.answers[len(self.rows)], asyncio.get_running_loop().time()
        row = Row(start=now, end=now + len(script) - 1, failed=script.endswith("x"))
        row.marbles += (Marble(now + word.start(), word[0]) for word in re.finditer(r"[^-|x]+", script))
        self.rows.append(row)
        return _emitting(row, [rxllm.Chunk(marble.text) for marble in row.marbles])


def lines_of(operator: Callable[..., Any]) -> list[str]:
    """Return the lines of the diagram in a docstring, without the remarks at their ends."""
    block = re.search(r"::\n\n((?:    .*\n)+)", inspect.getdoc(operator) or "")
    if block is None:
        raise ValueError(f"The docstring of {operator.__name__} has no diagram.")
    return [re.split(r"(?<=[|x/]) {3,}(?=[^ -])", line[4:])[0] for line in block[1].splitlines()]


def _read(line: str, diagram: Diagram) -> tuple[Row, list[object]]:
    """Return what comes in, as a row and as the values."""
    words = re.finditer(r"\([^)]*\)|[^-|]" if diagram.by_letter else r"[^-|]+", line)
    row = Row(end=line.index("|"), by_letter=diagram.by_letter)
    for word in words:
        at_once = word[0].strip("()").split(",") if diagram.by_letter else [word[0]]
        row.marbles += (Marble(word.start(), text) for text in at_once)
    values = [diagram.values.get(each.text, rxllm.Chunk(each.text.replace(r"\n", "\n"))) for each in row.marbles]
    return row, values


async def _observed(make: Callable[[], Observable[Any]], late: float | None) -> tuple[Row, ...]:
    loop = asyncio.get_running_loop()
    stream = make()
    scheduler = rxllm.scheduler()
    rows = [Row() for _ in range(1 if late is None else 2)]
    ends = [loop.create_future() for _ in rows]

    def subscribe(row: Row, ended: asyncio.Future[None]) -> None:
        def end(error: Exception | None = None) -> None:
            row.end, row.failed = loop.time(), error is not None
            ended.set_result(None)

        row.start = loop.time()
        stream.subscribe(lambda value: row.marbles.extend(_shown(loop.time(), value)), end, end, scheduler=scheduler)

    for row, ended, at in zip(rows, ends, (0, late or 0), strict=False):
        loop.call_at(at, subscribe, row, ended)
    await asyncio.gather(*ends)
    return tuple(rows)


def _emitting(row: Row, values: list[object]) -> Observable[object]:
    """Emit the values at their seconds."""

    def subscribe(observer: abc.ObserverBase[object], _: abc.SchedulerBase | None) -> abc.DisposableBase:
        loop = asyncio.get_running_loop()
        timed: dict[float, list[object]] = {}
        for marble, value in zip(row.marbles, values, strict=True):
            timed.setdefault(marble.at, []).append(value)

        def emit(together: list[object]) -> None:
            for value in together:
                observer.on_next(value)

        timers = [loop.call_at(at, emit, together) for at, together in timed.items()]
        end = partial(observer.on_error, rxllm.TransportError("It broke.")) if row.failed else observer.on_completed
        timers.append(loop.call_at(row.end, end))

        def dispose() -> None:
            if loop.time() < row.end:
                row.disposed = loop.time()
            for timer in timers:
                timer.cancel()

        return Disposable(dispose)

    return Observable(subscribe)


def _shown(at: float, value: object) -> Iterable[Marble]:
    """Yield the value as a marble; nothing for a chunk without content."""
    match value:
        case rxllm.Chunk(text="") if value.reasoning:
            yield Marble(at, _escaped(value.reasoning), is_reasoning=True)
        case rxllm.Chunk() | str() if str(value):
            yield Marble(at, _escaped(str(value)))
        case rxllm.Chunk():
            pass
        case rxllm.Message() | rxllm.Usage():
            yield Marble(at, f"({type(value).__name__})")
        case rxllm.CallDraft(name=name, arguments=arguments):
            yield Marble(at, f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})")
        case (int(index), answer):
            yield Marble(at, f"({index},{answer})")
        case _:
            yield Marble(at, repr(value))


def _escaped(text: str) -> str:
    return text.replace("\n", r"\n")


# ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────

_STYLE = """
.rxllm-marbles{color-scheme:light dark}
.rxllm-marbles:root{color:#1f2328}
@media(prefers-color-scheme:dark){.rxllm-marbles:root{color:#e6edf3}}
.rxllm-marbles text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.rxllm-marbles text{text-anchor:middle;white-space:pre}
.rxllm-marbles .call{font-size:13.5px;font-weight:600;fill:currentColor}
.rxllm-marbles .name{text-anchor:start;font-weight:600;fill:currentColor}
.rxllm-marbles .note{font:italic 11.5px system-ui,sans-serif;text-anchor:start;fill:currentColor;opacity:.75}
.rxllm-marbles path,.rxllm-marbles .box{fill:none;stroke:currentColor}
.rxllm-marbles .line{stroke-width:1.6}
.rxllm-marbles .gone{stroke-dasharray:3 5;opacity:.5}
.rxllm-marbles .guide{stroke-dasharray:1 4;opacity:.45}
.rxllm-marbles .box{stroke-width:1.2;opacity:.55}
.rxllm-marbles .end{stroke-width:2.4}
.rxllm-marbles .failed{stroke:#d55e00;stroke-width:3}
.rxllm-marbles .in rect{fill:#d6ebf8;stroke:#0072b2}
.rxllm-marbles .in text{fill:#06314d}
.rxllm-marbles .out rect{fill:#ffe9bd;stroke:#b87a00}
.rxllm-marbles .out text{fill:#4a3100}
.rxllm-marbles .reasoning rect{stroke-dasharray:4 3}
.rxllm-marbles .reasoning text{font-style:italic}
.rxllm-marbles .lost{opacity:.5}
.rxllm-marbles .lost rect{fill:none;stroke:currentColor;stroke-dasharray:3 3}
.rxllm-marbles .lost text{fill:currentColor}
"""
_CHARACTER = 7.25  # the width of a character
_PAD, _HEIGHT, _GAP = 7, 24, 4  # of a marble
_ROW, _NEAR = 54, 40  # the distances between two rows, and between the rows of two models
_TOP, _BOX = 20, 34  # the middle of the first row; the height of the box


def _width(marble: Marble) -> float:
    return max(_HEIGHT, len(marble.text) * _CHARACTER + 2 * _PAD)


class _Picture:
    """A diagram while it is drawn."""

    def __init__(self, of: Run) -> None:
        self.run = of
        self.names = max(map(len, of.sources)) * _CHARACTER + 14
        self.box = _TOP + _NEAR * (len(of.sources) - 1) + _ROW - _BOX // 2 - 4  # its upper edge
        rows = [row for rows in (*of.sources.values(), of.results) for row in rows]
        neighbours = [pair for row in rows for pair in pairwise(row.marbles) if pair[0].at < pair[1].at]
        fits = [((_width(a) + _width(b)) / 2 + _GAP) / (b.at - a.at) for a, b in neighbours]
        self.second = max([22.0 if rows[0].by_letter else 12.0, *fits])
        firsts = [_width(row.marbles[0]) / 2 - row.marbles[0].at * self.second for row in rows if row.marbles]
        self.left = max(0.0, *firsts) + (self.names if "" not in of.sources else 8)
        self.right = self.left
        self.parts: list[str] = []
        self.guides: dict[str, None] = {}  # a set in the order of its members

    def x(self, at: float) -> float:
        return self.left + at * self.second

    def svg(self) -> str:
        for number, (name, rows) in enumerate(self.run.sources.items()):
            y = _TOP + _NEAR * number
            for row in rows:
                self.row(row, y, "in")
            self.parts.append(f'<text class="name" x="2" y="{y + 4}">{escape(name)}</text>' if name else "")
        below = self.box + _BOX + 34
        for number, result in enumerate(self.run.results):
            y = below + _ROW * number
            self.row(result, y, "out")
            if number:
                note = f'<text class="note" x="{self.x(result.start):.0f}" y="{y - 20:.0f}">a late subscriber</text>'
                self.parts.append(note)
        call_width = len(self.run.call) * _CHARACTER * 13.5 / 12 + 30
        width, height = round(max(self.right + 18, call_width)), below + _ROW * (len(self.run.results) - 1) + 20
        title = escape(self.run.description())
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" class="rxllm-marbles" role="img" aria-label="{title}" '
                f'width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
                f"<style>{_STYLE}</style>",
                *self.guides,
                f'<rect class="box" x="1" y="{self.box}" width="{width - 2}" height="{_BOX}" rx="6"/>',
                f'<text class="call" x="{width / 2:.0f}" y="{self.box + _BOX // 2 + 5}">{escape(self.run.call)}</text>',
                *filter(None, self.parts),
                "</svg>\n",
            ]
        )

    def row(self, row: Row, y: float, kind: str) -> None:
        """Add a row with its middle at `y`."""
        marbles: list[str] = []
        edge = kept = self.x(row.start)
        gone, before = "", None
        for marble in row.marbles:
            half = _width(marble) / 2
            touches = before is not None and before.at == marble.at
            middle = max(self.x(marble.at), edge + half + (0 if touches else _GAP if before else -half))
            is_lost = row.disposed is not None and marble.at > row.disposed
            if is_lost:
                gone += f"H{middle - half:.1f}m{2 * half:.1f} 0"
            edge, before = middle + half, marble
            kept = kept if is_lost else edge
            classes = f"{kind}{' reasoning' * marble.is_reasoning}{' lost' * is_lost}"
            marbles.append(_pill(marble.text, middle, half, y, classes))
            if kind == "out":
                self.guide(marble.at, y)
        end = max(self.x(row.end), edge + 2 * _GAP if before else 0)
        self.right = max(self.right, end)
        stop = end if row.disposed is None else max(self.x(row.disposed), kept + 2 * _GAP)
        self.parts.append(f'<path class="line" d="M{self.x(row.start):.1f} {y:g}H{stop:.1f}"/>')
        if row.disposed is not None:
            self.parts.append(f'<path class="line gone" d="M{stop:.1f} {y:g}{gone}H{end:.1f}"/>')
        if row.cut or row.disposed is not None:
            self.parts.append(f'<path class="end" d="M{stop - 4:.1f} {y + 10:g}l8 -20"/>')
        elif row.failed:
            self.parts.append(f'<path class="failed" d="M{end - 7:.1f} {y - 7:g}l14 14m0 -14l-14 14"/>')
        else:
            self.parts.append(f'<path class="end" d="M{end:.1f} {y - 13:g}v26"/>')
        if kind == "out":
            self.guide(row.end, y)
        self.parts += marbles

    def guide(self, at: float, y: float) -> None:
        """Add a dotted line from the first row to the row at `y`, with a gap for the box."""
        self.guides[f'<path class="guide" d="M{self.x(at):.1f} {_TOP}V{self.box}m0 {_BOX}V{y:g}"/>'] = None


def _pill(text: str, middle: float, half: float, y: float, classes: str) -> str:
    return (
        f'<g class="{classes}"><rect x="{middle - half:.1f}" y="{y - _HEIGHT / 2:g}" width="{2 * half:.1f}" '
        f'height="{_HEIGHT}" rx="{_HEIGHT / 2:g}"/><text x="{middle:.1f}" y="{y + 4:g}">{_visible(text)}</text></g>'
    )


def _visible(text: str) -> str:
    """Return the text of a marble. Spaces at its ends become visible."""
    core = text.strip(" ")
    before, after = text[: len(text) - len(text.lstrip(" "))], text[len(text.rstrip(" ")) :]
    return escape(f"{'␣' * len(before)}{core}{'␣' * len(after)}" if core else "␣" * len(text), quote=False)


# ── the diagrams ─────────────────────────────────────────────────────────────────────────────────────────────────

_USAGE = {"(usage)": rxllm.Chunk(usage=rxllm.Usage(input_tokens=3, output_tokens=2))}
_CALL = {
    '(mail {"to":"An)': rxllm.Chunk(parts=[rxllm.ToolCallPart("1", "mail", '{"to":"An')]),
    '(na"})': rxllm.Chunk(parts=[rxllm.ToolCallPart(arguments='na"}')]),
}
_PROMPTS: dict[str, object] = {letter: letter for letter in "pqr"}
_WAIT = rxllm.backoff(4, chance=lambda: 1)
_ANSWERS = ("---------P|", "-Q|", "-------------R|")

DIAGRAMS = (
    Diagram(rxllm.text, _USAGE),
    Diagram(rxllm.message, _USAGE),
    Diagram(rxllm.usage, _USAGE),
    Diagram(rxllm.snapshots),
    Diagram(rxllm.words),
    Diagram(rxllm.lines),
    Diagram(rxllm.sentences),
    Diagram(rxllm.drafts),
    Diagram(rxllm.call_drafts, _CALL),
    Diagram(rxllm.items),
    Diagram(rxllm.parse),
    Diagram(rxllm.stop_at),
    Diagram(rxllm.split_reasoning),
    Diagram(rxllm.smooth, by_letter=True),
    Diagram(rxllm.first_chunk_timeout, by_letter=True),
    Diagram(rxllm.idle_timeout, by_letter=True),
    Diagram(rxllm.deadline, by_letter=True),
    Diagram(rxllm.share, by_letter=True, late=6),
    Diagram(rxllm.batch, _PROMPTS, _ANSWERS, by_letter=True),
    Diagram(rxllm.batch_as_completed, _PROMPTS, _ANSWERS, by_letter=True),
    # The waits of `retry` are random. In its diagram they are 4 and 8 seconds.
    Combination(rxllm.retry, {"llm": ("--x", "--x", "---Hel-lo-|")}, {"retry": partial(rxllm.retry, delay=_WAIT)}),
    Combination(rxllm.fallback, {"a": ("--x",), "b": ("----Hel-lo-|",)}),
    Combination(rxllm.hedge, {"a": ("------------a|",), "b": ("---Hel-lo-|",)}),
)


def main() -> None:
    """Write all pictures."""
    for diagram in DIAGRAMS:
        done = run(diagram)
        done.file.parent.mkdir(exist_ok=True)
        done.file.write_text(done.svg(), "utf-8")


if __name__ == "__main__":
    main()
