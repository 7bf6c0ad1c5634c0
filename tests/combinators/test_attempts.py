"""`retry`, `fallback`, `hedge` and `route`, on virtual time."""

import threading
import time

import httpx
import pytest
import reactivex as rx
from combinators.moments import moments
from hypothesis import given
from hypothesis import strategies as st
from protocols import Chat
from reactivex import operators as ops
from reactivex.scheduler import VirtualTimeScheduler

import rxllm
from rxllm import (
    LLM,
    Chunk,
    Interrupted,
    Message,
    MisuseError,
    Overloaded,
    RateLimited,
    ReasoningPart,
    Retried,
    Timeout,
    TransportError,
    Usage,
    fallback,
    hedge,
    retry,
    route,
)
from rxllm.operators.attempts import retried
from rxllm.operators.backoff import backoff
from rxllm.testing import End, FakeServer, MarbleLLM, Reply

BUSY = Overloaded("busy")
WAITS = {"delay": lambda error, attempt: 2.0}
FACT = {"f": Chunk(model="m")}


def marbles(diagram, **settings):
    """A model of a marble diagram, whose errors are retryable."""
    return MarbleLLM(diagram, error=settings.pop("error", BUSY), **settings)


# ── retry ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("diagrams", "expected", "asked"),
    [
        pytest.param(["-a-b|"], [(1, "a"), (3, "b"), (4, "|")], 1, id="what succeeds is not asked again"),
        pytest.param(["-#", "-a|"], [(4, "a"), (5, "|")], 2, id="after the wait"),
        pytest.param(["-#", "-#", "-a|"], [(7, "a"), (8, "|")], 3, id="twice"),
        pytest.param(["-#"], [(7, Overloaded)], 3, id="at most as often as it was told"),
        pytest.param(["-a#", "-b|"], [(1, "a"), (2, Overloaded)], 1, id="what has begun is not begun again"),
        pytest.param(["-|"], [(1, "|")], 1, id="an empty answer is an answer"),
        pytest.param(["-f-#", "-f-a|"], [(8, ""), (8, "a"), (9, "|")], 2, id="facts without a part do not commit"),
        pytest.param(["-f-|"], [(3, ""), (3, "|")], 1, id="facts of an empty answer are not lost"),
    ],
)
def test_retry_asks_again_before_the_first_chunk(diagrams, expected, asked):
    """It waits between attempts, and makes at most the given number."""
    llm = marbles(diagrams, values=FACT)
    assert expected == moments(retry(llm, 3, **WAITS)("hi"))
    assert asked == len(llm.requests)


@pytest.mark.parametrize(
    ("diagrams", "expected"),
    [
        (["-a-#", "-A-B|"], [(1, "a"), (6, "reset"), (6, "A"), (8, "B"), (9, "|")]),
        (["-a-#", "-#", "-A|"], [(1, "a"), (9, "reset"), (9, "A"), (10, "|")]),
        (["-a-#", "--|"], [(1, "a"), (7, "reset"), (7, "|")]),
        (["-a-#", "-b#", "-#"], [(1, "a"), (6, "reset"), (6, "b"), (10, Overloaded)]),
        (["-#", "-A|"], [(4, "A"), (5, "|")]),
    ],
    ids=["in the middle", "not while it fails", "also of an empty answer", "when all fail", "nothing to take back"],
)
def test_restart_takes_back_the_earlier_chunks(diagrams, expected):
    """The reset is emitted with the first chunk of the new attempt."""
    answer = retry(marbles(diagrams), 3, mid_stream="restart", **WAITS)("hi")
    assert expected == moments(answer)


async def test_partial_of_the_last_error_is_the_last_read_text():
    """Also when the last attempt brought nothing, because the earlier text is still on the screen."""
    llm = retry(marbles(["a#", "#"], timespan=0.001), 2, mid_stream="restart", delay=lambda *_: 0.0)
    with pytest.raises(Overloaded) as caught:
        await llm.ainvoke("hi")
    assert "a" == caught.value.partial.text
    assert "hi" == caught.value.request.text


def test_restart_folds_to_the_last_answer_and_text_refuses_it():
    """The Message has nothing of the first attempt, and `text` never emits a text twice."""
    llm = retry(marbles(["a-#", "b-c|"], timespan=0.001), mid_stream="restart", delay=lambda *_: 0.001)
    assert "bc" == llm.invoke("hi").text
    with pytest.raises(MisuseError, match="restarted its answer"):
        list(
            rxllm.pipe(retry(marbles(["a-#", "b|"], timespan=0.001), 2, mid_stream="restart"), rxllm.text()).stream("")
        )


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (RateLimited("the quota is spent", retryable=False), 1),
        (rxllm.BadRequest("no"), 1),
        (ValueError("a bug"), 1),
        (RateLimited("slow down", retry_after=61), 1),
        (RateLimited("slow down", retry_after=60), 3),
        (rxllm.Timeout("late"), 3),
    ],
    ids=["a spent quota", "a bad request", "no error of a provider's", "a wait too long", "a long wait", "a timeout"],
)
def test_only_retryable_errors_are_retried(error, asked):
    """An error whose provider asks for a too long wait is not retried."""
    llm = MarbleLLM("#", error=error)
    assert type(error) is moments(retry(llm)("hi"))[-1][1]
    assert asked == len(llm.requests)


def test_when_decides_which_errors_are_retried():
    """Also errors that are not retryable."""
    llm = MarbleLLM(["#", "a|"], error=ValueError("odd"))
    again = retry(llm, when=lambda error: "odd" in str(error), delay=lambda *_: 1.0)
    assert [(1, "a"), (2, "|")] == moments(again("hi"))


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_waits_double_with_jitter_up_to_a_bound(chance):
    """Each wait is between one half and all of the doubled time."""
    delay = backoff(0.5, 3, chance=lambda: chance)
    factor = 0.5 + chance / 2
    assert [0.5 * factor, factor, 2 * factor, 3 * factor, 3 * factor] == [delay(BUSY, n) for n in range(1, 6)]
    assert backoff(0.5, 30)(BUSY, 2000) <= 30


@given(st.floats(0, 60))
def test_wait_that_the_provider_asks_for_is_kept(seconds):
    """Never less, and at most a tenth more."""
    wait = backoff()(RateLimited("slow", retry_after=seconds), 1)
    assert seconds <= wait <= 1.1 * seconds


async def test_retry_emits_an_event():
    """`Retried` comes between the failure and the next attempt, as an event of the retrying run."""
    heard = []
    llm = retry(marbles(["-#", "-a|"], timespan=0.001), delay=lambda error, attempt: 0.01)
    async for event in llm.with_config(handlers=[heard.append]).astream("hi"):
        assert event.text == "a"
    kinds = [type(event).__name__ for event in heard]
    expected = ["Started", "Started", "Failed", "Retried", "Started", "RunChunk", "RunChunk", "Finished", "Finished"]
    assert expected == kinds
    retried = next(event for event in heard if isinstance(event, Retried))
    assert (1, Overloaded, 0.01) == (retried.attempt, type(retried.error), retried.delay)
    outer = heard[0].run
    assert ("retry", "chain", ()) == (outer.name, outer.kind, outer.parent_ids)
    assert retried.run is outer
    assert {(outer.id,)} == {event.parent_ids for event in heard if event.name == "MarbleLLM"}


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "3", None])
def test_invalid_attempts_are_refused(wrong):
    """MisuseError is raised before any request is sent."""
    with pytest.raises(MisuseError, match="whole number of at least 1"):
        retry(marbles("a|"), wrong)


def test_only_models_can_restart():
    """The values of a pipeline cannot be taken back."""
    with pytest.raises(MisuseError, match="mid_stream='restart' needs a model"):
        retry(rxllm.pipe(marbles("a|"), rxllm.text()), mid_stream="restart")
    with pytest.raises(MisuseError, match="'restart' or None"):
        retry(marbles("a|"), mid_stream="resume")


@pytest.mark.parametrize("cut", range(8))
@pytest.mark.parametrize("end", [End.FIN, End.RST, End.CLEAN])
def test_connection_cut_anywhere_gives_the_text_of_one_attempt(cut, end):
    """Over HTTP: the text is that of one answer, never of two."""
    frames = Chat().stream(["Hel", "lo", " wor", "ld"])
    with FakeServer(Reply([*frames[:cut], b"", end]), Reply(frames)) as server:
        model = rxllm.OpenAI("m", base_url=server.url, api_key="k", max_retries=0)
        llm = retry(model, 2, mid_stream="restart", delay=lambda *_: 0.001)
        assert "Hello world" == llm.invoke("hi").text
        has_finished = cut > 5  # the finish_reason came
        assert (1 if has_finished else 2) == len(server.requests)


BUSY_REPLY = Reply.json({"error": {"message": "busy"}}, status=503, headers={"retry-after-ms": "1"})


@pytest.mark.parametrize(
    ("combined", "expected"),
    [
        (lambda a, _: a, [3, 0]),
        (lambda a, _: retry(a, 2), [2, 0]),
        (lambda a, _: retry(rxllm.pipe(a, rxllm.text()), 2), [2, 0]),
        (lambda a, b: fallback(a, b), [1, 3]),
        (lambda a, b: hedge(a, b, after=60), [1, 3]),
        (lambda a, b: retry(fallback(a, b), 2), [2, 2]),
    ],
)
def test_n_attempts_send_at_most_n_requests(combined, expected):
    """A model retries by itself only if no outer combinator asks again or asks another model."""
    with FakeServer(BUSY_REPLY) as one, FakeServer(BUSY_REPLY) as other:
        a, b = (rxllm.OpenAI("m", base_url=server.url, api_key="k") for server in (one, other))
        with pytest.raises(Overloaded):
            combined(a, b).invoke("hi")
        assert expected == [len(one.requests), len(other.requests)]


def test_time_limit_covers_all_attempts():
    """A silent server with a limit of 0.2 seconds gets one request, and the error comes at the limit."""
    with FakeServer(Reply([End.HANG])) as server:
        with pytest.raises(rxllm.Timeout):
            rxllm.OpenAI("m", base_url=server.url, api_key="k", timeout=0.2).invoke("hi")
        assert 1 >= len(server.requests), "on a busy machine it may not even have come to the first"


@pytest.mark.parametrize("combined", [lambda llm: retry(llm, 1), lambda llm: fallback(marbles("#"), llm)])
def test_facts_of_the_last_failed_attempt_are_emitted(combined):
    """They came before any part, and no further attempt replaces them."""
    heard, scheduler = [], VirtualTimeScheduler()
    llm = combined(marbles("-f-f-#", values={"f": Chunk(usage=Usage(input_tokens=7))}))
    llm("hi").subscribe(heard.append, heard.append, scheduler=scheduler)
    scheduler.start()
    assert [repr(Chunk(usage=Usage(input_tokens=7))), repr(BUSY)] == list(map(repr, heard))


def boom(*_):
    """A function of the program that raises."""
    raise LookupError("boom")


@pytest.mark.parametrize(
    "combined",
    [
        lambda llm: retry(llm, 3, when=boom),
        lambda llm: retry(llm, 3, delay=boom),
        lambda llm: fallback(llm, marbles("b|"), when=boom),
    ],
)
def test_exception_of_a_users_function_ends_the_stream(combined):
    """The subscriber gets it."""
    assert [(1, LookupError)] == moments(combined(marbles("-#"))("hi"))


def test_handler_may_fail_the_run_at_a_retry():
    """With `raise_error`; the other listeners still get the event."""

    class Vetoes(rxllm.CallbackHandler):
        raise_error = True

        def on_retry(self, error, **_):
            raise LookupError("no more")

    told, heard = [], []
    llm = rxllm.observe(retry(marbles("-#", timespan=0.001), 3), Vetoes(), told.append)
    with pytest.raises(LookupError, match="no more"):
        llm.invoke("hi")
    assert [Retried, rxllm.Failed] == [type(event) for event in told][-2:]
    ended = threading.Event()
    llm("hi").subscribe(on_error=lambda error: (heard.append(error), ended.set()))
    assert ended.wait(30)
    assert [LookupError] == [type(error) for error in heard]


@pytest.mark.parametrize(
    ("diagrams", "expected"),
    [
        (["-#", "-----#"], [(6, Overloaded)]),
        (["-#", "-----b|"], [(6, "b"), (7, "|")]),
        (["-#", "----#", "-c|"], [(4, "c"), (5, "|")]),
        (["-#", "-----", "-c|"], [(4, "c"), (5, "|")]),
    ],
)
def test_failure_cancels_the_timer_of_a_hedge(diagrams, expected):
    """A model that starts after a failure is not started again by the timer."""
    assert expected == moments(hedge(*map(marbles, diagrams), after=2)("hi"))


@pytest.mark.parametrize("after", [0, 2])
def test_mistake_in_one_model_of_a_hedge_affects_no_other(after):
    """With a missing key in one model, the other model answers."""
    wrong = MarbleLLM("#", error=MisuseError("no key"))
    assert [(4, "a"), (5, "|")] == moments(hedge(marbles("----a|"), wrong, after=after)("hi"))


@pytest.mark.parametrize("second", [marbles("-b#"), MarbleLLM("-#", error=MisuseError("no key"))])
def test_last_error_has_the_others_as_notes(second):
    """Also when the second model fails within its answer, and when no third model is asked."""
    errors, scheduler = [], VirtualTimeScheduler()
    first = MarbleLLM("-#", error=RateLimited("slow down"))
    fallback(first, second)("hi").subscribe(on_error=errors.append, scheduler=scheduler)
    scheduler.start()
    assert ["Another model failed earlier: RateLimited: slow down"] == errors[0].__notes__


@given(st.lists(st.sampled_from("abc"), min_size=1), st.data())
def test_text_is_that_of_one_attempt_wherever_the_others_break(chunks, data):
    """For any number and place of breaks, with a whole last attempt."""
    cuts = data.draw(st.lists(st.integers(0, len(chunks)), max_size=3))
    diagrams = ["-".join([*chunks[:cut], "#"]) for cut in cuts] + ["-".join([*chunks, "|"])]
    heard = []
    scheduler = VirtualTimeScheduler()
    llm = retry(marbles(diagrams), len(diagrams), mid_stream="restart", delay=lambda *_: 1.0)
    llm("hi").pipe(rxllm.message()).subscribe(heard.append, scheduler=scheduler)
    scheduler.start()
    assert ["".join(chunks)] == [answer.text for answer in heard]


PIECES = {"a": "a", "b": "b ", "t": "<think>", "e": "</think>", "s": "ST", "o": "OP ", "w": "STOP"}
THROUGH = {
    "nothing": [],
    "stop_at": [rxllm.stop_at("STOP")],
    "split_reasoning": [rxllm.split_reasoning()],
    "both": [rxllm.split_reasoning(), rxllm.stop_at("STOP")],
    "share": [rxllm.share()],
    "smooth": [rxllm.smooth(2.0)],
    "limits": [rxllm.idle_timeout(100), rxllm.deadline(10_000)],
}


def folded(attempts, operators):
    """The folded answer of all attempts, the last of which is whole, after the operators."""
    *broken, whole = ["-".join(pieces) for pieces in attempts]
    llm = marbles([*(f"{pieces}#" for pieces in broken), f"{whole}|"], values=PIECES)
    heard, scheduler = [], VirtualTimeScheduler()
    answer = retry(llm, len(attempts), mid_stream="restart", delay=lambda *_: 1.0)("hi")
    answer.pipe(*operators, rxllm.message()).subscribe(heard.append, scheduler=scheduler)
    scheduler.start()
    [answer] = heard
    return answer.text, answer.reasoning, answer.finish_reason


@pytest.mark.parametrize("operators", THROUGH.values(), ids=THROUGH)
def test_operators_after_a_retry_give_the_answer_of_one_attempt(operators):
    """After operators that rewrite, share or delay: of the last attempt, or of the first that sufficed."""

    @given(st.lists(st.lists(st.sampled_from([*PIECES]), max_size=6), min_size=1, max_size=4))
    def law(attempts):
        alone = [folded([pieces], operators) for pieces in attempts]
        enough = [answer for answer in alone if answer[2] == "stop"]
        assert [*enough, alone[-1]][0] == folded(attempts, operators)

    law()


@given(st.lists(st.lists(st.sampled_from([*PIECES]), max_size=6), min_size=1, max_size=4), st.data())
def test_shared_restarted_answer_folds_the_same_for_all(attempts, data):
    """Late subscribers, too, get the reset from the log."""
    *broken, whole = ["-".join(pieces) for pieces in attempts]
    llm = marbles([*(f"{pieces}#" for pieces in broken), f"{whole}|"], values=PIECES)
    heard, scheduler = [], VirtualTimeScheduler()
    shared = retry(llm, len(attempts), mid_stream="restart", delay=lambda *_: 1.0)("hi").pipe(rxllm.share())
    told = shared.pipe(rxllm.message())
    told.subscribe(heard.append, scheduler=scheduler)
    for moment in data.draw(st.lists(st.integers(0, 60), max_size=5)):
        scheduler.schedule_relative(moment, lambda *_: told.subscribe(heard.append, scheduler=scheduler))
    scheduler.start()
    expected = folded(attempts[-1:], [])
    assert {expected} == {(answer.text, answer.reasoning, answer.finish_reason) for answer in heard}


# ── fallback ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("a", "b", "expected", "asked"),
    [
        pytest.param("-a|", "-b|", [(1, "a"), (2, "|")], 0, id="a success needs no second model"),
        pytest.param("--#", "-b|", [(3, "b"), (4, "|")], 1, id="at once"),
        pytest.param("-f#", "-b|", [(3, "b"), (4, "|")], 1, id="facts do not count as an answer"),
        pytest.param("-a#", "-b|", [(1, "a"), (2, Overloaded)], 0, id="what has begun is not begun again"),
        pytest.param("--|", "-b|", [(2, "|")], 0, id="an empty answer is an answer"),
        pytest.param("-#", "-#", [(2, Overloaded)], 1, id="all fail"),
    ],
)
def test_fallback_asks_the_next_model_after_a_failure(a, b, expected, asked):
    """Only before the first chunk."""
    first, second = marbles(a, values=FACT), marbles(b)
    assert expected == moments(fallback(first, second)("hi"))
    assert asked == len(second.requests)


async def test_errors_of_failed_models_are_notes_on_the_last():
    """No error is lost."""
    llms = [MarbleLLM("#", error=error) for error in (Overloaded("one"), ValueError("two"), Interrupted("three"))]
    with pytest.raises(Interrupted, match="three") as caught:
        await fallback(*llms).ainvoke("hi")
    notes = caught.value.__notes__
    assert ["Overloaded: one", "ValueError: two"] == [note.partition(" failed earlier: ")[2] for note in notes]


async def test_mistake_of_the_program_ends_a_fallback():
    """Otherwise a missing key would stay unnoticed."""
    with pytest.raises(MisuseError, match="There is no key"):
        await fallback(rxllm.OpenAI("gpt-5-mini"), marbles("a|")).ainvoke("hi")
    picky = fallback(MarbleLLM("#", error=ValueError("a bug")), marbles("a|"), when=lambda error: False)
    with pytest.raises(ValueError, match="a bug"):
        await picky.ainvoke("hi")


# ── hedge ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("a", "b", "after", "expected", "asked"),
    [
        pytest.param("--a-a|", "-b|", 3, [(2, "a"), (4, "a"), (5, "|")], 0, id="a model in time runs alone"),
        pytest.param("-----a|", "-b-b|", 3, [(4, "b"), (6, "b"), (7, "|")], 1, id="the second is first"),
        pytest.param("-----a--a|", "----b|", 3, [(5, "a"), (8, "a"), (9, "|")], 1, id="the first is first after all"),
        pytest.param("-#", "-b|", 3, [(2, "b"), (3, "|")], 1, id="at once when it fails"),
        pytest.param("----#", "----b|", 3, [(7, "b"), (8, "|")], 1, id="it fails while the second runs"),
        pytest.param("-----a|", "-#", 3, [(5, "a"), (6, "|")], 1, id="the second fails"),
        pytest.param("-f-----a|", "-b|", 3, [(4, "b"), (5, "|")], 1, id="facts are not a part"),
        pytest.param("-r-----a|", "-b|", 3, [(1, ""), (7, "a"), (8, "|")], 0, id="reasoning is"),
        pytest.param("------|", "----------b|", 3, [(6, "|")], 1, id="an empty answer wins"),
        pytest.param("---#", "-#", 1, [(3, Overloaded)], 1, id="all fail"),
        pytest.param("-a-#", "-b|", 3, [(1, "a"), (3, Overloaded)], 0, id="the chosen model may fail"),
        pytest.param("--a|", "-b|", 0, [(1, "b"), (2, "|")], 1, id="a race"),
        pytest.param("-#", "---b|", 0, [(3, "b"), (4, "|")], 1, id="a race is not won by failing"),
    ],
)
def test_hedge_takes_the_first_model_to_emit_content(a, b, after, expected, asked):
    """At the exact time."""
    reasoning = Chunk(parts=[ReasoningPart("hm")])
    first, second = marbles(a, values={**FACT, "r": reasoning}), marbles(b)
    assert expected == moments(hedge(first, second, after=after)("hi"))
    assert asked == len(second.requests)


def test_third_model_is_asked_when_the_second_is_slow_too():
    """Each model gets the same time."""
    llms = marbles("---------a|"), marbles("---------b|"), marbles("-c|")
    assert [(5, "c"), (6, "|")] == moments(hedge(*llms, after=2)("hi"))


async def test_losers_of_a_hedge_are_closed_at_once():
    """The server sees the loser's connection close while the winner still streams."""
    held = Chat().stream(["b"])
    with FakeServer(Reply([End.HANG])) as slow, FakeServer(Reply([*held[:2], End.HANG])) as fast:
        a, b = (rxllm.OpenAI("m", base_url=server.url, api_key="k") for server in (slow, fast))
        async with hedge(a, b, after=0.01).astream("hi") as answer:
            assert "b" == (await anext(answer)).text
            await slow.exchange().closed_soon()
            assert not fast.exchange().closed.is_set()


@pytest.mark.parametrize("wrong", [-1, "3", None, float("nan"), float("inf")])
def test_invalid_time_of_a_hedge_is_refused(wrong):
    """MisuseError is raised before any request is sent."""
    with pytest.raises(MisuseError, match="after must be a positive number"):
        hedge(marbles("a|"), marbles("b|"), after=wrong)


# ── laws of all combinators ──────────────────────────────────────────────────────────────────────────────────────

ALL = {
    "retry": lambda llm: retry(llm, 2),
    "fallback": lambda llm: fallback(llm, llm),
    "hedge": lambda llm: hedge(llm, llm, after=5),
    "limited": lambda llm: rxllm.limited(llm, rxllm.Limiter(concurrency=4)),
    "cached": lambda llm: rxllm.cached(llm, rxllm.MemoryStore(), name="it"),
    "route": lambda llm: route(lambda request: llm),
}
every = pytest.mark.parametrize("create_model", ALL.values(), ids=ALL)


class Tells(LLM):
    """A model that answers with its request."""

    async def chunks(self, request):
        """Emits the prompt and the temperature."""
        yield Chunk(f"{request.text} at {request.temperature}", usage=Usage(output_tokens=3))


@every
async def test_parameters_reach_the_models(create_model):
    """They travel in the request, however they were set; the parameters of the inner model are the defaults."""
    llm = create_model(Tells(parameters=rxllm.Parameters(temperature=1)))
    assert isinstance(llm, LLM)
    assert "hi at 1" == (await llm.ainvoke("hi")).text
    assert "hi at 0" == (await llm.ainvoke("hi", temperature=0)).text
    assert "hi at 0" == (await llm.bind(temperature=0).ainvoke("hi")).text
    assert Usage(output_tokens=3) == (await llm.ainvoke("hi")).usage


@every
def test_combinator_has_the_whole_surface(create_model):
    """Its result is a model, so every method works, also within a pipeline."""
    llm = create_model(Tells())
    assert ["x at None", "y at None"] == [answer.text for answer in llm.batch(["x", "y"])]
    assert "x at None" == "".join(map(str, llm.stream("x")))
    assert "x at None" == llm.generate(["x"]).generations[0][0].text
    assert "x at None" == rxllm.pipe(llm, rxllm.text()).invoke("x")
    assert "ab at None" == llm(rx.of("a", "b")).pipe(rxllm.message(), ops.map(str)).run()


@every
async def test_run_of_a_combinator_encloses_the_models_run(create_model):
    """It is a chain with the combinator's name."""
    events = [event async for event in create_model(Tells()).events("hi").pipe(rxllm.astream())]
    name = create_model(Tells()).how.name
    outer, inner = events[0].run, events[1].run
    assert (name, "chain", "hi") == (outer.name, outer.kind, events[0].input)
    assert ("Tells", "llm", (outer.id,)) == (inner.name, inner.kind, inner.parent_ids)
    assert ["Finished", "Finished"] == [type(event).__name__ for event in events[-2:]]
    assert isinstance(events[-1].output, Message)


@every
def test_virtual_time_reaches_the_models(create_model):
    """Everything within a combinator uses the subscriber's clock."""
    assert [(2, "a"), (600, "b"), (601, "|")] == moments(create_model(MarbleLLM("--a" + "-" * 597 + "b|"))("hi"))


@every
def test_disposal_ends_all_attempts(create_model):
    """Nothing is emitted afterwards, and no timer remains."""
    assert [(1, "a")] == moments(create_model(MarbleLLM("-a-b-c|"))("hi"), leave_at=2)


@every
async def test_disposal_closes_the_request(create_model):
    """The server sees the closed connection at once."""
    with FakeServer(Reply([Chat().stream(["a"])[1], End.HANG])) as server:
        async with create_model(rxllm.OpenAI("m", base_url=server.url, api_key="k")).astream("hi") as answer:
            await anext(answer)
        await server.exchange().closed_soon()


@pytest.mark.parametrize("make", [retry, fallback, lambda llm: hedge(llm, after=1)])
@pytest.mark.parametrize("wrong", [5, "gpt-5", None])
def test_value_that_is_no_model_is_refused(make, wrong):
    """MisuseError is raised before any request is sent."""
    with pytest.raises(MisuseError, match="takes models, pipelines and functions"):
        make(wrong)


def test_empty_list_of_models_is_refused():
    """A combinator needs at least one model."""
    for make in fallback, lambda: hedge(after=1):
        with pytest.raises(MisuseError, match="at least one model"):
            make()


def test_pipelines_and_functions_can_be_combined():
    """Their values need not be chunks."""
    calls = []

    def flaky(prompt):
        calls.append(prompt)
        return rx.throw(Interrupted("cut")) if len(calls) == 1 else rx.of(1, 2)

    again = retry(flaky, delay=lambda *_: 0.0)
    assert isinstance(again, rxllm.Pipeline)
    assert [1, 2] == list(again.stream("x"))
    either = fallback(rxllm.pipe(marbles("#"), rxllm.text()), rxllm.pipe(Tells(), rxllm.text()))
    assert "y at 0.5" == either.invoke("y", temperature=0.5)


async def test_route_without_a_model_errors():
    """`choose` raises, or returns anything but a model."""
    with pytest.raises(MisuseError, match="route's function must return a model, not int"):
        await route(lambda request: 5).ainvoke("hi")
    with pytest.raises(KeyError):
        await route(lambda request: {}["x"]).ainvoke("hi")


async def test_route_chooses_by_the_request():
    """By its text, or any other field."""
    llm = route(lambda request: marbles("s|") if request.max_tokens == 1 else Tells())
    assert ["s", "x at None"] == [(await llm.ainvoke("x", max_tokens=n)).text for n in (1, 2)]


@pytest.mark.parametrize("combine", [lambda f: retry(f), lambda f: fallback(f, f), lambda f: hedge(f, f, after=1)])
def test_first_facts_may_cause_the_next_item(combine):
    """A subscriber that reacts to the first facts gets every item, in order."""
    source, heard = rx.subject.Subject(), []

    def hear(chunk):
        heard.append(chunk)
        if len(heard) == 1:
            source.on_next(Chunk("more"))

    combine(lambda prompt: source)("x").subscribe(hear, scheduler=VirtualTimeScheduler())
    for chunk in (FACT["f"], Chunk("a"), Chunk("b")):
        source.on_next(chunk)
    assert [FACT["f"], Chunk("more"), Chunk("a"), Chunk("b")] == heard


def test_incomplete_tool_call_does_not_commit():
    """It is held back until its id is known. If its model is slow meanwhile, the next model is asked."""
    call = Chat().stream([])[0].replace(b'"content": ""', b'"tool_calls":[{"index":0,"function":{"name":"f"}}]')
    assert b"tool_calls" in call
    with FakeServer(Reply([call, End.HANG])) as silent, FakeServer(Reply(Chat().stream(["Hello"]))) as other:
        late = rxllm.OpenAI("m", base_url=silent.url, timeout=rxllm.Timeouts(first_chunk=0.05))
        assert "Hello" == fallback(late, rxllm.OpenAI("m", base_url=other.url)).invoke("hi").text


@pytest.mark.parametrize("stream", [None, False])
@pytest.mark.parametrize("client", [None, "own"])
async def test_first_chunk_limit_covers_all_attempts_and_waits(stream, client):
    """A wait that would pass the limit is not started, and the server's error comes at once."""
    refusal = Reply.json({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "50"})
    with FakeServer(refusal) as server:
        own = {"client": lambda: httpx.AsyncClient(trust_env=False)} if client else {}
        models = [
            rxllm.OpenAI("m", base_url=server.url, api_key="k", timeout=30, **own),
            rxllm.retry(rxllm.OpenAI("m", base_url=server.url, api_key="k", **own), timeout=30),
        ]
        for number, model in enumerate(models, 1):
            began = time.monotonic()
            with pytest.raises(rxllm.RateLimited, match="slow down"):
                await model.ainvoke("x", stream=stream)
            assert 30 > time.monotonic() - began
            assert number == len(server.requests)


def test_limit_on_all_attempts_ends_a_later_attempt():
    """At the exact time; the error has the request and the earlier failure."""
    llm = rxllm.retry(MarbleLLM(["--#", "---------a|"]), delay=lambda error, attempt: 3, timeout=8)
    assert [(8, Timeout)] == moments(llm("x"))
    llm = rxllm.retry(MarbleLLM(["--#", "--a-----b|"]), delay=lambda error, attempt: 3, timeout=8)
    assert [(7, "a"), (13, "b"), (14, "|")] == moments(llm("x"))
    llm = rxllm.retry(MarbleLLM(["--#", "--a|"]), delay=lambda error, attempt: 6, timeout=8)
    assert [(2, TransportError)] == moments(llm("x"))
    llm = rxllm.retry(MarbleLLM("-----------a|"), timeout=8)
    assert [(8, Timeout)] == moments(llm("x"))
    errors, scheduler = [], VirtualTimeScheduler()
    model = MarbleLLM(["#", "----|"])
    llm = retried(lambda: model("x"), 2, delay=lambda error, attempt: 1, within=3)
    llm.subscribe(on_error=errors.append, scheduler=scheduler)
    scheduler.start()
    assert [(Timeout, True)] == [(type(error), "attempt failed" in error.__notes__[0]) for error in errors]
