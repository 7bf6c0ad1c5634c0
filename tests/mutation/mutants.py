"""The possible changes of a module: `Module` finds them, and a `Mutant` is one of them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from attrs import frozen

__all__ = ["Module", "Mutant"]

# The text of each operator in the source, and its replacement.
COMPARISONS = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Is: (r"is\b", "is not"),
    ast.IsNot: (r"is\s+not\b", "is"),
    ast.In: (r"in\b", "not in"),
    ast.NotIn: (r"not\s+in\b", "in"),
}
ARITHMETIC = {
    ast.Add: (r"\+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: (r"\*", "+"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "+"),
    ast.BitOr: (r"\|", "&"),
    ast.BitAnd: ("&", "|"),
}
BOOLEANS = {ast.And: (r"and\b", "or"), ast.Or: (r"or\b", "and")}


@frozen
class Mutant:
    """One change of one statement.

    Attributes:
        file: The module's path from the root of the tree.
        function: The qualified name of the enclosing function or class, ``""`` at module level.
        statement: The text of the statement (for a compound one: its head), with single spaces.
        kind: The kind of change.
        change: ``before -> after`` of the replaced part.
        start: The offset of this part in the file, in bytes.
        end: The offset of its end.
        after: The replacement.
    """

    file: str
    function: str
    statement: str
    kind: str
    change: str
    start: int
    end: int
    after: str

    @property
    def key(self) -> tuple[str, ...]:
        """The key of the mutant, which does not depend on line numbers."""
        return self.file, self.function, self.statement, self.change


class Module:
    """The mutants of one file."""

    def __init__(self, root: Path, path: Path) -> None:
        self.file = path.relative_to(root).as_posix()
        self.source = path.read_bytes()
        self.starts = [0]  # of each line, in bytes
        for line in self.source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.tree = ast.parse(self.source)

    def mutants(self, body: list[ast.stmt] | None = None, function: str = "") -> Iterator[list[Mutant]]:
        """Yields a list of mutants for each statement that can be changed."""
        for statement in self.tree.body if body is None else body:
            name = getattr(statement, "name", "")
            inside = f"{function}.{name}".lstrip(".") if isinstance(statement, ast.stmt) and name else function
            if self.skipped(statement):
                continue
            if found := [self.mutant(statement, function or inside, *each) for each in self.changes(statement)]:
                yield found
            for field in ("body", "orelse", "finalbody"):
                yield from self.mutants(getattr(statement, field, []), inside)
            for part in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
                yield from self.mutants(part.body, inside)

    def skipped(self, statement: ast.stmt) -> bool:
        """Whether the statement runs no code, or only code for readers and type checkers."""
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            return any(ast.unparse(decorator) == "overload" for decorator in statement.decorator_list)
        text = self.text(statement)
        docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        typed = re.match(r"\w+ = (TypeVar|ParamSpec)\(", text)
        return docstring or bool(typed) or text.startswith(("if TYPE_CHECKING", "import ", "from ", "__all__"))

    def changes(self, statement: ast.stmt) -> Iterator[tuple[str, int, int, str]]:
        """The changes of a statement: kind, start, end and replacement."""
        whole = *self.span(statement), "pass"
        match statement:
            case ast.Expr(value=ast.Call() | ast.Await(value=ast.Call())):
                yield "dropped call", *whole
            case ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield "dropped assignment", *whole
            case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
                yield "returned value", *self.span(value), "None"
            case ast.If(test=test) | ast.While(test=test):
                yield "condition", *self.span(test), f"not ({self.text(test)})"
            case _:
                pass
        if isinstance(statement, ast.AugAssign):
            yield from self.operator("arithmetic", statement.target, statement.value, statement.op, ARITHMETIC)
        for node in self.expressions(statement):
            yield from self.of_expression(node)

    def of_expression(self, node: ast.AST) -> Iterator[tuple[str, int, int, str]]:
        """The changes of one node of an expression."""
        match node:
            case ast.Compare(left=left, ops=operators, comparators=rights):
                for before, after, operator in zip([left, *rights], rights, operators, strict=False):
                    yield from self.operator("comparison", before, after, operator, COMPARISONS)
            case ast.BinOp(left=left, op=op, right=right):
                yield from self.operator("arithmetic", left, right, op, ARITHMETIC)
            case ast.BoolOp(values=values, op=op):
                for before, after in pairwise(values):
                    yield from self.operator("boolean", before, after, op, BOOLEANS)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield "boolean", *self.span(node), f"({self.text(operand)})"
            case ast.IfExp(test=test):
                yield "condition", *self.span(test), f"not ({self.text(test)})"
            case ast.Constant(value=bool() as value):
                yield "constant", *self.span(node), str(not value)
            case ast.Constant(value=int() | float() as value):
                yield "constant", *self.span(node), repr(value + 1)
            case ast.Constant(value=str() as value) if re.fullmatch(r"[\w.-]+", value):
                yield "constant", *self.span(node), repr(value + "X")
            case _:
                pass

    def operator(
        self, kind: str, left: ast.AST, right: ast.AST, operator: ast.AST, swaps: dict[type, tuple[str, str]]
    ) -> Iterator[tuple[str, int, int, str]]:
        """The operator between two operands, changed to its opposite."""
        if type(operator) in swaps:
            pattern, opposite = swaps[type(operator)]
            start, end = self.span(left)[1], self.span(right)[0]
            if found := re.search(pattern.encode(), self.source[start:end]):
                yield kind, start + found.start(), start + found.end(), opposite

    def expressions(self, node: ast.AST) -> Iterator[ast.AST]:
        """The expressions that a statement itself evaluates: no inner statements, annotations or parts of f-strings."""
        for field, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if not isinstance(child, ast.AST) or field in ("annotation", "returns", "type_params"):
                    continue
                if not isinstance(child, ast.stmt | ast.JoinedStr | ast.ExceptHandler | ast.match_case):
                    yield child
                    yield from self.expressions(child)

    def mutant(self, statement: ast.stmt, function: str, kind: str, start: int, end: int, after: str) -> Mutant:
        """Makes a mutant of a change."""
        head = self.text(statement)
        if inner := getattr(statement, "body", None):
            head = self.source[self.span(statement)[0] : self.span(inner[0])[0]].decode()
        head = re.sub(r"(?m)\s+# .*$", "", head)
        before = " ".join(self.source[start:end].decode().split())
        return Mutant(self.file, function, " ".join(head.split()), kind, f"{before} -> {after}", start, end, after)

    def span(self, node: ast.AST) -> tuple[int, int]:
        """The offsets of a node in bytes."""
        start = self.starts[node.lineno - 1] + node.col_offset
        return start, self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.AST) -> str:
        """The source of a node."""
        return self.source[slice(*self.span(node))].decode()
