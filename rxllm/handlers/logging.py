"""`LoggingHandler`: log records for the start and end of each run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from attrs import define

from ..errors import ProviderError
from ..events import (
    Cancelled,
    Custom,
    Emitted,
    Event,
    Failed,
    Finished,
    Handler,
    Retried,
    Run,
    RunChunk,
    Started,
    ToolFinished,
    ToolStarted,
)
from ..misuse import MisuseError, shown
from ..operators.observer import ignore
from ..terminal import one_line
from ..values.chunk import Chunk
from ..values.message import Message

__all__ = ["LoggingHandler"]


@define
class _OpenRun:
    """A run that has not ended: its start time, the time of its first chunk, and the number of chunks so far."""

    started: float
    first_chunk: float | None = None
    chunks: int = 0


class LoggingHandler(Handler):
    """Logs each run: its start (DEBUG), end or cancellation (INFO), retries (WARNING) and failure (ERROR).

    ::

        logging.basicConfig(level=logging.INFO)
        llm = rxllm.OpenAI("gpt-5-mini", handlers=[rxllm.LoggingHandler()])

    The message is one readable line. The record's attribute `rxllm` is a dict of the same facts, for formatters:
    ``event`` (``started``, ``finished``, ``cancelled``, ``retried``, ``failed``, ``custom``), ``run_id``,
    ``parent_id``, ``name`` and ``kind``. A model's records add ``provider`` and ``model``. The record at the end adds
    ``seconds``, ``first_chunk_seconds``, ``chunks``, ``input_tokens``, ``output_tokens``, ``finish_reason``, and
    ``estimated`` when rxllm estimated the tokens. A failure adds ``error`` (the class), ``status`` and ``code``.
    Unknown facts are left out.

    Prompts and answers are never logged; nor are the text of an error and the data of a custom event, which may contain
    them.

    Args:
        logger: the logger to use; the default is the logger ``rxllm``.

    Raises:
        MisuseError: `logger` is not a logger.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        if logger is not None and not callable(getattr(logger, "log", None)):
            raise MisuseError(f"logger must be a logging.Logger, not {shown(logger)}.")
        self._logger = logger or logging.getLogger("rxllm")
        self._open: dict[str, _OpenRun] = {}

    def _chunk_receiver(self, run: Run) -> Callable[[Chunk], object]:
        open_run = self._open.get(run.id)
        if open_run is None:
            return ignore

        def count(chunk: Chunk) -> None:
            open_run.chunks += 1
            if open_run.first_chunk is None:
                open_run.first_chunk = time.time()

        return count

    def on_event(self, event: Event) -> None:
        """Log the event, or count the chunk."""
        match event:
            case RunChunk(run=run, time=time) | Emitted(run=run, time=time):
                if open_run := self._open.get(run.id):
                    open_run.chunks += 1
                    open_run.first_chunk = open_run.first_chunk or time
            case Started(run=run) | ToolStarted(run=run):
                if run.id not in self._open:
                    self._open[run.id] = _OpenRun(event.time)
                    self._write(logging.DEBUG, "started", run, {})
            case Finished(run=run, output=output) | ToolFinished(run=run, output=output):
                self._end(logging.INFO, "finished", event, output)
            case Cancelled(run=run, partial=partial):
                self._end(logging.INFO, "cancelled", event, partial)
            case Failed(run=run, error=error, partial=partial):
                self._end(logging.ERROR, "failed", event, partial, _failure(error))
            case Retried(run=run, attempt=attempt, error=error, delay=delay):
                self._write(logging.WARNING, "retried", run, {"attempt": attempt, "delay": delay, **_failure(error)})
            case Custom(run=run, topic=topic):
                self._write(logging.INFO, "custom", run, {"topic": topic})
            case _:
                pass

    def _end(
        self,
        level: int,
        kind: str,
        event: Finished | ToolFinished | Cancelled | Failed,
        output: object,
        more: dict[str, Any] | None = None,
    ) -> None:
        open_run = self._open.pop(event.run.id, None)
        if open_run is None and event.run.id:  # a tool's Finished after its ToolFinished
            return
        facts: dict[str, Any] = {}
        if open_run:
            facts["seconds"] = event.time - open_run.started
            facts["chunks"] = open_run.chunks
            if open_run.first_chunk is not None:
                facts["first_chunk_seconds"] = open_run.first_chunk - open_run.started
        if isinstance(output, Message):
            facts["model"] = output.model
            facts["finish_reason"] = output.finish_reason or output.raw_finish_reason
            if output.usage:
                facts["input_tokens"] = output.usage.input_tokens
                facts["output_tokens"] = output.usage.output_tokens
                facts["estimated"] = output.usage.estimated or None
        self._write(level, kind, event.run, {**facts, **(more or {})})

    def _write(self, level: int, kind: str, run: Run, more: dict[str, Any]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        facts: dict[str, Any] = {"event": kind, "run_id": run.id, "name": run.name, "kind": run.kind}
        if run.parent_ids:
            facts["parent_id"] = run.parent_ids[-1]
        if run.service:
            facts["provider"], facts["model"] = run.service.provider, run.service.model
        facts |= {name: fact for name, fact in more.items() if fact is not None}
        facts = {name: fact for name, fact in facts.items() if fact not in (None, "")}
        for name, fact in facts.items():
            if isinstance(fact, str) and not fact.isprintable():  # a newline in a server's text could forge a record
                facts[name] = one_line(fact)
        self._logger.log(level, "%s", _sentence(facts), extra={"rxllm": facts})


def _failure(error: Exception) -> dict[str, Any]:
    """Return the loggable facts of an error: never its text, which may contain the prompt."""
    facts: dict[str, Any] = {"error": type(error).__qualname__}
    return {**facts, "status": error.status, "code": error.code} if isinstance(error, ProviderError) else facts


def _sentence(facts: dict[str, Any]) -> str:
    """Format as in ``OpenAI gpt-5-mini finished: 1.204 s, first chunk 0.310 s, 52 chunks, 12 + 50 tokens, stop``."""
    subject = [facts.get("name", "an answer"), facts.get("model", ""), facts["event"]]
    tokens = " + ".join(str(facts.get(f"{kind}_tokens", "?")) for kind in ("input", "output"))
    about = "about " if "estimated" in facts else ""
    details = [
        facts.get("topic"),
        f"attempt {facts['attempt']}" if "attempt" in facts else None,
        facts.get("error"),
        f"status {facts['status']}" if "status" in facts else None,
        facts.get("code"),
        f"again in {facts['delay']:.3f} s" if "delay" in facts else None,
        f"{facts['seconds']:.3f} s" if "seconds" in facts else None,
        f"first chunk {facts['first_chunk_seconds']:.3f} s" if "first_chunk_seconds" in facts else None,
        f"{facts['chunks']} chunks" if "chunks" in facts else None,
        f"{about}{tokens} tokens" if {"input_tokens", "output_tokens"} & facts.keys() else None,
        facts.get("finish_reason"),
    ]
    text = ", ".join(detail for detail in details if detail)
    return " ".join(word for word in subject if word) + (f": {text}" if text else "")
