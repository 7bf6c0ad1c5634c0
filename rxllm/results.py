"""`LLMResult`: the result of `generate`, a list of generations for each prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen

from .notebook import numbered
from .public import Public
from .values.in_notebook import message_html
from .values.message import Message
from .values.usage import Usage

__all__ = ["Generation", "LLMResult"]


@frozen
class Generation(metaclass=Public):
    """One answer to one prompt.

    Attributes:
        text: the answer's text.
        generation_info: ``finish_reason`` (the provider's own word if there is one) and ``logprobs`` if requested.
        message: the whole answer.
    """

    text: str
    generation_info: Mapping[str, Any]
    message: Message = field(repr=False)

    def _repr_html_(self) -> str:
        return message_html(self.message)

    @classmethod
    def of(cls, message: Message) -> Generation:
        """Create a generation from an answer."""
        reason = message.raw_finish_reason or message.finish_reason
        return cls(message.text, {"finish_reason": reason, "logprobs": message.logprobs}, message)


@frozen
class LLMResult(metaclass=Public):
    """The answers to several prompts.

    Attributes:
        generations: for each prompt a list of one generation.
        llm_output: ``token_usage`` (the sum over all answers, in OpenAI's names) and ``model_name``.
    """

    generations: list[list[Generation]]
    llm_output: Mapping[str, Any]

    def _repr_html_(self) -> str:
        return numbered(message_html(each.message) for generations in self.generations for each in generations)

    @classmethod
    def of(cls, messages: Iterable[Message]) -> LLMResult:
        """Create the result from the answers, in the order of their prompts."""
        messages = list(messages)
        usages = [message.usage for message in messages if message.usage]
        names = [message.model for message in messages if message.model]
        return cls(
            [[Generation.of(message)] for message in messages],
            {
                "token_usage": _token_usage(sum(usages[1:], usages[0])) if usages else {},
                "model_name": names[0] if names else None,
            },
        )


def _token_usage(usage: Usage) -> dict[str, int]:
    counts = {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens}
    reported = {name: count for name, count in counts.items() if count is not None}
    return {**reported, "total_tokens": sum(reported.values())}
