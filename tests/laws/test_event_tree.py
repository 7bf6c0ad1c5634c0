"""The tree of events, for all nestings of runs and for a dispose at any time.

These laws hold for a handler of all runs:

1. Each run has one Started, which is the first of its events, and one end, which is the last. No two share an id.
2. A parent's Started comes before its children's; its id is the last of their `parent_ids`, after its own.
3. A child ends before its parent, unless the parent was cancelled while the child is asked by the *code* of a provider:
   that learns of it only when its task is cancelled.
4. At most one run has no parent.
"""

import asyncio

import reactivex as rx
from hypothesis import given
from hypothesis import strategies as st
from reactivex import operators as ops

import rxllm
from rxllm import LLM, Cancelled, Failed, Finished, Started
from rxllm.runtime.lifetime import settled

ENDS = (Started, Finished, Failed, Cancelled)[1:]


class Model(LLM):
    """Streams so many letters, a turn of the loop each, and then may fail."""

    size: int = 0
    fails: bool = False

    async def chunks(self, request):
        """Letters."""
        for _ in range(len(request.text) % 5):
            yield "a"
            await asyncio.sleep(0)


class Fails(LLM):
    """Fails after a letter."""

    async def chunks(self, request):
        """A letter."""
        yield "a"
        await asyncio.sleep(0)
        raise rxllm.Interrupted("no")


class Asks(LLM):
    """A model that calls another model in its own code."""

    async def complete(self, request):
        """The other's answer."""
        return (await Model(run_name="asked").ainvoke(request)).text


def row(stages):
    """A chain: the prompt of each model is the whole answer of the model before it."""
    return rxllm.pipe(
        *[part for stage in stages for part in (stage, ops.map(str), ops.reduce(lambda a, b: a + b, "x"))]
    )


def crowd(stages):
    """All at once."""
    return rxllm.pipe(lambda prompt: rx.merge(*[stage(prompt) for stage in stages]), ops.map(str))


def each(stages):
    """The second for each value of the first."""
    return rxllm.pipe(stages[0], ops.map(str), *[ops.flat_map(stage) for stage in stages[1:2]], ops.map(str))


def some(stages):
    """Only the first value."""
    return rxllm.pipe(stages[0], ops.map(str), ops.take(1))


def again(stages):
    """The first, until it does not fail."""
    return rxllm.retry(rxllm.pipe(stages[0], ops.map(str)), 2, when=lambda _: True, delay=lambda *_: 0.0)


def instead(stages):
    """One after another fails."""
    return rxllm.pipe(rxllm.fallback(*stages), ops.map(str))


def race(stages):
    """The first that says something; the others are left."""
    return rxllm.pipe(rxllm.hedge(*stages, after=0), ops.map(str))


def in_turn(stages):
    """One at a time."""
    limiter = rxllm.Limiter(concurrency=1)
    return rxllm.pipe(
        lambda prompt: rx.merge(*[rxllm.limited(stage, limiter)(prompt) for stage in stages]), ops.map(str)
    )


SHAPES = [row, crowd, each, some, again, instead, race, in_turn]
LEAVES = st.sampled_from([Model(), Model(), Fails(), Asks()])
GRAPHS = st.recursive(
    LEAVES,
    lambda inner: st.tuples(st.sampled_from(SHAPES), st.lists(inner, min_size=1, max_size=3)).map(
        lambda made: made[0](made[1])
    ),
    max_leaves=5,
)


async def heard_of(graph, patience):
    """Return the events of a run whose subscriber disposes after this many turns of the loop, or never."""
    heard = []
    scheduler = rxllm.scheduler()
    over = asyncio.Event()
    subscription = graph.with_config(handlers=[heard.append])("xyz").subscribe(
        on_error=lambda _: over.set(), on_completed=over.set, scheduler=scheduler
    )
    if patience is None:
        await over.wait()
    else:
        for _ in range(patience):
            await asyncio.sleep(0)
    subscription.dispose()
    while scheduler.lifetime.tasks:
        await settled(scheduler.lifetime.tasks)
        await asyncio.sleep(0)  # a task leaves the set one turn after its end
    return heard


@given(GRAPHS, st.none() | st.integers(0, 40))
def test_the_tree_is_well_formed(graph, patience):
    """The four laws above."""
    heard = asyncio.run(heard_of(graph, patience))
    positions = {}
    for position, event in enumerate(heard):
        positions.setdefault(event.run_id, []).append((position, event))
    runs = {run_id: [event for _, event in events] for run_id, events in positions.items()}
    for run_id, events in runs.items():
        assert isinstance(events[0], Started)
        assert isinstance(events[-1], ENDS)
        assert 2 == sum(isinstance(event, (Started, *ENDS)) for event in events)
        parents = events[0].parent_ids
        if parents:
            parent = runs[parents[-1]]
            assert parents == (*parent[0].parent_ids, parents[-1])
            assert positions[parents[-1]][0][0] < positions[run_id][0][0]
            if events[0].name != "asked" or not isinstance(parent[-1], Cancelled):
                assert positions[run_id][-1][0] < positions[parents[-1]][-1][0]
    assert 1 == sum(not events[0].parent_ids for events in runs.values())
