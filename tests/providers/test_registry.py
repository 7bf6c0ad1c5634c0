"""Each vendor declares its facts on its class, and no other file repeats them."""

import ast
import importlib
from pathlib import Path

import pytest

import rxllm
from rxllm.providers import _registry

ROOT = Path(rxllm.__file__).parent
PROJECT = ROOT.parent
VENDORS = _registry._vendors()  # their modules by name
CENTRAL = [  # files that must work for every vendor without its name
    *(ROOT / name for name in ("__init__.py", "__main__.py", "llm.py", "pipeline.py", "surface.py", "keywords.py")),
    ROOT / "providers" / "_registry.py",
    ROOT / "providers" / "_http.py",
    *(
        path
        for room in ("bridges", "cli", "combinators", "handlers", "operators", "runtime", "wire")
        for path in (ROOT / room).rglob("*.py")
    ),
]


def class_of(vendor):
    """Return the class that the vendor's module exports."""
    module = importlib.import_module(VENDORS[vendor])
    [name] = module.__all__
    return getattr(module, name)


@pytest.mark.parametrize("vendor", VENDORS)
def test_vendor_is_one_class_with_a_declaration(vendor):
    """The module exports one model, which declares its facts; rxllm exports the class, too."""
    kind = class_of(vendor)
    assert issubclass(kind, rxllm.LLM)
    assert "declaration" in vars(kind)
    assert kind is getattr(rxllm, kind.__name__)
    assert kind.__name__ in rxllm.__all__


@pytest.mark.parametrize("vendor", VENDORS)
def test_vendor_has_its_test_and_its_page(vendor):
    """The test has the vendor's name. The page is the vendor's own, or the page on choosing a model."""
    assert (PROJECT / "tests" / VENDORS[vendor].split(".")[1] / f"test_{vendor}.py").exists()
    page = (PROJECT / "docs" / "how-to" / "choose-a-model.md").read_text("utf-8")
    assert f"`rxllm.{class_of(vendor).__name__}`" in page


@pytest.mark.parametrize("path", CENTRAL, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_central_files_name_no_vendor(path):
    """No string in them equals a vendor's name, a default model or the environment variable of a key."""
    facts = set(VENDORS) - {"embedded"}  # no vendor has the toy model
    for vendor in VENDORS:
        declaration = class_of(vendor).declaration
        facts |= {*declaration.keys, declaration.default_model} - {None}
    strings = {node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)}
    assert set() == facts & strings


def test_new_file_is_a_new_provider(tmp_path, monkeypatch):
    """A module in the folder of the providers is a provider, without a line in another file."""
    (tmp_path / "parrot.py").write_text(
        "import rxllm\n__all__ = ['Parrot']\n"
        "class Parrot(rxllm.LLM):\n"
        "    declaration = rxllm.Declaration(keys=('PARROT_API_KEY',), default_model='grey', features=('tools',))\n"
        "    model: str\n"
        "    def __init__(self, model, **settings):\n"
        "        object.__setattr__(self, 'model', model)\n"
        "        super().__init__(**settings)\n"
        "    def complete(self, request):\n"
        "        return self.model\n",
        "utf-8",
    )
    monkeypatch.setattr(rxllm.providers, "__path__", [*rxllm.providers.__path__, str(tmp_path)])
    monkeypatch.setenv("PARROT_API_KEY", "key")
    assert "green" == rxllm.model("parrot:green").invoke("hi").text
    assert "parrot:grey" == _registry.default_model()
    [info] = [info for info in rxllm.providers() if info.name == "parrot"]
    assert (("PARROT_API_KEY",), "grey", True, False) == (info.keys, info.default_model, info.tools, info.images)
