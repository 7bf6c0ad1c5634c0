"""The programs of docs/how-to/other-libraries.md that need other libraries print what the page says."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import answer

from rxllm.testing import FakeServer

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "other-libraries.md"
BLOCK = re.compile(r'^```py\n(.*?)^```$(?:\n\n```text title="Output"\n(.*?)^```$)?', re.MULTILINE | re.DOTALL)
PROGRAMS = BLOCK.findall(PAGE.read_text("utf-8"))


@pytest.mark.timeout(300)  # importing LiteLLM takes seconds
@pytest.mark.parametrize(("program", "said"), PROGRAMS, ids=range(len(PROGRAMS)))
def test_program_of_the_page_runs(program, said, tmp_path):
    """It runs against a local server in place of the vendors, and prints the output that the page shows."""
    for library in re.findall(r"(?:^import |adapters import (?:from|to)_)(\w+)", program, re.MULTILINE):
        if importlib.util.find_spec(library) is None:
            pytest.skip("the extra 'clients' is not installed")
    with FakeServer(answer) as server:
        keys = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}
        settings = {"LITELLM_OFFLINE_MODE": "true", "LLM_USER_PATH": str(tmp_path)}
        addresses = {"OPENAI_BASE_URL": f"{server.url}/v1", "ANTHROPIC_BASE_URL": server.url}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **keys, **addresses, **settings},
            capture_output=True,
            encoding="utf-8",
            timeout=240,
            check=False,
        )
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout
    assert said in ("", done.stdout)
