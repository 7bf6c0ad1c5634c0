"""The meter of tokens: by model, whatever the end."""

import pytest

from rxllm import LLM, Chunk, Interrupted, Usage, UsageMeter


class Counted(LLM):
    """Tells its model and tokens, and fails where it is asked to."""

    async def chunks(self, request):
        """Two chunks."""
        yield Chunk("a", model=f"m-{request.text}", usage=Usage(input_tokens=3))
        yield Chunk("b", usage=Usage(output_tokens=2))
        if request.text == "fail":
            raise Interrupted("no")


def test_tokens_are_added_up_by_model():
    """Those of all answers, streamed or not."""
    meter = UsageMeter()
    Counted(handlers=[meter]).batch(["x", "x", "y"])
    assert {"m-x": Usage(input_tokens=6, output_tokens=4), "m-y": Usage(input_tokens=3, output_tokens=2)} == meter.usage
    assert (3, Usage(input_tokens=9, output_tokens=6)) == (meter.requests, meter.total)


def test_what_failed_counts():
    """With what had arrived."""
    meter = UsageMeter()
    llm = Counted(handlers=[meter])
    with pytest.raises(Interrupted):
        llm.invoke("fail")
    assert {"m-fail": Usage(input_tokens=3, output_tokens=2)} == meter.usage
    assert 1 == meter.requests


def test_nothing_was_used_where_nothing_ran():
    """The total is no count at all."""
    assert ({}, Usage(), 0) == (UsageMeter().usage, UsageMeter().total, UsageMeter().requests)
