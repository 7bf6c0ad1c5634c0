"""`map_prompts`: answers to the rows of a dataset of Ray Data (extra ``ray``).

Ray places blocks of rows on its workers, and runs a whole block again when the worker of that block dies. So a worker
looks into a store that all workers share before it sends a request: an answer that the store holds is not paid again.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import attrs

from ..combinators.cached import cached
from ..combinators.stores import MemoryStore, Store
from ..llm import LLM
from ..misuse import MisuseError, is_text, shown
from ..operators.batch import MAX_CONCURRENCY, batch_as_completed
from ..runtime.portal import portal
from ..values.message import Message
from ..values.request import Prompt
from ..values.usage import Usage
from .asking import concerns_all
from .inputs import row_of
from .models import Factory, as_model, as_whole
from .result import Failure
from .rows import filled, prompt_of

__all__ = ["map_prompts"]

D = TypeVar("D")
D_co = TypeVar("D_co", covariant=True)

_COUNTS = [name for name in attrs.fields_dict(Usage) if name.endswith("_tokens")]


class _Dataset(Protocol[D_co]):
    """A `ray.data.Dataset`, for type checkers that run where Ray is not installed."""

    @property
    def map_batches(self) -> Callable[..., D_co]: ...


def map_prompts(
    ds: _Dataset[D],
    llm: LLM | Factory,
    store: Store | Callable[[], Store],
    *,
    prompt: str | Callable[[Any], Prompt] = prompt_of,
    workers: int = 1,
    concurrency: int = MAX_CONCURRENCY,
    prefix: str = "",
    **options: Any,
) -> D:
    """Answer each row of a dataset of Ray Data, and add the answers as columns.

    ::

        ds = ray.data.read_parquet("questions.parquet")
        store = rxllm.RedisStore("redis://head")
        ds = map_prompts(ds, rxllm.OpenAI("gpt-5-mini"), store, prompt="Translate: {text}", workers=4)
        ds.write_parquet("answers")

    Ray runs a block of rows again when its worker dies. Each worker looks into the store before it sends a request, so
    an answer in the store is not paid again; a worker that dies pays at most what it had in flight again. A later run
    with the same store sends only the rows without an answer.

    Shape: the columns of the dataset, and these, each with the `prefix` before its name:

    - ``answer``, ``reasoning`` (text) and ``tool_calls`` (a list of ``id``, ``name`` and ``arguments``);
    - ``finish_reason`` (text) and ``usage`` (the counts of `Usage`);
    - ``failure`` (the fields of `Failure`), which is null if the row has an answer.

    Errors: a row that fails has a ``failure``, and the other rows go on. An error that every row would get ends the
        dataset's execution: an `AuthenticationError`, no API key on a worker, a spent quota or budget.

    Args:
        ds: the dataset.
        llm: a model, or a function that returns one. Each worker gets it as a pickle, without API keys: the key comes
            from the environment of the worker. A `Limiter` cannot be pickled, so a model with one needs a function.
        store: where all workers look for answers: a `RedisStore`; on one machine also a `SQLiteStore`. Or a function
            that returns it, such as one that reads the password of Redis from the environment.
        prompt: a template of the columns, such as ``"Translate: {text}"``, or a function from a row to a prompt. By
            default the prompt is the column ``messages`` or ``prompt``.
        workers: the number of Ray's actors that send requests.
        concurrency: the maximum number of requests of one worker at the same time.
        prefix: the beginning of the names of the new columns.
        options: passed to ``Dataset.map_batches``, such as ``num_cpus=0.5`` or ``runtime_env={"env_vars": {…}}``.

    Raises:
        MisuseError: Ray is not installed; an argument has a wrong type or value; or the model cannot be pickled.
    """
    try:
        data: Any = importlib.import_module("ray.data")
    except ImportError:
        raise MisuseError("Ray Data is not installed: pip install 'rxllm[ray]'.") from None
    is_dataset: bool = isinstance(ds, data.Dataset)  # in the condition itself, it would make `ds` an Any
    if not is_dataset:
        raise MisuseError(f"map_prompts takes a dataset, such as that of ray.data.read_parquet, not {shown(ds)}.")
    model, factory = as_model(llm)
    made = _made(store)
    cached(model, made)  # raises now, and not on a worker
    if isinstance(made, MemoryStore):
        raise MisuseError("The workers cannot share a MemoryStore. Use a RedisStore, or on one machine a SQLiteStore.")
    batch_as_completed(model, max_concurrency=concurrency)  # the same for a wrong number
    if not is_text(prefix):
        raise MisuseError(f"prefix must be text, not {shown(prefix)}.")
    make = filled(prompt) if isinstance(prompt, str) else prompt
    arguments = (factory or model, store, make, concurrency, prefix)
    importlib.import_module("ray.cloudpickle").dumps(arguments)  # raises now for what cannot be sent to a worker
    return ds.map_batches(
        _Worker,
        fn_constructor_args=arguments,
        batch_format="pyarrow",
        batch_size=concurrency,
        **{"compute": data.ActorPoolStrategy(size=workers), **options},
    )


class _Worker:
    """Answers batches of rows, in an actor of Ray, which calls it for several batches at a time.

    The requests run on rxllm's own event loop, because Ray blocks that of the actor while its output is not taken. A
    blocked loop would miss the time limits of the store, and pay for what the store holds.
    """

    def __init__(
        self,
        llm: LLM | Factory,
        store: Store | Callable[[], Store],
        make: Callable[[Any], Prompt],
        concurrency: int,
        prefix: str,
    ) -> None:
        model, _ = as_model(llm)
        # Only here, because the key of this process is part of the identity.
        self._llm = cached(as_whole(model), _made(store))
        self._make = make
        self._prefix = prefix
        self._places = asyncio.Semaphore(concurrency)
        self._arrow: Any = importlib.import_module("pyarrow")
        self._columns = _columns(self._arrow)

    async def __call__(self, table: Any) -> Any:
        """Return the table with the new columns."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._answered(table), portal()))

    async def _answered(self, table: Any) -> Any:
        names = [f"{self._prefix}{field.name}" for field in self._columns]
        if taken := [name for name in names if name in table.column_names]:
            raise MisuseError(f"The dataset has a column {taken[0]!r} already. Pass map_prompts another prefix.")
        records = await asyncio.gather(*(self._record(row_of(columns)) for columns in table.to_pylist()))
        for name, column in zip(names, self._arrow.array(records, self._columns).flatten(), strict=True):
            table = table.append_column(name, column)
        return table

    async def _record(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the new columns of a row."""
        try:
            prompt = self._make(row)
            async with self._places:
                answer = await self._llm.ainvoke(prompt)
            record = _record_of(answer)
            self._arrow.scalar(record, self._columns)  # raises for half a character, which no table can hold
        except Exception as error:
            if concerns_all(error):
                raise
            return {"failure": _fields(Failure.of(error), "kind", "message", "status", "code")}
        return record


def _made(store: Store | Callable[[], Store]) -> Store:
    """Return the store, or that of the function. `cached` refuses anything else."""
    return store() if callable(store) and not isinstance(store, Store) else store


def _columns(arrow: Any) -> Any:
    """Return the new columns as a struct of Arrow."""
    text, count = arrow.string(), arrow.int64()
    calls = arrow.list_(arrow.struct({"id": text, "name": text, "arguments": text}))
    failure = arrow.struct({"kind": text, "message": text, "status": count, "code": text})
    return arrow.struct(
        {
            "answer": text,
            "reasoning": text,
            "tool_calls": calls,
            "finish_reason": text,
            "usage": arrow.struct(dict.fromkeys(_COUNTS, count)),
            "failure": failure,
        }
    )


def _record_of(answer: Message) -> dict[str, Any]:
    return {
        "answer": answer.text,
        "reasoning": answer.reasoning or None,
        "tool_calls": [_fields(call, "id", "name", "arguments") for call in answer.tool_calls] or None,
        "finish_reason": answer.finish_reason,
        "usage": answer.usage and answer.usage.counts,
    }


def _fields(value: object, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}
