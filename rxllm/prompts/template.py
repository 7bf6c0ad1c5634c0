"""`template`: a prompt with variables, as a stage.

A template is read once, when it is made. A call only puts values in: no value is ever read as a template, so that a
value with braces or with the word "system" stays what it is. A variable is a plain name, because ``{user.password}``
would let the author of the template read all attributes of a value.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast, get_args

import attrs
from attrs import frozen
from reactivex import Observable

from ..misuse import MisuseError, shown
from ..public import Public
from ..showing import called
from ..values.message import Message
from ..values.parts import Part, TextPart
from ..values.request import Request, is_pair
from ..values.vocabulary import Role
from .slots import Slot, TString, doubled, segments_of

__all__ = ["Template", "template"]

_PARTS = get_args(Part)

Turn = str | TString | tuple[str, str] | tuple[str, TString] | Message


@frozen
class _Turn:
    """A turn with slots. Without a role, a single slot may also hold whole messages."""

    role: Role | None
    segments: tuple[str | Slot, ...]

    def __repr__(self) -> str:
        text = "".join(doubled(each) if isinstance(each, str) else str(each) for each in self.segments)
        return repr(text) if self.role is None else repr((self.role, text))

    def messages(self, values: Mapping[str, object]) -> Sequence[Message]:
        """Return the turn with the values, as one message; or the messages that its only slot holds."""
        only = self.segments[0] if len(self.segments) == 1 else ""
        if self.role is None and isinstance(only, Slot) and only.is_plain:
            conversation = _conversation(only.filled(values))
            if conversation is not None:
                return conversation
        return [Message(self.role or "user", _joined(self.contents(values)))]

    def contents(self, values: Mapping[str, object]) -> Iterator[str | Part]:
        """Yield the texts and parts of the message."""
        for each in self.segments:
            if isinstance(each, str):
                yield each
                continue
            value = each.filled(values)
            if each.is_plain and (parts := _parts(value)):
                yield from parts
            elif each.is_plain and not isinstance(value, Message) and _conversation(value):
                raise MisuseError(f"{each} holds messages, so it must be a turn of its own: template(…, '{each}').")
            else:
                yield each.written(value)


@frozen(repr=False)
class Template(metaclass=Public):
    """A function from values to messages. `template` makes it.

    Attributes:
        turns: the turns of the conversation.
        values: the values that are already set.
    """

    turns: tuple[_Turn | Message, ...]
    values: Mapping[str, object] = attrs.field(factory=dict[str, object], hash=False)

    def __repr__(self) -> str:
        named = (f"{name}={value!r}" for name, value in self.values.items())
        return called("template", [*map(repr, self.turns), *named])

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of all variables, in the order in which they appear."""
        slots = (slot for turn in self.turns if isinstance(turn, _Turn) for slot in turn.segments)
        return tuple(dict.fromkeys(slot.name for slot in slots if isinstance(slot, Slot) and slot.fixed is None))

    def given(self, **values: object) -> Template:
        """Return a copy with these values. Values of a call replace them.

        Raises:
            MisuseError: the template has no variable of this name.
        """
        self._check(values, complete=False)
        return attrs.evolve(self, values={**self.values, **values})

    def __call__(self, values: object, /) -> tuple[Message, ...]:
        """Return the messages with these values.

        Args:
            values: a dict of the values by name, or the value itself if only one is missing.

        Raises:
            MisuseError: values are missing or unknown, or a value cannot be written. The message names all of them.
        """
        known = {**self.values, **self._named(values)}
        self._check(known, complete=True)
        return tuple(
            message for turn in self.turns for message in (turn.messages(known) if isinstance(turn, _Turn) else [turn])
        )

    def _named(self, values: object) -> Mapping[str, object]:
        if isinstance(values, Mapping):
            return cast("Mapping[str, object]", values)
        missing = [name for name in self.variables if name not in self.values]
        if isinstance(values, Observable):
            raise MisuseError("A template takes values, not an Observable. Write ops.map(template(…)).")
        if len(missing) != 1:
            raise MisuseError(
                f"This template needs {_listed(missing)}, so it takes a dict, not {type(values).__name__}."
                if missing
                else f"This template needs no value, so it takes an empty dict, not {type(values).__name__}."
            )
        return {missing[0]: values}

    def _check(self, known: Mapping[str, object], *, complete: bool) -> None:
        variables = self.variables
        missing = [name for name in variables if name not in known] if complete else []
        unknown = [str(name) for name in known if name not in variables]
        if not missing and not unknown:
            return
        wrong = [f"{_listed(names)} {what}" for names, what in ((missing, "missing"), (unknown, "unknown")) if names]
        near = [(name, *difflib.get_close_matches(name, missing or variables, 1)) for name in unknown]
        hints = [f" Did you mean {pair[1]!r} by {pair[0]!r}?" for pair in near if len(pair) == 2]
        raise MisuseError(
            f"A template got wrong values: {'; '.join(wrong)}. Its variables are {_listed(variables)}.{''.join(hints)}"
        )


def template(*turns: Turn, **given: object) -> Template:
    """Make a prompt with variables: a function from values to messages, for use as a stage.

    ::

        ask = template(("system", "You speak {language}."), "{history}", "What is {topic}?", language="Danish")
        ask({"topic": "hygge", "history": []})
        talk = pipe(ask.given(history=[]), llm, text())
        talk.invoke("hygge")                               # the value of the only variable that is missing

    A variable is a name in braces, and may have ``!r`` or a format, as in ``{price:.2f}``. Values are written as in an
    f-string, except that None raises an error. A value is never read as a template. A `Message` is written as its text.
    A part, such as a `FilePart`, or a list of parts becomes a part of the message.

    Args:
        turns: the messages. A text is a message of the user, ``(role, text)`` one of that role, and a `Message` stays
            as it is. A text with nothing but a variable, such as ``"{history}"``, may also hold a Message or a list of
            messages. A t-string of Python 3.14 has its values already.
        given: values that are already set, as with `Template.given`.

    Raises:
        MisuseError: there is no turn, or one is something else; braces hold anything but a name, or stand alone;
            `given` has an unknown name.
    """
    if not turns:
        raise MisuseError("A template needs at least one turn, as in template('What is {topic}?').")
    return Template(tuple(map(_turn, turns))).given(**given)


def _turn(turn: object) -> _Turn | Message:
    if isinstance(turn, Message):
        return turn
    role, text = turn if is_pair(turn) else (None, turn)
    segments = segments_of(text)
    if segments is None:
        raise MisuseError(f"A turn of a template must be a text, a (role, text) pair or a Message, not {shown(turn)}.")
    return _Turn(None if role is None else Message(role).role, segments)  # Message checks the role


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _conversation(value: object) -> Sequence[Message] | None:
    """Return the messages that a value holds, which may be none; None if it is something else."""
    if isinstance(value, Message):
        return [value]
    if not isinstance(value, (list, tuple)):
        return None
    items = cast("Sequence[Any]", value)
    if not all(map(_is_message, items)):
        return None
    return Request(prompt=items).messages if items else []


def _is_message(item: object) -> bool:
    if is_pair(item):
        return item[0] in get_args(Role)
    return isinstance(item, Message) or (isinstance(item, Mapping) and "role" in item)


def _parts(value: object) -> Sequence[Part]:
    """Return the parts that a value holds."""
    values = cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else [value]
    return cast("Sequence[Part]", values) if all(isinstance(each, _PARTS) for each in values) else ()


def _joined(contents: Iterator[str | Part]) -> list[Part]:
    """Return the parts of a message. Texts that follow each other become one."""
    parts: list[Part] = []
    for is_text, run in itertools.groupby(contents, lambda each: isinstance(each, str)):
        if not is_text:
            parts += cast("Iterator[Part]", run)
        elif text := "".join(cast("Iterator[str]", run)):
            parts.append(TextPart(text))
    return parts
