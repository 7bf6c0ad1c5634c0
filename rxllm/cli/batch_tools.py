"""``rxllm batch export``, ``status`` and ``cancel``: commands for the output of a job."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from ..errors import RxllmError
from ..jobs.batching import api_of
from ..jobs.exporting import export, last_results
from ..jobs.intents import Intent, Intents
from ..jobs.journal import Journal
from ..misuse import MisuseError
from ..providers.batch_values import Match
from ..providers.batches import BatchAPI
from ..terminal import one_line
from .console import FAILURE, Parser, add_model_options, chosen_model, report

__all__ = ["COMMANDS"]


def _parser(command: str, description: str) -> Parser:
    parser = Parser(prog=f"rxllm batch {command}", description=description)
    parser.add_argument("journal", help="the output of rxllm batch")
    return parser


def _export(words: Sequence[str]) -> int:
    parser = _parser("export", "Write the results of a job as a table: the last result of each row.")
    parser.add_argument("table", help="the table to write, which ends in .csv or .parquet")
    parser.add_argument(
        "--escape-formulas", action="store_true", help="write ' before a text that a spreadsheet would run as a formula"
    )
    options = parser.parse_args(words)
    count = export(_existing(options.journal), options.table, escape_formulas=options.escape_formulas)
    report(f"{count:,} rows written to {options.table}.")
    return 0


def _status(words: Sequence[str]) -> int:
    parser = _parser(
        "status",
        "Print what a job has answered, and its batches at the vendor. With the model of the job, the vendor is asked "
        "how far they are.",
    )
    add_model_options(parser)
    options = parser.parse_args(words)
    journal = _existing(options.journal)
    answered = failed = 0
    for result in last_results(journal):
        answered += result.answer is not None
        failed += result.answer is None
    print(f"answered      {answered:,}\nfailed        {failed:,}")
    intents = Intents(journal.path)
    if options.model is None:
        states: list[tuple[Intent, object]] = [(intent, None) for intent in intents.open()]
    else:
        api = api_of(chosen_model(options))
        states = asyncio.run(_asked(api, intents, lambda batch: _described(api, batch)))
    for intent, state in states:
        shown = "" if state is None else f"; {one_line(str(state))}"
        print(f"batch         {intent.batch or 'not confirmed'}, {len(intent.rows):,} rows{shown}")
    return 0


async def _described(api: BatchAPI, batch: str) -> str:
    """Return the state of a batch in words."""
    state = await api.state(batch)
    answered = "" if state.answered is None else f", {state.answered:,} answered"
    return f"{state.status}{answered}" if state.refusal is None else f"{state.status}, {state.refusal}"


def _cancel(words: Sequence[str]) -> int:
    parser = _parser(
        "cancel",
        "Cancel the batches of a job at the vendor. The same rxllm batch command then reads what they have answered, "
        "and sends the rest again.",
    )
    add_model_options(parser)
    options = parser.parse_args(words)
    api = api_of(chosen_model(options))
    results = asyncio.run(_asked(api, Intents(_existing(options.journal).path), api.cancel))
    failures = [(intent, error) for intent, error in results if isinstance(error, RxllmError)]
    for intent, error in failures:  # of a batch that has just ended, for example; the others are cancelled
        report(f"The batch {intent.batch or 'without an id'} was not cancelled: {error}")
    report(f"{len(results) - len(failures)} batches cancelled.")
    return FAILURE if failures else 0


async def _asked(
    api: BatchAPI, intents: Intents, ask: Callable[[str], Awaitable[object]]
) -> list[tuple[Intent, object]]:
    """Ask the vendor about each open batch, and return the answers; an error stands for itself.

    A batch whose creation the vendor has not confirmed is looked for once.
    """
    others, answers = intents.batches(), list[tuple[Intent, object]]()
    for intent in intents.open():
        try:
            if not intent.batch:
                match = await api.find(intent.lost(others))
                intent.batch = match.batch
                if not match.batch:
                    raise RxllmError(_not_found(match))
            answers.append((intent, await ask(intent.batch)))
        except RxllmError as error:
            answers.append((intent, error))
    return answers


def _not_found(match: Match) -> str:
    if match.undecided:
        return f"it may be {' or '.join(match.undecided)}, which shows when that has ended"
    return "the vendor lists no such batch, so it was probably not created"


def _existing(path: str) -> Journal:
    """Return the journal.

    Raises:
        MisuseError: there is neither a journal nor a file of its batches.
    """
    journal = Journal(path)
    if not Path(path).is_file() and not Intents(journal.path).path.is_file():
        raise MisuseError(f"There is no file {path!r}. Pass the output of a job.")
    return journal


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"export": _export, "status": _status, "cancel": _cancel}
