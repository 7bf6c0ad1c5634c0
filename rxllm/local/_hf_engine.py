"""`Engine`: a model of transformers that generates many answers at once, by its continuous batching.

transformers' thread generates: in each step one token for each of the running answers. The thread `rxllm-tokens` takes
the tokens to the event loops of the answers. Event loops put requests and cancellations into transformers' queues.
"""

from __future__ import annotations

import importlib
import itertools
import math
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ProviderError
from ..misuse import MisuseError
from ..runtime.executor import start_thread
from ._hf_answer import Answer, Output
from ._lazy import Lazy

__all__ = ["Engine", "HFModel"]

_PACKAGE = "transformers"  # type checkers must not need it
_PAGE = 64  # tokens in a page of the cache
_STEP = 256  # prompt tokens of one step; the memory for masks grows with them
_PATIENCE = 5.0  # seconds to wait for the end of transformers' thread
_TOKENIZER_OPTIONS = ("cache_dir", "gguf_file", "revision", "subfolder", "token", "trust_remote_code")


class HFModel(Lazy["Engine"]):
    """The name of a model and its settings."""

    def __init__(self, name: str, context: int, parallel: int, options: Mapping[str, Any], *, download: bool) -> None:
        self._name = name
        self._context = context
        self._parallel = parallel
        self._options = options
        self._download = download
        super().__init__()

    def load(self) -> Engine:
        """Load the model and start its engine.

        Raises:
            MisuseError: the model is not on this machine, or an option is wrong.
            ProviderError: transformers cannot load the model, or cannot generate several answers with it.
        """
        folder = Path(self._name).expanduser()
        name = str(folder) if folder.is_dir() else self._name
        try:
            with _without_bars():
                model, tokenizer = _pretrained(name, self._options, download=self._download)
                return Engine(model, tokenizer, self._context, self._parallel)
        except OSError as error:
            if folder.is_dir() or self._download:
                raise ProviderError(f"transformers could not load {self._name!r}: {error}") from error
            if folder.is_absolute() or self._name.startswith("."):
                raise MisuseError(f"There is no folder {self._name!r}.") from None
            raise MisuseError(
                f"The model {self._name!r} is not on this machine. rxllm downloads no model unless you ask for it: run "
                f"`hf download {self._name}`, or pass download=True."
            ) from error
        except (ImportError, RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise ProviderError(f"transformers could not load {self._name!r}: {error}") from error


class Engine:
    """A loaded model with its tokenizer. Any event loop may ask it.

    Attributes:
        tokenizer: transformers' tokenizer.
        context: the maximum number of tokens of a prompt and its answer.
        ends: the tokens that end an answer.
        defaults: the model's own generation config.
    """

    def __init__(self, model: Any, tokenizer: Any, context: int, parallel: int) -> None:
        transformers: Any = importlib.import_module(_PACKAGE)
        self.tokenizer = tokenizer
        self.defaults = model.generation_config
        longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.context: int = min(context, longest or context)
        ends = self.defaults.eos_token_id if self.defaults.eos_token_id is not None else tokenizer.eos_token_id
        self.ends: list[int] = [] if ends is None else ends if isinstance(ends, list) else [ends]
        # Each request brings its own values. These only switch its processors on: transformers leaves out those that
        # change nothing.
        sampling = transformers.GenerationConfig(do_sample=True, temperature=0.5, top_k=2, top_p=0.5, eos_token_id=-1)
        batching = transformers.ContinuousBatchingConfig(
            page_size=_PAGE,
            num_blocks=parallel * math.ceil(self.context / _PAGE),
            max_batch_tokens=max(_STEP, parallel),
            max_requests_per_batch=parallel,
            per_request_processors=True,
            auto_switch_to_flash=False,  # it may download code
        )
        self._manager = model.init_continuous_batching(sampling, batching)
        self._ids = itertools.count()
        self._answers: dict[str, Answer] = {}  # changed by single operations, from all threads
        self._is_stopped = threading.Event()
        self._manager.start()  # its thread is a daemon, as this one
        start_thread("rxllm-tokens", self._deliver)

    def ask(self, answer: Answer, prompt: Sequence[int], limit: int, sampling: Mapping[str, float]) -> str:
        """Start a request for an answer, and return its id.

        Raises:
            ProviderError: the engine has stopped.
        """
        request = str(next(self._ids))
        self._answers[request] = answer
        taken = self._manager.add_request(
            prompt, request_id=request, max_new_tokens=limit, streaming=True, eos_token_id=self.ends or -1, **sampling
        )
        if taken is None:
            del self._answers[request]
            raise ProviderError("The model stopped because of an earlier failure. Another request loads it again.")
        return request

    def cancel(self, request: str) -> None:
        """End a request: the next step leaves it out."""
        if self._answers.pop(request, None) is not None:
            self._manager.cancel_request(request)

    def is_alive(self) -> bool:
        """Return whether transformers' thread runs."""
        return bool(self._manager.is_running()) and not self._is_stopped.is_set()

    def stop(self) -> None:
        """End both threads and free the model."""
        self._is_stopped.set()
        self._manager.stop(block=True, timeout=_PATIENCE, hard_stop=True)

    def disown(self) -> None:
        """Do nothing: a forked child has none of the threads."""

    def _deliver(self) -> None:
        while not self._is_stopped.is_set():
            output: Output | None = self._manager.get_result(timeout=1.0)
            if output is not None:
                self._pass_on(output)
            elif not self._manager.is_running():
                break
            else:
                self._is_stopped.wait(0.01)  # after a failure transformers no longer waits for a result
        for answer in [*self._answers.values()]:
            self._call(answer, answer.fail, "it stopped because of an earlier failure")

    def _pass_on(self, output: Output) -> None:
        if output.is_finished():
            answer = self._answers.pop(output.request_id, None)
        else:
            answer = self._answers.get(output.request_id)
        if answer is not None and not self._call(answer, answer.receive, output):
            self.cancel(output.request_id)

    @staticmethod
    def _call(answer: Answer, function: Callable[[Any], object], argument: object) -> bool:
        """Call a function on the event loop of an answer. Return False if the loop is closed."""
        try:
            answer.loop.call_soon_threadsafe(function, argument)
        except RuntimeError:
            return False
        return True


def _pretrained(name: str, options: Mapping[str, Any], *, download: bool) -> tuple[Any, Any]:
    """Return the model and its tokenizer."""
    transformers: Any = importlib.import_module(_PACKAGE)
    offline = {"local_files_only": not download}
    shared = {name: options[name] for name in _TOKENIZER_OPTIONS if name in options}
    tokenizer = transformers.AutoTokenizer.from_pretrained(name, **offline, **shared)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ValueError("its tokenizer is not one of the package tokenizers, which decodes texts in pieces")
    return transformers.AutoModelForCausalLM.from_pretrained(name, **offline, **options), tokenizer


@contextmanager
def _without_bars() -> Generator[None]:
    """Hide the progress bars of transformers."""
    logs: Any = importlib.import_module(f"{_PACKAGE}.utils.logging")
    shows = logs.is_progress_bar_enabled()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        if shows:
            logs.enable_progress_bar()
