"""Typed events as the dicts that ``astream_events`` is known for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from reactivex import Observable, abc

from .._runtime import Source, connect
from ..errors import MisuseError, is_text, shown
from ..events import (
    Cancelled,
    Custom,
    Emitted,
    Event,
    Failed,
    Finished,
    Run,
    RunChunk,
    Started,
    ToolFinished,
    ToolStarted,
)
from ..messages import Request

__all__ = ["SELECTIONS", "as_dicts"]

SELECTIONS = ("include_names", "include_types", "include_tags", "exclude_names", "exclude_types", "exclude_tags")


def as_dicts(
    version: Literal["v1", "v2"] = "v2", **selection: Collection[str] | None
) -> Callable[[Observable[Event]], Observable[dict[str, Any]]]:
    """Each event as a dict: ``event, name, run_id, parent_ids, tags, metadata, data``.

    ::

        (Started)-(RunChunk)-(Finished)|
        as_dicts()
        {on_llm_start}-{on_llm_stream}-{on_llm_end}|

    A model within a pipeline starts with empty data and tells its input at the end; the root tells it at the start
    alone. Failures are no dicts: they are the stream's error. Source: the v1 and v2 schemas of langchain-core.

    Errors: `MisuseError` for another version.
    """
    if version not in ("v1", "v2"):
        raise MisuseError(f"version is 'v1' or 'v2', not {version!r}.")
    if unknown := selection.keys() - set(SELECTIONS):
        raise MisuseError(f"There is no selection {', '.join(sorted(unknown))}; there are {', '.join(SELECTIONS)}.")
    for name, chosen in selection.items():
        texts = isinstance(chosen, Collection) and not is_text(chosen) and all(map(is_text, chosen))
        if chosen is not None and not texts:
            raise MisuseError(f'{name} is several texts, as in {name}=["OpenAI"], not {shown(chosen)}.')

    def operator(source: Observable[Event]) -> Observable[dict[str, Any]]:
        def subscribe(
            observer: abc.ObserverBase[dict[str, Any]], scheduler: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            return connect(source, _Dicts(observer, version, selection), scheduler)

        return Source(subscribe)

    return operator


class _Dicts(abc.ObserverBase[Event]):
    def __init__(
        self,
        observer: abc.ObserverBase[dict[str, Any]],
        version: str,
        selection: Mapping[str, Collection[str] | None],
    ) -> None:
        self.observer = observer
        self.version = version
        self.chosen = {name: set(values) for name, values in selection.items() if values is not None}
        self.inputs: dict[str, dict[str, Any]] = {}  # of inner runs, which tell them at their end

    def on_next(self, value: Event) -> None:
        match value:
            case RunChunk(run=run):  # first, since most are
                self.emit(run, run.kind, "stream", {"chunk": value.text if run.kind == "llm" else value})
            case Started(run=run):
                given = _input(value)
                if run.parent_ids:
                    self.inputs[run.id] = given
                self.emit(run, run.kind, "start", {} if run.parent_ids else given)
            case Emitted(run=run, value=item):
                self.emit(run, run.kind, "stream", {"chunk": item})
            case Finished(run=run, output=output):
                self.emit(run, run.kind, "end", {"output": output, **self.inputs.pop(run.id, {})})
            case ToolStarted(run=run, input=given):
                self.emit(run, "tool", "start", {"input": given})
            case ToolFinished(run=run, output=output):
                self.emit(run, "tool", "end", {"output": output})
            case Failed(run=run) | Cancelled(run=run):
                self.inputs.pop(run.id, None)
                if run.kind == "tool" and isinstance(value, Failed):
                    self.emit(run, "tool", "error", {"error": value.error})
            case Custom(run=run, topic=topic, data=data) if self.version == "v2":
                self.send("on_custom_event", topic, run, data, "custom_event")
            case _:
                pass  # the shape has no words for it

    def emit(self, run: Run, kind: str, phase: str, data: dict[str, Any]) -> None:
        self.send(f"on_{kind}_{phase}", run.name, run, data, kind)

    def send(self, event: str, name: str, run: Run, data: Any, kind: str) -> None:
        if self.chosen and not self.wanted(name, kind, run.tags):
            return
        parents = list(run.parent_ids) if self.version == "v2" else []
        self.observer.on_next(
            {
                "event": event,
                "name": name,
                "run_id": run.id,
                "parent_ids": parents,
                "tags": list(run.tags),
                "metadata": dict(run.metadata),
                "data": data,
            }
        )

    def wanted(self, name: str, kind: str, tags: Collection[str]) -> bool:
        """Any of the includes, if there are some, and none of the excludes."""
        facts = {"names": {name}, "types": {kind}, "tags": set(tags)}
        included = [
            self.chosen[f"include_{what}"] & fact for what, fact in facts.items() if f"include_{what}" in self.chosen
        ]
        excluded = [
            self.chosen[f"exclude_{what}"] & fact for what, fact in facts.items() if f"exclude_{what}" in self.chosen
        ]
        return (any(included) or not included) and not any(excluded)

    def on_error(self, error: Exception) -> None:
        self.observer.on_error(error)

    def on_completed(self) -> None:
        self.observer.on_completed()


def _input(started: Started) -> dict[str, Any]:
    match started.run.kind, started.input:
        case "llm", Request() as request:
            return {"input": {"prompts": [request.text]} if started.run.parent_ids else request.text}
        case "chat_model", Request() as request:
            return {"input": {"messages": [list(request.messages)]}}
        case _, given:
            return {"input": given}
