"""The template of a provider in a package of its own: it is installed elsewhere, and passes its own tests."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rxllm

pytestmark = pytest.mark.slow

TEMPLATE = Path(__file__).parents[2] / "examples" / "provider_plugin"


@pytest.fixture
def installed(tmp_path):
    """Install the template without a network: its package, and the metadata that an installer writes."""
    project = tomllib.loads((TEMPLATE / "pyproject.toml").read_text("utf-8"))["project"]
    for package in (TEMPLATE / "src").iterdir():
        shutil.copytree(package, tmp_path / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    facts = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    facts.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}", ""]
    (facts / "METADATA").write_text("\n".join(lines), "utf-8")
    points = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (facts / "entry_points.txt").write_text("\n".join(points), "utf-8")
    return tmp_path


def run(installed, *command):
    """Run Python with the installed package, and return its exit code and its output."""
    path = os.pathsep.join([str(installed), str(Path(rxllm.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": path},
        cwd=installed,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.timeout(180)
def test_template_passes_its_own_tests(installed):
    """The contract of a provider over HTTP, and the entry point."""
    shutil.copytree(TEMPLATE / "tests", installed / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:asyncio")
    code, said, errors = run(installed, "-m", "pytest", *options, "tests")
    assert 0 == code, said + errors
    assert " passed" in said


def test_broken_plugin_warns_and_breaks_nothing(installed):
    """The warning names the provider. The other providers are listed, and the broken one raises a sentence."""
    (installed / "rxllm_parrot" / "__init__.py").write_text("import a_module_that_is_missing\n", "utf-8")
    program = (
        "import rxllm\n"
        "print('openai' in [info.name for info in rxllm.providers()])\n"
        "try:\n    rxllm.model('parrot:grey')\n"
        "except rxllm.MisuseError as error:\n    print(error)\n"
    )
    code, said, errors = run(installed, "-c", program)
    assert (0, "True") == (code, said.splitlines()[0])
    assert "The provider 'parrot' is installed but broken" in said
    assert "UserWarning: The provider 'parrot' could not be loaded" in errors
