"""What a vendor's batch API takes and returns, as a job uses it."""

from __future__ import annotations

from collections.abc import Collection

from attrs import frozen

from ..operators.backoff import is_retryable
from ..values.message import Message

__all__ = ["BatchState", "Draft", "Lost", "Match", "Outcome"]


@frozen
class Outcome:
    """The result of one request of a batch.

    Attributes:
        value: the answer, or an error; None if the vendor did not answer, because the batch expired or was cancelled.
        is_paid: whether the model has answered. The value may be an error nevertheless, if it cannot be read.
    """

    value: Message | Exception | None = None
    is_paid: bool = False

    @property
    def is_open(self) -> bool:
        """Whether the request must be sent again."""
        if self.is_paid:
            return False
        return self.value is None or (isinstance(self.value, Exception) and is_retryable(self.value))


@frozen
class Draft:
    """A batch to be created.

    Attributes:
        tag: a random name, by which some vendors find the batch again.
        model: the model of all its requests; empty if the vendor takes several in one batch.
        lines: its requests, as `BatchAPI.line` returns them.
    """

    tag: str
    model: str
    lines: list[bytes]


@frozen
class Lost:
    """A batch whose creation the vendor has not confirmed: what the job knows of it.

    Attributes:
        tag: its tag.
        file: the id of the file that was uploaded for it; empty if there is none.
        at: when it was written down, just before its creation, in seconds since 1970.
        keys: the keys of its requests. Of all other batches, only those in `others` may have some of them.
        others: the ids of the other batches of the job.
    """

    tag: str
    file: str
    at: float
    keys: Collection[str]
    others: Collection[str] = ()


@frozen
class Match:
    """The result of a search for a lost batch.

    Attributes:
        batch: its id; empty if it was not found.
        undecided: the ids of batches that may be it; the vendor tells only when they have ended.
        gone: the id of a batch that may be it, and whose results the vendor does not keep any more; or empty.
    """

    batch: str = ""
    undecided: tuple[str, ...] = ()
    gone: str = ""


@frozen
class BatchState:
    """The state of a batch.

    Attributes:
        status: the vendor's word for it.
        ended: whether its results are complete.
        cancelled: whether the account has cancelled it.
        answered: the number of requests that the vendor has answered; None if it does not say.
        refusal: why the vendor refused the whole batch; None if it did not.
        is_full: whether it refused the batch only because too many others wait in its queue.
        places: where the results are, in the vendor's terms.
    """

    status: str
    ended: bool = False
    cancelled: bool = False
    answered: int | None = None
    refusal: str | None = None
    is_full: bool = False
    places: tuple[str, ...] = ()
