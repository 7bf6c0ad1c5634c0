"""``rxllm batch in.jsonl -o out.jsonl``: answer many prompts, each once."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import msgspec
from reactivex import operators as ops

from ..bridges import from_iter, stream
from ..combinators.budget import Budget
from ..combinators.budgeted import budgeted
from ..combinators.limited import limited
from ..combinators.limiter import Limiter
from ..combinators.redis_limits import RedisLimits
from ..combinators.retry import retry
from ..errors import RxllmError
from ..jobs.batching import api_of
from ..jobs.index import short_digest
from ..jobs.inputs import rows_in
from ..jobs.job import OnError, job
from ..jobs.journal import Journal
from ..jobs.ordering import put_in_order
from ..jobs.planning import STEP, Plan, plans
from ..jobs.rows import Placed, filled, id_of, prompt_of
from ..llm import LLM
from ..misuse import MisuseError
from ..prices import has_prices
from ..runtime.scheduler import Scheduler
from ..runtime.source import Source, source
from ..runtime.threads import in_thread
from ..values.message import Message
from ..values.request import Prompt, Request, messages_of
from .batch_tools import COMMANDS
from .console import FAILURE, INTERRUPTED, Parser, add_model_options, chosen_model, report
from .draining import Draining, Progress, room_for_many

__all__ = ["run"]

_STOPPED = 3  # exit code of a job that stopped early; the same command continues it
_CONCURRENCY = 64  # requests at once
_FILES = 4  # batches at once
_CHECKED = 10_000  # rows that are checked before the first request; the others are checked while the job asks


def run(words: Sequence[str]) -> int:
    """Answer the rows that have no answer yet, and return the exit code."""
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]](words[1:])
    options = _parser().parse_args(words)
    if options.concurrency is None:
        options.concurrency = _CONCURRENCY if options.via == "stream" else _FILES
    is_pipe = options.input == "-" or Path(options.input).is_fifo()
    if is_pipe and (options.order or options.dry_run):
        raise MisuseError("--order and --dry-run need a file, because a pipe can be read only once.")
    llm = chosen_model(options)
    llm = _limited(llm, options) if options.via == "stream" else _budgeted(llm, options)
    journal, make, planned = Journal(options.output), _prompts(options), None
    planning = iter(()) if is_pipe else _plans(options, llm, journal, make)
    is_needed = options.dry_run or options.max_cost is not None
    for planned in itertools.islice(planning, None if is_needed else _CHECKED // STEP):  # noqa: B007
        pass
    if options.dry_run and planned is not None:
        print(_shown(planned), flush=True)
        return 0
    if options.max_cost is not None:
        _check_priced(planned, options)
    operator = job(
        llm,
        journal,
        concurrency=options.concurrency,
        prompt=make,
        id=options.id,
        on_error=options.on_error,
        retry_failed=options.retry_failed,
        dedupe=options.dedupe,
        via=options.via,
        workers=options.workers,
    )
    progress = Progress(planned, report)
    draining = Draining(report, waits=options.via == "stream")  # a batch goes on without this process
    with room_for_many(), draining:
        rows = draining.until_interrupted(from_iter(lambda: _rows(options)))
        rows = rows.pipe(ops.take_until(_checks(planning, progress)))
        try:
            with rows.pipe(operator, stream()) as results:
                for result in results:
                    progress.count(result)
        except (RxllmError, OSError) as error:  # the system's errors are those of the journal, such as a full disk
            progress.end()
            report(error)
            return _STOPPED
        finally:
            progress.end()
    if draining.interrupted:
        return INTERRUPTED
    if options.order:
        try:
            put_in_order(_rows(options), llm, journal, make, id_column=options.id)
        except OSError as error:
            report(error)
            return _STOPPED
    failed = progress.failed or (not options.retry_failed and _failed_before(planned, journal))
    return FAILURE if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="rxllm batch",
        description="Answer the rows of a file. The output is a journal: the same command continues after a crash.",
        epilog="Exit code: 0 if all rows have an answer, 1 if some failed, 2 after a wrong argument or input, 3 if the "
        "job stopped early, 130 after Ctrl-C. The first Ctrl-C waits for the answers in flight, a second one does not. "
        "`rxllm batch export`, `status` and `cancel` take the output.",
    )
    parser.add_argument("input", help="the rows: .jsonl, .csv or .parquet; - reads JSON lines from standard input")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the results, as JSON lines")
    add_model_options(parser)
    parser.add_argument(
        "--prompt", metavar="TEXT", help="a template, as in 'Translate: {text}'; else the column messages or prompt"
    )
    parser.add_argument("--id", metavar="COLUMN", default="custom_id", help="the column with the name of each row")
    parser.add_argument(
        "--concurrency", metavar="N", type=int, help="requests at once, 64 by default; with a batch API batches, 4"
    )
    parser.add_argument(
        "--via",
        choices=["stream", "batch-api"],
        default="stream",
        help="stream: a request for each row (the default); batch-api: batches that the vendor answers within a day",
    )
    parser.add_argument(
        "--workers", metavar="N", type=int, default=0, help="processes that send the requests; 0, the default, is none"
    )
    parser.add_argument("--rpm", metavar="N", type=int, help="requests per minute")
    parser.add_argument("--tpm", metavar="N", type=int, help="tokens per minute")
    parser.add_argument(
        "--shared",
        metavar="URL",
        help="a Redis, as in redis://localhost, with which all processes that ask this model keep --rpm and --tpm",
    )
    parser.add_argument(
        "--attempts", metavar="N", type=int, default=6, help="requests for a row, at most; 6 by default"
    )
    parser.add_argument(
        "--on-error",
        metavar="POLICY",
        type=_policy,
        default="record",
        help="record: write the failure and go on (the default); stop: at the first one; 5%%: when more rows failed",
    )
    parser.add_argument("--max-cost", metavar="DOLLARS", type=float, help="stop before the answers cost more")
    parser.add_argument("--order", choices=["input"], help="at the end, put the results in the order of the rows")
    parser.add_argument("--dedupe", action="store_true", help="ask equal requests once")
    parser.add_argument("--shard", metavar="I/N", type=_shard, help="answer only the I-th of N parts of the rows")
    parser.add_argument("--retry-failed", action="store_true", help="ask again for the rows that failed")
    parser.add_argument("--dry-run", action="store_true", help="print what the job would do and cost, and send nothing")
    return parser


def _failed_before(planned: Plan | None, journal: Journal) -> int:
    """Return how many rows failed in earlier runs, when none failed in this one. For a pipe the journal is read."""
    if planned is not None:
        return planned.failed
    with journal.open() as file:
        return file.failed


def _policy(text: str) -> OnError:
    if text in ("record", "stop"):
        return cast("OnError", text)
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be record, stop or a share such as 5%, not {text!r}") from None


def _shard(text: str) -> tuple[int, int]:
    try:
        part, parts = map(int, text.split("/"))
    except ValueError:
        part = parts = 0
    if not 1 <= part <= parts:
        raise argparse.ArgumentTypeError(f"must be two whole numbers such as 3/8, not {text!r}")
    return part, parts


def _rows(options: argparse.Namespace) -> Iterator[Any]:
    """Yield the rows of the input, or those of one shard: by the id or the content, so that the order may change."""
    rows = rows_in(options.input)
    if options.shard is None:
        return rows
    part, parts = options.shard
    return (Placed(row, number) for number, row in enumerate(rows) if _is_in(row, part - 1, parts, options.id))


def _plans(options: argparse.Namespace, llm: LLM, journal: Journal, make: Callable[[Any], Prompt]) -> Iterator[Plan]:
    """Yield what the job would do, as more and more rows are checked."""
    api = api_of(llm) if options.via == "batch-api" else None
    rows = _rows(options)
    return plans(rows, llm, journal, make, id_column=options.id, retry_failed=options.retry_failed, api=api)


def _checks(planning: Iterator[Plan], progress: Progress) -> Source[None]:
    """Check the other rows in threads. It emits nothing, and errors for a row with which the job would fail."""

    async def run(scheduler: Scheduler) -> AsyncIterator[None]:
        while planned := await in_thread(scheduler, lambda: next(planning, None)):
            progress.planned = planned
        none: tuple[None, ...] = ()
        for each in none:
            yield each

    return source(run)


def _is_in(row: Any, part: int, parts: int, id_column: str) -> bool:
    """Return whether a row belongs to a shard. One with a wrong id belongs to every shard, so that the job names it."""
    try:
        name = id_of(row, id_column) or msgspec.json.encode(row, order="sorted").decode()
    except MisuseError:
        return True
    return short_digest(name) % parts == part


def _check_priced(planned: Plan | None, options: argparse.Namespace) -> None:
    """Check that a budget in dollars can hold.

    Raises:
        MisuseError: an answer has no bound, or its price is unknown.
    """
    if options.max_tokens is None and (planned is None or planned.output_tokens is None):
        raise MisuseError("--max-cost needs --max-tokens, since an answer without a bound may cost anything.")
    if planned is not None and planned.cost is None:
        raise MisuseError("--max-cost: the price of the model is unknown. Leave it out, and pass --max-tokens.")


def _limited(llm: LLM, options: argparse.Namespace) -> LLM:
    """Return the model within the limits of its account. The limiter also obeys the limits that a server names."""
    shared, concurrency = None, options.concurrency
    if options.shared is not None:
        if options.rpm is None and options.tpm is None:
            raise MisuseError("--shared needs a rate to share: --rpm or --tpm.")
        service = llm.service(Request.ask("", llm.parameters))
        shared, concurrency = RedisLimits(options.shared, f"{service.provider}:{service.model}"), None
    limiter = Limiter(
        requests_per_minute=options.rpm, tokens_per_minute=options.tpm, concurrency=concurrency, shared=shared
    )
    return retry(limited(_budgeted(llm, options), limiter), options.attempts)


def _budgeted(llm: LLM, options: argparse.Namespace) -> LLM:
    """Return the model within the budget of the output, if there is one."""
    if options.max_cost is None:
        return llm
    return budgeted(llm, Budget(f"{options.output}.budget", cost=options.max_cost, period=None))


def _prompts(options: argparse.Namespace) -> Callable[[Any], Prompt]:
    """Return the function that makes the prompt of a row, with the system prompt."""
    make = prompt_of if options.prompt is None else filled(options.prompt)
    if options.system is None:
        return make
    system = Message("system", options.system)

    def with_system(row: Any) -> Prompt:
        prompt = make(row)
        if isinstance(prompt, Request):
            return attrs.evolve(prompt, prompt=(system, *prompt.messages))
        return (system, *((Message("user", prompt),) if isinstance(prompt, str) else messages_of(prompt)))

    return with_system


def _shown(planned: Plan) -> str:
    at_most = (
        "unknown, since a row has no max_tokens" if planned.output_tokens is None else f"{planned.output_tokens:,}"
    )
    if planned.cost is not None:
        cost = f"{planned.cost:.4f} US dollars at most, by this estimate"
    elif planned.output_tokens is None:
        cost = "unknown; pass --max-tokens"
    else:
        cost = "unknown" if has_prices() else "unknown; pip install 'rxllm[prices]'"
    lines = {
        "rows": f"{planned.rows:,}",
        "answered": f"{planned.rows - planned.open:,}",
        "failed": f"{planned.failed:,}",
        "to ask": f"{planned.open:,}",
        "input tokens": f"about {planned.input_tokens:,}",
        "output tokens": at_most,
        "cost": cost,
    }
    return "\n".join(f"{name:14}{value}" for name, value in lines.items())
