"""Mermaid itself draws the graphs of models and pipelines, in Chromium."""

from pathlib import Path

import pytest
from reactivex import operators as ops

import rxllm

MERMAID = Path(__file__).parent / "node_modules" / "mermaid.min.js"
LLM = rxllm.Embedded(seed=1)
HOSTILE = (
    'a"]; click n1 "javascript:alert(1)"',
    "%%{init: {'securityLevel': 'loose'}}%%",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "`code` **bold** _it_ &lt; $$x^2$$",
    "1. list",
    "- bullet",
    "# heading",
    r"C:\new\table",
    "style: fill #35;",
    "end",
    "日本語 Ελλάδα é",
)


def weather(city: str) -> str:
    """Forecast the weather."""
    return city


@pytest.fixture
def draw(visit, tmp_path):
    """Return a function that draws a graph: it returns the texts of boxes and frames, of arrows, and of markup."""
    if not MERMAID.exists():
        pytest.skip("tests/browser/install.sh has not installed Mermaid")
    (tmp_path / "page.html").write_text(
        f'<!doctype html><meta charset=utf-8><div id=drawing></div><script src="{MERMAID.as_uri()}"></script>'
    )
    page = visit((tmp_path / "page.html").as_uri())

    def texts(selector):
        return [each.strip() for each in page.locator(selector).all_text_contents()]

    def drawn(graph):
        page.evaluate(
            """async text => {
                mermaid.initialize({startOnLoad: false, securityLevel: "strict"});
                document.getElementById("drawing").innerHTML = (await mermaid.render("graph", text)).svg;
            }""",
            graph.mermaid(),
        )
        return (
            texts("#drawing .nodeLabel"),
            texts("#drawing .edgeLabel > :not(:has(*))"),
            texts("#drawing :is(a, script, img, b, strong, em, code, li, h1)"),
        )

    return drawn


def labels(graph):
    """Yield the label of each box and frame, and the name of each branch."""
    if graph.label != "pipe":
        yield graph.label
    for name, part in graph.parts:
        yield from filter(None, [name])
        yield from labels(part)


@pytest.mark.parametrize(
    "stage",
    [
        LLM,
        rxllm.pipe(weather, LLM, rxllm.text(), ops.filter(bool)),
        rxllm.fallback(rxllm.retry(LLM, 5), rxllm.hedge(LLM, LLM, after=0.3)),
        rxllm.remember(rxllm.agent(LLM, weather, {"type": "web_search"}), rxllm.Conversation()),
        rxllm.pipe(rxllm.assign(context=rxllm.tool(weather)), ops.flat_map(rxllm.pipe(LLM, rxllm.text()))),
        rxllm.parallel(one=rxllm.pipe(LLM, rxllm.text()), two=rxllm.fallback(rxllm.pipe(LLM), rxllm.pipe(LLM))),
    ],
    ids=lambda stage: repr(stage)[:30],
)
def test_mermaid_draws_the_graph(draw, stage):
    """Every label is there, and Mermaid reports no error."""
    graph = stage.graph()
    boxes, arrows, _ = draw(graph)
    shown = {f"{label[:59]}…" if len(label) > 60 else label for label in labels(graph)}
    assert {*shown, "input", "output"} == {*boxes, *filter(None, arrows)}


@pytest.mark.parametrize("label", HOSTILE)
def test_hostile_labels_stay_text(draw, label):
    """A label with directives, HTML, Markdown or the syntax of Mermaid is shown as it is, in a box and at an arrow."""
    graph = rxllm.Graph("a frame", "parallel", ((label, rxllm.Graph(label, "model")),))
    boxes, arrows, marked_up = draw(graph)
    assert sorted(["input", "output", "a frame", label]) == sorted(boxes)
    assert label in arrows
    assert [] == marked_up
