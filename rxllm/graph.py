"""`Graph`: what a model or a pipeline consists of, as lines for a terminal and as a Mermaid flowchart.

Source: https://mermaid.js.org/syntax/flowchart.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Literal

from attrs import frozen

from .public import Public
from .terminal import one_line, shortened

__all__ = ["Graph", "Kind"]

Kind = Literal["sequence", "parallel", "alternatives", "agent", "model", "tool", "function"]

_LONGEST = 60  # characters of a label
_SPECIAL = re.compile(r"[^\w ,()='.-]|(?<!\w)[.-]|[.-](?!\w)")  # what may mean something in a quoted label of Mermaid


@frozen
class Graph(metaclass=Public):
    """What a model or a pipeline consists of. Its method ``graph()`` returns it.

    ::

        print(pipe(outline, fallback(a, b), text()).graph())

        pipe
        ├── outline
        ├── fallback
        │   ├── A()
        │   └── B()
        └── text()

    ``print`` shows these lines, and a notebook draws a flowchart, whose text `mermaid` returns.

    Attributes:
        label: the code that makes the model or the stage, without its parts.
        kind: how the parts belong together. In a ``"sequence"`` each part gets what the part before it returns. In
            ``"parallel"`` each part gets the input. Of ``"alternatives"`` each part takes over from the part before it.
            The first part of an ``"agent"`` calls the others. The kinds without parts are ``"model"``, ``"tool"``
            and ``"function"``, which is also the kind of an operator.
        parts: the parts, each with its name; the empty text if it has none, as only branches have names.
    """

    label: str
    kind: Kind = "function"
    parts: tuple[tuple[str, Graph], ...] = ()

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """Return the graph as a tree of lines."""
        return "\n".join(self._lines())

    def mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart, which GitHub, GitLab and JupyterLab draw.

        Models have round ends, and tools have double sides. A frame holds the parts of a combinator. Dotted arrows lead
        to the alternatives of a model and to the tools of an agent.
        """
        drawing = _Drawing()
        drawing.sequence((("", _INPUT), ("", self), ("", _OUTPUT)))
        return "\n".join(("flowchart TD", *drawing.boxes, *(f"  {arrow}" for arrow in drawing.arrows)))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.text(), "text/vnd.mermaid": self.mermaid()}

    def _lines(self) -> Iterator[str]:
        yield _short(self.label)
        for number, (name, part) in enumerate(self.parts, 1):
            branch, indent = ("└── ", "    ") if number == len(self.parts) else ("├── ", "│   ")
            first, *others = part._lines()
            yield f"{branch}{name and f'{_short(name)}: '}{first}"
            yield from (indent + line for line in others)


_SIDES = {"model": ("([", "])"), "tool": ("[[", "]]")}
_INPUT = Graph("input")
_OUTPUT = Graph("output")

_Ends = list[tuple[str, str]]
"""The boxes at which a part begins or ends, each with the text of the arrow that leads to it."""


class _Drawing:
    """The lines of a flowchart.

    The arrows come after all boxes, because Mermaid puts a box into the frame in which it is named first.
    """

    def __init__(self) -> None:
        self.boxes: list[str] = []
        self.arrows: list[str] = []
        self.count = 0
        self.depth = 1

    def draw(self, graph: Graph) -> tuple[_Ends, _Ends]:
        """Add a part. Return where it begins and where it ends."""
        self.count += 1
        name = f"n{self.count}"
        if not graph.parts:
            left, right = ("((", "))") if graph is _INPUT or graph is _OUTPUT else _SIDES.get(graph.kind, ("[", "]"))
            self.add(f"{name}{left}{_quoted(graph.label)}{right}")
            return [(name, "")], [(name, "")]
        if graph.label == "pipe":
            return self.draw_parts(graph)
        self.add(f"subgraph {name}[{_quoted(graph.label)}]")
        self.depth += 1
        ends = self.draw_parts(graph)
        self.depth -= 1
        self.add("end")
        return ends

    def add(self, line: str) -> None:
        self.boxes.append("  " * self.depth + line)

    def draw_parts(self, graph: Graph) -> tuple[_Ends, _Ends]:
        return self.sequence(graph.parts) if graph.kind == "sequence" else self.beside(graph)

    def sequence(self, parts: Iterable[tuple[str, Graph]]) -> tuple[_Ends, _Ends]:
        """Add parts with arrows from each to the next."""
        begins: _Ends = []
        ends: _Ends = []
        for _, part in parts:
            firsts, lasts = self.draw(part)
            for source, _ in ends:
                self.arrows += (f"{source} -->{_on_arrow(text)} {target}" for target, text in firsts)
            begins, ends = begins or firsts, lasts
        return begins, ends

    def beside(self, graph: Graph) -> tuple[_Ends, _Ends]:
        """Add parts that stand beside each other."""
        drawn = [(name, *self.draw(part)) for name, part in graph.parts]
        if graph.kind == "parallel":
            begins = [(box, name or text) for name, firsts, _ in drawn for box, text in firsts]
            return begins, [end for _, _, lasts in drawn for end in lasts]
        _, first, last = drawn[0]
        if graph.kind == "agent":
            self.arrows += (f"{first[0][0]} <-.-> {target}" for _, firsts, _ in drawn[1:] for target, _ in firsts)
            return first, last
        for (_, before, _), (_, firsts, _) in pairwise(drawn):
            self.arrows += (f"{before[0][0]} -.-> {target}" for target, _ in firsts)
        return first, [end for _, _, lasts in drawn for end in lasts]


def _short(text: str) -> str:
    return shortened(one_line(text), _LONGEST)


def _on_arrow(text: str) -> str:
    return text and f"|{_quoted(text)}|"


def _quoted(text: str) -> str:
    """Return a label. Each character that may mean something to Mermaid, Markdown or HTML becomes its number."""
    return f'"{_SPECIAL.sub(lambda match: f"#{ord(match[0])};", _short(text))}"'
