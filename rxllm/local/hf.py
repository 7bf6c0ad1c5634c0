"""Models of Hugging Face's transformers, which run in this process."""

from __future__ import annotations

import importlib
import importlib.util
import uuid
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import attrs
from attrs import field, frozen

from ..events import Service
from ..llm import Fields
from ..misuse import MisuseError, must_be, shown
from ..operators.rewriting import Ending, Patterns
from ..values.chunk import Chunk
from ..values.declaration import Declaration
from ..values.refusing import refusing
from ..values.request import Request
from ..values.usage import Usage
from ..values.vocabulary import FinishReason
from ._hf_answer import Answer
from ._hf_engine import HFModel
from ._hf_prompt import check_support, encoded, sampling_of
from ._lazy import shared
from ._local_model import LocalModel

__all__ = ["Transformers"]

_LEAD = 16  # tokens of the prompt that decide how the first token of the answer is written
_PACKAGES = ("torch", "transformers", "psutil")


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _name(model: object) -> str:
    if not model or not isinstance(model, (str, Path)):
        raise MisuseError(f"A model's name must be like 'org/name', or the path of a folder, not {shown(model)}.")
    return str(model)


@frozen(init=False)
class Transformers(LocalModel):
    """A language model of Hugging Face, which [transformers](https://huggingface.co/docs/transformers) runs here.

    ::

        llm = rxllm.Transformers("HuggingFaceTB/SmolLM2-135M-Instruct")
        print(llm.invoke("Why is the sky blue?", max_tokens=100))

    It needs the extra ``transformers``. Nothing is downloaded unless `download` is True. The first request loads the
    model. Models with the same settings share it, and it is freed when the last of them is garbage-collected.

    Many answers are generated at once, by transformers' continuous batching. The model pauses an answer whose reader is
    behind, and continues it later. The next step leaves out a cancelled answer. It works for decoder-only models with
    ordinary attention, such as those of the families Llama, Qwen, Gemma, Mistral and SmolLM.

    Sampling that a request leaves open is that of the model's ``generation_config.json``. Tools, response formats and
    seeds are refused. `extra` holds variables for the model's chat template, such as ``{"enable_thinking": False}``.

    Attributes:
        model: the name on the Hugging Face Hub, or a folder.
        context: the maximum number of tokens of a conversation, answer included. An answer that fills the context ends
            with the finish reason ``length``. A model with a shorter context of its own keeps that.
        parallel: how many answers are generated at once; further requests wait. The memory for `context` tokens is
            reserved for each of them.
        download: whether to download the model if it is not on this machine.
        options: further keywords for transformers' ``from_pretrained``, such as ``{"dtype": "bfloat16"}`` or
            ``{"device_map": "cuda"}``.
    """

    declaration = Declaration(features=("usage",))

    model: str = field(converter=_name)
    download: bool = field(default=False, kw_only=True, validator=must_be("True or False", _is_flag))

    def __init__(
        self,
        model: str | Path,
        *,
        context: int = 4096,
        parallel: int = 4,
        download: bool = False,
        options: Mapping[str, Any] | None = None,
        **settings: Unpack[Fields],
    ) -> None:
        self._settle(
            model=model, context=context, parallel=parallel, download=download, options=options or {}, **settings
        )

    def _shared_weights(self) -> HFModel:
        for package in _PACKAGES:
            if importlib.util.find_spec(package) is None:
                raise MisuseError(f"{package} is not installed: pip install 'rxllm[transformers]'.")
        make = partial(HFModel, self.model, self.context, self.parallel, self.options, download=self.download)
        return shared(make, "hf", self.model, self.context, self.parallel, self.download, self.options)

    def service(self, request: Request) -> Service:
        """Return the description of transformers and of the model."""
        return attrs.evolve(super().service(request), provider="transformers", model=self.model)

    def identity(self) -> str:
        """Return a digest of the settings, and of the sizes and times of change of the files in a folder."""
        folder = Path(self.model).expanduser()
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        facts = [[file.name, (stat := file.stat()).st_size, stat.st_mtime_ns] for file in files]
        return self._digest({"model": [self.model, facts], "parallel": None, "download": None})

    async def chunks(self, request: Request) -> AsyncIterator[Chunk]:
        """Stream the answer.

        Raises:
            MisuseError: the request needs a feature that Transformers lacks.
        """
        with refusing(request):
            check_support(request)
        engine = await self._weights.loaded()
        with refusing(request):
            prompt = encoded(engine.tokenizer, request, engine.context)
        room = engine.context - len(prompt)
        limit = room if request.max_tokens is None else min(request.max_tokens, room)
        answer = Answer(engine, prompt, limit, sampling_of(request, engine.defaults))
        # The first chunk with text carries these facts.
        facts: dict[str, Any] = {"model": self.model, "id": f"transformers-{uuid.uuid4().hex}"}
        decoder: Any = importlib.import_module("tokenizers.decoders")
        pieces = decoder.DecodeStream(ids=prompt[-_LEAD:], skip_special_tokens=True)
        ending = Ending(Patterns(request.stop_sequences or ()))
        try:
            while not ending.found and (tokens := await answer.read()):
                texts = [pieces.step(engine.tokenizer.backend_tokenizer, token) for token in tokens]
                text = "".join(filter(None, texts))
                if text := ending.read(text):
                    yield Chunk(text, **facts)
                    facts = {}
        finally:
            answer.leave()
        rest = "" if ending.found else ending.rest()
        is_whole = ending.found or answer.tokens[-1] in engine.ends
        reason: FinishReason = "stop" if is_whole else "length"
        yield Chunk(
            rest,
            finish_reason=reason,
            raw_finish_reason="stop_sequence" if ending.found else "eos_token" if is_whole else "length",
            usage=Usage(input_tokens=len(prompt), output_tokens=len(answer.tokens)),
            **facts,
        )
