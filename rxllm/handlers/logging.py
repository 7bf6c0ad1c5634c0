"""`LoggingHandler`: a record in the log for each run's start and end."""

from __future__ import annotations

import logging
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
from ..terminal import one_line
from ..values.message import Message

__all__ = ["LoggingHandler"]


@define
class _Open:
    """A run that has not ended: when it started, when its first chunk came, how many have come."""

    started: float
    first_chunk: float | None = None
    chunks: int = 0


class LoggingHandler(Handler):
    """Writes to the log when a run starts (DEBUG), ends or is left (INFO), is asked again (WARNING) and fails (ERROR).

    ::

        logging.basicConfig(level=logging.INFO)
        llm = rxllm.OpenAI("gpt-5-mini", handlers=[rxllm.LoggingHandler()])

    The message is one line to read; the same facts are in the record's `rxllm`, a dict for whoever formats records:
    ``event`` (``started``, ``finished``, ``cancelled``, ``retried``, ``failed``, ``custom``), ``run_id``,
    ``parent_id``, ``name`` and ``kind``; of a model ``provider`` and ``model``; at the end ``seconds``,
    ``first_chunk_seconds``, ``chunks``, ``input_tokens``, ``output_tokens`` (with ``estimated`` where nobody told)
    and ``finish_reason``; of a failure ``error`` (its class), ``status`` and ``code``. What is not known is left out.

    What is asked and answered stays out, also as the text of an error or the data of an event of the program's own.

    Args:
        logger: instead of the logger ``rxllm``.

    Raises:
        MisuseError: it is no logger.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        if logger is not None and not callable(getattr(logger, "log", None)):
            raise MisuseError(f"logger must be a logging.Logger, not {shown(logger)}.")
        self._logger = logger or logging.getLogger("rxllm")
        self._open: dict[str, _Open] = {}

    def on_event(self, event: Event) -> None:
        """Counts it, or writes of it."""
        match event:
            case RunChunk(run=run, time=time) | Emitted(run=run, time=time):
                if opened := self._open.get(run.id):
                    opened.chunks += 1
                    opened.first_chunk = opened.first_chunk or time
            case Started(run=run) | ToolStarted(run=run):
                if run.id not in self._open:
                    self._open[run.id] = _Open(event.time)
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
        what: str,
        event: Finished | ToolFinished | Cancelled | Failed,
        output: object,
        more: dict[str, Any] | None = None,
    ) -> None:
        opened = self._open.pop(event.run.id, None)
        if opened is None and event.run.id:  # a tool's Finished after its ToolFinished
            return
        facts: dict[str, Any] = {}
        if opened:
            facts["seconds"] = event.time - opened.started
            facts["chunks"] = opened.chunks
            if opened.first_chunk is not None:
                facts["first_chunk_seconds"] = opened.first_chunk - opened.started
        if isinstance(output, Message):
            facts["model"] = output.model
            facts["finish_reason"] = output.finish_reason or output.raw_finish_reason
            if output.usage:
                facts["input_tokens"] = output.usage.input_tokens
                facts["output_tokens"] = output.usage.output_tokens
                facts["estimated"] = output.usage.estimated or None
        self._write(level, what, event.run, {**facts, **(more or {})})

    def _write(self, level: int, what: str, run: Run, more: dict[str, Any]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        facts: dict[str, Any] = {"event": what, "run_id": run.id, "name": run.name, "kind": run.kind}
        if run.parent_ids:
            facts["parent_id"] = run.parent_ids[-1]
        if run.service:
            facts["provider"], facts["model"] = run.service.provider, run.service.model
        facts |= {name: fact for name, fact in more.items() if fact is not None}
        facts = {name: fact for name, fact in facts.items() if fact not in (None, "")}
        for name, fact in facts.items():
            if isinstance(fact, str) and not fact.isprintable():  # a newline in a server's words would forge a record
                facts[name] = one_line(fact)
        self._logger.log(level, "%s", _sentence(facts), extra={"rxllm": facts})


def _failure(error: Exception) -> dict[str, Any]:
    """What may be told of an error: its text may say what was asked."""
    facts: dict[str, Any] = {"error": type(error).__qualname__}
    return {**facts, "status": error.status, "code": error.code} if isinstance(error, ProviderError) else facts


def _sentence(facts: dict[str, Any]) -> str:
    """Such as: ``OpenAI gpt-5-mini finished: 1.204 s, first chunk 0.310 s, 52 chunks, 12 + 50 tokens, stop``."""
    who = [facts.get("name", "an answer"), facts.get("model", ""), facts["event"]]
    tokens = " + ".join(str(facts.get(f"{kind}_tokens", "?")) for kind in ("input", "output"))
    about = "about " if "estimated" in facts else ""
    known = [
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
    told = ", ".join(fact for fact in known if fact)
    return " ".join(word for word in who if word) + (f": {told}" if told else "")
