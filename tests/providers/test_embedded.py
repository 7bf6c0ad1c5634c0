"""The embedded model: a toy, but one that keeps the contract of a provider to the letter."""

import asyncio
import os
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxllm.providers.embedded import Embedded, _draw
from rxllm.values.chunk import Chunk, join
from rxllm.values.message import Message
from rxllm.values.parameters import Parameters
from rxllm.values.parts import FilePart, TextPart
from rxllm.values.request import Prompt, Request

WATER = "Write me a 1 verse song about sparkling water."


async def chunks_of(prompt: Prompt, **parameters) -> list[Chunk]:
    """All chunks of an answer."""
    request = Request.ask(prompt, Parameters(**parameters))
    return [chunk async for chunk in Embedded().chunks(request)]


async def answer_of(prompt: Prompt, **parameters) -> Message:
    """The whole answer."""
    return join(await chunks_of(prompt, **parameters)).message()


async def text_of(prompt: Prompt, **parameters) -> str:
    """The text of an answer."""
    return (await answer_of(prompt, **parameters)).text


async def tokens_of(prompt: Prompt, **parameters) -> list[str]:
    """The texts of an answer's chunks, empty ones left out."""
    return [chunk.text for chunk in await chunks_of(prompt, **parameters) if chunk.text]


@pytest.mark.parametrize("seed", [0, 1, 42, -7])
async def test_the_same_seed_gives_the_same_answer(seed):
    """A seed decides everything: chunks, id and usage."""
    assert await chunks_of(WATER, seed=seed) == await chunks_of(WATER, seed=seed)


async def test_different_seeds_give_different_answers():
    """Most of twenty seeds give an answer of their own, though all begin in a few ways."""
    texts = {await text_of(WATER, seed=seed) for seed in range(20)}
    assert len(texts) > 10


async def test_without_a_seed_answers_differ():
    """No two ids are equal, and texts seldom are."""
    answers = [await answer_of(WATER) for _ in range(20)]
    assert len(answers) == len({answer.id for answer in answers})
    assert len({answer.text for answer in answers}) > 1


def test_the_answer_does_not_depend_on_the_process():
    """A seed gives the same answer in another process, whatever its hash seed, and importing trains nothing."""
    program = (
        "import asyncio; from rxllm.providers import embedded; from rxllm.values.request import Request\n"
        "assert embedded._model.cache_info().currsize == 0\n"
        "async def main():\n"
        f"    request = Request(prompt={WATER!r}, seed=3)\n"
        "    print(ascii(''.join([chunk.text async for chunk in embedded.Embedded().chunks(request)])), end='')\n"
        "asyncio.run(main())"
    )
    expected = ascii(asyncio.run(text_of(WATER, seed=3)))
    for hash_seed in "1", "2":
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (expected, "") == (run.stdout, run.stderr)


async def test_temperature_zero_always_takes_the_likeliest():
    """Temperature 0 gives one text, whatever the seed, and so does a choice of one."""
    expected = await text_of(WATER, temperature=0)
    assert {expected} == {await text_of(WATER, temperature=0, seed=seed) for seed in range(5)}
    assert expected == await text_of(WATER, top_k=1, temperature=2)
    assert expected == await text_of(WATER, top_p=0, temperature=2)
    assert await text_of(WATER, temperature=1e-300)


async def test_top_p_of_one_and_top_k_of_zero_leave_all_choices():
    """Neither changes what a seed gives."""
    assert await text_of(WATER, seed=5) == await text_of(WATER, seed=5, top_p=1, top_k=0)


async def test_a_narrow_choice_gives_fewer_answers():
    """top_k and top_p cut the unlikely: forty seeds give fewer beginnings with them than without."""
    seeds = range(40)
    free = {await text_of(WATER, max_tokens=3, temperature=2, seed=seed) for seed in seeds}
    for narrow in {"top_k": 2}, {"top_p": 0.1}:
        assert len(free) > len(
            {await text_of(WATER, max_tokens=3, temperature=2, seed=seed, **narrow) for seed in seeds}
        )


@pytest.mark.parametrize("limit", [1, 2, 7, 12])
async def test_max_tokens_is_exact(limit):
    """A cut answer has exactly that many tokens, is a beginning of the whole one, and has the finish reason length."""
    whole = await tokens_of(WATER, seed=2)
    cut = await chunks_of(WATER, seed=2, max_tokens=limit)
    assert whole[:limit] == [chunk.text for chunk in cut if chunk.text]
    assert {"length"} == {cut[-1].finish_reason, cut[-1].raw_finish_reason}
    assert limit == cut[-1].usage.output_tokens


async def test_an_answer_is_at_most_128_tokens_unless_asked():
    """That is the default limit; most answers end before it."""
    answers = [await answer_of(WATER, seed=seed, temperature=1) for seed in range(60)]
    assert max(answer.usage.output_tokens for answer in answers) <= 128
    assert sum(answer.finish_reason == "stop" for answer in answers) > 50


async def test_usage_counts_the_tokens():
    """Output tokens are the emitted pieces; input tokens are counted in the same way, without files and spaces."""
    words_and_marks = ["Two", " fish", ",", "\n", "please", "!"]
    chunks = await chunks_of("".join(words_and_marks), seed=1)
    usage = chunks[-1].usage
    assert len(words_and_marks) == usage.input_tokens
    assert sum(1 for chunk in chunks if chunk.text) == usage.output_tokens
    assert not usage.estimated


async def test_a_token_is_a_word_a_mark_or_the_end_of_a_line():
    """Words bring the space before them; the tokens joined are the answer."""
    expected = ["Sparkling", " water", ",", " sing", " in", " the"]
    tokens = await tokens_of(WATER, temperature=0, max_tokens=6)
    assert expected == tokens
    assert "".join(tokens) == await text_of(WATER, temperature=0, max_tokens=6)


async def test_first_chunk_has_model_and_id_and_the_last_the_finish_reason():
    """Each fact comes once; the usage comes last."""
    first, *middle, last = await chunks_of(WATER, seed=1)
    assert first.text
    assert f"{first.model}-{int(first.id[-16:], 16):016x}" == first.id
    assert {(None, None, None)} == {(chunk.model, chunk.finish_reason, chunk.usage) for chunk in middle}
    assert {"stop"} == {last.finish_reason, last.raw_finish_reason}


async def test_a_whole_answer_is_one_chunk_and_the_same():
    """stream=False gives the sum of the chunks, at once."""
    whole = [chunk async for chunk in Embedded(seed=4).astream(WATER, stream=False)]
    assert [join(await chunks_of(WATER, seed=4))] == whole


async def test_every_stop_sequence_ends_the_answer_before_it():
    """For each substring of an answer, the answer ends just before its first occurrence, wherever tokens end."""
    expected = ("stop", "stop_sequence", "embedded")
    text = await text_of(WATER, seed=1)
    for start in range(len(text)):
        for size in 1, 2, 5, 11, 30:
            stop = text[start : start + size]
            answer = await answer_of(WATER, seed=1, stop_sequences=["never in it", stop])
            assert text[: text.index(stop)] == answer.text
            assert expected == (answer.finish_reason, answer.raw_finish_reason, answer.model)


@given(st.lists(st.text("aeghilnrst ,.\n", min_size=1, max_size=4), min_size=1, max_size=3), st.integers(0, 50))
async def test_the_text_never_contains_a_stop_sequence(stop_sequences, seed):
    """No chunk shows any of it, and without one in it the answer is whole."""
    whole = await text_of(WATER, seed=seed)
    text = await text_of(WATER, seed=seed, stop_sequences=stop_sequences)
    assert not any(stop in text for stop in stop_sequences)
    assert whole.startswith(text)
    if not any(stop in whole for stop in stop_sequences):
        assert whole == text


async def test_the_stop_sequence_that_begins_first_ends_the_answer():
    """Although another one, within it, is complete earlier."""
    text = await text_of(WATER, seed=1)
    around = text[8:40]
    inside = next(text[at : at + 3] for at in range(9, 30) if text.index(text[at : at + 3]) == at)
    assert text[:8] == await text_of(WATER, seed=1, stop_sequences=[inside, around])
    assert text[: text.index(inside)] == await text_of(WATER, seed=1, stop_sequences=[inside, around + "#"])


async def test_held_text_is_emitted_when_no_stop_sequence_follows():
    """At the end of the answer, or at its limit."""
    whole = await text_of(WATER, seed=1)
    cut = await text_of(WATER, seed=1, max_tokens=5)
    assert whole == await text_of(WATER, seed=1, stop_sequences=[whole[-6:] + "and more"])
    assert cut == await text_of(WATER, seed=1, max_tokens=5, stop_sequences=[cut[-3:] + "#"])


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        (WATER, "water"),
        ("write me a 1 verse song about goldfish on the moon", "moon"),
        ("Tell me a joke about a wall.", "wall"),
        ("What is Tea?", "tea"),
        ("What color is the sky?", "colour"),
    ],
)
async def test_the_answer_is_about_the_prompt(prompt, word):
    """Most seeds give an answer that mentions the topic."""
    texts = [await text_of(prompt, seed=seed) for seed in range(50)]
    assert sum(word in text.lower() for text in texts) > 25


@pytest.mark.parametrize("prompt", ["", "qwertz", "???", "鱼", "what is it about"])
async def test_any_prompt_gets_an_answer(prompt):
    """A prompt without a known word is answered, too."""
    answer = await answer_of(prompt, seed=1)
    assert answer.text
    assert {"stop"} == {answer.finish_reason}


async def test_the_topic_is_the_last_message_of_the_user():
    """Other messages and files change the count of input tokens and nothing else."""
    conversation = [
        Message("system", "You love cities."),
        Message("user", "A haiku about rain?"),
        Message("assistant", "Rain on the roof."),
        Message("user", (TextPart(WATER), FilePart("image/png", data=b"fish"))),
    ]
    assert await text_of(WATER, seed=1) == await text_of(conversation, seed=1)
    assert await text_of(WATER, seed=1) == await text_of([*conversation, ("assistant", "Tea.")], seed=1)
    assert await text_of("rain", seed=1) == await text_of([("assistant", "rain")], seed=1)


@pytest.mark.parametrize(("temperature", "share"), [(0.5, 0.8), (1, 2 / 3), (2, 0.586)])
def test_temperature_is_the_exponent_of_the_chances(temperature, share):
    """A token that scores twice as much comes 2 ** (1 / temperature) times as often."""
    dice = random.Random(1)
    request = Request.ask("", Parameters(temperature=temperature))
    drawn = [_draw({"a": 2.0, "b": 1.0}, request, dice) for _ in range(10_000)]
    assert pytest.approx(share, abs=0.02) == drawn.count("a") / len(drawn)
