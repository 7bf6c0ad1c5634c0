"""Events as the dicts of ``astream_events``, whose format is that of langchain-core."""

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
from ..runtime.source import Source
from ..values.message import Message
from ..values.request import Request
from .observer import RefusingObserver

__all__ = ["SELECTIONS", "as_dicts"]

SELECTIONS = ("include_names", "include_types", "include_tags", "exclude_names", "exclude_types", "exclude_tags")
_TAKEN_BACK = (
    "The model restarted its answer after astream_events() had emitted text of it, which cannot be taken back. Use "
    "events(), whose chunks report the restart, or message(), which honours it."
)


def as_dicts(
    version: Literal["v1", "v2"] = "v2", **selection: Collection[str] | None
) -> Callable[[Observable[Event]], Observable[dict[str, Any]]]:
    """Each event as a dict: ``event, name, run_id, parent_ids, tags, metadata, data``.

    ::

        (Started)-(RunChunk)-(Finished)|
        as_dicts()
        {on_llm_start}-{on_llm_stream}-{on_llm_end}|

    The root run reports its input at its start only. Models and tools within it report their input at the start and at
    the end, pipelines within it at the end only. A failure is the error of the stream, not a dict; only v2 has a dict
    for the failure of a tool.

    Shape: a completion model (``llm``) reports texts, and at its end the ``generations`` and ``llm_output`` of
    `LLMResult` as dicts. A chat model reports Chunks and a Message. In v1, a root ``llm`` ends with its text, and a
    ``chat_model`` that is not the root ends with ``generations``.

    Errors: those of the source. `MisuseError` for another version or an unknown selection; and, as for `text`, when an
    ``llm`` restarts its answer.

    Source: the v1 and v2 schemas of langchain-core.
    """
    if version not in ("v1", "v2"):
        raise MisuseError(f"version must be 'v1' or 'v2', not {version!r}.")
    if unknown := selection.keys() - set(SELECTIONS):
        raise MisuseError(
            f"astream_events has no selection {', '.join(sorted(unknown))}; it has {', '.join(SELECTIONS)}."
        )
    for name, chosen in selection.items():
        texts = isinstance(chosen, Collection) and not is_text(chosen) and all(map(is_text, chosen))
        if chosen is not None and not texts:
            raise MisuseError(f'{name} must be a list of texts, such as {name}=["OpenAI"], not {shown(chosen)}.')

    def operator(source: Observable[Event]) -> Observable[dict[str, Any]]:
        def subscribe(
            observer: abc.ObserverBase[dict[str, Any]], scheduler: abc.SchedulerBase | None
        ) -> abc.DisposableBase:
            return _Dicts(observer, version, selection).start(source, scheduler)

        return Source(subscribe)

    return operator


class _Dicts(RefusingObserver[Event, dict[str, Any]]):
    """Emits a dict for each event.

    Attributes:
        inputs: the inputs of the runs that have not ended, by id.
        forms: the forms of the dicts of these runs' chunks, by id; empty for a run that is not selected.
    """

    __slots__ = ("chosen", "forms", "inputs", "version")

    def __init__(
        self,
        observer: abc.ObserverBase[dict[str, Any]],
        version: str,
        selection: Mapping[str, Collection[str] | None],
    ) -> None:
        super().__init__(observer)
        self.version = version
        self.chosen = {name: set(values) for name, values in selection.items() if values is not None}
        self.inputs: dict[str, Any] = {}
        self.forms: dict[str, _Form] = {}

    def on_next(self, value: Event) -> None:
        if self.ended:
            return
        if not isinstance(value, RunChunk):
            self.read(value)
            return
        run = value.run  # the most frequent event has a short way
        form = self.forms.get(run.id)
        if form is None:
            form = self.form_of_chunks(run)
        if not form:
            return
        is_text = run.kind == "llm"
        if is_text and value.rest is not None and value.reset:
            self.refuse(MisuseError(_TAKEN_BACK))
        else:
            self.fill(form, run, {"chunk": value.text if is_text else value})

    def read(self, event: Event) -> None:
        """Emit the dicts of an event that is not a chunk."""
        match event:
            case Started(run=run, input=run_input) | ToolStarted(run=run, input=run_input):
                run_input = self.inputs[run.id] = _input(run, run_input)
                # A pipeline that streams its input does not know it at its start.
                is_inner_chain = run.parent_ids and run.kind in ("chain", "agent")
                self.emit_phase(run, "start", {} if is_inner_chain else {"input": run_input})
            case Emitted(run=run, value=item):
                self.emit_phase(run, "stream", {"chunk": item})
            case Finished(run=run, output=output) | ToolFinished(run=run, output=output):
                run_input = self.end_run(run)
                output = self.output(run, output)
                if run.kind == "tool" and self.version == "v1" and not run.parent_ids:
                    self.emit_phase(run, "stream", {"chunk": output})
                data = {"output": output, "input": run_input} if run.parent_ids else {"output": output}
                self.emit_phase(run, "end", data)
            case Failed(run=run) | Cancelled(run=run):
                run_input = self.end_run(run)
                if run.kind == "tool" and self.version == "v2" and isinstance(event, Failed):
                    self.emit_phase(run, "error", {"error": event.error, "input": run_input, "tool_call_id": None})
            case Custom(run=run, topic=topic, data=data) if self.version == "v2":
                self.send("on_custom_event", topic, run, data, "custom_event")
            case _:
                pass  # the format has no dict for it

    def output(self, run: Run, output: Any) -> Any:
        """The output of a run, a model's answer in the format of its kind."""
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

    def form_of_chunks(self, run: Run) -> _Form:
        """Return the form of the dicts of a run's chunks, and keep it."""
        kind = _kind_of(run)
        form = _form(f"on_{kind}_stream", run.name, run) if self.wanted(run.name, kind, run.tags) else {}
        self.forms[run.id] = form
        return form

    def end_run(self, run: Run) -> Any:
        """Forget a run that has ended, and return its input."""
        self.forms.pop(run.id, None)
        return self.inputs.pop(run.id, None)

    def emit_phase(self, run: Run, phase: str, data: dict[str, Any]) -> None:
        kind = _kind_of(run)
        self.send(f"on_{kind}_{phase}", run.name, run, data, kind)

    def send(self, event: str, name: str, run: Run, data: Any, kind: str) -> None:
        if self.wanted(name, kind, run.tags):
            self.fill(_form(event, name, run), run, data)

    def fill(self, form: _Form, run: Run, data: Any) -> None:
        """Emit a dict whose lists and dicts are its own, because the consumer may change them."""
        filled = form.copy()  # a dict display with these keys takes a third longer
        filled["parent_ids"] = [*run.parent_ids] if self.version == "v2" else []
        filled["tags"] = [*run.tags]
        filled["metadata"] = {**run.metadata}
        filled["data"] = data
        self.emit(filled)

    def wanted(self, name: str, kind: str, tags: Collection[str]) -> bool:
        """Whether one of the includes matches, or none was passed, and no exclude matches."""
        if not self.chosen:
            return True
        facts = {"names": {name}, "types": {kind}, "tags": set(tags)}
        included = [
            self.chosen[f"include_{what}"] & fact for what, fact in facts.items() if f"include_{what}" in self.chosen
        ]
        excluded = [
            self.chosen[f"exclude_{what}"] & fact for what, fact in facts.items() if f"exclude_{what}" in self.chosen
        ]
        return (any(included) or not included) and not any(excluded)


_Form = dict[str, Any]
"""A dict of an event without the values that belong to one event."""


def _form(event: str, name: str, run: Run) -> _Form:
    """Return a form with all keys, in their order."""
    own = dict.fromkeys(("parent_ids", "tags", "metadata", "data"))
    return {"event": event, "name": name, "run_id": run.id, **own}


def _kind_of(run: Run) -> str:
    return "chain" if run.kind == "agent" else run.kind


def _input(run: Run, run_input: Any) -> Any:
    """Return the input of the root unchanged, and the input of an inner model as a list with one item."""
    match run.kind, run_input:
        case (("llm" | "chat_model"), Request(prompt=prompt)) if not run.parent_ids:
            return prompt if isinstance(prompt, str) else list(prompt)
        case "llm", Request():
            return {"prompts": [run_input.text]}
        case "chat_model", Request():
            return {"messages": [list(run_input.messages)]}
        case _:
            return run_input


def _generated(message: Message, kind: str, more: Mapping[str, Any], is_first: bool) -> dict[str, Any]:
    from ..results import LLMResult  # imported here, because only dicts need it

    result = LLMResult.of([message])
    [[generation]] = result.generations
    generated = {"text": generation.text, "generation_info": generation.generation_info, "type": kind, **more}
    rest = {"run": None, "type": "LLMResult"} if is_first else {}
    return {"generations": [[generated]], "llm_output": result.llm_output, **rest}
