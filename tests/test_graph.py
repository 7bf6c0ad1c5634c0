"""Graphs of models and pipelines: as lines, and as Mermaid flowcharts."""

import re
from itertools import pairwise

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from reactivex import operators as ops

import rxllm
from rxllm import LLM, Graph, Limiter, MemoryStore, agent, cached, fallback, hedge, limited, parallel, pipe, retry, text

BOX = re.compile(r' *(n\d+)(?:\[|\(\[|\[\[|\(\()"([^"]*)"(?:\]|\]\)|\]\]|\)\))')
FRAME = re.compile(r' *subgraph (n\d+)\["([^"]*)"\]')
ARROW = re.compile(r'  (n\d+) (-->|-\.->|<-\.->)(?:\|"([^"]*)"\|)? (n\d+)')


class A(LLM):
    """A model."""


class B(LLM):
    """Another model."""


def outline(topic):
    """Return a prompt."""
    return topic


@rxllm.tool
def weather(city: str) -> str:
    """Forecast the weather."""
    return city


def drawn(graph):
    """Return the labels of a flowchart's boxes and frames by their ids, and its arrows between labels."""
    first, *lines = graph.mermaid().splitlines()
    assert first == "flowchart TD"
    labels, arrows, depth = {}, [], 0
    for line in lines:
        if frame := FRAME.fullmatch(line):
            depth += 1
            labels[frame[1]] = decoded(frame[2])
        elif box := BOX.fullmatch(line):
            labels[box[1]] = decoded(box[2])
        elif line.strip() == "end":
            depth -= 1
        else:
            arrow = ARROW.fullmatch(line)
            assert arrow, line
            assert {arrow[1], arrow[4]} <= labels.keys()
            arrows.append((labels[arrow[1]], arrow[2] + decoded(arrow[3] or ""), labels[arrow[4]]))
    assert depth == 0
    return list(labels.values()), arrows


def decoded(label):
    """Return what Mermaid shows for a label."""
    return re.sub(r"#(\d+);", lambda match: chr(int(match[1])), label)


# ── what belongs to a graph ──────────────────────────────────────────────────────────────────────────────────────


def test_graph_of_a_pipeline_shows_its_stages_in_their_order():
    """Each stage is one line, and one box with an arrow to the next."""
    graph = pipe(outline, A(), text(), ops.filter(bool)).graph()
    assert "pipe\n├── outline\n├── A()\n├── text()\n└── ops.filter(bool)" == graph.text() == str(graph)
    labels, arrows = drawn(graph)
    chain = ["input", "outline", "A()", "text()", "ops.filter(bool)", "output"]
    assert chain == labels
    assert {(before, "-->", after) for before, after in pairwise(chain)} == set(arrows)


def test_alternatives_of_a_model_have_dotted_arrows():
    """The input reaches the first model, and each model may give the output."""
    graph = fallback(retry(A(), 5), hedge(B(), A(), after=0.3)).graph()
    assert (
        "fallback\n├── retry(attempts=5)\n│   └── A()\n└── hedge(after=0.3)\n    ├── B()\n    └── A()"
    ) == graph.text()
    labels, arrows = drawn(graph)
    assert {"fallback", "retry(attempts=5)", "hedge(after=0.3)"} < set(labels)
    assert [("A()", "-.->", "B()"), ("B()", "-.->", "A()")] == sorted(each for each in arrows if each[1] == "-.->")
    assert [("input", "-->", "A()")] == [each for each in arrows if each[0] == "input"]
    assert ["A()", "A()", "B()"] == sorted(each[0] for each in arrows if each[2] == "output")


def test_branches_have_their_names_on_their_arrows():
    """All branches get the input, and all give the output."""
    graph = parallel(poem=pipe(outline, A(), text()), joke=B()).graph()
    assert "parallel\n├── poem: pipe\n│   ├── outline\n│   ├── A()\n│   └── text()\n└── joke: B()" == graph.text()
    _, arrows = drawn(graph)
    assert {("input", "-->poem", "outline"), ("input", "-->joke", "B()")} <= set(arrows)
    assert {("text()", "-->", "output"), ("B()", "-->", "output")} <= set(arrows)


def test_an_agent_has_arrows_to_its_tools_and_back():
    """The tools are beside the model, not after it."""
    graph = agent(A(), weather, {"type": "web_search"}, rounds=4).graph()
    assert "agent(rounds=4)\n├── A()\n├── tool(weather)\n└── {'type': 'web_search'}" == graph.text()
    _, arrows = drawn(graph)
    assert {
        ("A()", "<-.->", "tool(weather)"),
        ("A()", "<-.->", "{'type': 'web_search'}"),
        ("input", "-->", "A()"),
        ("A()", "-->", "output"),
    } == set(arrows)


@pytest.mark.parametrize(
    ("stage", "lines"),
    [
        (cached(limited(A(), Limiter(concurrency=2)), MemoryStore(7)), "cached(store=MemoryStore(size=7))/limited"),
        (rxllm.shaped(A(), int), "shaped(int)/A(shape=int"),
        (rxllm.route(lambda _: A()), "route(choose=<lambda>)"),
        (rxllm.assign(context=weather), "assign/context: tool(weather)"),
        (pipe(A(), text()).with_config(run_name="talk"), "pipe(run_name='talk')/A()/text()"),
        (rxllm.observe(A(), print), "A()"),
    ],
    ids=lambda value: value.split("/")[0] if isinstance(value, str) else "",
)
def test_graph_of_a_combinator_names_it_and_its_parts(stage, lines):
    """Its label is the call that made it."""
    text = re.sub("\n[ │├└─]*", "/", stage.graph().text())
    assert lines == text[: len(lines)]
    drawn(stage.graph())


@pytest.mark.parametrize(
    ("stage", "label"),
    [
        (rxllm.batch(A(), max_concurrency=3), "batch"),
        (ops.flat_map(pipe(A(), text())), "ops.flat_map"),
        (ops.switch_map(A()), "compose"),
        (rxllm.stage(ops.flat_map(A()), adds_up="last"), "stage"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_models_in_the_arguments_of_an_operator_are_its_parts(stage, label):
    """An operator with a model is a frame around it."""
    [(_, graph)] = pipe(stage).graph().parts
    assert label == graph.label
    assert {label, "A()"} < set(drawn(graph)[0])


def test_composed_operators_are_drawn_in_their_order():
    """``ops.switch_map`` is two operators of reactivex, one after the other."""
    assert (
        "compose\n├── ops.map\n│   └── A()\n└── ops.switch_latest()"
        == pipe(ops.switch_map(A())).graph().parts[0][1].text()
    )
    assert "pipe(compose(ops.map(A()), ops.switch_latest()))" == repr(pipe(ops.switch_map(A())))


def test_a_method_of_a_model_is_drawn_as_the_model():
    """``llm.answer`` is a stage, too."""
    assert "pipe\n└── A()" == pipe(A().answer).graph().text()


def test_a_model_of_a_program_shows_the_models_in_its_fields():
    """A subclass needs no method of its own for it."""

    @frozen
    class Both(LLM):
        left: LLM
        right: LLM

    assert "Both\n├── A()\n└── B()" == Both(A(), B()).graph().text()


# ── what it may contain ──────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(max_size=80))
def test_any_label_is_shown_as_it_is(label):
    """Quotes, brackets, HTML, Markdown and directives stay text, on one line. Long labels are cut."""
    shown = Graph(label).text()
    assert shown.isprintable() or not label.isprintable()
    assert "\n" not in shown
    assert 60 >= len(shown)
    assert ["input", shown, "output"] == drawn(Graph(label))[0]


@pytest.mark.parametrize("mark", ['"', "#", ";", ":", "<", ">", "&", "`", "$", "%", "\\", "|", "[", "{", "- ", "1. "])
def test_no_mark_of_mermaid_stands_in_a_label(mark):
    """A label has letters, digits and harmless marks; a hyphen or a full stop stands between two letters only."""
    [label] = re.findall(r'n2\["(.*)"\]', Graph(f"{mark}x{mark}").mermaid())
    assert mark not in re.sub(r"#\d+;", "", label)
    assert decoded(label) == f"{mark}x{mark}".strip()


def test_graph_has_no_secrets():
    """Keys of models and secrets of agents are in no graph."""
    key = "sk-secret-0123456789"
    llm = rxllm.OpenAI("m", api_key=key, base_url=f"http://user:{key}@127.0.0.1", headers={"x-api-key": key})
    graph = pipe(agent(llm, weather, secret=key), text()).graph()
    assert key not in graph.text() + graph.mermaid() + repr(graph)


# ── notebooks ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_notebook_draws_graphs_and_pipelines():
    """The graph of a pipeline is drawn when a cell shows the graph or the pipeline. A model alone stays one line."""
    talk = pipe(A(), text())
    graph = talk.graph()
    assert {"text/plain": graph.text(), "text/vnd.mermaid": graph.mermaid()} == graph._repr_mimebundle_()
    assert {"text/vnd.mermaid": graph.mermaid()} == talk._repr_mimebundle_(include=None, exclude=None)
    assert {} == A()._repr_mimebundle_()
