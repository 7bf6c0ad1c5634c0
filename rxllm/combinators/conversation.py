"""`Conversation`: the messages of many turns."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

from ..misuse import MisuseError, shown
from ..public import Public
from ..values.message import Message
from ..values.request import MessageLike, Request, messages_of
from .history import History
from .transcript import Transcript

__all__ = ["Conversation"]


class Conversation(metaclass=Public):
    """The messages of a conversation. `remember` adds each turn to it, and sends the earlier turns with the next one.

    ::

        conversation = rxllm.Conversation([("system", "Be brief.")])
        llm = rxllm.remember(rxllm.OpenAI("gpt-5-mini"), conversation)
        llm.invoke("I am Anna.")
        llm.invoke("Who am I?")
        print(conversation.messages)

    A Conversation is the only object here that changes; models and combinators stay as they are. Several models, event
    loops and threads may share one. To branch off, make another one: ``Conversation(conversation.messages)``.

    With a `store`, the conversation is written while it goes on, and it goes on where another process has left it::

        conversation = rxllm.Conversation(store=rxllm.SQLiteHistory("talk.sqlite"), id="anna")

    A question is written before the model is asked, and an answer every quarter of a second and at its end. So a
    process that is killed loses at most half a second of a running answer. Several processes may go on with one
    conversation at the same time: each turn begins by reading what the others have added, and all turns are kept.

    Args:
        messages: the messages at the beginning, such as those of the system. A stored conversation must begin with
            them.
        store: where the conversation is stored, such as a `SQLiteHistory`; by default only in memory.
        id: the name of the conversation; by default a random one.

    Raises:
        MisuseError: an argument has the wrong type.
    """

    def __init__(
        self,
        messages: Message | Mapping[str, Any] | Sequence[MessageLike] = (),
        store: History | None = None,
        id: str | None = None,
    ) -> None:
        if isinstance(messages, (str, Request)):
            raise MisuseError(
                "A Conversation begins with a list of messages, as in [('system', 'Be brief.')], not "
                f"{shown(messages)}."
            )
        if id is not None and not (isinstance(cast("object", id), str) and id):
            raise MisuseError(f"The id of a Conversation must be text, not {shown(id)}.")
        if store is not None and not isinstance(cast("object", store), History):
            raise MisuseError(
                f"The store of a Conversation must be a History, such as rxllm.SQLiteHistory('talk.sqlite'), not "
                f"{shown(store)}."
            )
        first = () if isinstance(messages, Sequence) and not messages else messages_of(messages)
        self._transcript = Transcript(id or uuid.uuid4().hex, first, store)

    @property
    def id(self) -> str:
        """The name of the conversation."""
        return self._transcript.id

    @property
    def store(self) -> History | None:
        """Where the conversation is stored."""
        return self._transcript.store

    def load(self) -> tuple[Message, ...]:
        """Write what is not written yet, read the store, and return the messages. This method blocks.

        Each turn reads the store itself, and writes itself.

        Raises:
            MisuseError: the stored conversation begins with other messages than the ones given.
        """
        return self._transcript.load()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages so far. The answer of a turn is added when it ends, and the question when the turn begins.

        A stored conversation is read by its first turn, or by `load`.

        An answer that an error or a dispose cut short is here with ``interrupted=True``, if anything of it came.
        """
        return self._transcript.settled()

    def __repr__(self) -> str:
        store = "" if self.store is None else f"store={self.store!r}, "
        return f"Conversation({store}id={self.id!r}, {len(self._transcript.entries.messages())} messages)"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the same conversation: copies of a model go on with it."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        transcript = self._transcript
        messages = transcript.entries.messages() if self.store is None else transcript.first
        return type(self), (messages, self.store, self.id)
