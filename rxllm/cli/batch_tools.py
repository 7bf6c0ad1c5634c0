"""``rxllm batch export``, ``status`` and ``cancel``: commands for the output of a job."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import RxllmError
from ..jobs.batching import api_of
from ..jobs.exporting import export, last_results
from ..jobs.intents import Intents
from ..jobs.journal import Journal
from ..misuse import MisuseError
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
    options = _parser("status", "Print what a job has answered, and its batches at the vendor.").parse_args(words)
    journal = _existing(options.journal)
    answered = failed = 0
    for result in last_results(journal):
        answered += result.answer is not None
        failed += result.answer is None
    print(f"answered      {answered:,}\nfailed        {failed:,}")
    for intent in Intents(journal.path).open():
        print(f"batch         {intent.batch or 'not created yet'}, {len(intent.rows):,} rows")
    return 0


def _cancel(words: Sequence[str]) -> int:
    parser = _parser(
        "cancel",
        "Cancel the batches of a job at the vendor. The same rxllm batch command then reads what they have answered, "
        "and sends the rest again.",
    )
    add_model_options(parser)
    options = parser.parse_args(words)
    api = api_of(chosen_model(options))
    open_batches = [intent.batch for intent in Intents(_existing(options.journal).path).open() if intent.batch]

    async def cancel() -> int:
        cancelled = 0
        for batch in open_batches:
            try:
                await api.cancel(batch)
            except RxllmError as error:  # one that has just ended, for example; the others must be cancelled, too
                report(f"The batch {batch} was not cancelled: {error}")
            else:
                cancelled += 1
        return cancelled

    cancelled = asyncio.run(cancel())
    report(f"{cancelled} batches cancelled.")
    return 0 if cancelled == len(open_batches) else FAILURE


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
