"""`gateway`: the application that a `Config` describes."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ..combinators.budget import Budget
from ..combinators.budgeted import budgeted
from ..combinators.cached import cached
from ..combinators.fallback import fallback
from ..combinators.limited import limited
from ..combinators.limiter import Limiter
from ..combinators.observe import observe
from ..combinators.stores import MemoryStore, SQLiteStore, Store
from ..handlers.usage import UsageMeter
from ..llm import LLM
from ..providers import model
from .chat_app import chat
from .config import BackendConfig, BudgetConfig, CacheConfig, Config, LimitsConfig, ModelConfig, with_secrets
from .edge import Edge
from .openai_app import openai

__all__ = ["Models", "gateway"]


class Models:
    """The served models, made once, and those of each caller, made when the caller first asks.

    Attributes:
        meters: the usage of each model, by its name.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.meters = {name: UsageMeter() for name in config.models}
        self._models = {name: self._model(name, each) for name, each in config.models.items()}
        self._stores = {name: _store(each.cache) for name, each in config.models.items() if each.cache is not None}
        self.of = functools.cache(self._of)

    def _model(self, name: str, config: ModelConfig) -> LLM:
        backends = [observe(_backend(each), self.meters[name]) for each in config.backends()]
        served = backends[0] if len(backends) == 1 else fallback(*backends)
        if config.limits is not None:
            served = limited(served, _limiter(config.limits))
        return self._within(served, f"model {name}", config.budget)

    def _within(self, llm: LLM, name: str, config: BudgetConfig | None) -> LLM:
        if config is None:
            return llm
        return budgeted(llm, Budget(Path(self._config.budgets), name, **msgspec.structs.asdict(config)))

    def _of(self, caller: str | None) -> Mapping[str, LLM]:
        """Return the models of a caller, by name."""
        config = None if caller is None else self._config.callers[caller]
        limiter = None if config is None or config.limits is None else _limiter(config.limits)
        allowed = self._models if config is None or config.models is None else config.models
        models: dict[str, LLM] = {}
        for name in allowed:
            llm = self._models[name]
            if limiter is not None:
                llm = limited(llm, limiter)
            llm = self._within(llm, f"caller {caller}", None if config is None else config.budget)
            if (cache := self._config.models[name].cache) is not None:
                reader = "all callers" if cache.shared else f"caller {caller}"
                llm = cached(llm, self._stores[name], name=f"{reader}: {self._models[name].identity()}")
            models[name] = llm
        return models


def _backend(config: BackendConfig) -> LLM:
    settings: dict[str, Any] = with_secrets(config.options)
    if config.api_key is not None:
        settings["api_key"] = config.api_key.read()
    if config.base_url is not None:
        settings["base_url"] = config.base_url
    return model(config.model, **settings)


def _limiter(config: LimitsConfig) -> Limiter:
    return Limiter(**msgspec.structs.asdict(config))


def _store(config: CacheConfig) -> Store:
    return MemoryStore(config.size) if config.path is None else SQLiteStore(config.path)


def gateway(config: Config) -> Edge:
    """Return the application.

    Raises:
        MisuseError: the configuration contradicts itself, a secret is missing, or a model is unknown.
    """
    config.check()
    models = Models(config)
    keys = config.keys()
    for caller in keys or [None]:  # a mistake is told now, not to the first client
        models.of(caller)
    applications = [openai(models.of, keys=keys, usage=config.usage, max_concurrency=config.max_concurrency)]
    if config.chat:
        applications.append(chat(models.of, keys=keys, max_concurrency=config.max_concurrency))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for each in applications:
                await stack.enter_async_context(each.router.lifespan_context(each))
            yield

    layers = [Middleware(TrustedHostMiddleware, allowed_hosts=config.hosts(), www_redirect=False)]
    if config.cors:
        methods = ["GET", "POST"]
        layers.append(Middleware(CORSMiddleware, allow_origins=config.cors, allow_methods=methods, allow_headers=["*"]))
    routes = [route for each in applications for route in each.routes]
    application = Starlette(routes=routes, middleware=layers, lifespan=lifespan)
    return Edge(application, models.meters, keys, config.hosts())
