"""The dialects of JSON schema that providers take. `writing` writes the schema of a shape in one of them.

A dialect knows which words of JSON schema a provider enforces. A constraint that it does not enforce goes into the
description, where the model reads it. The decoder of the answer checks every constraint. A type that would lose data,
such as a dict where all objects must be closed, can't be written in that dialect.

Sources: the limits that the vendors document and their SDKs encode:
https://platform.openai.com/docs/guides/structured-outputs, https://docs.claude.com/en/docs/build-with-claude/structured-outputs,
https://ai.google.dev/gemini-api/docs/structured-output, https://docs.cohere.com/docs/structured-outputs,
https://github.com/ggml-org/llama.cpp/tree/master/grammars.
"""

from __future__ import annotations

from typing import Literal

import attrs
from attrs import frozen

__all__ = [
    "ANTHROPIC",
    "ANY",
    "COHERE",
    "GEMINI",
    "GEMINI_TOOL",
    "GRAMMAR",
    "OPENAI",
    "STRICT",
    "Dialect",
]

_NUMBERS = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"))
_ITEMS = frozenset(("minItems", "maxItems"))
_LENGTHS = frozenset(("minLength", "maxLength"))
_MEMBERS = frozenset(("minProperties", "maxProperties", "propertyNames"))
_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))


@frozen
class Dialect:
    """The part of JSON schema that a provider takes.

    Attributes:
        words: the constraints that it takes.
        formats: the formats of strings that it takes; None for any.
        all_required: whether all properties must be required. An optional one is then required, and may be null.
        open_objects: whether an object may have properties that the schema does not name.
        untyped: whether a value may have any type.
        recursion: whether a definition may contain itself: anywhere, in properties that are not required, or never.
        siblings: whether a reference may have a description beside it.
        max_depth: of objects and arrays within each other.
        max_properties: in all.
        max_optional: properties that are not required, in all.
        max_unions: values with alternatives, in all.
        some_required: whether each object needs a required property.
        anchored: whether a pattern must describe the whole text, from ``^`` to ``$``.
    """

    words: frozenset[str]
    formats: frozenset[str] | None = None
    all_required: bool = False
    open_objects: bool = True
    untyped: bool = True
    recursion: Literal["free", "optional", "never"] = "free"
    siblings: bool = True
    max_depth: int | None = None
    max_properties: int | None = None
    max_optional: int | None = None
    max_unions: int | None = None
    some_required: bool = False
    anchored: bool = False


STRICT = Dialect(
    words=_NUMBERS | _ITEMS | {"pattern"},
    formats=_FORMATS,
    all_required=True,
    open_objects=False,
    untyped=False,
    siblings=False,
    max_depth=10,
    max_properties=5000,
)
"""The strict mode of OpenAI's protocol, as servers in general know it."""

OPENAI = attrs.evolve(STRICT, words=STRICT.words | _LENGTHS)
"""The strict mode of OpenAI itself."""

ANTHROPIC = Dialect(
    words=frozenset(),
    formats=_FORMATS | {"uri"},
    open_objects=False,
    untyped=False,
    recursion="never",
    max_optional=24,
    max_unions=16,
)

GEMINI = Dialect(
    words=_ITEMS | {"minimum", "maximum", "prefixItems"},
    recursion="optional",
    siblings=False,
    untyped=False,
)

GEMINI_TOOL = attrs.evolve(GEMINI, recursion="free", untyped=True)
"""The part that Gemini takes as the parameters of a function."""

COHERE = Dialect(
    words=frozenset(("pattern",)),
    formats=frozenset(("date-time", "uuid", "date", "time")),
    open_objects=False,
    untyped=False,
    recursion="never",
    siblings=False,
    some_required=True,
)

GRAMMAR = Dialect(words=_NUMBERS - {"multipleOf"} | _ITEMS | _LENGTHS | {"pattern", "prefixItems"}, anchored=True)
"""llama.cpp's grammars, which enforce a schema on any model. Ollama and others use them."""

ANY = Dialect(words=_NUMBERS | _ITEMS | _LENGTHS | _MEMBERS | {"pattern", "prefixItems", "uniqueItems", "examples"})
"""All of JSON schema, for modes that enforce nothing: a tool without strict, or the prompt."""
