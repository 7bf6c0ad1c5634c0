"""`put_in_order`: the results of a journal in the order of the rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

from ..llm import LLM
from ..values.request import Prompt
from .asking import Asking
from .journal import Journal
from .writing import new_file, replaced

__all__ = ["put_in_order"]


def put_in_order(
    rows: Iterable[Any], llm: LLM, journal: Journal, make: Callable[[Any], Prompt], *, id_column: str
) -> None:
    """Rewrite a journal so that its lines stand in the order of the rows, one line each. This function blocks.

    A failure that a later line of its row replaces is left out. Results of rows that are no longer there come last.

    Raises:
        MisuseError: a row has no prompt, or another job has the journal open.
        OSError: the new file cannot be written. The journal stays as it was.
    """
    with journal.open() as file:
        asking = Asking(llm, make, id_column)
        asking.file = file
        ordered = (file.line(asking.named(item).id) for item in rows)
        # `other_lines` is a generator: it reads the index only when `ordered` has gone through all rows.
        with replaced(journal.path) as path, new_file(path) as lines:
            lines.writelines(itertools.chain(ordered, file.other_lines()))
