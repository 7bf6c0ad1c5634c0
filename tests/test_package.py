"""The package: its exports, its imports, the cost of importing it, the size of its modules, and its docstrings."""

import ast
import importlib.util
import inspect
import os
import pkgutil
import pydoc
import re
import socket
import subprocess
import sys
import typing
from collections import Counter
from pathlib import Path

import pytest
import typing_extensions

import rxllm

ROOT = Path(rxllm.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = [".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__") for path in FILES]
FLOORS = {
    **dict.fromkeys(("errors", "bounds", "terminal", "secrecy", "showing", "extensible", "exact", "runtime"), 0),
    **dict.fromkeys(
        (
            "public",
            "prices",
            "misuse",
            "graph",
            "notebook",
            "values",
            "shapes",
            "events",
            "records",
            "results",
            "observation",
        ),
        0,
    ),
    **dict.fromkeys(("wire", "operators", "bridges"), 1),
    **dict.fromkeys(("surface", "stages", "keywords", "llm", "pipeline", "branches", "prompts", "tools"), 2),
    **dict.fromkeys(("providers", "local", "combinators", "handlers"), 3),
    **dict.fromkeys(("adapters", "serve", "jobs", "pictures"), 4),
    **dict.fromkeys(("testing", "cli", "__init__", "__main__"), 5),
}
LARGE = {  # lines that these modules may have: one state machine, or one list, that cannot be divided well
    "__init__.py": 450,  # one line a public name
    "combinators/queueing.py": 425,
    "events.py": 350,  # one class an event
    "handlers/opentelemetry.py": 425,
    "operators/attempts.py": 375,
    "operators/observing.py": 425,
    "providers/_bedrock_converse.py": 375,
    "providers/compatible.py": 390,  # one row a server
    "providers/_http.py": 375,
    "providers/_reader.py": 425,
    "providers/_openai_chat.py": 425,
    "providers/_openai_responses.py": 475,
    "providers/_responses_turns.py": 375,
    "shapes/reading.py": 355,
    "surface.py": 475,
    "testing/contract.py": 700,
    "testing/servers.py": 450,
    "values/chunk.py": 425,
}
BELOW = "import asyncio, logging, attrs, reactivex, reactivex.operators"
HEAVY = {"httpx", "aiohttp", "httpx_aiohttp", "rxllm.wire.http", "rxllm.providers", "rxllm.cli", "argparse"}


def room(module):
    """Return the room of a module: its file or folder directly below the package."""
    return [*module.split("."), "__init__"][1]


def imports(path, module):
    """Yield the modules of rxllm that a module imports, except those that it imports for type checkers only."""
    tree = ast.parse(path.read_text("utf-8"))
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "rxllm")
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            if base.split(".")[0] == "rxllm":
                yield from (
                    f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names
                )


def definitions(path):
    """Yield the name and the syntax tree of each public class, function and method in a file."""

    def walk(node, prefix, inside):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                if child.name.startswith("_"):
                    continue
                overload = any("overload" in ast.unparse(decorator) for decorator in child.decorator_list)
                if not overload:
                    yield prefix + child.name, child
                if isinstance(child, ast.ClassDef):
                    yield from walk(child, f"{prefix}{child.name}.", True)

    return walk(ast.parse(path.read_text("utf-8")), "", False)


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_is_sorted_and_complete():
    """`__all__` names every public object once, in ruff's order, and each name exists."""
    assert sorted(rxllm.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)) == rxllm.__all__
    assert len(set(rxllm.__all__)) == len(rxllm.__all__)
    assert [] == [name for name in rxllm.__all__ if getattr(rxllm, name, None) is None]
    modules = {name for _, name, _ in pkgutil.iter_modules(rxllm.__path__)}
    public = {name for name in vars(rxllm) if name[0] != "_"} - modules
    assert public - {"annotations", "importlib", "TYPE_CHECKING", "Any"} <= set(rxllm.__all__)


def test_lazy_names_are_exported_and_unknown_names_raise():
    """A lazy name is in `__all__` and `dir`. An unknown name raises AttributeError."""
    assert set(rxllm._LAZY) <= set(rxllm.__all__) <= set(dir(rxllm))
    with pytest.raises(AttributeError, match="has no attribute 'Antropic'"):
        rxllm.Antropic  # noqa: B018


@pytest.mark.parametrize("module", MODULES)
def test_every_module_can_be_imported_and_has_a_true_all(module):
    """Each module can be imported and has a docstring, and each name in its `__all__` exists."""
    if module.endswith("__main__"):
        pytest.skip("importing it starts the program")
    loaded = importlib.import_module(module)
    assert loaded.__doc__
    assert [] == [name for name in getattr(loaded, "__all__", ()) if not hasattr(loaded, name)]


def test_init_files_only_reexport():
    """The ``__init__`` files of operators, bridges, handlers and wire contain imports only."""
    for package in "operators", "bridges", "handlers", "wire":
        body = ast.parse((ROOT / package / "__init__.py").read_text("utf-8")).body
        assert {ast.Expr, ast.ImportFrom, ast.Assign} >= {type(node) for node in body}


def test_version_equals_the_version_of_the_distribution():
    """``__version__`` and pyproject.toml name the same version."""
    project = (ROOT.parent / "pyproject.toml").read_text("utf-8")
    assert re.search(r'^version = "(.*)"$', project, re.MULTILINE)[1] == rxllm.__version__
    assert (ROOT / "py.typed").exists()


# ── imports ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("path", "module"), [*zip(FILES, MODULES, strict=True)], ids=MODULES)
def test_imports_go_down_only(path, module):
    """A room imports from lower floors, and from its own floor unless that is the first floor."""
    here = FLOORS[room(module)]
    for other in imports(path, module):
        there = FLOORS[room(other)]
        same_room = room(module) == room(other)
        assert there <= here, f"{module} imports {other}, which is above it"
        assert same_room or (here, there) != (1, 1), f"{module} imports {other}: rooms of the first floor are apart"
        private = [part for part in other.split(".")[2:] if part.startswith("_")]
        assert same_room or not private, f"{module} imports {other}, which is private to its room"


def test_design_page_names_every_room():
    """A reader finds each room in the table of the floors."""
    page = (ROOT.parent / "docs" / "design.md").read_text("utf-8")
    rooms = page.partition("## Rooms")[2].partition("\n## ")[0]
    assert [] == [name for name in FLOORS if f"`{name}`" not in rooms and f"`{name}/`" not in rooms]


def test_no_modules_import_each_other():
    """The imports contain no circle, not even one that an import inside a function hides."""
    below = {module: {*imports(path, module)} - {module} for path, module in zip(FILES, MODULES, strict=True)}
    while leaves := {module for module, others in below.items() if not others & below.keys()}:
        below = {module: others for module, others in below.items() if module not in leaves}
    assert {} == below


def run(program):
    """Run a program with warnings as errors, and return its output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    environment.pop("COVERAGE_PROCESS_START", None)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else each run would compile the package again
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert ("", 0) == (run.stderr, run.returncode)
    return run.stdout


def test_importing_loads_nothing_heavy():
    """Importing rxllm loads no HTTP client and no provider. A provider loads its client with the first request."""
    loaded = run("import sys, rxllm; print(*sys.modules)").split()
    assert set() == HEAVY & set(loaded)
    loaded = run("import sys, rxllm; rxllm.OpenAI('m', api_key='k'); print(*sys.modules)").split()
    assert set() == {"httpx", "aiohttp"} & set(loaded)


def test_importing_starts_nothing():
    """Importing rxllm starts no thread, no event loop and no background portal."""
    assert "1\n" == run("import threading, rxllm; print(threading.active_count())")
    assert "None\n" == run("import rxllm; from rxllm.runtime import portal; print(portal._portal)")


@pytest.mark.parametrize(
    ("statement", "limit", "share"), [("import rxllm", 0.03, 0.4), ("import rxllm; rxllm.LLM", 0.12, 2.0)]
)
def test_importing_is_cheap(statement, limit, share):
    """The package costs less than 30 ms of CPU, and the base of all models 120 ms, in the best of several runs.

    On a slow or busy machine they cost less than a share of what the libraries below a model cost.
    """

    def cost(statement):
        program = f"import time; {statement}; print(time.process_time())"
        return min(float(run(program)) for _ in range(5))

    bare = cost("pass")
    for _ in range(4):
        ours, below = cost(statement) - bare, cost(BELOW) - bare
        if ours < max(limit, share * below):
            return
    pytest.fail(f"{statement} costs {ours:.3f} s, and the libraries below it {below:.3f} s")


# ── rooms ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_module_keeps_within_its_limit_of_lines(path):
    """A module of more than 300 lines is two modules, except those that are listed with a limit of their own."""
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= LARGE.get(path.relative_to(ROOT).as_posix(), 300)


def test_test_files_have_names_of_their_own():
    """Two files with one name cannot be imported by pytest."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [] == [name for name, count in names.items() if count > 1]


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_everything_public_is_documented(path):
    """Every public class, function and method has a docstring. A method may inherit its docstring."""
    bare = [name for name, node in definitions(path) if not ast.get_docstring(node)]
    inherited = [name for name in bare if "." in name]
    assert [] == [name for name in bare if name not in inherited]
    module = importlib.import_module(MODULES[FILES.index(path)]) if inherited else None
    for name in inherited:
        kind, _, method = name.rpartition(".")
        owner = getattr(module, kind)
        assert inspect.getdoc(getattr(owner, method)), name


def test_every_exported_name_has_its_own_docstring():
    """No exported class has a docstring that attrs generated."""
    for name in rxllm.__all__:
        value = getattr(rxllm, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name
            assert not value.__doc__.startswith("Method generated by attrs")


def test_no_file_contains_a_local_path():
    """The source contains no path of the machine on which it was written."""
    machine = re.compile(r"/(home|root|work|Users)/\w")
    assert [] == [path.name for path in FILES if machine.search(path.read_text("utf-8"))]


# ── this suite ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("address", [("192.0.2.1", 80), ("example.com", 80), ("2001:db8::1", 80)])
def test_suite_cannot_connect_to_another_machine(address):
    """A connection to another machine raises before a packet is sent."""
    with pytest.raises(RuntimeError, match="this machine only"):
        socket.create_connection(address, timeout=0.1)


def test_environment_has_no_keys_and_no_proxies():
    """The suite removes API keys and proxies from the environment."""
    assert [] == [name for name in os.environ if name.endswith("_API_KEY") or name.lower().endswith("_proxy")]


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "runtime"], ids=lambda path: path.stem)
def test_the_engine_imports_no_events(path):
    """The engine carries the observation of a run without looking into it."""
    assert set() == {"events", "observation"} & {room(other) for other in imports(path, f"rxllm.runtime.{path.stem}")}


@pytest.mark.parametrize("name", rxllm.__all__)
def test_help_shows_the_public_api_only(name):
    """Nothing of attrs, of the private methods, or of what happens in a forked child."""
    described = pydoc.render_doc(getattr(rxllm, name), renderer=pydoc.plaintext)
    assert "__attrs" not in described
    assert " reset(self)" not in described


def test_help_of_a_limiter_shows_how_to_make_one():
    """A program makes a limiter and hands it over; it calls no method of it."""
    assert ["__init__"] == [name for name in dir(rxllm.Limiter) if name.startswith("__") or not name.startswith("_")]


@pytest.mark.parametrize("protocol", [typing.Protocol, typing_extensions.Protocol])
def test_a_model_may_be_of_a_protocol_too(protocol):
    """A class of a program may have both as its bases, and is an LLM."""

    class Named(protocol):
        def name(self): ...

    class Mine(rxllm.LLM, Named):
        def complete(self, request):
            return "hi"

    assert "hi" == Mine().invoke("?").text
    assert isinstance(Mine(), rxllm.LLM)
    assert not isinstance(Mine, rxllm.LLM)
