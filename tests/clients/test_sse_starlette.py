"""sse-starlette beside `StreamResponse`: an event of ours costs no more, although it is also encoded."""

import importlib.util

import pytest

if importlib.util.find_spec("sse_starlette") is None or importlib.util.find_spec("litellm") is None:
    pytest.skip("the extra 'clients' is not installed", allow_module_level=True)


def test_event_costs_no_more_than_with_sse_starlette():
    """For each encoder and pace, our CPU for an event is at most that of sse-starlette, which gets finished bytes."""
    from benchmarks.serving import measure

    results = {}
    for _ in range(3):  # other programs only add to a figure, so each cell keeps its least one
        for cell, cost in measure(1_000).items():
            results[cell] = min(cost, results.get(cell, cost))
        costly = {
            name: (round(cost, 2), round(results[name, "sse-starlette"], 2))
            for (name, server), cost in results.items()
            if server == "rxllm" and cost > results[name, "sse-starlette"]
        }
        if not costly:
            return
    assert {} == costly
