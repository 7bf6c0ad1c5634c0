"""The command `llm` as a process, and the server that its tests ask. `llm` is in the extra 'clients'."""

import os
import subprocess
import sys
from importlib.metadata import entry_points

from protocols import Chat, Messages

__all__ = ["KEY", "WAYS", "Command", "soon", "way_names"]

KEY = "sk-do-not-show-this-to-anybody"
WAYS = {"chat": (Chat(), "openai"), "messages": (Messages(), "anthropic")}


def way_names(way):
    """Return the id of a way, for pytest."""
    return way[0].name


class Command:
    """``llm`` in a folder of its own, with the addresses of a server.

    Attributes:
        environment: the variables of the process.
    """

    def __init__(self, folder, url):
        assert "rxllm" in entry_points(group="llm").names, "install rxllm again: its metadata is older than its plugin"
        addresses = {"OPENAI_BASE_URL": f"{url}/v1", "ANTHROPIC_BASE_URL": url, "NO_PROXY": "127.0.0.1"}
        keys = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY}
        self.environment = {
            **os.environ,
            **addresses,
            **keys,
            "LLM_USER_PATH": str(folder),
            "PYTHONIOENCODING": "utf-8",
        }

    def start(self, *words):
        """Start the command."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-m", "llm", *map(str, words)], env=self.environment, **streams)

    def run(self, *words):
        """Run the command to its end, and return its exit code and what it printed."""
        process = self.start(*words)
        said, errors = (text.decode() for text in process.communicate(timeout=100))
        return process.returncode, said, errors


def soon(leave):
    """Return whether the server sees within 50 ms that a reader has left, in the best of several attempts.

    Other programs may hold the machine up. The function leaves a stream, and returns the seconds.
    """
    return any(leave() < 0.05 for _ in range(5))
