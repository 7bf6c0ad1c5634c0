"""The JSON schema of a function's parameters, and the conversion of a model's arguments to Python values."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, NotRequired, TypedDict, cast, get_args, get_origin
from weakref import WeakKeyDictionary

import msgspec
from attrs import frozen

from ..errors import ParseError
from ..misuse import MisuseError
from ..shapes.shape import Shape, shape_of

__all__ = ["BadArguments", "Signature", "name_of", "signature_of", "takes"]

# Weak, because a function keeps alive all that it closes over. Each access to a method makes another bound method.
_of_functions: WeakKeyDictionary[Callable[..., Any], Signature] = WeakKeyDictionary()
_of_methods: WeakKeyDictionary[Callable[..., Any], Signature] = WeakKeyDictionary()

_VARIADIC = {
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}


class BadArguments(ValueError):
    """A model's arguments do not fit the parameters of the tool. The text is the result of the call."""


@frozen
class Signature:
    """A function for a model.

    Attributes:
        description: the docstring, without its sections on parameters, results and errors.
        shape: the arguments as a TypedDict: its schema names all parameters and allows no further ones.
    """

    description: str
    shape: Shape[Any]

    def read(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the JSON values of the arguments to the types of the parameters.

        Null for a parameter with a default counts as left out, unless the parameter's type includes None: models that
        must name each parameter write null for those that they do not need. The numbers with a fraction may be
        Decimals, so that a Decimal gets all digits.

        Raises:
            BadArguments: a value has a wrong type, a required argument is missing, or an argument is unknown.
        """
        try:
            return cast("dict[str, Any]", self.shape.decode(arguments, has_decimals=True))
        except ParseError as error:
            problems = "; ".join(error.problems)
            raise BadArguments(f"The arguments do not fit: {problems}. {self._parameters()}") from None

    def _parameters(self) -> str:
        schema = self.shape.schema
        required = schema.get("required", ())
        names = [f"{name} (required)" if name in required else name for name in schema.get("properties", ())]
        return f"The parameters are: {', '.join(names)}." if names else "There are no parameters."


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function, or of the class of any other callable."""
    return getattr(function, "__name__", type(function).__name__)


def signature_of(function: Callable[..., Any]) -> Signature:
    """Return the signature of a function for models. The result is cached, as long as the function exists.

    Raises:
        MisuseError: a parameter has no schema. The message names the parameter and the remedy.
    """
    cache, key = _of_functions, function
    if inspect.ismethod(function):
        cache, key = _of_methods, function.__func__
    try:
        known = cache.get(key)
    except TypeError:  # such as an object with fields of lists, or with slots
        return _signature_of(function)
    if known is None:
        known = cache[key] = _signature_of(function)
    return known


def _signature_of(function: Callable[..., Any]) -> Signature:
    name = name_of(function)
    if isinstance(function, functools.partial):
        raise MisuseError(
            "A model cannot call a functools.partial, because its signature shows the bound arguments as parameters. "
            "Write a function with the remaining parameters."
        )
    try:
        signature = inspect.signature(function)
    except ValueError:
        raise MisuseError(
            f"{name} is written in C and has no signature, so a model cannot call it. Write a Python function that "
            "calls it."
        ) from None
    hints = _hints(function, name)
    description, descriptions = _docstring(function)
    fields: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        _check_default(parameter, name)
        kind = _type_of(parameter, hints, name)
        _check(kind, parameter.name, name)
        described = _described(kind, parameter, descriptions.get(parameter.name))
        fields[parameter.name] = described if parameter.default is parameter.empty else NotRequired[described]
    arguments = cast("Any", TypedDict)("Arguments", fields)
    return Signature(description, shape_of(arguments))


def takes(signature: inspect.Signature, value: object) -> bool:
    """Return whether the function can be called with the value as its only argument."""
    try:
        signature.bind(value)
    except TypeError:
        return False
    return True


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    annotated = function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__
    annotated = annotated.__init__ if inspect.isclass(annotated) else annotated
    try:
        return typing.get_type_hints(annotated, include_extras=True)
    except Exception as error:  # an annotation may raise any exception
        raise MisuseError(
            f"The annotations of {name} cannot be resolved: {error}. Define the classes that they name at the top "
            "level of the module, outside of functions and of `if TYPE_CHECKING`."
        ) from None


def _type_of(parameter: inspect.Parameter, hints: Mapping[str, Any], name: str) -> Any:
    if parameter.kind in _VARIADIC:
        raise MisuseError(
            f"A model cannot call {name}, because its parameter {_VARIADIC[parameter.kind]}{parameter.name} has no "
            "JSON schema. Name each parameter, or take one list or dict."
        )
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise MisuseError(
            f"A model cannot call {name}, because its parameter {parameter.name} is positional-only, and a model "
            "passes arguments by name. Remove the / from the signature."
        )
    if parameter.name not in hints:
        raise MisuseError(
            f"A model cannot call {name}, because its parameter {parameter.name} has no type. Annotate it, as in "
            f"{parameter.name}: str."
        )
    return hints[parameter.name]


def _check_default(parameter: inspect.Parameter, name: str) -> None:
    """Check that a default is a value, and not pydantic's description of a field, which the function would get."""
    if type(parameter.default).__name__ == "FieldInfo":
        raise MisuseError(
            f"The default of {name}'s parameter {parameter.name} is a Field of pydantic, which the function would get "
            f"as its value. Write {parameter.name}: Annotated[…, Field(…)] = …."
        )


def _check(kind: Any, parameter: str, name: str) -> None:
    """Check that a type has a schema.

    Raises:
        MisuseError: the annotation has no schema.
    """
    try:
        shape_of(kind)
    except MisuseError as error:
        raise MisuseError(
            f"A model cannot call {name}, because the type of its parameter {parameter} has no JSON schema. {error}"
        ) from None


def _described(kind: Any, parameter: inspect.Parameter, description: str | None) -> Any:
    """Return the type with the docstring's description, unless `Annotated` has one, and the default for the schema."""
    extra: dict[str, Any] = {}
    if parameter.default is not parameter.empty and parameter.default is not None:
        with suppress(TypeError, ValueError):  # JSON cannot express it, and the model does not need it
            extra["default"] = msgspec.json.decode(msgspec.json.encode(parameter.default))
    if description and not _has_text(kind):
        extra["description"] = description
    return Annotated[kind, msgspec.Meta(extra_json_schema=extra)] if extra else kind


def _has_text(kind: Any) -> bool:
    """Return whether `Annotated` describes the type by a text, a Doc or a Meta."""
    notes = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return any(
        isinstance(note, str) or getattr(note, "documentation", None) or getattr(note, "description", None)
        for note in notes
    )


def _docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return the description of the function, and those of its parameters."""
    if not (written := inspect.getdoc(function)) or not inspect.isroutine(function):
        return written or "", {}
    from docstring_parser import ParseError, parse  # imported here, because it takes 20 ms

    try:
        parsed = parse(written)
    except ParseError:
        return written, {}
    described = {each.arg_name: " ".join(each.description.split()) for each in parsed.params if each.description}
    return (parsed.description or "").strip(), described
