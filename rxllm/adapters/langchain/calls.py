"""The calls of LangChain's models as requests of rxllm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from ...combinators.agent import tools_of_agents
from ...events import Service
from ...llm import LLM
from ...misuse import MisuseError
from ...values.message import Message
from ...values.parameters import PARAMETERS
from ...values.request import Request

__all__ = ["CONNECTION", "Identity", "request_of", "runs_tools", "service_of"]

CONNECTION = ("timeout", "max_retries", "api_key", "base_url")
"""The settings of a model's connection, which a request does not have."""


def request_of(
    llm: LLM,
    prompt: str | Sequence[Message],
    stop: Sequence[str] | None,
    settings: dict[str, Any],
    prefix: str | None = None,
) -> Request:
    """Return the request for the keywords of a call. A keyword that rxllm does not know is a field of the body.

    Args:
        llm: the model.
        prompt: the prompt.
        stop: the texts at which the answer ends.
        settings: the other keywords.
        prefix: the name that made the model, ``provider:model``: a call may name another model of this provider so.

    Raises:
        MisuseError: a keyword belongs to the connection, or has an invalid value. A key never becomes a field.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if words := [name for name in CONNECTION if name in given]:
        raise MisuseError(f"{', '.join(words)} cannot change with a call. Pass them where you make the model.")
    extra = {**given.pop("extra", {})}
    extra |= {name: given.pop(name) for name in given.keys() - PARAMETERS.keys()}
    if stop:
        given["stop_sequences"] = stop
    if prefix and "model" in given:
        given["model"] = given["model"].removeprefix(f"{prefix.partition(':')[0]}:")
    if extra:
        given["extra"] = extra
    return Request(prompt=prompt, **given).over(llm.parameters)


class Identity:
    """A text that differs for models whose answers may differ, for LangChain's caches."""

    def __init__(self) -> None:
        self._known: tuple[LLM, str] | None = None

    def of(self, llm: LLM) -> str:
        """Return the text for a model. It is kept until the next model, because LangChain asks at each call."""
        if self._known is None or self._known[0] is not llm:
            try:
                identity = llm.identity()
            except MisuseError:  # a part of the model has no stable digest, so nothing may be shared
                identity = uuid4().hex
            self._known = llm, identity
        return self._known[1]


def service_of(llm: LLM) -> Service:
    """Return the description of the service that answers a model's requests."""
    return llm.service(Request.ask("", llm.parameters))


def runs_tools(stage: object) -> bool:
    """Return whether a model is an agent, or contains one."""
    return tools_of_agents(stage) is not None
