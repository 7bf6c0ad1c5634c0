"""The process in which llama.cpp runs: ``python _llama_process.py``.

It reads the settings, a line of JSON. It loads the model, and writes a line of JSON: the address of llama.cpp's HTTP
server, or the reason of the failure. It runs until its standard input is closed, as it is when the parent process ends.

The script imports nothing of rxllm, so that it starts fast.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
from typing import Any

__all__ = ["main"]

_REASONS = 2_000  # characters at the end of llama.cpp's log that explain a failure
_PACKAGE = "xllamacpp"  # type checkers must not need it


def main() -> None:
    """Serve one model."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches this process, too
    answer = {}
    with tempfile.TemporaryFile() as log:
        settings = json.loads(sys.stdin.readline())
        shows_log = settings["verbosity"] > 1
        if not shows_log:
            os.dup2(log.fileno(), 2)  # llama.cpp writes its log to the descriptor
        server = None
        try:
            server = _server(settings)
            answer = {"address": server.listening_address}
        except ValueError as error:
            answer = {"refused": str(error)}
        except RuntimeError:
            log.seek(0)
            answer = {"failed": log.read().decode("utf-8", "replace")[-_REASONS:]}
        if not shows_log:
            with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
                os.dup2(nowhere.fileno(), 2)
    print(json.dumps(answer), flush=True)
    sys.stdin.read()
    os._exit(0)  # the server's destructor would wait for its answers


def _server(settings: dict[str, Any]) -> Any:
    package: Any = importlib.import_module(_PACKAGE)
    params = package.CommonParams()
    for name, value in settings.items():
        *owners, last = name.split(".")
        target = params
        try:
            for owner in owners:
                target = getattr(target, owner)
            getattr(target, last)
        except AttributeError:
            raise ValueError(
                f"llama.cpp has no setting {name!r}. The options of LlamaCpp have the names of xllamacpp.CommonParams, "
                "such as 'n_gpu_layers' or 'cpuparams.n_threads'."
            ) from None
        try:
            setattr(target, last, value)
        except Exception as error:
            raise ValueError(f"llama.cpp's setting {name!r} can't be {value!r:.60}: {error}.") from None
    return package.Server(params)


if __name__ == "__main__":
    main()
