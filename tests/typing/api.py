"""Is never run: the type checkers read it, and `assert_type` says what they must understand.

::

    mypy
    pyright
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal, assert_type

from attrs import frozen
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from reactivex import Observable
from reactivex import operators as ops

import rxllm
from rxllm import Chunk, Message, Pipeline, Request, Usage
from rxllm.adapters import (
    from_anthropic,
    from_callable,
    from_langchain,
    from_litellm,
    from_llm,
    from_openai,
    from_pydantic_ai,
    to_langchain,
    to_langchain_llm,
    to_litellm,
    to_pydantic_ai,
)
from rxllm.adapters.langchain import ChatRxllm, RxllmRunnable, TextRxllm


def outline(topic: str) -> str:
    """A template is a function."""
    return f"An outline about {topic}."


def photo() -> rxllm.FilePart:
    """A part for a file on disk."""
    assert_type(rxllm.file("photo.jpg", detail="low").read(), rxllm.FilePart)
    return rxllm.file(Path("photo.jpg"), "image/jpeg")


def shout(piece: str) -> str:
    """For `ops.map`."""
    return piece.upper()


def topics_of(text: str) -> Observable[str]:
    """Several prompts of one."""
    return rxllm.from_iter(text.split())


def total(counts: list[int]) -> int:
    """For `stage`."""
    return sum(counts)


def count(pieces: str) -> int:
    """For `ops.map`."""
    return len(pieces)


@frozen
class Parrot(rxllm.LLM):
    """A provider of one's own may require fields."""

    url: str
    retries: int = 3

    async def complete(self, request: Request) -> str:
        """The prompt."""
        return request.text


@frozen
class Place:
    """A type to ask for."""

    name: str
    at: tuple[float, float]


@frozen
class Stream(rxllm.LLM):
    """A provider of one's own that streams."""

    async def chunks(self, request: Request) -> AsyncIterator[Chunk]:
        """The prompt."""
        yield Chunk(request.text)


class Blocking(rxllm.LLM):
    """One that streams from a thread."""

    def chunks(self, request: Request) -> Iterator[str]:
        """The prompt."""
        yield request.text


class Listener(rxllm.Handler):
    """A handler matches events."""

    def on_event(self, event: rxllm.Event) -> None:
        """Hears it."""
        match event:
            case Chunk():
                assert_type(event.text, str)
            case rxllm.Finished(message=message):
                assert_type(message, Message)
            case rxllm.Failed(error=error):
                assert_type(error, Exception)
            case _:
                pass


def asked(llm: rxllm.LLM) -> None:
    """Types of a model's results."""
    assert_type(llm("x"), Observable[Chunk])
    assert_type(llm.invoke("x"), Message)
    assert_type(llm.invoke([("system", "a"), {"role": "user", "content": "b"}]), Message)
    assert_type(llm.invoke(Request(prompt="x")), Message)
    assert_type(llm.batch(["x", "y"]), list[Message])
    assert_type(rxllm.from_iter(["x"]).pipe(rxllm.job(llm, rxllm.Journal("x.jsonl"))), Observable[rxllm.Result])
    for chunk in llm.stream("x", temperature=0, stop_sequences=["\n"]):
        assert_type(chunk, Chunk)
        assert_type(chunk.usage, Usage | None)
    for index, answer in llm.batch_as_completed(["x"], max_concurrency=2):
        assert_type(index, int)
        assert_type(answer, Message)
    assert_type(llm.batch(["x"], return_exceptions=False, temperature=0), list[Message])
    assert_type(llm.batch(["x"], return_exceptions=True, temperature=0), list[Message | Exception])
    asked = llm.batch_as_completed(["x"], return_exceptions=True)
    assert_type(asked, rxllm.SyncStream[tuple[int, Message | Exception]])
    with llm.stream("x") as stream:
        assert_type(stream, rxllm.SyncStream[Chunk])
        assert_type(next(stream), Chunk)


async def awaited(llm: rxllm.LLM) -> None:
    """The same with await."""
    assert_type(await llm.ainvoke("x"), Message)
    assert_type(await llm.abatch(["x"]), list[Message])
    async for chunk in llm.astream("x"):
        assert_type(chunk, Chunk)
    async for index, answer in llm.abatch_as_completed(["x"]):
        assert_type(index, int)
        assert_type(answer, Message)


async def awaited_with_exceptions(llm: rxllm.LLM, wanted: bool) -> None:
    """They take the place of answers, so a program that requests them must distinguish them."""
    assert_type(await llm.abatch(["x"], return_exceptions=True), list[Message | Exception])
    assert_type(await llm.abatch(["x"], return_exceptions=wanted), list[Message | Exception])
    asked = llm.abatch_as_completed(["x"], return_exceptions=True)
    assert_type(asked, rxllm.AsyncStream[tuple[int, Message | Exception]])
    [answer] = await llm.abatch(["x"], return_exceptions=True)
    answer.text  # type: ignore[union-attr]  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]  # noqa: B018
    if not isinstance(answer, Exception):
        assert_type(answer.text, str)


def exceptions_as_values(llm: rxllm.LLM, topics: Observable[str]) -> None:
    """As operators."""
    assert_type(topics.pipe(rxllm.batch(llm, return_exceptions=True)), Observable[Message | Exception])
    numbered = topics.pipe(rxllm.batch_as_completed(llm, max_concurrency=2, return_exceptions=True))
    assert_type(numbered, Observable[tuple[int, Message | Exception]])
    talk = rxllm.pipe(outline, llm, rxllm.text())
    assert_type(talk.batch(["x"], return_exceptions=True), list[str | Exception])


def composed(llm: rxllm.LLM, topics: Observable[str]) -> None:
    """Types of the results of pipelines and operators."""
    talk = rxllm.pipe(outline, llm, rxllm.text())
    assert_type(talk, Pipeline[str, str])
    assert_type(talk.invoke("x"), str)
    assert_type(talk.batch(["x"]), list[str])
    for piece in talk.stream("x"):
        assert_type(piece, str)
    loud = rxllm.pipe(outline, llm, rxllm.text(), ops.map(shout), ops.map(count))
    assert_type(loud, Pipeline[str, int])
    assert_type(rxllm.pipe(outline, llm, llm, rxllm.message()), Pipeline[str, Message])
    assert_type(rxllm.pipe(outline, llm).invoke("x"), Message)
    assert_type(rxllm.pipe(llm).invoke("x"), Message)
    assert_type(rxllm.pipe(outline, llm).batch(["x"]), list[Message])
    assert_type(rxllm.pipe(llm, rxllm.text()).invoke("x"), str)
    assert_type(rxllm.pipe(llm, rxllm.words()).invoke("x"), str)
    assert_type(rxllm.pipe(llm, rxllm.lines()), Pipeline[rxllm.Prompt | Observable[Any], str, list[str]])
    assert_type(rxllm.pipe(llm, rxllm.lines()).invoke("x"), list[str])
    assert_type(rxllm.pipe(llm, rxllm.lines()).batch(["x"], return_exceptions=True), list[list[str] | Exception])
    assert_type(rxllm.pipe(llm, rxllm.stop_at("x")).invoke("x"), Message)
    assert_type(rxllm.pipe(llm, rxllm.message()).invoke("x"), Message)
    assert_type(rxllm.pipe(llm, rxllm.usage()).invoke("x"), Usage)
    assert_type(rxllm.pipe(llm, rxllm.snapshots()).invoke("x"), Chunk)
    assert_type(rxllm.pipe(llm, rxllm.call_drafts()).invoke("x"), rxllm.CallDraft)
    assert_type(rxllm.pipe(llm, rxllm.smooth(1)).invoke("x"), Message)
    assert_type(rxllm.pipe(llm, rxllm.text(), rxllm.smooth(1)).invoke("x"), str)
    assert_type(rxllm.pipe(outline, talk, llm).invoke("x"), Message)
    split = rxllm.pipe(outline, llm, rxllm.lines())
    assert_type(rxllm.pipe(outline, split).invoke("x"), list[str])
    assert_type(rxllm.retry(split).invoke("x"), list[str])
    assert_type(rxllm.fallback(split, split).invoke("x"), list[str])
    assert_type(rxllm.hedge(split, after=1).invoke("x"), list[str])
    assert_type(rxllm.limited(split, rxllm.Limiter(concurrency=1)).invoke("x"), list[str])
    assert_type(rxllm.pipe(topics_of, rxllm.batch(talk)).invoke("x"), list[str])
    assert_type(rxllm.pipe(topics_of, rxllm.batch(split)).invoke("x"), list[list[str]])
    assert_type(loud.invoke("x"), int)
    assert_type(rxllm.pipe(llm, rxllm.text(), rxllm.stage(ops.map(count), adds_up="list")).invoke("x"), list[int])
    assert_type(rxllm.pipe(llm, rxllm.text(), rxllm.stage(ops.map(count), adds_up=total)).invoke("x"), int)
    assert_type(topics.pipe(ops.concat_map(llm)), Observable[Chunk])
    assert_type(topics.pipe(ops.flat_map(llm), rxllm.text()), Observable[str])
    assert_type(topics.pipe(rxllm.batch(llm)), Observable[Message])
    assert_type(topics.pipe(rxllm.batch_as_completed(llm)), Observable[tuple[int, Message]])
    assert_type(llm("x").pipe(rxllm.usage()), Observable[Usage])
    assert_type(llm("x").pipe(rxllm.idle_timeout(3), rxllm.first_chunk_timeout(3)), Observable[Chunk])
    assert_type(llm("x").pipe(rxllm.stream()), rxllm.SyncStream[Chunk])
    assert_type(llm("x").pipe(rxllm.text(), rxllm.astream()), rxllm.AsyncStream[str])


def grown(llm: rxllm.LLM) -> None:
    """Drafts are plain data; items are values of the type."""
    assert_type(llm("x").pipe(rxllm.drafts(list[Place])), Observable[Any])
    assert_type(rxllm.pipe(outline, llm, rxllm.drafts()).invoke("x"), Any)
    places = rxllm.pipe(outline, llm, rxllm.items(Place))
    assert_type(places, Pipeline[str, Place, list[Place]])
    assert_type(places.batch(["x"]), list[list[Place]])
    for place in places.stream("x"):
        assert_type(place, Place)
    assert_type(rxllm.pipe(llm, rxllm.text(), rxllm.items(int | str, "numbers")).invoke("x"), list[int | str])
    assert_type(rxllm.pipe(llm, rxllm.items(Literal["a", "b"])).invoke("x"), list[Literal["a", "b"]])
    assert_type(llm("x").pipe(rxllm.items(dict[str, Place])), Observable[dict[str, Place]])


def filled(llm: rxllm.LLM) -> None:
    """A template is a stage, alone and in a pipeline."""
    ask = rxllm.template(("system", "Be {mood}."), Message("user", "Hi"), "{question}", mood="brief")
    assert_type(ask({"question": "Why?"}), tuple[Message, ...])
    assert_type(ask.given(mood="kind"), rxllm.Template)
    talk = rxllm.pipe(ask, llm, rxllm.text())
    assert_type(talk.invoke({"question": "Why?"}), str)
    assert_type(talk.invoke("Why?"), str)
    assert_type(rxllm.pipe(rxllm.template("{a}"), llm).batch(["x", {"a": 1}]), list[Message])
    assert_type(rxllm.pipe(llm, rxllm.text(), ops.map(ask), llm).invoke("x"), Message)


def branched(llm: rxllm.LLM) -> None:
    """Branches give dicts."""
    both = rxllm.parallel(a=rxllm.pipe(outline, llm), b=rxllm.pipe(outline, llm, rxllm.text()))
    assert_type(both, rxllm.Parallel[str])
    assert_type(both.invoke("x"), dict[str, Any])
    assert_type(both.batch(["x"]), list[dict[str, Any]])
    for item in both.stream("x", temperature=0):
        assert_type(item, dict[str, Any])
    ask = rxllm.template("Compare {a} and {b}.")
    assert_type(rxllm.pipe(both.answer, ops.map(ask), llm, rxllm.text()).invoke("x"), str)
    print(rxllm.pipe(outline, rxllm.parallel(a=llm)).invoke("x")["a"])  # of a stage with Any, mypy infers Any
    more = rxllm.assign(b=rxllm.pipe(rxllm.template("{a}"), llm))
    assert_type(more.invoke({"a": 1}), dict[str, Any])
    print(rxllm.pipe(both.answer, more).invoke("x")["b"])


def copied(parrot: Parrot) -> None:
    """Copies keep their class; combinators give a model."""
    assert_type(parrot.bind(temperature=0), Parrot)
    assert_type(parrot.with_config(tags=["a"]), Parrot)
    assert_type(rxllm.observe(parrot, Listener(), print), rxllm.LLM)
    assert_type(Parrot("https://parrot", retries=1, tags=("a",)).url, str)
    Parrot()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    parrot.bind(temperatur=0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    parrot.invoke(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def log(event: rxllm.Event) -> None:
    """A function may listen."""


def written(topics: list[str]) -> None:
    """A program as in the README, without an annotation."""
    llm = rxllm.OpenAI("m", tags=["a"], handlers=[log, rxllm.StdoutHandler()], temperature=0)
    toy = rxllm.Embedded(tags=("a",), handlers=(Listener(),))
    poet = rxllm.pipe(outline, toy, rxllm.text()).with_config(tags=["b"], handlers=[log], run_name="poet")
    for chunk in llm.bind(max_tokens=5).with_config(tags=["c"]).stream("x", handlers=[log], tags=["d"]):
        assert_type(chunk, Chunk)
    for piece in poet.stream("x", handlers=[print, Listener()], tags={"d"}, temperature=1):
        assert_type(piece, str)
    for song, usage in [(answer.text, answer.usage) for answer in llm.batch(topics, handlers=[log])]:
        assert_type(song, str)
        assert_type(usage, Usage | None)
    assert_type(rxllm.retry(llm).invoke("x", handlers=[log]).text, str)
    talk = rxllm.remember(llm, rxllm.Conversation([("system", "Be brief.")]))
    assert_type(talk, rxllm.LLM)
    assert_type(rxllm.pipe(outline, talk, rxllm.text()).invoke("x"), str)


class Plain(rxllm.LLM):
    """A plain class with a constructor of its own."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def complete(self, request: Request) -> str:
        """Where it would ask."""
        return self.url


def plain() -> None:
    """It is a model."""
    assert_type(Plain("x").url, str)
    assert_type(Plain("x").bind(temperature=0), Plain)
    Plain("x").nothing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # noqa: B018


def values() -> None:
    """Values and sums."""
    assert_type(Chunk("a") + Chunk("b"), Chunk)
    assert_type(Usage() + Usage(), Usage)
    assert_type(rxllm.join([Chunk("a"), Chunk("b")]), Chunk)
    assert_type(sum([Chunk("a"), Chunk("b")], Chunk()), Chunk)
    assert_type(sum([Chunk("a"), Chunk("b")]), Chunk | Literal[0])
    reason: rxllm.FinishReason = "stop"
    assert_type(Chunk(finish_reason=reason).finish_reason, rxllm.FinishReason | None)
    assert_type(Message("user", "a").parts, tuple[rxllm.Part, ...])
    assert_type(rxllm.model("embedded"), rxllm.LLM)
    everything: list[Any] = [
        rxllm.OpenAI("m", temperature=0),
        rxllm.Anthropic("m"),
        rxllm.Embedded(),
        Stream(),
        Blocking(),
    ]
    assert everything


@rxllm.tool
async def weather(city: str, days: int = 1) -> str:
    """A tool of one argument."""
    return city * days


@rxllm.tool(timeout=3, name="path")
def route(start: str, end: str) -> str:
    """A tool with options."""
    return start + end


@rxllm.tool
async def download(url: str) -> AsyncIterator[int]:
    """A tool that reports progress."""
    yield len(url)


async def tools() -> None:
    """A tool keeps the types of its function."""
    llm = Stream()
    assert_type(weather, rxllm.Tool[str, str])
    assert_type(weather("Oslo", days=3), Observable[str])
    assert_type(await weather.ainvoke("Oslo"), str)
    assert_type(download, rxllm.Tool[str, int])
    rxllm.pipe(llm, rxllm.message(), ops.map(str), ops.flat_map(weather))
    await route.ainvoke({"start": "a", "end": "b"})
    await llm.ainvoke("hi", tools=[weather, rxllm.ToolSpec("x"), {"type": "web_search"}])


async def agents(llm: rxllm.LLM, inbox: Observable[str]) -> None:
    """An agent is a model; it takes tools, functions and dicts."""

    def later(number: int, request: Request) -> Request | None:
        return request if number > 1 else None

    agent = rxllm.agent(
        llm,
        weather,
        route,
        outline,
        {"type": "web_search"},
        rounds=3,
        concurrency=2,
        approve=lambda name, arguments: name == "path" and "start" in arguments,
        prepare=later,
        errors="raise",
        limits=rxllm.Limits(tokens=1000, cost=0.5, seconds=60),
        secret="a secret of the server",
    )
    assert_type(agent, rxllm.LLM)
    assert_type(agent("hi"), Observable[Chunk])
    answer = agent.bind(inbox=inbox, temperature=0).invoke("hi")
    assert_type(answer, Message)
    assert_type(answer.pending, tuple[rxllm.Pending, ...])
    decisions = [answer.pending[0].approve(), answer.pending[0].deny("no"), rxllm.Approval.from_json({})]
    await agent.ainvoke([answer, Message("user", decisions)], inbox=inbox)
    assert_type(rxllm.shaped(agent, Recipe).invoke("hi"), Recipe)
    assert_type(rxllm.pipe(agent, rxllm.call_drafts()).invoke("x"), rxllm.CallDraft)
    async with rxllm.mcp("http://localhost/mcp", headers={}, approve=lambda hints: "x" in hints) as found:
        assert_type(found, tuple[rxllm.Tool[Any, Any], ...])
    with rxllm.mcp(["uvx", "server"], prefix="a_", approve=True, timeout=3) as tools:
        rxllm.agent(llm, *tools, *found)


@frozen
class Recipe:
    """A class to ask for."""

    title: str


Mood = Literal["good", "bad"]


async def shapes(llm: rxllm.LLM, source: Observable[Chunk]) -> None:
    """Values of a type: one signature for classes, unions and literals."""
    recipes = rxllm.shaped(llm, Recipe)
    pipeline: Pipeline[rxllm.Prompt | Observable[Any], Recipe] = recipes
    assert_type(pipeline.invoke("Soup"), Recipe)
    assert_type(recipes.invoke("Soup"), Recipe)
    assert_type(await recipes.ainvoke("Soup"), Recipe)
    assert_type(recipes.batch(["Soup"]), list[Recipe])
    for recipe in recipes.stream("Soup"):
        assert_type(recipe, Recipe)
    assert_type(rxllm.shaped(llm, Literal["good", "bad"]).invoke("?"), Mood)
    assert_type(rxllm.shaped(llm, int | str).invoke("?"), int | str)
    assert_type(rxllm.shaped(llm, Recipe | None, attempts=3, mode="tool").invoke("?"), Recipe | None)
    assert_type(rxllm.shaped(llm, list[Recipe]).batch(["?"]), list[list[Recipe]])
    assert_type(rxllm.shaped(llm, dict[str, int]).invoke("?"), dict[str, int])

    assert_type(source.pipe(rxllm.parse(Recipe)), Observable[Recipe])
    assert_type(source.pipe(rxllm.text(), rxllm.parse(list[int])), Observable[list[int]])
    assert_type(rxllm.pipe(llm.bind(shape=Recipe), rxllm.parse(Recipe)).invoke("?"), Recipe)
    assert_type(
        rxllm.pipe(llm.bind(shape=Mood | None, shape_mode="native"), rxllm.parse(int | None)).invoke("?"), int | None
    )
    assert_type(rxllm.pipe(outline, llm, rxllm.text(), recipes).invoke("Soup"), Recipe)
    assert_type(rxllm.pipe(outline, llm, rxllm.text(), rxllm.shaped(llm, Recipe)).batch(["Soup"]), list[Recipe])
    assert_type(rxllm.pipe(recipes, ops.map(titled), llm, rxllm.text()).invoke("Soup"), str)


def titled(recipe: Recipe) -> str:
    """For `ops.map`."""
    return recipe.title


def adopted(client: Any) -> None:
    """Models of other libraries are models, and keep the class of the provider that they send as."""
    assert_type(from_openai(client, "m", api="chat", temperature=0, timeout=5), rxllm.OpenAI)
    assert_type(from_openai(lambda: client, "m").bind(temperature=0), rxllm.OpenAI)
    assert_type(from_anthropic(client, "m", tags=["a"]), rxllm.Anthropic)
    assert_type(from_callable(lambda request: request.text.upper(), max_tokens=9), rxllm.LLM)
    assert_type(from_callable(asked_of_another), rxllm.LLM)
    assert_type(from_langchain(FakeListChatModel(responses=["x"]), temperature=0), rxllm.LLM)
    assert_type(from_langchain(FakeListLLM(responses=["x"])).invoke("x"), Message)
    chain = ChatPromptTemplate.from_template("Say {word}.") | FakeListChatModel(responses=["x"]) | StrOutputParser()
    assert_type(from_langchain(chain, prompt=lambda request: {"word": request.text}), rxllm.LLM)
    assert_type(from_litellm("openai/m", temperature=0, num_retries=2), rxllm.LLM)
    assert_type(from_llm("m", seed=1), rxllm.LLM)
    assert_type(from_pydantic_ai("openai:m", handlers=[log]), rxllm.LLM)
    from_openai(client, "m", temperatur=0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    from_callable("m")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    from_callable(outline)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    from_langchain(Stream())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def asked_of_another(request: Request) -> AsyncIterator[Chunk]:
    """A generator function is a model, too."""
    yield Chunk(request.text)


async def lent(llm: rxllm.LLM, either: rxllm.LLM | Pipeline[str, str]) -> None:
    """Models of rxllm are models of other libraries."""
    chat = to_langchain(llm)
    assert_type(chat, ChatRxllm)
    assert_type(chat.invoke("x", temperature=0), AIMessage)
    assert_type(await chat.ainvoke([("user", "x")]), AIMessage)
    assert_type((ChatPromptTemplate.from_template("{x}") | chat | StrOutputParser()).invoke({"x": "y"}), str)
    talk = to_langchain(rxllm.pipe(outline, llm, rxllm.text()))
    assert_type(talk, RxllmRunnable)
    assert_type(to_langchain(rxllm.agent(llm, weather)), ChatRxllm)
    assert_type(to_langchain(rxllm.shaped(llm, Recipe)), RxllmRunnable)
    assert_type(to_langchain(either), ChatRxllm | RxllmRunnable)
    text = to_langchain_llm(llm)
    assert_type(text, TextRxllm)
    assert_type(text.invoke("x"), str)
    assert_type((text | StrOutputParser()).invoke("x"), str)
    to_litellm(llm, "mine")
    to_pydantic_ai(llm)
    to_langchain("m")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    to_langchain_llm(talk)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    to_litellm(llm)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    to_pydantic_ai("m")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
