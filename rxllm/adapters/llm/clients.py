"""`Clients`: the HTTP clients that a model of `llm` creates for a request."""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any

from .._sdk import cut

__all__ = ["Clients"]


class Clients:
    """The clients of one request.

    The models of llm's own plugin, and those of the plugins that inherit from them, create a client of OpenAI's SDK for
    each request with their method ``get_client``. They never close it: its connection stays open until it is
    garbage-collected.

    Attributes:
        model: the model to ask. It is a copy, so that requests at the same time keep their clients apart.
        opened: the clients, which are the caller's to close.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.opened: list[Any] = []
        self._responses: list[Any] = []
        if callable(getattr(model, "get_client", None)):
            self.model = copy.copy(model)
            self.model.get_client = self._get
            self._create = model.get_client

    def _get(self, *arguments: Any, **keywords: Any) -> Any:
        client = self._create(*arguments, **keywords)
        self.opened.append(client)
        http: Any = getattr(client, "_client", None)  # of httpx
        if isinstance(client, import_module("openai").OpenAI) and hasattr(http, "event_hooks"):
            http.event_hooks["response"].append(self._responses.append)
        return client

    def cut(self) -> None:
        """Shut the connections of blocking clients down, because a thread may wait for their next bytes."""
        for response in self._responses:
            cut(response)
