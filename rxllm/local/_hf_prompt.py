"""From a request to the tokens of its prompt, and the sampling that it asks for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import BadRequest
from ..misuse import MisuseError
from ..values.message import Message
from ..values.parts import CachePoint, RawPart, ReasoningPart, RefusalPart, TextPart
from ..values.request import Request

__all__ = ["check_support", "encoded", "sampling_of"]

_UNSUPPORTED = ("effort", "parallel_tool_calls", "response_format", "seed", "tool_choice", "tools")
_ALL = 2**31 - 1  # a top_k that leaves out no token


def check_support(request: Request) -> None:
    """Check that the request needs nothing that Transformers lacks.

    Raises:
        MisuseError: it needs a parameter or a part that the model would not get.
    """
    if request.model is not None:
        raise MisuseError(
            f"This Transformers has one model, not {request.model!r}. Leave model= out, or construct another one."
        )
    if refused := [name for name in _UNSUPPORTED if getattr(request, name) is not None]:
        hint = " temperature=0 gives the same answer each time." if refused == ["seed"] else ""
        raise MisuseError(f"Transformers has no {', '.join(refused)}. Leave it out.{hint}")
    for _ in _turns(request):
        pass


def encoded(tokenizer: Any, request: Request, context: int) -> list[int]:
    """Return the tokens of the prompt: by the template of the model, or of the text if the model has no template.

    `extra` of the request has further variables of the template, such as ``enable_thinking``.

    Raises:
        MisuseError: the prompt is a conversation, and the model has no template.
        BadRequest: the template refuses the conversation, or the prompt leaves no room for an answer.
    """
    if tokenizer.chat_template:
        tokens = _templated(tokenizer, request)
    elif isinstance(request.prompt, str):
        tokens = tokenizer(request.prompt)["input_ids"]
    else:
        raise MisuseError("This model has no chat template, so it continues a text. Pass a text, or use a chat model.")
    if len(tokens) >= context:
        raise BadRequest(
            f"The prompt ({len(tokens)} tokens) exceeds the available context size ({context} tokens). Send less, or "
            "construct the model with a larger context=."
        )
    return tokens


def _templated(tokenizer: Any, request: Request) -> list[int]:
    turns = [*_turns(request)]
    try:
        tokens: list[int] = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_dict=False, **request.extra
        )
    except Exception as error:  # a template can raise anything
        raise BadRequest(f"The chat template of the model refuses the conversation: {error}") from error
    return tokens


def _turns(request: Request) -> Iterator[dict[str, str]]:
    for message in request.messages:
        yield {"role": message.role, "content": "".join(_texts(message))}


def _texts(message: Message) -> Iterator[str]:
    for part in message.parts:
        match part:
            case TextPart() | RefusalPart() if message.role != "tool":
                yield part.text
            case ReasoningPart() | RawPart() if message.role == "assistant":
                pass  # it belongs to another provider
            case CachePoint():
                pass  # the cache is automatic
            case _:
                raise MisuseError(
                    f"Transformers sends texts only, no {type(part).__name__} in a message of the role {message.role}."
                )


def sampling_of(request: Request, defaults: Any) -> dict[str, float]:
    """Return the sampling for a request; `defaults` are the model's own.

    Temperature 0 takes the likeliest token each time. So does a request without sampling, if the model's own generation
    config does not sample.
    """
    own = (request.temperature, request.top_k, request.top_p)
    if request.temperature == 0 or (own == (None, None, None) and not defaults.do_sample):
        return {"temperature": 1.0, "top_k": 1, "top_p": 1.0}
    temperature, top_k, top_p = (
        mine if mine is not None else theirs or neutral
        for mine, theirs, neutral in zip(
            own, (defaults.temperature, defaults.top_k, defaults.top_p), (1.0, _ALL, 1.0), strict=True
        )
    )
    return {"temperature": float(temperature), "top_k": int(top_k) or _ALL, "top_p": float(top_p)}
