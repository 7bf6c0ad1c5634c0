"""The models of a job: `digest_of` names their requests, and `Shipment` brings them to worker processes."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType
from typing import Any, cast

from ..combinators.asked import Asked
from ..exact import digest
from ..extensible import evolved
from ..llm import LLM
from ..misuse import MisuseError
from ..records import fingerprint
from ..secrecy import with_secrets
from ..surface import stages_in
from ..values.request import Request

__all__ = ["Factory", "Shipment", "as_model", "as_whole", "digest_of", "unpickled"]

Factory = Callable[[], LLM]
"""A function of a module that returns a model."""
_KNOWN = 256  # models whose pickles are looked up by their identity


def as_model(llm: LLM | Factory) -> tuple[LLM, Factory | None]:
    """Return the model that a job got, and the function from which it got it, if it is one.

    Raises:
        MisuseError: it is neither a model nor a function that returns one.
    """
    if isinstance(llm, LLM):
        return llm, None
    made: object = llm() if callable(cast("object", llm)) else llm
    if not isinstance(made, LLM):
        what = f"one that returns {type(made).__name__}" if made is not llm else type(llm).__name__
        raise MisuseError(f"A job takes a model, or a function that returns one, not {what}.")
    return made, llm


def as_whole(llm: LLM) -> LLM:
    """Return the model, which requests whole answers unless it says otherwise: they cost less than streams."""
    return llm.bind(stream=False) if llm.parameters.stream is None else llm


def digest_of(models: Asked, request: Request) -> str:
    """Return a digest of the models and of their requests. Keys, addresses, retries and limiters do not count.

    Raises:
        MisuseError: the request contains a value without a stable digest, such as a function.
    """
    facts: list[list[str | None]] = []
    for leaf, of_leaf in models.with_request(request):
        service = leaf.service(of_leaf)
        facts.append([service.provider, service.model, fingerprint(of_leaf)])
    return digest(facts)


class Shipment:
    """The pickles from which worker processes get the models whose own methods answer, without the combinators.

    Args:
        llm: the model of a job.
        factory: returns an equal model in a worker; None pickles the models in `llm`.

    Raises:
        MisuseError: a model, or the factory, cannot be pickled.
    """

    def __init__(self, llm: LLM, factory: Factory | None) -> None:
        self.pickles: list[bytes] = []
        self._by_pickle: dict[bytes, int] = {}
        self._known: dict[int, tuple[LLM, int]] = {}  # by id; it keeps the models, so that no other one gets their id
        for place, node in enumerate(_nodes(llm)):
            if type(node).__call__ is LLM.__call__:  # a combinator has its own, which runs in this process
                self._known[id(node)] = node, self._place(_pickled(factory and partial(_node, factory, place), node))

    def number(self, llm: LLM) -> int:
        """Return the place of a model among the pickles. A model that the job did not have yet is added.

        Raises:
            MisuseError: the model cannot be pickled.
        """
        if (known := self._known.get(id(llm))) is not None:
            return known[1]
        number = self._place(_pickled(None, llm))
        if len(self._known) < _KNOWN:  # a function such as that of `route` may return a new model for each request
            self._known[id(llm)] = llm, number
        return number

    def _place(self, pickled: bytes) -> int:
        number = self._by_pickle.setdefault(pickled, len(self.pickles))
        if number == len(self.pickles):
            self.pickles.append(pickled)
        return number


def unpickled(pickled: bytes) -> LLM:
    """Return the model of a pickle, in a worker process, which trusts its parent."""
    made: LLM | Factory = pickle.loads(pickled)  # noqa: S301
    return made if isinstance(made, LLM) else made()


def _nodes(llm: LLM) -> Iterator[LLM]:
    """Yield a model and all models in it, in the same order for equal models."""
    yield llm
    for part in stages_in(llm):
        if isinstance(part, LLM):
            yield from _nodes(part)


def _node(factory: Factory, place: int) -> LLM:
    return _silent([*_nodes(factory())][place])


def _silent(llm: LLM) -> LLM:
    """Return the model without its handlers, which hear the run in the parent."""
    return evolved(llm, handlers=())


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, FunctionType)) and obj.__module__ == "__main__":
            raise MisuseError(
                f"{obj.__qualname__} is defined in the program that runs, which a worker process does not run. Move it "
                "to a module"
            )
        return NotImplemented


def _pickled(make: Factory | None, llm: LLM) -> bytes:
    file = io.BytesIO()
    try:
        with with_secrets():
            _Pickler(file).dump(make or _silent(llm))
    except Exception as error:
        what = "function that returns the model" if make else type(llm).__name__
        reason = str(error).removesuffix(".")
        raise MisuseError(
            f"A worker process gets its models as pickles, but this {what} cannot be pickled: {reason}. Pass `job` a "
            "function of a module that returns the model, or leave out the workers."
        ) from error
    return file.getvalue()
