"""What lets plain classes, dataclasses and attrs classes be made of our frozen ones: `Extensible`.

And copies of such objects that need no constructor, which may be anybody's own: `evolved`.
"""

from __future__ import annotations

from copy import deepcopy
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

import attrs

from .misuse import MisuseError

__all__ = ["Extensible", "evolved"]

T = TypeVar("T")


@attrs.frozen
class _Frozen:
    pass


_SET_NOTHING: Any = cast("Any", _Frozen).__setattr__  # made by attrs, the same for all its frozen classes


class Extensible:
    """A base of frozen attrs classes.

    Their fields are frozen. A plain class or a dataclass made of them may have attributes of its own, named otherwise
    than the methods, and a constructor that does not call theirs: then the fields have their defaults.
    """

    __slots__ = ()
    _shared_by_copies: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def __attrs_init_subclass__(cls) -> None:
        """What attrs makes for its own classes would also hold in plain classes made of them."""
        if cls.__setattr__ is _SET_NOTHING:
            cls.__setattr__ = _set  # type: ignore[assignment,method-assign]
        for each in attrs.fields(cast("Any", cls)):
            _refuse_taken(cls, each.name)
        for name in ("__getstate__", "__setstate__"):  # they know no attributes but attrs' own
            if getattr(vars(cls).get(name), "__name__", "").startswith("slots_"):
                delattr(cls, name)

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        for name, value in vars(cls).items():
            if not (callable(value) or hasattr(value, "__get__")):
                _refuse_taken(cls, name)

    def __copy__(self) -> Self:
        return evolved(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy of its own values, which uses the same handlers and the same client as the original."""
        copy = memo[id(self)] = object.__new__(type(self))
        for name in self._shared_by_copies:
            value = getattr(self, name)
            memo[id(value)] = value
        _restore(copy, deepcopy(object.__getstate__(self), memo))
        return copy

    def __setstate__(self, state: Any) -> None:
        _restore(self, state)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """A field that a constructor of one's own has not set."""
            kind = type(self)
            attribute = attrs.fields_dict(kind).get(name)
            if attribute is None:
                return object.__getattribute__(self, name)  # which raises; of a property, what that raised
            if attribute.default is attrs.NOTHING:
                raise MisuseError(
                    f"This {kind.__name__} has no {name}: its constructor must call super().__init__({name}=…), that "
                    "of a dataclass in __post_init__."
                )
            default = attribute.default
            value = default.factory() if isinstance(default, attrs.Factory) else default
            return value if attribute.converter is None else attribute.converter(value)


def evolved(value: T, /, **changes: Any) -> T:
    """A copy with other values of these fields; the others are not looked at again.

    Raises:
        MisuseError: a field can't have this value.
    """
    kind: Any = type(value)
    copy = object.__new__(kind)
    _restore(copy, object.__getstate__(value))
    fields = attrs.fields(kind)
    for name, given in changes.items():
        attribute: Any = getattr(fields, name)
        if attribute.converter is not None:
            given = attribute.converter(given)
        if attribute.validator is not None:
            attribute.validator(copy, attribute, given)
        _set_field(copy, name, given)
    return copy  # type: ignore[no-any-return]  # cast() is a call, and each request makes one


def _restore(empty: object, state: Any) -> None:
    """Gives an empty object all that another had, in slots or not."""
    parts = cast("tuple[dict[str, Any] | None, ...]", state if isinstance(state, tuple) else (state,))
    for values in parts:
        for name, value in (values or {}).items():
            _set_field(empty, name, value)


_set_field = object.__setattr__


def _set(self: Extensible, name: str, value: Any) -> None:
    """Sets what is no field, where there is room for it."""
    kind = type(self)
    is_field = name in attrs.fields_dict(cast("Any", kind))
    by_attrs = "__attrs_attrs__" in vars(kind)
    if is_field:
        begin = "self.__attrs_init__" if by_attrs else "super().__init__"
        hint = f"bind and with_config make a copy, and a constructor of one's own calls {begin}({name}=…)."
    elif by_attrs:
        hint = f"declare the field in the class, as in {name}: str."
    else:
        _refuse_taken(kind, name)
        object.__setattr__(self, name, value)
        return
    raise AttributeError(f"A {kind.__name__} is frozen, so that its {name} can't be set: {hint}", name=name, obj=self)


def _refuse_taken(kind: type[Extensible], name: str) -> None:
    """An attribute shall not replace a method of ours, which would fail later, and elsewhere.

    Raises:
        MisuseError: it would.
    """
    if name.startswith("__"):
        return
    bases: tuple[type, ...] = kind.__mro__[1:]
    for base in bases:
        ours = Extensible in base.__mro__ and base.__module__.partition(".")[0] == __package__
        if ours and isinstance(vars(base).get(name), (FunctionType, property)):
            raise MisuseError(
                f"{kind.__name__} can't have an attribute {name!r}: it would replace {base.__name__}.{name}, which is "
                f"needed. Give it another name, such as {name}_."
            )
