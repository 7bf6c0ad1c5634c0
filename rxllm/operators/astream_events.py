"""Typed events as the dicts that ``astream_events`` is known for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from reactivex import Observable, abc

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
from ..misuse import MisuseError, is_text, shown
from ..runtime.disposable import LockFreeSerialDisposable
from ..runtime.source import Source, connect
from ..values.message import Message
from ..values.request import Request

__all__ = ["SELECTIONS", "as_dicts"]

SELECTIONS = ("include_names", "include_types", "include_tags", "exclude_names", "exclude_types", "exclude_tags")
_TAKEN_BACK = (
    "The stream began anew after its text had been emitted; take events(), whose chunks tell that, or fold it with "
    "message()."
)


def as_dicts(
    version: Literal["v1", "v2"] = "v2", **selection: Collection[str] | None
) -> Callable[[Observable[Event]], Observable[dict[str, Any]]]:
    """Each event as a dict: ``event, name, run_id, parent_ids, tags, metadata, data``.

    ::

        (Started)-(RunChunk)-(Finished)|
        as_dicts()
        {on_llm_start}-{on_llm_stream}-{on_llm_end}|

    The root tells its input at the start alone, models and tools within it at both ends, pipelines within it at the
    end alone. Failures, but those of tools in v2, are no dicts: they are the stream's error.

    Shape: a model that continues a text (``llm``) gives texts, and at its end the ``generations`` and ``llm_output`` of
    `LLMResult`, as dicts; one that converses gives Chunks and a Message. In v1, an ``llm`` that is the root ends with
    its text, and a ``chat_model`` that is not with ``generations``.

    Errors: `MisuseError` for another version; and, as of `text`, for an ``llm`` that takes back what came before.

    Source: the v1 and v2 schemas of langchain-core.
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
            dicts = _Dicts(observer, version, selection)
            dicts.upstream.disposable = connect(source, dicts, scheduler)
            return dicts.upstream

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
        self.inputs: dict[str, Any] = {}  # of runs that have not ended
        self.upstream = LockFreeSerialDisposable()
        self.over = False

    def on_next(self, value: Event) -> None:
        if self.over:
            return
        match value:
            case RunChunk(run=run):  # first, since most are
                if run.kind != "llm":
                    self.emit(run, "stream", {"chunk": value})
                elif value.reset and self.wanted(run.name, run.kind, run.tags):
                    self.refuse(_TAKEN_BACK)
                else:
                    self.emit(run, "stream", {"chunk": value.text})
            case Started(run=run, input=given) | ToolStarted(run=run, input=given):
                given = self.inputs[run.id] = _input(run, given)
                # What streams its input does not know it yet.
                self.emit(run, "start", {} if run.parent_ids and run.kind == "chain" else {"input": given})
            case Emitted(run=run, value=item):
                self.emit(run, "stream", {"chunk": item})
            case Finished(run=run, output=output) | ToolFinished(run=run, output=output):
                given = self.inputs.pop(run.id, None)
                output = self.output(run, output)
                if run.kind == "tool" and self.version == "v1" and not run.parent_ids:
                    self.emit(run, "stream", {"chunk": output})
                self.emit(run, "end", {"output": output, "input": given} if run.parent_ids else {"output": output})
            case Failed(run=run) | Cancelled(run=run):
                given = self.inputs.pop(run.id, None)
                if run.kind == "tool" and self.version == "v2" and isinstance(value, Failed):
                    self.emit(run, "error", {"error": value.error, "input": given, "tool_call_id": None})
            case Custom(run=run, topic=topic, data=data) if self.version == "v2":
                self.send("on_custom_event", topic, run, data, "custom_event")
            case _:
                pass  # the shape has no words for it

    def output(self, run: Run, output: Any) -> Any:
        """What a run gave; a model's answer in the words of its kind."""
        is_first, is_root = self.version == "v1", not run.parent_ids
        match run.kind, output:
            case "llm", Message() if is_first and is_root:
                return output.text
            case "llm", Message():
                return _generated(output, "Generation", {}, is_first)
            case "chat_model", Message() if is_first and not is_root:
                return _generated(output, "ChatGenerationChunk", {"message": output}, is_first)
            case _:
                return output

    def emit(self, run: Run, phase: str, data: dict[str, Any]) -> None:
        self.send(f"on_{run.kind}_{phase}", run.name, run, data, run.kind)

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

    def refuse(self, sentence: str) -> None:
        self.upstream.dispose()  # before who hears of it, which may take its time
        self.on_error(MisuseError(sentence))

    def on_error(self, error: Exception) -> None:
        if not self.over:
            self.over = True
            self.observer.on_error(error)

    def on_completed(self) -> None:
        if not self.over:
            self.over = True
            self.observer.on_completed()


def _input(run: Run, given: Any) -> Any:
    """What the root was given, as it is; what a model within it was given, in a list of one."""
    match run.kind, given:
        case (("llm" | "chat_model"), Request(prompt=prompt)) if not run.parent_ids:
            return prompt if isinstance(prompt, str) else list(prompt)
        case "llm", Request():
            return {"prompts": [given.text]}
        case "chat_model", Request():
            return {"messages": [list(given.messages)]}
        case _:
            return given


def _generated(message: Message, kind: str, more: Mapping[str, Any], is_first: bool) -> dict[str, Any]:
    from ..results import LLMResult  # only who takes dicts pays for it

    result = LLMResult.of([message])
    [[generation]] = result.generations
    told = {"text": generation.text, "generation_info": generation.generation_info, "type": kind, **more}
    rest = {"run": None, "type": "LLMResult"} if is_first else {}
    return {"generations": [[told]], "llm_output": result.llm_output, **rest}
