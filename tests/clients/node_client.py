"""Real JavaScript clients, in one process of Node that does one task after another."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["Node"]

DIRECTORY = Path(__file__).parent / "node"


class Node:
    """``with Node() as node``: `node.ask(client, url=…)` returns what the client has seen."""

    def __init__(self):
        node = shutil.which("node", path=Path(sys.executable).parent)
        if node is None:
            pytest.skip("the extra 'clients' is not installed")
        if not (DIRECTORY / "node_modules").is_dir():
            pytest.skip("the extra 'clients' is not installed: run tests/clients/install.sh")
        self.node = node

    def __enter__(self):
        self.process = subprocess.Popen(
            [self.node, "driver.mjs"], cwd=DIRECTORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *error):
        self.process.communicate()

    def start(self, client, **task):
        """Begin a task."""
        self.process.stdin.write(json.dumps({"client": client, **task}) + "\n")
        self.process.stdin.flush()

    def result(self):
        """Return the result of the task."""
        result = json.loads(self.process.stdout.readline())
        assert "thrown" not in result, result["thrown"]
        return result

    def ask(self, client, **task):
        """Do a task, and return its result."""
        self.start(client, **task)
        return self.result()
