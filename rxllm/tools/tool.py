"""`tool`: a function that models can call, and a stage whose calls emit events."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, NoReturn, TypedDict, TypeVar, Unpack, cast, overload

import attrs
from attrs import field, frozen
from attrs.validators import optional
from reactivex import Observable

from ..graph import Graph
from ..misuse import MisuseError, is_mapping, is_text, must_be, shown
from ..operators.adding_up import Fold
from ..operators.observing import Identity, observed
from ..operators.timeouts import check_seconds
from ..runtime.scheduler import Scheduler
from ..runtime.source import source
from ..showing import shown_call, shown_code
from ..surface import Surface
from ..values.parameters import Settings
from ..values.tools import ToolSpec
from ._pickling import by_name, unpickled
from ._running import is_generator, limited, results_of
from ._signature import BadArguments, name_of, signature_of, takes

__all__ = ["Approve", "BadArguments", "Tool", "tool"]

In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
A = TypeVar("A")
B = TypeVar("B")

Approve = bool | Callable[[Mapping[str, Any]], bool]
"""Whether a call needs an approval: always, never, or what a function of the call's arguments says."""

_MISSING: Any = object()  # no argument was passed
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _seconds(_: object, attribute: Any, seconds: float | None) -> None:
    if seconds is not None:
        check_seconds(attribute.name, seconds)


@frozen
class Tool(Surface[In, Out, Out]):
    """A function that a model can call, and a stage. Handlers receive `ToolStarted` and `ToolFinished` for each call.

    Attributes:
        function: ``async def``, or ``def`` for blocking code, which runs in a thread. A generator function, plain or
            async, reports progress: handlers receive each value as `Emitted`, and the last value is the result.
        given_name: the name for models; None for the function's name.
        given_description: the purpose of the tool, for models; None for the function's docstring.
        timeout: the maximum number of seconds of a call.
        approve: whether a call of a model needs an approval before the tool runs.
        given_parameters: the JSON schema of the arguments; None for the schema of the function's parameters. With a
            schema of your own the function receives the model's JSON values as they are.
    """

    function: Callable[..., Any] = field(validator=must_be("a function", callable))
    given_name: str | None = field(
        default=None, alias="name", kw_only=True, validator=optional(must_be("text", is_text))
    )
    given_description: str | None = field(
        default=None, alias="description", kw_only=True, validator=optional(must_be("text", is_text))
    )
    timeout: float | None = field(default=None, kw_only=True, validator=_seconds)
    approve: Approve = field(
        default=False,
        kw_only=True,
        validator=must_be("True, False or a function of the arguments", lambda a: isinstance(a, bool) or callable(a)),
    )
    given_parameters: Mapping[str, Any] | None = field(
        default=None,
        alias="parameters",
        kw_only=True,
        hash=False,
        validator=optional(must_be("a JSON schema, as a dict", is_mapping)),
    )

    def __repr__(self) -> str:
        return shown_call("tool", [shown_code(self.function)], self)

    def _graph(self) -> Graph:
        return Graph(repr(self), "tool")

    @property
    def name(self) -> str:
        """The name of the tool."""
        return self.given_name or name_of(self.function)

    @property
    def description(self) -> str:
        """The purpose of the tool."""
        return signature_of(self.function).description if self.given_description is None else self.given_description

    @property
    def spec(self) -> ToolSpec:
        """The definition of the tool for a model.

        Raises:
            MisuseError: a parameter of the function has no JSON schema, or providers do not accept the name.
        """
        if not _NAME.fullmatch(self.name):
            raise MisuseError(
                f"A model cannot call a tool with the name {self.name!r}. A name has 1 to 64 letters, digits, _ or -. "
                "Pass tool(…, name='…')."
            )
        given = self.given_parameters
        parameters = signature_of(self.function).shape.schema if given is None else given
        return ToolSpec(self.name, self.description, parameters)

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a model's call with the types of the function's parameters.

        Raises:
            BadArguments: they do not fit.
        """
        return dict(arguments) if self.given_parameters is not None else signature_of(self.function).read(arguments)

    def __call__(self, value: In = _MISSING, /, *more: Any, **keywords: Any) -> Observable[Out]:
        """Call the function: return its result, as an Observable of one value. Each subscription calls the function.

        As a stage, a tool receives one value. If its function can be called with one argument, the value is this
        argument. Otherwise the value is a dict of the arguments. The Observable of a generator function has all of its
        values.

        Raises:
            MisuseError: the arguments do not fit the function's parameters.
        """
        arguments = () if value is _MISSING else (value, *more)
        call, shown_input = self._call_of(arguments, keywords)
        return self._run(call, shown_input, whole=not is_generator(self.function))

    def answer(self, value: In, /) -> Observable[Out]:
        """Return the result, as an Observable of one value."""
        call, shown_input = self._call_of((value,), {})
        return self._run(call, shown_input, whole=True)

    def call(self, arguments: Mapping[str, Any], *, metadata: Mapping[str, Any] | None = None) -> Observable[Out]:
        """Call the function with these arguments by name. Return the result, as an Observable of one value.

        Args:
            arguments: the arguments, with the types of the function's parameters.
            metadata: more metadata for the run.
        """
        call, shown_input = self._call_of((), arguments)
        return self._run(call, shown_input, whole=True, metadata=metadata)

    def _call_of(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> tuple[Callable[[], Any], object]:
        """Return the call of the function, and the input of its run."""
        function = self.function
        try:
            signature = inspect.signature(function)
        except ValueError:  # some functions that are written in C have no signature
            return functools.partial(function, *arguments, **keywords), arguments[0] if arguments else dict(keywords)
        is_value = len(arguments) == 1 and not keywords
        if is_value and is_mapping(arguments[0]) and not takes(signature, arguments[0]):
            is_value = False
            keywords, arguments = arguments[0], ()
        bound = self._bound_arguments(signature, arguments, keywords)
        return functools.partial(function, *arguments, **keywords), arguments[0] if is_value else bound

    def _bound_arguments(
        self, signature: inspect.Signature, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return the arguments by the names of their parameters.

        Raises:
            MisuseError: they do not fit the parameters.
        """
        try:
            bound = signature.bind(*arguments, **keywords).arguments
        except TypeError as error:
            parameters = ", ".join(signature.parameters)
            hint = ""
            if len(arguments) == 1 and len(signature.parameters) != 1 and not keywords:
                hint = f" As a stage it takes one dict of its arguments, not {shown(arguments[0])}."
            raise MisuseError(
                f"The tool {self.name}({parameters}) cannot be called like this: {error}.{hint}"
            ) from None
        others = [each.name for each in signature.parameters.values() if each.kind is each.VAR_KEYWORD]
        return {**bound.pop(others[0], {}), **bound} if others else bound

    def _run(
        self,
        call: Callable[[], Any],
        shown_input: object,
        *,
        whole: bool,
        metadata: Mapping[str, Any] | None = None,
    ) -> Observable[Any]:
        def identity() -> Identity:
            facts = {**self.metadata, **metadata} if metadata else self.metadata
            return Identity(self.run_name or self.name, "tool", self.tags, facts, self.handlers)

        results = source(functools.partial(self._results, call))
        return observed(results, shown_input, identity, self.handlers, _RESULT, whole=whole)

    def _results(self, call: Callable[[], Any], scheduler: Scheduler) -> AsyncIterator[Any]:
        results = results_of(self.function, call, scheduler)
        return results if self.timeout is None else limited(results, self.timeout, self.name)

    @property
    def _fold(self) -> Fold:
        return _RESULT

    def _with_parameters(self, parameters: Settings) -> NoReturn:
        raise MisuseError(
            f"A tool has no model, so it cannot use {', '.join(parameters)}. Pass parameters to a model or a pipeline."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a decorated function by its name: in its module this name is the tool."""
        fields = {name: getattr(self, name) for name in attrs.fields_dict(cast("Any", type(self)))}
        return unpickled, (type(self), {**fields, "function": by_name(self.function)})


def _result(values: list[Any]) -> Any:
    """Return the last value. A generator function may end without a value, as a function may return None."""
    return values[-1] if values else None


_RESULT = Fold(_result, lambda values: values[-1:])


class _Options(TypedDict, total=False):
    name: str
    description: str
    timeout: float | None
    approve: Approve


@overload
def tool(function: Callable[[A], Awaitable[B]], /, **options: Unpack[_Options]) -> Tool[A, B]: ...
@overload
def tool(function: Callable[[A], AsyncIterator[B] | Iterator[B]], /, **options: Unpack[_Options]) -> Tool[A, B]: ...
@overload
def tool(function: Callable[[A], B], /, **options: Unpack[_Options]) -> Tool[A, B]: ...
@overload
def tool(function: Callable[..., Awaitable[B]], /, **options: Unpack[_Options]) -> Tool[Mapping[str, Any], B]: ...
@overload
def tool(
    function: Callable[..., AsyncIterator[B] | Iterator[B]], /, **options: Unpack[_Options]
) -> Tool[Mapping[str, Any], B]: ...
@overload
def tool(function: Callable[..., B], /, **options: Unpack[_Options]) -> Tool[Mapping[str, Any], B]: ...
@overload
def tool(**options: Unpack[_Options]) -> Callable[[Callable[..., Any]], Tool[Any, Any]]: ...


def tool(function: Callable[..., Any] | None = None, /, **options: Unpack[_Options]) -> Any:
    """Make a function a tool, which a model can call. A tool is also a stage, whose calls emit events.

    ::

        @rxllm.tool
        async def weather(city: str, days: Annotated[int, "from 1 to 14"] = 1) -> str:
            \"\"\"Forecast the weather.\"\"\"
            return f"It rains in {city} for {days} days."

        rxllm.agent(llm, weather).invoke("Do I need an umbrella in Oslo?")
        weather.invoke("Oslo")
        weather("Oslo", days=3).subscribe(print)

    The model sees a JSON schema of the parameters. They may have the types that `parse` takes: plain types, classes of
    attrs, dataclasses, msgspec or pydantic, TypedDicts, ``Literal``, enums, and lists, dicts and unions of these. The
    descriptions come from the docstring and from texts in ``Annotated``. An argument that the function does not have
    is an error, and the model gets it as the result of the call.

    As a stage, a tool takes one value: the argument of a function of one argument, else a dict of the arguments.

    A plain ``def`` runs in a thread of its own, in a copy of the context. A generator function reports progress:
    handlers receive each value as `Emitted`, and the last value is the result.

    Args:
        function: the function.
        options: ``name`` and ``description`` replace those of the function. ``timeout`` is the maximum number of
            seconds of a call; a blocking function then still runs in its thread, but its result is dropped. ``approve``
            decides whether a call of a model needs an approval: True, False, or a function of the dict of arguments.

    Errors: the exception that the function raises; `Timeout`.

    Raises:
        MisuseError: `function` is not callable, or an option is invalid. A parameter without a schema, such as
            ``*args``, raises it when the tool is given to an agent.
    """
    if function is None:
        return functools.partial(tool, **options)
    return cast("Any", Tool)(function, **options)
