"""Griffe extension: the constructors that attrs makes, and docstrings as Markdown.

Griffe reads source code and does not see what attrs generates, so a class would lose its constructor's signature. This
extension asks the class itself. It also turns the literal blocks of docstrings, which begin with ``::``, into fenced
blocks.
"""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from typing import Any

import attrs
import griffe

_LITERAL = re.compile(r"(?m)^(?P<before>.*?)::[ \t]*\n[ \t]*\n(?P<block>(?:(?:[ \t]+\S.*)?(?:\n|\Z))+)")
_CODE = re.compile(r"(?m)^\s*(import |from |def |async |class |@|with |for |\w+ = )")
_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: griffe.ParameterKind.positional_only,
    inspect.Parameter.POSITIONAL_OR_KEYWORD: griffe.ParameterKind.positional_or_keyword,
    inspect.Parameter.VAR_POSITIONAL: griffe.ParameterKind.var_positional,
    inspect.Parameter.KEYWORD_ONLY: griffe.ParameterKind.keyword_only,
    inspect.Parameter.VAR_KEYWORD: griffe.ParameterKind.var_keyword,
}


class AttrsExtension(griffe.Extension):
    """Adds ``__init__`` to attrs classes, and shows the values of private constants that are defaults."""

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Adds the constructor."""
        if not any(each.callable_path.startswith("attrs.") for each in cls.decorators):
            return
        module, _, name = cls.path.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        parameters = list(inspect.signature(found.__init__).parameters.values())[1:]
        own = cls.members.get("__init__")
        if isinstance(own, griffe.Function):
            for each in parameters:
                if str(own.parameters[each.name].default).startswith("_"):
                    own.parameters[each.name].default = repr(each.default)
            return
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
            obj.docstring.value = _LITERAL.sub(_fenced, obj.docstring.value)


def _fenced(found: re.Match[str]) -> str:
    """A literal block of reStructuredText as a fenced block of Markdown."""
    before, block = found["before"].rstrip(), textwrap.dedent(found["block"]).strip("\n")
    language = "python" if _CODE.search(block) else "text"
    indent = re.match(r"[ \t]*", found["before"])
    fence = textwrap.indent(f"```{language}\n{block}\n```\n\n", indent[0] if indent else "")
    return f"{before}:\n\n{fence}" if before else fence


def _parameter(of: inspect.Parameter, field: attrs.Attribute[Any] | None) -> griffe.Parameter:
    default = None if of.default is of.empty else repr(of.default)
    if field is not None and isinstance(field.default, attrs.Factory):
        default = f"{getattr(field.default.factory, '__name__', 'factory')}()"
    annotation = None if of.annotation is of.empty else str(of.annotation)
    return griffe.Parameter(of.name, annotation=annotation, kind=_KINDS[of.kind], default=default)
