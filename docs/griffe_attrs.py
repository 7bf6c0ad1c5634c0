"""Griffe extension: the constructors that attrs makes, and docstrings as Markdown.

Griffe reads source code and does not see what attrs generates, so a class would lose its constructor's signature. This
extension asks the class itself. It also removes the ``::`` that stands before code blocks in docstrings: Markdown does
not need it.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import attrs
import griffe

_COLONS = re.compile(r"(?m)^([ \t]*)::[ \t]*$|::[ \t]*$")
_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: griffe.ParameterKind.positional_only,
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.VAR_POSITIONAL: griffe.ParameterKind.var_positional,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
    inspect.Parameter.VAR_KEYWORD: griffe.ParameterKind.var_keyword,
}


class AttrsExtension(griffe.Extension):
    """Adds ``__init__`` to attrs classes that have none of their own."""

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Adds the constructor."""
        if "__init__" in cls.members or not any(each.callable_path.startswith("attrs.") for each in cls.decorators):
            return
        module, _, name = cls.path.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        parameters = list(inspect.signature(found.__init__).parameters.values())[1:]
        fields = {each.alias: each for each in attrs.fields(found)}
        cls.set_member(
            "__init__",
            griffe.Function(
                "__init__",
                parameters=griffe.Parameters(
                    griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword),
                    *(_parameter(each, fields.get(each.name)) for each in parameters),
                ),
                lineno=cls.lineno,
                endlineno=cls.lineno,
            ),
        )

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Makes Markdown of the docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _COLONS.sub(lambda found: "" if found[1] is not None else ":", obj.docstring.value)


def _parameter(of: inspect.Parameter, field: attrs.Attribute[Any] | None) -> griffe.Parameter:
    default = None if of.default is of.empty else repr(of.default)
    if field is not None and isinstance(field.default, attrs.Factory):
        default = f"{getattr(field.default.factory, '__name__', 'factory')}()"
    annotation = None if of.annotation is of.empty else str(of.annotation)
    return griffe.Parameter(of.name, annotation=annotation, kind=_KINDS[of.kind], default=default)
