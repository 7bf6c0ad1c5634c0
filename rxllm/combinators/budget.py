"""`Budget`: how many tokens or dollars requests may take in a day or a month, counted in a file."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from attrs import frozen

from ..errors import LimitReached
from ..misuse import MisuseError, shown
from ..prices import check_prices
from ..public import Public
from .database import path_of, transaction
from .reservations import Reservations

__all__ = ["Budget", "Period", "Reservation", "Used"]

Period = Literal["day", "month"]

_TABLE = (
    "CREATE TABLE IF NOT EXISTS budgets (name TEXT NOT NULL, period TEXT NOT NULL, tokens INTEGER NOT NULL, "
    "nanodollars INTEGER NOT NULL, PRIMARY KEY (name, period))"
)
_FORMATS = {"day": "%Y-%m-%d", "month": "%Y-%m"}
_NANO = 10**9  # nanodollars: a token of a cheap model costs 20
_MOST = 2**53


@frozen
class Used:
    """Tokens, and US dollars."""

    tokens: int = 0
    cost: Decimal = Decimal(0)

    def __add__(self, other: Used) -> Used:
        return Used(self.tokens + other.tokens, self.cost + other.cost)


@frozen
class Reservation:
    """The tokens or the cost that a request may take, and the period that they count for."""

    period: str
    used: Used


class Budget(metaclass=Public):
    """A limit of tokens or dollars for a day or a month of UTC, counted in a SQLite file that processes may share.

    ::

        budget = rxllm.Budget("budgets.sqlite", cost=5, period="day")
        llm = rxllm.budgeted(rxllm.OpenAI("gpt-5-mini"), budget)

    A request reserves what it will take by an estimate, and settles what it took when it ends. A request that cannot
    reserve fails before it is sent. The last requests of a period may take more than they reserved. A process that is
    killed leaves its reservations as spent.

    Args:
        path: the file. It is created at the first use, readable by its owner only.
        name: the name of the budget. Budgets with different names in a file count separately.
        tokens: the maximum number of tokens, of prompts and answers.
        cost: the maximum cost in US dollars, by the list prices of the package genai-prices (extra ``prices``).
        period: the period after which the budget begins anew; None never begins anew.

    Raises:
        MisuseError: there is neither `tokens` nor `cost`, or an argument is out of its range.
    """

    def __init__(
        self,
        path: str | Path,
        name: str = "budget",
        *,
        tokens: int | None = None,
        cost: float | Decimal | None = None,
        period: Period | None = "day",
    ) -> None:
        self._path = path_of("Budget", path, "A Limiter limits the tokens of a process.")
        if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise MisuseError(f"The name of a Budget must be text, not {shown(name)}.")
        if period is not None and period not in _FORMATS:
            raise MisuseError(f"The period of a Budget must be 'day', 'month' or None, not {shown(period)}.")
        if tokens is None and cost is None:
            raise MisuseError("A Budget needs a limit: tokens=… or cost=… in US dollars.")
        _check("tokens", tokens, int)
        _check("cost", cost, int, float, Decimal)
        if cost is not None:
            check_prices()
        self.name = name
        self.tokens = tokens
        self.cost = None if cost is None else Decimal(str(cost))
        self.period: Period | None = period
        self._reservations = Reservations()

    def __repr__(self) -> str:
        limits = {"tokens": self.tokens, "cost": None if self.cost is None else str(self.cost), "period": self.period}
        shown_limits = [f"{name}={limit!r}" for name, limit in limits.items() if limit is not None]
        return f"Budget({', '.join([repr(str(self._path)), repr(self.name), *shown_limits])})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _budget, (self._path, self.name, self.tokens, self.cost, self.period)

    def used(self) -> Used:
        """Return what this period has used, with the reservations of the running requests. This method blocks."""
        with transaction(self._path, _TABLE, private=True) as database:
            return self._used(database, self._now())

    def reserve(self, wanted: Used) -> Reservation:
        """Reserve what a request will take. This method blocks.

        Raises:
            LimitReached: the budget does not have as much left, or its file cannot be used.
        """
        return self.reserve_first([wanted])[1]

    def reserve_first(self, wanted: Sequence[Used]) -> tuple[int, Reservation]:
        """Reserve what the first requests will take, and return how many have room. This method blocks.

        Raises:
            LimitReached: the budget does not have as much left for the first one, or its file cannot be used.
        """
        try:
            return self._reserve(wanted)
        except (sqlite3.Error, OSError) as error:
            raise LimitReached(
                f"The budget {self.name!r} cannot be counted in {str(self._path)!r}: {error}. Make the file usable.",
                limit="budget",
            ) from None

    def _reserve(self, wanted: Sequence[Used]) -> tuple[int, Reservation]:
        period, count, reserved = self._now(), 0, Used()
        with transaction(self._path, _TABLE, private=True) as database:
            database.execute("BEGIN IMMEDIATE")  # so that no other process reserves between the check and the end
            used = self._used(database, period)
            for each in wanted:
                excess = self._excess(used + reserved, each)
                if excess is not None and not count:
                    raise excess
                if excess is not None:
                    break
                count, reserved = count + 1, reserved + each
            self._add(database, period, reserved.tokens, reserved.cost)
        return count, Reservation(period, reserved)

    def _excess(self, used: Used, wanted: Used) -> LimitReached | None:
        """Return the error of a request that has no room; None if it has."""
        for kind, limit, spent, more in (
            ("tokens", self.tokens, used.tokens, wanted.tokens),
            ("US dollars", self.cost, used.cost, wanted.cost),
        ):
            # A request that alone is larger than the budget would never be sent; so the first one always may.
            if limit is not None and (spent >= limit or (spent and spent + more > limit)):
                return LimitReached(
                    f"The budget {self.name!r} of {limit} {kind}{self._each()} is spent: {spent} are used or "
                    f"reserved, and this request may take {more}.",
                    limit="budget",
                )
        return None

    def settle(self, reservation: Reservation, used: Used) -> None:
        """Replace a reservation by what the request took. This method blocks."""
        with transaction(self._path, _TABLE, private=True) as database:
            database.execute("BEGIN IMMEDIATE")
            reserved = reservation.used
            self._add(database, reservation.period, used.tokens - reserved.tokens, used.cost - reserved.cost)

    def _each(self) -> str:
        return "" if self.period is None else f" a {self.period}"

    def _now(self) -> str:
        return "" if self.period is None else datetime.fromtimestamp(time.time(), UTC).strftime(_FORMATS[self.period])

    def _used(self, database: sqlite3.Connection, period: str) -> Used:
        statement = "SELECT tokens, nanodollars FROM budgets WHERE name = ? AND period = ?"
        row = database.execute(statement, (self.name, period)).fetchone()
        return Used() if row is None else Used(row[0], Decimal(row[1]) / _NANO)

    def _add(self, database: sqlite3.Connection, period: str, tokens: int, cost: Decimal) -> None:
        statement = (
            "INSERT INTO budgets (name, period, tokens, nanodollars) VALUES (?, ?, ?, ?) ON CONFLICT (name, period) DO "
            "UPDATE SET tokens = tokens + excluded.tokens, nanodollars = nanodollars + excluded.nanodollars"
        )
        database.execute(statement, (self.name, period, tokens, round(cost * _NANO)))


def _budget(path: Path, name: str, tokens: int | None, cost: Decimal | None, period: Period | None) -> Budget:
    return Budget(path, name, tokens=tokens, cost=cost, period=period)


def _check(name: str, limit: object, *kinds: type) -> None:
    if limit is None:
        return
    is_number = isinstance(limit, kinds) and not isinstance(limit, bool)
    if not is_number or not 0 < limit <= _MOST:  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
        raise MisuseError(f"The {name} of a Budget must be a number above 0, not {shown(limit)}.")
