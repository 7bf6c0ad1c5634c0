"""`export`: the last results of a journal as a table."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..misuse import MisuseError
from .index import Index, short_digest
from .inputs import arrow
from .journal import Journal
from .result import Result
from .writing import replaced

__all__ = ["export", "last_results"]

_COLUMNS = {  # the names and the types of Arrow
    "custom_id": "string",
    "text": "string",
    "error": "string",
    "finish_reason": "string",
    "model": "string",
    "input_tokens": "int64",
    "output_tokens": "int64",
    "row": "int64",
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet runs a cell that begins so
_BATCH = 1024  # rows of Parquet in memory


def export(journal: Journal, path: str, *, escape_formulas: bool) -> int:
    """Write the last result of each row to a table, and return the number of rows. This function blocks.

    A table of this name is replaced when the new one is whole.

    Args:
        journal: the journal.
        path: the file, which must end in ``.csv`` or ``.parquet``.
        escape_formulas: whether to write an apostrophe before a text that a spreadsheet would run as a formula.

    Raises:
        MisuseError: the path has another ending, or is that of the journal, or the file cannot be written. Or pyarrow
            is not installed, and the table is one of Parquet.
    """
    table_path = Path(path)
    kind = table_path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise MisuseError(f"The table {path!r} must end in .csv or .parquet.")
    if kind == ".parquet" and escape_formulas:
        raise MisuseError("--escape-formulas is for .csv, since no spreadsheet runs a text of a .parquet table.")
    if table_path.exists() and journal.path.exists() and table_path.samefile(journal.path):
        raise MisuseError(f"The table {path!r} is the journal itself. Choose another file.")
    rows = map(_cells, last_results(journal))
    try:
        with replaced(table_path) as new:
            if kind == ".parquet":
                return _write_parquet(new, rows)
            return _write_csv(new, map(_escaped, rows) if escape_formulas else rows)
    except OSError as error:
        raise MisuseError(f"The table {path!r} cannot be written: {error.strerror or error}.") from None


def _write_csv(path: Path, rows: Iterator[list[Any]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        for count, row in enumerate(rows, 1):  # noqa: B007  (it is returned)
            table.writerow(row)
    return count


def _write_parquet(path: Path, rows: Iterator[list[Any]]) -> int:
    pyarrow = arrow()
    schema = pyarrow.schema(list(_COLUMNS.items()))
    count = 0
    with pyarrow.parquet.ParquetWriter(path, schema) as file:
        while batch := [dict(zip(_COLUMNS, row, strict=True)) for row in itertools.islice(rows, _BATCH)]:
            count += len(batch)
            file.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))
    return count


def last_results(journal: Journal) -> Iterator[Result]:
    """Yield the last result of each row. This function blocks."""
    last = Index()
    for number, result in enumerate(journal.results(), 1):
        last.set(short_digest(result.id), number)
    for number, result in enumerate(journal.results(), 1):
        if last.get(short_digest(result.id)) == number:
            yield result


def _cells(result: Result) -> list[Any]:
    answer, failure = result.answer, result.failure
    usage = answer.usage if answer is not None else None
    return [
        result.id,
        result.text,
        f"{failure.kind}: {failure.message}" if failure is not None else "",
        answer.finish_reason if answer is not None else None,
        answer.model if answer is not None else None,
        usage.input_tokens if usage is not None else None,
        usage.output_tokens if usage is not None else None,
        result.row,
    ]


def _escaped(row: list[Any]) -> list[Any]:
    return [f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell for cell in row]
