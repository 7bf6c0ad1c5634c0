"""`UsageMeter`: how many tokens which model took."""

from __future__ import annotations

import threading

from ..events import Cancelled, Event, Failed, Finished, Handler, Run
from ..messages import Message, Usage

__all__ = ["UsageMeter"]


class UsageMeter(Handler):
    """Adds up the tokens of all runs that it hears, by model; any number at once, in any threads.

    An answer that was cancelled or failed counts with what is known of it.

    Attributes:
        requests: how many runs of models have ended.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._usage: dict[str, Usage] = {}
        self._lock = threading.Lock()

    @property
    def usage(self) -> dict[str, Usage]:
        """The tokens by model, as of now: by the name that answered, else that was asked, else the run's."""
        with self._lock:
            return dict(self._usage)

    @property
    def total(self) -> Usage:
        """The tokens of all models."""
        return sum(self.usage.values(), Usage())

    def on_event(self, event: Event) -> None:
        """Counts an answer's end."""
        match event:
            case Finished(run=run, output=output) | Cancelled(run=run, partial=output):
                self._count(run, output)
            case Failed(run=run, partial=partial):
                self._count(run, partial)
            case _:
                pass

    def _count(self, run: Run, answer: object) -> None:
        if run.kind not in ("llm", "chat_model"):
            return
        message = answer if isinstance(answer, Message) else None
        asked = run.service.model if run.service else None
        name = (message.model if message else None) or asked or run.name
        with self._lock:
            self.requests += 1
            if message and message.usage:
                self._usage[name] = self._usage.get(name, Usage()) + message.usage
