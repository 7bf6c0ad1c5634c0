"""Break the package on purpose, one statement at a time, and see whether the suite notices.

::

    python tests/mutation/mutate.py --count 100 --seed 1               # sample, run, print the survivors
    python tests/mutation/mutate.py --count 100 --seed 1 --again       # after tests were added: the survivors once more
    python tests/mutation/mutate.py --count 100 --only rxllm/wire/     # of one room

Each mutant is tried in a copy of the tree, in two passes: with the test files that speak most of its module, up to the
first failure; then, if it has survived these, with the rest of the suite. README.md in this directory says more.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

ROOT = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
COPIED = ("rxllm", "tests", "examples", "docs", "setup.cfg", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
MAPPED = 6  # test files that run before the rest of the suite
HANG = 1800  # seconds for one run of pytest; each test has its own limit, from setup.cfg

# What an operator looks like in the source, and what replaces it.
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
        function: The qualified name of the function or class that holds the statement, ``""`` at module level.
        statement: The statement's text (of a compound one: its head), white space made single.
        kind: What sort of change it is.
        change: ``before -> after``, of the part that is replaced.
        start: Where that part begins, in bytes of the file.
        end: Where it ends.
        after: What stands there instead.
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
        """What identifies it wherever its line moves."""
        return self.file, self.function, self.statement, self.change


def rank(seed: int, *key: str) -> str:
    """A random number that depends on nothing but its key, so that an edit elsewhere leaves a sample as it is."""
    return hashlib.sha256("\0".join((str(seed), *key)).encode()).hexdigest()


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
        """A list for each statement that can be changed."""
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
        """Whether nothing in it runs, or what runs is only for readers and type checkers."""
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            return any(ast.unparse(decorator) == "overload" for decorator in statement.decorator_list)
        docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        return docstring or self.text(statement).startswith(("if TYPE_CHECKING", "import ", "from ", "__all__"))

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
        """What a statement evaluates itself: without its inner statements, annotations and parts of f-strings."""
        for field, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if not isinstance(child, ast.AST) or field in ("annotation", "returns", "type_params"):
                    continue
                if not isinstance(child, ast.stmt | ast.JoinedStr | ast.ExceptHandler | ast.match_case):
                    yield child
                    yield from self.expressions(child)

    def mutant(self, statement: ast.stmt, function: str, kind: str, start: int, end: int, after: str) -> Mutant:
        """A mutant out of a change."""
        head = self.text(statement)
        if inner := getattr(statement, "body", None):
            head = self.source[self.span(statement)[0] : self.span(inner[0])[0]].decode()
        head = re.sub(r"(?m)\s+# .*$", "", head)
        before = " ".join(self.source[start:end].decode().split())
        return Mutant(self.file, function, " ".join(head.split()), kind, f"{before} -> {after}", start, end, after)

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Where a node begins and ends, in bytes."""
        start = self.starts[node.lineno - 1] + node.col_offset
        return start, self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.AST) -> str:
        """The source of a node."""
        return self.source[slice(*self.span(node))].decode()


def sample(root: Path, count: int, seed: int, only: str) -> list[Mutant]:
    """So many mutants: each statement that can be changed is as likely as any other, and one change of it is taken."""
    mutants: dict[tuple[str, ...], Mutant] = {}
    for path in sorted((root / "rxllm").rglob("*.py")):
        if path.relative_to(root).as_posix().startswith(only):
            for changes in Module(root, path).mutants():
                mutant = min(changes, key=lambda mutant: rank(seed, *mutant.key))
                mutants.setdefault(mutant.key, mutant)
    return sorted(mutants.values(), key=lambda mutant: rank(seed, *mutant.key[:3]))[:count]


def tests_for(root: Path, file: str) -> tuple[list[str], list[str]]:
    """The test files that speak most of a module, and the others, both in the order of how much they do.

    A name that many test files mention says little, so its mentions count the less.
    """
    texts = {path.relative_to(root).as_posix(): path.read_text() for path in (root / "tests").rglob("test_*.py")}
    room, stem = Path(file).parent.name, Path(file).stem.strip("_")
    scores: Counter[str] = Counter()
    for name in {stem, *re.findall(r"(?m)^(?:async def|def|class) (\w+)", (root / file).read_text())}:
        mentions = {path: len(re.findall(rf"\b{name}\b", text)) for path, text in texts.items()}
        files = sum(map(bool, mentions.values()))
        scores.update({path: min(count, 20) / files for path, count in mentions.items() if count})
    for path in map(Path, texts):
        scores[path.as_posix()] += 100 * (path.stem == f"test_{stem}") + 2 * (path.parent.name == room)
    ordered = [path for path, _ in scores.most_common()]
    return ordered[:MAPPED], ordered[MAPPED:]


def noticed(root: Path, tests: list[str]) -> str:
    """The first test that fails, or ``""``."""
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "--tb=no", "-rfE", *tests]
    with tempfile.TemporaryFile("w+") as output:  # a pipe would stay open as long as any grandchild lives
        pytest = subprocess.Popen(
            command, cwd=root, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            code = pytest.wait(HANG)
        except subprocess.TimeoutExpired:
            os.killpg(pytest.pid, signal.SIGKILL)
            pytest.wait()
            return "(hung)"
        output.seek(0)
        said = output.read()
    if code == 0:
        return ""
    found = re.search(r"(?m)^(?:FAILED|ERROR) (\S+)", said)
    return found[1] if found else f"(pytest ended with {code}: {said[-200:]})"


def tried(root: Path, mutant: Mutant, *, mapped: bool) -> str:
    """What notices the mutant, or ``""``: among the test files mapped to its module, or among the others."""
    path = root / mutant.file
    original = path.read_bytes()
    path.write_bytes(original[: mutant.start] + mutant.after.encode() + original[mutant.end :])
    try:
        return noticed(root, tests_for(root, mutant.file)[not mapped])
    finally:
        path.write_bytes(original)


def main() -> int:
    """Run the sample; 1 if a mutant survives that is not declared equivalent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="how many mutants")
    parser.add_argument("--seed", type=int, default=1, help="which sample")
    parser.add_argument("--only", default="", help="only files whose path starts with this")
    parser.add_argument("--state", type=Path, help="JSON lines of what was tried (default: in the temporary directory)")
    parser.add_argument("--mapped", action="store_true", help="leave out the second pass, with the rest of the suite")
    parser.add_argument("--again", action="store_true", help="try the survivors once more")
    parser.add_argument("--list", action="store_true", help="print the sample and run nothing")
    options = parser.parse_args()
    state = options.state or Path(tempfile.gettempdir()) / f"rxllm-mutation-{options.seed}.jsonl"

    def key_of(record: dict[str, str]) -> tuple[str, ...]:
        return record["file"], record["function"], record["statement"], record["change"]

    equivalent = set(map(key_of, tomllib.loads(EQUIVALENT.read_text()).get("mutant", ())))
    results: dict[tuple[str, ...], dict[str, Any]] = {}  # the latest, by mutant
    for line in state.read_text().splitlines() if state.exists() else ():
        results[key_of(json.loads(line))] = json.loads(line)
    if options.again:
        results = {key: result for key, result in results.items() if result["noticed_by"]}

    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "tree"
        shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        mutants = sample(root, options.count, options.seed, options.only)
        if options.list:
            print("\n".join(" | ".join(mutant.key) for mutant in mutants))
            return 0
        if not state.exists() and (failure := noticed(root, [])):
            print(f"The suite fails as it is, at {failure}: mend that first.", file=sys.stderr)
            return 2
        for mapped in (True, False)[: 2 - options.mapped]:
            for mutant in mutants:
                known = results.get(mutant.key)
                wanted = known is None if mapped else known and known["mapped"] and not known["noticed_by"]
                if mutant.key in equivalent or not wanted:
                    continue
                result = {**asdict(mutant), "mapped": mapped, "noticed_by": tried(root, mutant, mapped=mapped)}
                results[mutant.key] = result
                with state.open("a") as lines:
                    lines.write(json.dumps(result) + "\n")

    counted = [mutant for mutant in mutants if mutant.key not in equivalent]
    survivors = [mutant for mutant in counted if not results[mutant.key]["noticed_by"]]
    print(
        f"mutants={len(mutants)} equivalent={len(mutants) - len(counted)} "
        f"noticed={len(counted) - len(survivors)} survived={len(survivors)}"
    )
    for each in survivors:
        print(f"{each.file} | {each.function} | {each.statement} | {each.kind}: {each.change}")
    return bool(survivors)


if __name__ == "__main__":
    sys.exit(main())
