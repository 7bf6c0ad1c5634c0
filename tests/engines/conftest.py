"""Fixtures of the tests of engines."""

from pathlib import Path

import pytest
from test_docs import answer

from rxllm.testing import FakeServer


@pytest.fixture(autouse=True)
def tidy(environment):
    """Check nothing: Ray keeps threads and sockets open until the last test."""


@pytest.fixture(scope="session")
def ray_data():
    """Ray Data, with two processors of this machine. Its workers have a key of their own, and ask a local server."""
    import ray
    import ray.data

    with FakeServer(answer) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # else Ray sends statistics to its makers
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100_000_000,
            logging_level="error",
            log_to_driver=False,
            runtime_env={
                "env_vars": {
                    "OPENAI_API_KEY": "sk-of-the-worker",
                    "OPENAI_BASE_URL": f"{server.url}/v1",
                    "PYTHONPATH": str(Path(__file__).parent),  # of `deadly_store`
                }
            },
            _node_ip_address="127.0.0.1",
        )
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray.data
        ray.shutdown()
