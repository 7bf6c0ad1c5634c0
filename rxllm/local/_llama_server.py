"""`LlamaServer`: llama.cpp in a process of its own, which the first request starts and all models of a file share.

In the program's own process, xllamacpp would block all event loops while it loads a model, because it keeps Python's
interpreter lock. A failed assertion in llama.cpp would end the program. A forked child would crash at its end.
"""

from __future__ import annotations

import importlib.util
import json
import re
import secrets
import subprocess
import weakref
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from ..errors import ProviderError
from ..misuse import MisuseError
from ..runtime.interpreters import interpreter, same_environment
from ._lazy import Lazy, shared

if TYPE_CHECKING:
    import httpx

__all__ = ["LlamaProcess", "LlamaServer", "shared_server"]

_PROGRAM = Path(__file__).with_name("_llama_process.py")
_MAGIC = b"GGUF"  # the first bytes of the file
_DEFAULTS: dict[str, Any] = {
    "cache_ram_mib": 0,  # llama.cpp's default keeps up to 8 GiB of earlier prompts
    "n_threads_http": 512,  # each open answer holds one; the default leaves some requests without a thread for long
    "ui": False,
    "verbosity": 1,
    "warmup": False,
}
# llama.cpp's threads wait for each other at each layer. By default they wait in busy loops, which made an answer take
# 7 to 25 times as long on a machine with other work.
_ENVIRONMENT = {"OMP_WAIT_POLICY": "passive"}
_OWN = {  # the settings that are not options, and what sets them instead
    "n_ctx": "context=",
    "n_parallel": "parallel=",
    "model.path": "the path",
    **dict.fromkeys(
        ("api_keys", "hostnames", "model.docker_repo", "model.hf_file", "model.hf_repo", "model.url", "model_alias"),
        "LlamaCpp itself",
    ),
}


@frozen
class LlamaProcess:
    """A running server.

    Attributes:
        address: the address of its port.
        key: the key that its requests need, so that other users of this machine cannot ask it.
    """

    _process: subprocess.Popen[str] = field(repr=False)
    address: str
    key: str = field(repr=False)

    def is_alive(self) -> bool:
        """Return whether the process runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Kill the process."""
        _stop(self._process)

    def disown(self) -> None:
        """Close this copy of the pipes. The parent's copies keep the process alive."""
        _close_pipes(self._process)
        self._process.returncode = 0  # else its destructor would warn of a running process


class LlamaServer(Lazy[LlamaProcess]):
    """A GGUF file and the settings for llama.cpp. Its HTTP clients load the model and ask it.

    Attributes:
        base_url: the address for requests with such a client.
    """

    base_url = "http://llama.cpp/v1"

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self._settings = settings
        super().__init__()

    def load(self) -> LlamaProcess:
        """Start the process and load the model.

        Raises:
            MisuseError: the file or a setting is wrong.
            ProviderError: llama.cpp cannot load the file.
        """
        return _started(self._path, self._settings)

    def client(self) -> httpx.AsyncClient:
        """Return an HTTP client for one event loop. Its requests go to this server, whatever host they name."""
        import httpx

        from ._llama_transport import LlamaTransport

        # The client lives as long as the event loop, so it must not keep the server alive.
        return httpx.AsyncClient(transport=LlamaTransport(weakref.WeakMethod(self.loaded)))


def shared_server(path: str, context: int, parallel: int, options: Mapping[str, Any]) -> LlamaServer:
    """Return the server for a file and settings: the same one as long as it lives.

    Raises:
        MisuseError: xllamacpp is not installed, or an option is invalid.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise MisuseError("xllamacpp is not installed: pip install 'rxllm[local]'.")
    for name in options:
        if name in _OWN:
            raise MisuseError(f"options= of LlamaCpp can't have {name!r}: {_OWN[name]} sets it.")
    file = Path(path).expanduser().absolute()
    settings = {**_DEFAULTS, **options, "n_ctx": context * parallel, "n_parallel": parallel}
    return shared(partial(LlamaServer, file, settings), "gguf", str(file), settings)


def _started(path: Path, settings: Mapping[str, Any]) -> LlamaProcess:
    _check_file(path)
    key = secrets.token_urlsafe()
    own = {"model.path": str(path), "model_alias": [path.stem], "api_keys": [key]}
    process = subprocess.Popen(  # noqa: S603  (this very interpreter)
        interpreter(str(_PROGRAM)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=same_environment(_ENVIRONMENT),
    )
    assert process.stdin is not None  # noqa: S101  (for type checkers)
    assert process.stdout is not None  # noqa: S101
    try:
        process.stdin.write(json.dumps({**settings, **own}) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline() or "{}")
        if "address" in answer:
            return LlamaProcess(process, answer["address"], key)
    except BaseException:
        _stop(process)
        raise
    _stop(process)
    if "refused" in answer:
        raise MisuseError(answer["refused"])
    log = answer.get("failed", "")
    reason = re.search(r"^\S+ E (.+)$", log, re.MULTILINE)  # the first error is the cause of the others
    why = reason[1] if reason else f"its process ended with status {process.returncode}"
    raise ProviderError(f"llama.cpp could not load {str(path)!r}: {why}.", body=log)


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise MisuseError(
            f"The GGUF file {str(path)!r} cannot be read: {error.strerror}. rxllm downloads no model. Download a GGUF "
            "file, for example from https://huggingface.co/models?library=gguf, and pass its path."
        ) from None
    if magic != _MAGIC:
        raise MisuseError(f"The file {str(path)!r} is not a GGUF file: it begins with {magic!r}, not {_MAGIC!r}.")


def _stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    _close_pipes(process)


def _close_pipes(process: subprocess.Popen[str]) -> None:
    for pipe in process.stdin, process.stdout:
        if pipe is not None:
            pipe.close()
