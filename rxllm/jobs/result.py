"""`Result`: what became of one row."""

from __future__ import annotations

from attrs import frozen

from ..errors import ProviderError
from ..public import Public
from ..showing import brief
from ..terminal import printable
from ..values.message import Message

__all__ = ["UNNUMBERED", "Failure", "Result"]

UNNUMBERED = -1  # the position of a row that no job has read


@frozen
class Failure(metaclass=Public):
    """Why a row has no answer.

    Attributes:
        kind: the name of the error's class, such as ``BadRequest``.
        message: the error's text.
        status: the HTTP status; None if no server sent one.
        code: the provider's own name for the error, or None.
    """

    kind: str
    message: str
    status: int | None = None
    code: str | None = None

    __repr__ = brief

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Return the facts about an exception."""
        refused = error if isinstance(error, ProviderError) else None
        status, code = (refused.status, refused.code) if refused else (None, None)
        return cls(type(error).__name__, printable(str(error)), status, code and printable(code))


@frozen
class Result(metaclass=Public):
    """The result of one row of a job.

    Attributes:
        id: the row's ``custom_id``; without one, a digest of its request.
        answer: the answer; None if the row failed.
        failure: why the row failed; None if it has an answer.
        row: the position of the row in the input, from 0.
        request: a digest of the model and the request.
        attempt: how often the row has got a result, with this one.
    """

    id: str
    answer: Message | None = None
    failure: Failure | None = None
    row: int = UNNUMBERED
    request: str = ""
    attempt: int = 1

    __repr__ = brief

    @property
    def text(self) -> str:
        """The text of the answer; empty if the row failed."""
        return self.answer.text if self.answer is not None else ""
