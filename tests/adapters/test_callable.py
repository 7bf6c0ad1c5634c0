"""`from_callable`: the answers of functions, and the contract of any model."""

import threading

import pytest

import rxllm
from rxllm.adapters import from_callable
from rxllm.testing import LLMContract


async def spell(request):
    """Yield the prompt letter by letter."""
    for letter in request.text:
        yield letter


class TestStreaming(LLMContract):
    """The contract of a model, for a generator function."""

    def create_model(self):
        """Return the model."""
        return from_callable(spell)


class TestWhole(LLMContract):
    """The contract of a model, for a function."""

    def create_model(self):
        """Return the model."""
        return from_callable(lambda request: request.text)


def test_each_kind_of_function_answers():
    """A function and a coroutine function give one chunk; generators stream."""

    async def later(request):
        return rxllm.Message("assistant", request.text)

    def letters(request):
        yield from request.text

    for function in (lambda request: request.text), later:
        llm = from_callable(function)
        assert (False, ["hi"]) == (llm.streaming, [chunk.text for chunk in llm.stream("hi")])
    for function in letters, spell:
        llm = from_callable(function)
        assert (True, ["h", "i"]) == (llm.streaming, [chunk.text for chunk in llm.stream("hi")])


def test_function_gets_the_request_in_another_thread():
    """It may block, and it sees the parameters."""
    seen = []
    llm = from_callable(lambda request: seen.append((request.temperature, threading.current_thread())) or "ok")
    llm.invoke("hi", temperature=0.5)
    [(temperature, thread)] = seen
    assert 0.5 == temperature
    assert threading.current_thread() is not thread


def test_run_has_the_name_of_the_function():
    """Handlers show it. A name that the program sets wins."""
    names = []
    listen = [lambda event: names.append(event.run.name) if isinstance(event, rxllm.Started) else None]
    from_callable(spell, handlers=listen).invoke("hi")
    from_callable(spell, handlers=listen, run_name="mine").invoke("hi")
    assert ["spell", "mine"] == names


def test_other_values_are_refused():
    """The message shows an example."""
    with pytest.raises(rxllm.MisuseError, match=r"such as lambda request: request\.text"):
        from_callable("hi")
