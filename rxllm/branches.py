"""`parallel`, `assign`: several branches for one input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar, cast

from attrs import frozen
from reactivex import Observable, abc
from reactivex import operators as ops
from reactivex.disposable import Disposable

from .extensible import evolved
from .graph import Graph
from .misuse import MisuseError, shown
from .operators.adding_up import Fold, fold_of
from .operators.merging import Item, fold_by_key, merged
from .operators.observing import Identity, observed
from .operators.share import share
from .pipeline import pipe
from .runtime.source import Source
from .showing import shown_call, shown_code
from .stages import graph_of_parts, has_model, with_parameters
from .surface import Surface
from .values.parameters import Settings

__all__ = ["Assign", "Parallel", "assign", "parallel"]

In = TypeVar("In", contravariant=True)
I = TypeVar("I")  # noqa: E741  (input)
Branch = Callable[[I], Observable[Any]]


@frozen
class _Branches(Surface[In, Item, Item]):
    """Several stages that get one input.

    Attributes:
        branches: the names and the stages, in the order in which they were passed.
    """

    branches: tuple[tuple[str, Callable[[Any], Any]], ...]

    def __repr__(self) -> str:
        arguments = (f"{name}={shown_code(branch)}" for name, branch in self.branches)
        return shown_call(type(self).__name__.lower(), arguments, self)

    def _graph(self) -> Graph:
        return graph_of_parts(type(self).__name__.lower(), self, "parallel", self.branches)

    def __call__(self, prompt: In, /) -> Observable[Item]:
        """Return the values of all branches as they arrive, each as ``{name: value}``.

        Raises:
            MisuseError: a branch did not return an Observable, or cannot use the input.
        """
        return observed(self._merged(prompt), prompt, self._identity, self.handlers, self._fold)

    def answer(self, prompt: In, /) -> Observable[Item]:
        """Return the answers of all branches by their names, as an Observable of one dict."""
        return observed(self._merged(prompt), prompt, self._identity, self.handlers, self._fold, whole=True)

    @property
    def _fold(self) -> Fold:
        return fold_by_key({name: fold_of([branch]) for name, branch in self.branches})

    def _merged(self, prompt: Any) -> Source[Item]:
        if isinstance(prompt, Observable):
            source: Observable[Any] = cast("Any", prompt)
            return merged(lambda: self._streams(source.pipe(share())))
        streams = self._streams(prompt)
        return merged(lambda: streams)

    def _streams(self, prompt: Any) -> dict[str | None, Observable[Any]]:
        """Return the stream of each branch."""
        return {name: _named(name, branch)(prompt) for name, branch in self.branches}

    def _identity(self) -> Identity:
        name = self.run_name or type(self).__name__
        return Identity(name, "chain", self.tags, self.metadata, self.handlers)

    @property
    def _has_model(self) -> bool:
        return any(has_model(branch) for _, branch in self.branches)

    def _with_parameters(self, parameters: Settings) -> Self:
        if not self._has_model:
            raise MisuseError(
                f"No branch here has a model, so {', '.join(parameters)} cannot be used. Bind parameters to a model "
                "within an operator or a function there."
            )
        branches = tuple((name, with_parameters(branch, parameters)) for name, branch in self.branches)
        return evolved(self, branches=branches)


@frozen(repr=False)
class Parallel(_Branches[In]):
    """Several stages that get one input, as one stage. `parallel` makes it."""


@frozen(repr=False)
class Assign(_Branches[Mapping[str, object] | Observable[Mapping[str, object]]]):
    """A stage that adds the answers of several stages to a dict. `assign` makes it."""

    def _streams(self, prompt: Any) -> dict[str | None, Observable[Any]]:
        return {None: self._kept(prompt), **super()._streams(prompt)}

    def _kept(self, prompt: object) -> Observable[Item]:
        """Return the input's items that no branch replaces."""
        if isinstance(prompt, Observable):
            source = cast("Observable[object]", prompt)
            return source.pipe(ops.flat_map(self._kept))
        if not isinstance(prompt, Mapping):
            raise MisuseError(
                f"assign adds to a dict, or to the dicts of an Observable, but its input is {type(prompt).__name__}."
            )
        names = {name for name, _ in self.branches}
        items = cast("Mapping[str, Any]", prompt).items()
        return _at_once([{key: value} for key, value in items if key not in names])


def _at_once(items: list[Item]) -> Source[Item]:
    """Emit the items during the subscription, before any branch begins. `reactivex.of` emits them later."""

    def subscribe(observer: abc.ObserverBase[Item], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        for item in items:
            observer.on_next(item)
        observer.on_completed()
        return Disposable()

    return Source(subscribe)


def parallel(**branches: Branch[I]) -> Parallel[I]:
    """Ask several models, pipelines or functions at once with the same input.

    ::

        poem                 -Ro-ses-|
        joke                 --Knock------knock-|
        parallel(poem, joke) -Ro-ses------knock-|     each as {'poem': chunk} or {'joke': chunk}

        both = parallel(poem=pipe(poem, llm, text()), joke=pipe(joke, llm, text()))
        both.invoke("fish")                     # {'poem': 'Roses …', 'joke': 'Knock knock …'}

    The values of all branches are emitted as they arrive. `invoke`, `answer` and the other methods give a dict of the
    branches' answers in the order of the keywords; a branch without a value has the answer None, or the empty text,
    list or Message. If the input is an Observable, it is subscribed to once for all branches. Parameters, as in
    ``both.invoke("fish", temperature=0)``, apply to the models in all branches. The runs of a branch have its name.

    Args:
        branches: functions from the input to an Observable, by their names.

    Errors: the first error of a branch, after the other branches were cancelled.

    Raises:
        MisuseError: there is no branch, or a branch is not callable.
    """
    return Parallel(_checked("parallel", branches))


def assign(**branches: Branch[Mapping[str, Any]]) -> Assign:
    """Add the answers of several stages to a dict.

    ::

        {'topic': 'fish'}    -|
        length               ---5-|
        assign(length)       {'topic': 'fish'}--{'length': 5}-|

        ask = template("Answer {question} from {context}.")
        pipe(assign(context=search).answer, ops.map(ask), llm, text()).invoke({"question": "Why?"})

    The items of the input are emitted first, and then the values of the branches as they arrive, each as
    ``{name: value}``. The answer is one dict. A branch replaces an item of its name. In all else this is `parallel`.

    Args:
        branches: functions from the dict to an Observable, by their names. If the input is an Observable of dicts, they
            get that.

    Errors: those of the input, and the first error of a branch, after the other branches were cancelled. `MisuseError`
    if the input has anything but dicts.

    Raises:
        MisuseError: there is no branch, or a branch is not callable.
    """
    return Assign(_checked("assign", branches))


def _checked(name: str, branches: Mapping[str, Branch[Any]]) -> tuple[tuple[str, Branch[Any]], ...]:
    if not branches:
        raise MisuseError(f"{name} needs at least one branch, as in {name}(poem=llm).")
    for key, branch in branches.items():
        if not callable(cast("object", branch)):
            raise MisuseError(
                f"The branch {key} must be a model, a pipeline, an operator or a function that returns an Observable, "
                f"not {type(branch).__name__}: {shown(branch)}."
            )
        pipe(branch)  # which refuses an operator without its parentheses
    return tuple(branches.items())


def _named(name: str, branch: Branch[I]) -> Surface[I, Any, Any]:
    """Return the branch as a stage whose runs have its name."""
    stage: Surface[Any, Any, Any] = cast("Any", branch) if isinstance(branch, Surface) else pipe(branch)
    return stage if stage.run_name is not None else stage.with_config(run_name=name)
