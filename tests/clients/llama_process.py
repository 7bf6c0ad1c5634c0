"""llama.cpp's HTTP server in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["running"]


@contextmanager
def running(model: Path, *keys: str) -> Iterator[str]:
    """Return the address of a server with this model, which accepts these keys."""
    program = [sys.executable, str(Path(__file__).with_name("llama_server.py")), str(model), *keys]
    with (
        tempfile.TemporaryFile() as log,  # a pipe that nobody reads would fill, and stop the server
        subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            address = process.stdout.readline().decode().strip()
            if not address:
                log.seek(0)
                raise AssertionError(log.read().decode()[-2000:])
            yield address
        finally:
            process.communicate(timeout=20)
        assert process.returncode == 0
