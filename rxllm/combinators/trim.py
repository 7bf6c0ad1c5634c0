"""`trim`: the view that sends the newest turns of a conversation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import cast

from ..misuse import MisuseError, shown
from ..values.message import Message
from ..values.parts import Approval, FilePart, Part, RawPart, ToolCallPart, ToolResultPart, ends_round
from ..values.rounds import last_round
from ..values.usage import Usage

__all__ = ["trim"]

_BYTES = 4  # of UTF-8 in an average token
_PER_MESSAGE = 4  # tokens that the form of a message adds
_PER_FILE = 1000  # tokens of a picture or a page, about
_SPREAD = 4  # a count from usage that differs from the estimate by more than this factor counts something else, too


def trim(
    tokens: int, count: Callable[[Message], int] | None = None
) -> Callable[[tuple[Message, ...]], tuple[Message, ...]]:
    """Make a view for `remember`: the system's messages, and as many of the newest whole turns as fit.

    ::

        llm = rxllm.remember(rxllm.OpenAI("gpt-5-mini"), conversation, view=rxllm.trim(4000))

    A turn is a message of the user with everything up to the next one. It is sent whole or not at all, so what is sent
    never begins with a tool's result, an approval or an answer. The newest turn is always sent, even if it alone is too
    large.

    The tokens of an answer are those that its usage reports. The tokens of the messages before the first answer, and
    between two answers, are the difference of the ``usage.input_tokens``, unless earlier turns were left out meanwhile.
    Of an agent's answer, whose usage is the sum of its rounds, the counts of the last round tell this.
    Everything else is estimated: one token for 4 bytes of UTF-8, and 1000 for a file, times the ratio by which such
    estimates differed from the usage so far. So leave a margin to the limit of the model, also for its answer.

    Args:
        tokens: the largest number of tokens to send.
        count: returns the tokens of a message, in place of the usage and the estimate.

    Raises:
        MisuseError: an argument has the wrong type or value.
    """
    if not isinstance(cast("object", tokens), int) or isinstance(tokens, bool) or tokens < 1:
        raise MisuseError(f"trim takes a whole number of tokens of at least 1, not {shown(tokens)}.")
    if count is not None and not callable(cast("object", count)):
        raise MisuseError(f"count must be a function that returns the tokens of a Message, not {shown(count)}.")

    return partial(_view, tokens, count)  # unlike a nested function, it can be pickled


def _view(tokens: int, count: Callable[[Message], int] | None, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the newest turns that fit."""
    sizes = _sizes(messages) if count is None else [count(message) for message in messages]
    is_system = [message.role == "system" for message in messages]
    starts = [index for index, message in enumerate(messages) if _starts_turn(message)]
    if not starts:  # no turn has begun, so nothing can be left out
        return messages
    left = tokens - sum(size for size, system in zip(sizes, is_system, strict=True) if system)
    begin = end = len(messages)
    for start in reversed(starts):
        left -= sum(sizes[index] for index in range(start, end) if not is_system[index])
        if left < 0 and begin < len(messages):
            break
        begin = end = start
    else:  # every turn fits, and the messages before the first turn may fit, too
        left -= sum(sizes[index] for index in range(begin) if not is_system[index])
        if left >= 0:
            return messages
    return tuple(message for index, message in enumerate(messages) if is_system[index] or index >= begin)


def _starts_turn(message: Message) -> bool:
    return message.role == "user" and not any(isinstance(part, (Approval, ToolResultPart)) for part in message.parts)


def _sizes(messages: tuple[Message, ...]) -> list[int]:
    """Return the tokens of each message: as reported if known, else estimated.

    An agent's answer has a beginning, its earlier rounds with their results, and an end, the answer of the last round.
    The beginning is a part of what this round sent.
    """
    rounds = [last_round(message) for message in messages]
    ends = [_size(last, message) for last, message in zip(rounds, messages, strict=True)]
    begins = [
        sum(map(_part_size, message.parts[: len(message.parts) - len(last.parts)]))
        for last, message in zip(rounds, messages, strict=True)
    ]
    known = {index for index, message in enumerate(messages) if _output_tokens(message) is not None}
    counted: set[int] = set()  # the messages whose beginnings are known
    total_reported = total_estimate = 0
    answers = [index for index, message in enumerate(messages) if _input_tokens(message)]
    for earlier, later in pairwise([-1, *answers]):
        between = range(earlier + 1, later)
        estimate = sum(begins[index] + ends[index] for index in between) + begins[later]
        before = _input_tokens(messages[earlier]) + ends[earlier] if earlier >= 0 else 0
        reported = _input_tokens(messages[later]) - before
        # Out of this range, the later request left out earlier turns, or sent more than the conversation.
        if estimate and estimate / _SPREAD <= reported <= estimate * _SPREAD:
            total_reported += reported
            total_estimate += estimate
            known.update(between)
            counted.update((*between, later))
            for index in between:
                ends[index] = -(-ends[index] * reported // estimate)
            for index in (*between, later):
                begins[index] = -(-begins[index] * reported // estimate)
    if total_estimate:  # the other estimates are as wrong as these were
        for index in {*range(len(messages))} - known:
            ends[index] = -(-ends[index] * total_reported // total_estimate)
        for index in {*range(len(messages))} - counted:
            begins[index] = -(-begins[index] * total_reported // total_estimate)
    return [begin + end for begin, end in zip(begins, ends, strict=True)]


def _usage(message: Message) -> Usage | None:
    """Return the reported usage of an answer; of an agent's answer, the usage of its last round."""
    usage = message.usage
    if message.role != "assistant" or usage is None or usage.estimated:
        return None
    if not any(map(ends_round, message.parts)):
        return usage
    return None if ends_round(message.parts[-1]) else usage.last_round


def _input_tokens(message: Message) -> int:
    """Return the reported tokens of the request that this message answers; 0 if they are unknown."""
    usage = _usage(message)
    return (usage and usage.input_tokens) or 0


def _output_tokens(message: Message) -> int | None:
    """Return the reported tokens of an answer, without its reasoning; None if they are unknown."""
    usage = _usage(message)
    # Of an interrupted answer, the usage is that of its beginning.
    if usage is None or usage.output_tokens is None or message.interrupted:
        return None
    return max(usage.output_tokens - (usage.reasoning_output_tokens or 0), 0)


def _size(last: Message, message: Message) -> int:
    """Return the tokens of the last round of a message."""
    reported = _output_tokens(message)
    return (sum(map(_part_size, last.parts)) if reported is None else reported) + _PER_MESSAGE


def _part_size(part: Part) -> int:
    if isinstance(part, FilePart):
        is_text = part.media_type.startswith("text/") and part.data is not None
        return _tokens(len(part.data or b"")) if is_text else _PER_FILE
    if isinstance(part, ToolResultPart):
        return sum(map(_part_size, part.content)) + _PER_MESSAGE
    if isinstance(part, ToolCallPart):
        return _bytes(part.name + part.arguments)
    return _bytes(str(part.data) if isinstance(part, RawPart) else getattr(part, "text", ""))


def _bytes(text: str) -> int:
    return _tokens(len(text.encode("utf-8", "replace")))


def _tokens(size: int) -> int:
    return -(-size // _BYTES)
