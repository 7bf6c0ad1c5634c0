"""Models in GGUF files, which llama.cpp runs on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack, cast

import attrs
from attrs import field, frozen
from reactivex import Observable

from ..events import Service
from ..llm import Fields
from ..misuse import MisuseError, shown
from ..providers.openai import OpenAI
from ..shapes.modes import Offer
from ..values.chunk import Chunk
from ..values.declaration import Declaration
from ..values.refusing import about
from ..values.request import Request
from ._llama_server import LlamaServer, shared_server
from ._local_model import LocalModel

__all__ = ["LlamaCpp"]


def _path(path: object) -> str:
    if not path or not isinstance(path, (str, Path)):
        raise MisuseError(f"The path of a GGUF file must be text or a Path, not {shown(path)}.")
    return str(path)


@frozen(init=False)
class LlamaCpp(LocalModel):
    """A model in a GGUF file, which [llama.cpp](https://github.com/ggml-org/llama.cpp) runs on this machine.

    ::

        llm = rxllm.LlamaCpp("SmolLM2-135M-Instruct.Q4_1.gguf")
        print(llm.invoke("Why is the sky blue?", max_tokens=100))

    It needs the extra ``local``, and downloads nothing. The first request loads the model, in a process of its own.
    Models with the same file and settings share the process. The process ends when the last of them is
    garbage-collected, or with the program.

    A cancelled answer stops being generated. A slow reader does not slow the generation down, but an answer never has
    more than `context` tokens, so what waits for the reader is bounded.

    Attributes:
        path: the file. Of a model in several files, the first one.
        context: the maximum number of tokens of a conversation, answer included. An answer that fills the context ends
            with the finish reason ``length``. A model with a shorter context of its own keeps that.
        parallel: how many answers llama.cpp generates at once; further requests wait. llama.cpp reserves the memory for
            `context` tokens for each of them.
        options: further settings of xllamacpp's ``CommonParams``, by their names there, such as ``n_gpu_layers`` or
            ``cpuparams.n_threads``. ``{"verbosity": 3}`` lets llama.cpp write its log to stderr.

    Source: https://github.com/xorbitsai/xllamacpp
    """

    declaration = Declaration(features=("tools", "json_schema", "reasoning", "usage"))

    path: str = field(converter=_path)

    def __init__(
        self,
        path: str | Path,
        *,
        context: int = 4096,
        parallel: int = 4,
        options: Mapping[str, Any] | None = None,
        **settings: Unpack[Fields],
    ) -> None:
        self._settle(path=path, context=context, parallel=parallel, options=options or {}, **settings)

    def _shared_weights(self) -> LlamaServer:
        return shared_server(self.path, self.context, self.parallel, self.options)

    @property
    def _server(self) -> LlamaServer:
        return cast("LlamaServer", self._weights)

    @property
    def _chat(self) -> OpenAI:
        """The model by OpenAI's protocol, whose requests reach the server of the file."""
        return OpenAI(
            Path(self.path).stem,
            api="chat",
            server="llama.cpp",
            base_url=self._server.base_url,
            client=self._server.client,
            timeout=None,  # a long prompt, or the requests before it, may take any time
            max_retries=0,
        )

    def service(self, request: Request) -> Service:
        """Return the description of llama.cpp and of the file."""
        return attrs.evolve(super().service(request), provider="llama.cpp", model=Path(self.path).stem)

    def identity(self) -> str:
        """Return a digest of the settings, and of the file's path, size and time of change."""
        try:
            facts = Path(self.path).expanduser().stat()
            file = [self.path, facts.st_size, facts.st_mtime_ns]
        except OSError:  # the request raises for it
            file = [self.path]
        return self._digest({"path": file, "parallel": None})

    def _offers(self, request: Request) -> tuple[Offer, ...]:
        return self._chat._offers(request)  # pyright: ignore[reportPrivateUsage]

    def chunks(self, request: Request) -> Observable[Chunk]:
        """Stream the answer.

        Raises:
            MisuseError: the request names a model, or llama.cpp cannot get it in OpenAI's protocol.
        """
        if request.model is not None:
            refused = f"This LlamaCpp has the model of its file only, not {request.model!r}."
            raise about(request, MisuseError(f"{refused} Leave model= out, or construct another LlamaCpp."))
        # llama.cpp generates a whole answer to its end, even after the client has closed the request.
        return self._chat.chunks(attrs.evolve(request, stream=None))
