"""Fixtures of these tests."""

import asyncio
import gc
import importlib
import importlib.util
import sys
import warnings
from pathlib import Path

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
    asyncio.run_coroutine_threadsafe(_end(module), portal()).result(30)
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


async def _end(litellm):
    """Close the connections of this loop, and end the tasks that LiteLLM keeps on it, such as the one that logs."""
    await _close_connections(litellm)
    place = str(Path(litellm.__file__).parent)
    codes = {task: getattr(task.get_coro(), "cr_code", None) for task in asyncio.all_tasks()}
    tasks = [task for task, code in codes.items() if code is not None and code.co_filename.startswith(place)]
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def _close_connections(litellm):
    await litellm.close_litellm_async_clients()
    await litellm.module_level_aclient.client._transport.aclose()
    litellm.in_memory_llm_clients_cache.flush_cache()
