"""`words`, `lines` and `sentences`: whole pieces and no lost text, however the stream is split into chunks."""

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
    """Runs the test once for each operator."""
    return pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())(test)


def pieces(operator, items):
    """The pieces that the operator emits for these items."""
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
def test_text_is_cut_at_the_right_places(operator, text, expected):
    """As one chunk and as single characters, as Chunks and as strings."""
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
    """A text, and the same text as a list of pieces, some of them empty."""
    items = draw(st.lists(ALPHABET, max_size=30))
    text = "".join(items)
    if draw(st.booleans()):
        return text, items
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=len(text) + 2)))
    return text, [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@every
def test_split_of_the_input_does_not_matter(operator):
    """The joined pieces are the text, and every split of the input gives the same pieces."""

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
def test_word_ends_with_its_whitespace(given):
    """Only the first word may begin with whitespace, and it contains a word if the text does."""
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
def test_piece_is_emitted_at_the_character_that_completes_it(operator, chunks, expected):
    """The rest is emitted before the completion or the error."""
    for end in on_completed(300), on_error(300, FAILURE):
        scheduler = TestScheduler()
        events = [on_next(201 + number, Chunk(chunk)) for number, chunk in enumerate(chunks)]
        source = scheduler.create_hot_observable(*events, end)
        heard = scheduler.start(lambda source=source: source.pipe(operator())).messages
        assert [*(on_next(*each) for each in expected), end] == heard


@every
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", " ", ". ", "\n\n"], ids=repr)
def test_chunks_that_end_at_a_boundary_are_not_searched_twice(operator, end):
    """The operator emits each such chunk, as a piece or in a piece."""
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
    """Also whitespace at the start of a chunk, after a word that has whitespace already."""
    assert expected == pieces(words, chunks)


LEADING = st.lists(st.sampled_from([*"aé水「ї 　\x1c\x85\n", " a"]), max_size=4).map("".join)


@given(st.lists(LEADING, max_size=8))
def test_fast_path_of_words_gives_the_same_words(chunks):
    """A chunk of one word is cut without a pattern. Single characters and the whole text give the expected words."""
    text = "".join(chunks)
    expected = [each for each in re.split(r"(?<=\s)(?=\S)|(?<=[^\s「])(?=[「水])", text) if each]
    if len(expected) > 1 and expected[0].isspace():
        expected[:2] = ["".join(expected[:2])]
    assert expected == pieces(words, chunks) == pieces(words, [text]) == pieces(words, list(text))


@every
def test_chunks_without_text_are_left_out(operator):
    """Usage and reasoning are not text."""
    chunks = [Chunk("Hi"), Chunk(usage=Usage(output_tokens=1)), Chunk(parts=[rxllm.ReasoningPart("Hm. ")]), Chunk(".")]
    assert ["Hi."] == pieces(operator, chunks)


@every
def test_reset_errors_the_stream(operator):
    """As for `text`: emitted text cannot be taken back."""
    source, heard, errors = Subject(), [], []
    source.pipe(operator()).subscribe(heard.append, errors.append)
    source.on_next(Chunk("Hel"))
    source.on_next(Chunk("Hi", reset=True))
    source.on_next(Chunk("lo"))
    assert ["Hel"] == heard
    assert [MisuseError] == [type(error) for error in errors]
    assert [] == source.observers


@every
def test_value_without_text_errors_the_stream(operator):
    """The error is a MisuseError, not an AttributeError."""
    errors = []
    rx.from_([5]).pipe(operator()).subscribe(on_error=errors.append)
    assert [MisuseError] == [type(error) for error in errors]


@every
@pytest.mark.parametrize(
    "text", ["a", " ", ".", "\n", "\r", ". ", "a.", "a ", "水", ")", "A. b", "1. "], ids=lambda text: repr(text)
)
def test_time_is_linear_in_the_text(operator, text):
    """Eight times the text takes about eight times as long. A new search of all text at each chunk takes 64 times."""

    def seconds(count):
        chunks = list(text * (count // len(text)))
        begun = time.process_time()
        pieces(operator, chunks)
        pieces(operator, ["".join(chunks)])
        return time.process_time() - begun

    small = min(seconds(4_000) for _ in range(3))
    assert any(30 * small > seconds(32_000) for _ in range(4)), "a busy machine may be slow once"


@pytest.mark.parametrize("module", [*CUTTING], ids=lambda module: module.__name__)
def test_import_compiles_no_pattern(module):
    """Compiling would take longer than the rest of the import."""
    assert [] == [name for name, value in vars(module).items() if isinstance(value, re.Pattern)]


def test_pipeline_emits_whole_sentences():
    """After `text`, or directly after the model."""

    class Speaker(rxllm.LLM):
        async def chunks(self, request):
            for letter in "One. Two. Three.":
                yield letter

    expected = ["One. ", "Two. ", "Three."]
    assert expected == list(rxllm.pipe(Speaker(), sentences()).stream("x"))
    assert expected == list(rxllm.pipe(Speaker(), rxllm.text(), sentences()).stream("x"))
