"""An agent of each vendor: its requests in every round pass the vendor's own check of the history.

The servers of `vendors` refuse what the real ones refuse. Each answers a question with reasoning and two parallel
calls, the results with a text, and thanks with a farewell.
"""

import itertools
import threading

import pytest
from vendors import VENDORS

import rxllm
from rxllm import Message, ToolResultPart, agent, tool
from rxllm.testing import FakeServer

QUESTION = [("user", "How wet is it?")]


def name_of(vendor):
    """The id of a parametrised test."""
    return vendor.name


@pytest.fixture(params=VENDORS, ids=name_of)
def vendor(request):
    """Each vendor in turn."""
    return request.param


class Weather:
    """A tool whose second call ends before its first."""

    def __init__(self):
        self.cities = []
        self.second = threading.Event()

        @tool
        def weather(city: str) -> str:
            self.cities.append(city)
            if len(self.cities) % 2:
                self.second.wait(30)
            else:
                self.second.set()
            return f'Wet in {{"city":"{city}"}}'

        self.tool = weather


def made(vendor, server, weather, **settings):
    """The vendor's model as an agent."""
    llm = vendor.create_model(server.url, api_key="sk-test", max_retries=0)
    return agent(llm, weather.tool).bind(**settings)


@pytest.mark.parametrize("stream", [True, False])
def test_agent_sends_the_rounds_that_its_vendor_expects(vendor, stream):
    """Two parallel calls, their results in the order of the calls, the reasoning as it came; then the next question."""
    weather = Weather()
    with FakeServer(vendor.answer) as server:
        llm = made(vendor, server, weather, stream=stream)
        question = [("system", "Be brief."), *QUESTION]
        answer = llm.invoke(question)
        assert answer.text.endswith(": wet.")
        results = [part for part in answer.parts if isinstance(part, ToolResultPart)]
        assert 2 == len(weather.cities) == len(results)
        assert llm.invoke([*question, answer, ("user", "Thanks.")]).text.endswith(": bye.")
        assert (3, 2) == (len(server.requests), len(weather.cities))


def test_stored_answer_of_an_agent_goes_back_to_its_vendor(vendor):
    """Nothing that the vendor wants is lost in the JSON form; a plain model of the vendor may go on, too."""
    with FakeServer(vendor.answer) as server:
        answer = made(vendor, server, Weather()).invoke(QUESTION)
        stored = Message.from_json(answer.to_json())
        llm = vendor.create_model(server.url, api_key="sk-test", max_retries=0, tools=[Weather().tool])
        assert llm.invoke([*QUESTION, stored, ("user", "Thanks.")]).text.endswith(": bye.")


@pytest.mark.parametrize(("first", "second"), [*itertools.permutations(VENDORS, 2)], ids=name_of)
def test_answer_of_an_agent_moves_to_another_vendor(first, second):
    """Calls and results move; what only the first vendor understands stays behind."""
    with FakeServer(first.answer) as one, FakeServer(second.answer) as other:
        answer = made(first, one, Weather()).invoke(QUESTION)
        there = made(second, other, Weather())
        history = [*QUESTION, answer, ("user", "Ask again.")]
        again = there.invoke(history)
        assert again.text.endswith(": wet.")
        assert made(first, one, Weather()).invoke([*history, again, ("user", "Thanks.")]).text.endswith(": bye.")


def test_conversation_of_an_agent_goes_on(vendor):
    """`remember` keeps the answer as one message."""
    conversation = rxllm.Conversation()
    with FakeServer(vendor.answer) as server:
        talk = rxllm.remember(made(vendor, server, Weather()), conversation)
        assert talk.invoke(QUESTION).text.endswith(": wet.")
        assert talk.invoke("Thanks.").text.endswith(": bye.")
        assert ["user", "assistant", "user", "assistant"] == [message.role for message in conversation.messages]


def test_approval_of_a_call_passes_the_check_of_its_vendor(vendor):
    """Both calls wait; one is approved, the other denied. Their results follow the calls."""

    @tool(approve=True)
    def weather(city: str) -> str:
        return f'Wet in {{"city":"{city}"}}'

    with FakeServer(vendor.answer) as server:
        llm = agent(vendor.create_model(server.url, api_key="sk-test", max_retries=0), weather)
        answer = llm.invoke(QUESTION)
        one, other = answer.pending
        decisions = Message("user", [other.deny("No."), one.approve()])
        history = [*QUESTION, Message.from_json(answer.to_json()), decisions]
        last = llm.invoke(history)
        assert last.text.endswith(": wet.")
        assert llm.invoke([*history, last, ("user", "Thanks.")]).text.endswith(": bye.")
