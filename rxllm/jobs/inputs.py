"""Files of rows: JSON lines, CSV and Parquet."""

from __future__ import annotations

import csv
import importlib
import io
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TextIO, cast

import msgspec

from ..misuse import MisuseError, shown

__all__ = ["row_of", "rows_in"]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson", ".json")
_PARQUET = ".parquet"
_BATCH = 1024  # rows of Parquet in memory
_LONGEST = 2**31 - 1  # bytes in a field of CSV; the module's own limit is 128 KiB


def rows_in(path: str) -> Iterator[Any]:
    """Yield the rows of a file, one at a time. ``-`` is standard input, which must be JSON lines.

    Raises:
        MisuseError: the file cannot be read, its name has an unknown ending, or a line is not a row. The message has
            the number of the line. Or pyarrow is not installed, and the file is one of Parquet.
    """
    kind = Path(path).suffix.lower()
    if path != "-" and kind not in (*_DELIMITERS, *_JSON_LINES, _PARQUET):
        raise MisuseError(
            f"The input {path!r} must end in .jsonl, .csv or .parquet, or be - for JSON lines on standard input."
        )
    try:
        if path == "-":
            yield from _json_lines(_standard_input(), "standard input")
        elif kind == _PARQUET:
            yield from _parquet(path)
        elif kind in _DELIMITERS:
            with Path(path).open(encoding="utf-8-sig", newline="") as text:
                yield from _csv(text, path, _DELIMITERS[kind])
        else:
            with Path(path).open("rb") as lines:
                yield from _json_lines(lines, path)
    except OSError as error:
        raise MisuseError(f"The input {path!r} cannot be read: {error.strerror or error}.") from None


def _standard_input() -> IO[bytes]:
    """Return standard input, read past Python's own buffer.

    The thread that waits for a row would hold the lock of that buffer, and Python aborts if it must close it meanwhile.
    """
    source = cast("TextIO | None", sys.stdin)
    if source is None:
        return io.BytesIO()
    try:
        return open(source.fileno(), "rb", closefd=False)
    except io.UnsupportedOperation:  # a program has replaced it
        return source.buffer


def _json_lines(lines: IO[bytes], name: str) -> Iterator[Any]:
    for number, line in enumerate(lines, 1):
        content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if not content.strip():
            continue
        try:
            yield msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise MisuseError(f"Line {number} of {name} is not JSON: {error}. It begins with {shown(line)}.") from None


def _csv(text: TextIO, name: str, delimiter: str) -> Iterator[dict[str, str]]:
    csv.field_size_limit(_LONGEST)  # of all readers; it stays, because another thread may read, too
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        columns: list[str] = next((line for line in reader if line), list[str]())  # blank ones may come before
        if len(set(columns)) < len(columns):
            raise MisuseError(f"The first line of {name} names a column twice: {', '.join(columns)}.")
        for values in reader:
            if len(values) != len(columns) and values:
                raise MisuseError(
                    f"Line {reader.line_num} of {name} has {len(values)} values for {len(columns)} columns."
                )
            if values:
                yield dict(zip(columns, values, strict=True))
    except csv.Error as error:
        raise _not_csv(reader.line_num, name, error) from None
    except UnicodeDecodeError as error:
        # The file is decoded in blocks. The reader has read all lines that end before the block.
        ends = re.findall(rb"\r\n?|\n", error.object[: error.start])
        raise _not_csv(reader.line_num + 1 + len(ends), name, error) from None


def _not_csv(line: int, name: str, error: Exception) -> MisuseError:
    return MisuseError(f"Line {line} of {name} is not CSV in UTF-8: {error}.")


def _parquet(path: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file."""
    pyarrow = arrow()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH):
                yield from map(row_of, batch.to_pylist())
    except pyarrow.ArrowException as error:
        raise MisuseError(f"The input {path!r} is not a Parquet file that can be read: {error}") from None


def arrow() -> Any:
    """Return pyarrow, with its module for Parquet.

    Raises:
        MisuseError: it is not installed.
    """
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError:
        raise MisuseError("Parquet needs pyarrow, which is not installed: pip install 'rxllm[parquet]'.") from None


def row_of(columns: dict[str, Any]) -> dict[str, Any]:
    """Return a row of Arrow. Its values lack the nulls that Arrow has in place of missing fields, at any depth.

    Bytes in UTF-8 become text: some programs, such as Impala, do not mark their columns of text as such.
    """
    return {name: _as_text(_without_nulls(value)) for name, value in columns.items()}


def _as_text(value: Any) -> Any:
    if isinstance(value, bytes):
        with suppress(UnicodeDecodeError):
            return value.decode()
    return value


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {name: _without_nulls(item) for name, item in fields.items() if item is not None}
    if isinstance(value, list):
        return list(map(_without_nulls, cast("Any", value)))
    return value
