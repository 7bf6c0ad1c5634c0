"""The marble diagrams are true: the docstrings and the pages show what the operators do on virtual time."""

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import rxllm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
try:
    import marbles
finally:
    sys.path.pop(0)

RUNS = [pytest.param(diagram, id=diagram.operator.__name__) for diagram in marbles.DIAGRAMS]


@pytest.mark.parametrize("diagram", RUNS)
def test_docstring_shows_what_the_operator_does(diagram):
    """Each item of the docstring's diagram stands at the second at which the operator emits it."""
    assert marbles.run(diagram).lines() == marbles.lines_of(diagram.operator)


@pytest.mark.parametrize("diagram", RUNS)
def test_picture_shows_what_the_operator_does(diagram):
    """The committed picture is the one that docs/marbles.py draws now, and it fits into a page."""
    run = marbles.run(diagram)
    picture = run.svg()
    assert picture == run.file.read_text("utf-8"), "run docs/marbles.py"
    root = ET.fromstring(picture)  # noqa: S314  (written by us)
    assert 800 >= int(root.get("width"))
    assert run.description() == root.get("aria-label")


@pytest.mark.parametrize("diagram", RUNS)
def test_a_page_shows_the_picture_and_says_what_is_on_it(diagram):
    """One line of the page shows the picture. Its alternative text has each item with its time."""
    run = marbles.run(diagram)
    assert [run.image()] == [
        line
        for page in run.file.parents[1].glob("*.md")
        for line in page.read_text("utf-8").splitlines()
        if line.endswith(f"](marbles/{run.name}.svg)")
    ]


def test_every_operator_has_a_picture():
    """All but `stage`, which changes nothing in a stream, and `job`, which writes a file."""
    public = (getattr(rxllm, name) for name in rxllm.__all__)
    operators = {each.__name__ for each in public if getattr(each, "makes_operator", False) is True}
    drawn = {each.operator.__name__ for each in marbles.DIAGRAMS}
    assert operators - {"job", "stage"} <= drawn
    assert drawn == {path.stem for path in marbles.DOCS.glob("*/marbles/*")}


def test_an_untrue_docstring_is_found():
    """The comparison sees an item one second too early, and an end one second too late."""

    def words():
        """Emit words.

        ::

            -Hel-lo wor-ld, this-|
            words()
            ----Hello --world, --this-|
        """

    run = marbles.run(marbles.Diagram(words))
    assert "-----Hello -world, --this|" == run.lines()[-1] != marbles.lines_of(words)[-1]


def test_a_disposed_source_and_an_error_are_drawn():
    """What the operator no longer receives is dashed; an error has a cross instead of a bar."""
    [diagram] = [each for each in marbles.DIAGRAMS if each.operator is rxllm.idle_timeout]
    run = marbles.run(diagram)
    assert 6.0 == run.sources[""][0].disposed
    picture = run.svg()
    assert (
        1 == picture.count('class="in lost"') == picture.count('class="failed"') == picture.count('class="line gone"')
    )


def test_models_of_a_combinator_are_drawn_as_they_ran():
    """Each request is a row. The loser of a hedge is disposed when the winner emits."""
    [diagram] = [each for each in marbles.DIAGRAMS if each.operator is rxllm.hedge]
    run = marbles.run(diagram)
    [loser], [winner] = run.sources["a"], run.sources["b"]
    assert (0, 6, True) == (loser.start, loser.end, loser.cut)
    assert (3, 6, False) == (winner.start, winner.marbles[0].at, winner.cut)
    assert "a: disposed at 6; b: from 3 on, “Hel” at 6" in run.description()
