"""Fixtures of these tests."""

import asyncio
import gc
import importlib
import importlib.util
import sys
import warnings

import pytest

from rxllm.runtime.portal import portal


@pytest.fixture
def litellm(monkeypatch):
    """LiteLLM, which asks no other machine for prices and prints no advice. Importing it takes seconds, once."""
    if importlib.util.find_spec("litellm") is None:
        pytest.skip("the extra 'clients' is not installed")
    monkeypatch.setenv("LITELLM_OFFLINE_MODE", "true")
    is_new = "litellm" not in sys.modules
    module = importlib.import_module("litellm")
    if is_new:
        gc.freeze()  # its objects stay, and would double the time of each later test that collects garbage
    monkeypatch.setattr(module, "suppress_debug_info", True)
    yield module
    asyncio.run_coroutine_threadsafe(_close_connections(module), portal()).result(30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # LiteLLM leaves some connections to the garbage collector
        gc.collect()


@pytest.fixture
def run(litellm):
    """Run a coroutine on a new event loop, and close the connections that LiteLLM keeps for this loop."""

    def run(main):
        async def main_then_close():
            try:
                return await main
            finally:
                await _close_connections(litellm)

        return asyncio.run(main_then_close())

    return run


async def _close_connections(litellm):
    await litellm.close_litellm_async_clients()
    await litellm.module_level_aclient.client._transport.aclose()
    litellm.in_memory_llm_clients_cache.flush_cache()
