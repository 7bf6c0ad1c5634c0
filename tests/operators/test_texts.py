"""`words`, `lines`, `sentences`: whole pieces, nothing lost, however the stream was chopped."""

import io
import re
import time

import pytest
import reactivex as rx
from hypothesis import given
from hypothesis import strategies as st
from reactivex.subject import Subject
from reactivex.testing import ReactiveTest, TestScheduler

import rxllm
from rxllm import Chunk, MisuseError, Usage, lines, sentences, words
from rxllm.operators import rewriting
from rxllm.operators import sentences as cutting_sentences
from rxllm.operators import words as cutting_words
from rxllm.providers import embedded

on_next, on_error, on_completed = ReactiveTest.on_next, ReactiveTest.on_error, ReactiveTest.on_completed
FAILURE = ValueError("no")
OPERATORS = {"words": words, "lines": lines, "sentences": sentences}


CUTTING = (cutting_words, cutting_sentences, rewriting, embedded)


def every(test):
    """The test, once for each."""
    return pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())(test)


def pieces(operator, items):
    """What comes of these."""
    heard, errors = [], []
    rx.from_(items).pipe(operator()).subscribe(heard.append, errors.append)
    assert [] == errors
    return heard


WORDS = {
    "Hello world": ["Hello ", "world"],
    " \n Hello  world \n": [" \n Hello  ", "world \n"],
    "Hello,\u00a0world": ["Hello,\u00a0", "world"],
    "   ": ["   "],
    "": [],
    "don't stop-gap": ["don't ", "stop-gap"],
    "東京、「大阪」に abc": ["東", "京、", "「大", "阪」", "に ", "abc"],
}
LINES = {
    "a\nb": ["a\n", "b"],
    "a\r\nb\rc\n": ["a\r\n", "b\r", "c\n"],
    "\n\n a": ["\n", "\n", " a"],
    "\r\r\n\r": ["\r", "\r\n", "\r"],
    "a\u2028b\x0bc": ["a\u2028b\x0bc"],
    "": [],
}
SENTENCES = {
    "He came. She left! Why? Ah… Well.": ["He came. ", "She left! ", "Why? ", "Ah… ", "Well."],
    "Mr. Smith and Dr. Jones met J. S. Bach. He sang.": ["Mr. Smith and Dr. Jones met J. S. Bach. ", "He sang."],
    "Fruit, e.g. Apples. And 3.5 or No. 5. No. Yes.": ["Fruit, e.g. Apples. ", "And 3.5 or No. 5. ", "No. ", "Yes."],
    "Das gilt z. B. Montags, bzw. Dienstags. Gut.": ["Das gilt z. B. Montags, bzw. Dienstags. ", "Gut."],
    "It was 2019. Then etc. and so on. End": ["It was 2019. ", "Then etc. and so on. ", "End"],
    '"Stop!" she said. "Why?" He left. (Yes.) **No.** So.': [
        '"Stop!" she said. ',
        '"Why?" ',
        "He left. ",
        "(Yes.) ",
        "**No.** ",
        "So.",
    ],
    "1. First\n2. Second. Third\n- one\n- two": ["1. First\n", "2. Second. ", "Third\n", "- one\n", "- two"],
    "A title\n\nIts text\nruns on": ["A title\n\n", "Its text\nruns on"],
    "A title\r\n \r\nText": ["A title\r\n \r\n", "Text"],
    "今日は。元気？「はい。」と言った。次": ["今日は。", "元気？", "「はい。」と言った。", "次"],
    "他说：“好。”然后走了！！再见": ["他说：“好。”", "然后走了！！", "再见"],
    "¿Qué? ¡Sí! Vale.": ["¿Qué? ", "¡Sí! ", "Vale."],
    "यह ठीक है। फिर": ["यह ठीक है। ", "फिर"],
    "Wait... what? Well... Yes.": ["Wait... what? ", "Well... ", "Yes."],
    "  \n Hi. There": ["  \n Hi. ", "There"],
    "www.example.com/a.b?c=d! Go": ["www.example.com/a.b?c=d! ", "Go"],
    "One. " + " " * 70 + "Two": ["One. " + " " * 70 + "Two"],  # too far away to be seen, however it is chopped
    "": [],
}


@pytest.mark.parametrize(
    ("operator", "text", "expected"),
    [
        *((words, text, expected) for text, expected in WORDS.items()),
        *((lines, text, expected) for text, expected in LINES.items()),
        *((sentences, text, expected) for text, expected in SENTENCES.items()),
    ],
)
def test_where_pieces_end(operator, text, expected):
    """At once and in single characters, chunks or strings."""
    assert expected == pieces(operator, [text])
    assert expected == pieces(operator, list(text))
    assert expected == pieces(operator, [Chunk(letter) for letter in text])


ALPHABET = st.sampled_from(
    [
        *"aB1 \n\r.!?…。？」\"')*-、水と",
        "  ",
        "\r\n",
        "\n\n",
        "Mr.",
        "z. B.",
        "No. ",
        "etc. ",
        ". ",
        ". A",
        "word ",
        " a",
        " " * 70,
    ]
)


@st.composite
def chopped(draw):
    """A text and the pieces that it comes in, some of them empty."""
    items = draw(st.lists(ALPHABET, max_size=30))
    text = "".join(items)
    if draw(st.booleans()):
        return text, items
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=len(text) + 2)))
    return text, [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@every
def test_chopping_says_nothing(operator):
    """Joined, the pieces are the text, and they are the same for all choppings."""

    @given(chopped())
    def law(given):
        text, chunks = given
        whole = pieces(operator, [text])
        assert text == "".join(whole)
        assert whole == pieces(operator, chunks) == pieces(operator, map(Chunk, chunks)) == pieces(operator, text)
        assert all(whole)

    law()


@given(chopped())
def test_lines_are_those_of_the_universal_line_ends(given):
    r"""Cut after ``\n``, ``\r\n`` and ``\r``, and nowhere else."""
    text, chunks = given
    assert io.StringIO(text, newline="").readlines() == pieces(lines, chunks)


@given(chopped())
def test_a_word_is_whitespace_behind_something(given):
    """Only the first may begin with whitespace, and it has a word if any has."""
    heard = pieces(words, given[1])
    assert all(not piece[0].isspace() for piece in heard[1:])
    assert len(heard) < 2 or not heard[0].isspace()


@pytest.mark.parametrize(
    ("operator", "chunks", "expected"),
    [
        (words, ["Hel", "lo", " ", "wor", "ld"], [(204, "Hello "), (300, "world")]),
        (lines, ["a\n", "b\r", "\n", "c\r", "d"], [(201, "a\n"), (203, "b\r\n"), (205, "c\r"), (300, "d")]),
        (sentences, ["Hi", ".", " ", " ", "So", "."], [(205, "Hi.  "), (300, "So.")]),
        (sentences, ["。", "」", "次"], [(203, "。」"), (300, "次")]),
    ],
)
def test_a_piece_comes_with_the_character_that_completes_it(operator, chunks, expected):
    """Not later; the rest comes before the end, of whichever kind."""
    for end in on_completed(300), on_error(300, FAILURE):
        scheduler = TestScheduler()
        events = [on_next(201 + number, Chunk(chunk)) for number, chunk in enumerate(chunks)]
        source = scheduler.create_hot_observable(*events, end)
        heard = scheduler.start(lambda source=source: source.pipe(operator())).messages
        assert [*(on_next(*each) for each in expected), end] == heard


@every
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", " ", ". ", "\n\n"], ids=repr)
def test_chunks_that_end_where_a_piece_may_end(operator, end):
    """The end of the text so far is no place to look twice: they come to an end, each as a piece or a part of one."""
    text = f"a{end}B{end}"
    assert pieces(operator, [text]) == pieces(operator, [f"a{end}", f"B{end}"])
    assert text == "".join(pieces(operator, [text]))
    assert [f"a{end}", f"B{end}"] == pieces(lines, [f"a{end}", f"B{end}"]) or end in (" ", ". ", "\n\n")


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (["x ", "a ", " b"], ["x ", "a  ", "b"]),
        (["x", " a ", " b", "  c"], ["x ", "a  ", "b  ", "c"]),
        (["x ", "a\n", "\tb", "c"], ["x ", "a\n\t", "bc"]),
    ],
)
def test_whitespace_belongs_to_the_word_before(chunks, expected):
    """Also what comes at the beginning of a chunk that is a word, where the word before has whitespace already."""
    assert expected == pieces(words, chunks)


LEADING = st.lists(st.sampled_from([*"aé水「ї 　\x1c\x85\n", " a"]), max_size=4).map("".join)


@given(st.lists(LEADING, max_size=8))
def test_words_are_found_alike_by_their_short_cut(chunks):
    """A chunk that is one word is cut without a pattern; single characters and the whole text tell what is right."""
    text = "".join(chunks)
    expected = [each for each in re.split(r"(?<=\s)(?=\S)|(?<=[^\s「])(?=[「水])", text) if each]
    if len(expected) > 1 and expected[0].isspace():
        expected[:2] = ["".join(expected[:2])]
    assert expected == pieces(words, chunks) == pieces(words, [text]) == pieces(words, list(text))


@every
def test_chunks_without_text_are_left_out(operator):
    """Usage and reasoning are no words."""
    chunks = [Chunk("Hi"), Chunk(usage=Usage(output_tokens=1)), Chunk(parts=[rxllm.ReasoningPart("Hm. ")]), Chunk(".")]
    assert ["Hi."] == pieces(operator, chunks)


@every
def test_what_is_taken_back_is_an_error(operator):
    """As of `text`: what was said can't be unsaid."""
    source, heard, errors = Subject(), [], []
    source.pipe(operator()).subscribe(heard.append, errors.append)
    source.on_next(Chunk("Hel"))
    source.on_next(Chunk("Hi", reset=True))
    source.on_next(Chunk("lo"))
    assert ["Hel"] == heard
    assert [MisuseError] == [type(error) for error in errors]
    assert [] == source.observers


@every
def test_what_is_no_text_is_an_error(operator):
    """A sentence, no attribute that is missing."""
    errors = []
    rx.from_([5]).pipe(operator()).subscribe(on_error=errors.append)
    assert [MisuseError] == [type(error) for error in errors]


@every
@pytest.mark.parametrize(
    "text", ["a", " ", ".", "\n", "\r", ". ", "a.", "a ", "水", ")", "A. b", "1. "], ids=lambda text: repr(text)
)
def test_time_is_linear(operator, text):
    """Eight times the text takes about eight times as long: read anew at every chunk, it would take 64 times."""

    def seconds(count):
        chunks = list(text * (count // len(text)))
        begun = time.process_time()
        pieces(operator, chunks)
        pieces(operator, ["".join(chunks)])
        return time.process_time() - begun

    small = min(seconds(4_000) for _ in range(3))
    assert any(30 * small > seconds(32_000) for _ in range(4)), "a busy machine may be slow once"


@pytest.mark.parametrize("module", [*CUTTING], ids=lambda module: module.__name__)
def test_no_pattern_is_compiled_by_importing(module):
    """It would take longer than all the rest of the import, for programs that never cut anything."""
    assert [] == [name for name, value in vars(module).items() if isinstance(value, re.Pattern)]


def test_a_model_in_a_pipeline():
    """Behind `text` or without it, an answer comes in whole sentences."""

    class Speaker(rxllm.LLM):
        async def chunks(self, request):
            for letter in "One. Two. Three.":
                yield letter

    expected = ["One. ", "Two. ", "Three."]
    assert expected == list(rxllm.pipe(Speaker(), sentences()).stream("x"))
    assert expected == list(rxllm.pipe(Speaker(), rxllm.text(), sentences()).stream("x"))
