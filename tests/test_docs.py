"""The documentation is true: its programs run offline without a warning, and print what the pages say they print."""

import contextlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from extras import needs_transformers, needs_xllamacpp
from fake_batches import FakeAnthropic
from protocols import Chat, Cohere, Completions, Converse, Generate, Messages, OllamaChat, Responses
from tiny_gguf import write_model
from tiny_hf import write_folder

import rxllm
from rxllm import adapters, serve, testing
from rxllm.cli import main
from rxllm.cli.console import Parser
from rxllm.jobs import ray
from rxllm.testing import FakeServer, Reply

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [
    ROOT / "README.md",
    *sorted(set(ROOT.glob("*.md")) - {ROOT / "README.md"}),
    *sorted((ROOT / "docs").rglob("*.md")),
]
BLOCK = re.compile(r"^```(?:(\w+)(?: title=\"([^\"]*)\")?)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CELL = "Notebook cell"  # the title of a program that may use await at its top level
OUTPUT = ("text", "Output")  # a block after a program that shows what the program prints
LOCAL = "docs/providers/local.md"  # its programs need packages beyond the extra `test`, and use a file and a folder
FILE, FOLDER = "SmolLM2-135M-Instruct.Q4_1.gguf", "HuggingFaceTB/SmolLM2-135M-Instruct"
# With -X dev asyncio logs steps of over 100 ms. On a busy machine they are not the program's fault.
SLOW = "Executing <"


def name(page):
    """Return the page's path in the checkout."""
    return page.relative_to(ROOT).as_posix()


def programs(page):
    """Yield the page's programs, each as run() takes it, and the output that the page shows, or None."""
    text = page.read_text("utf-8")
    for block, following in itertools.pairwise([*BLOCK.finditer(text), None]):
        if block[1] == "python":
            said = following[3] if following and (following[1], following[2]) == OUTPUT else None
            yield (text.count("\n", 0, block.start()) + 1, block[3], block[2] == CELL), said


BATCHES = FakeAnthropic()
BATCHES.looks, BATCHES.key = 0, "key"  # its batches end at once


def answer(request):
    """Return what the vendor with this path would answer."""
    if request.path.startswith("/v1/messages/batches"):
        return BATCHES.reply(request)
    if request.method == "GET":
        return Reply.json({"data": [{"id": "gpt-5-mini"}]})
    if request.path.startswith("/model/"):  # Bedrock's
        bedrock = Converse()
        if request.path.endswith("-stream"):
            events = bedrock.stream(["Oh, ", "sparkling ", "water"])
            return Reply(events, content_type="application/vnd.amazon.eventstream")
        return Reply.json(bedrock.whole(["Oh, sparkling water"]))
    if "/models/" in request.path:
        protocol, streams = Generate(), "stream" in request.path
    else:
        protocols = (Chat(), Completions(), Responses(), Messages(), Cohere(), OllamaChat())
        protocol = next(protocol for protocol in protocols if protocol.path == request.path)
        streams = request.json.get("stream")
    if streams:
        return Reply(protocol.stream(["Oh, ", "sparkling ", "water"]))
    return Reply.json(protocol.whole(["Oh, sparkling water"]))


def run(page, blocks, directory):
    """Return what each of the blocks prints; they run one after another in one process.

    A block is its line number, its code, and whether it is a notebook cell. A local server answers in place of
    OpenAI and Anthropic.
    """
    tests = Path(__file__).parent
    with FakeServer(answer) as server:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", str(tests / "page.py")],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(tests), str(Path(rxllm.__file__).parents[1]))),
                "PYTHONIOENCODING": "utf-8",
                "OPENAI_API_KEY": "key",
                "OPENAI_BASE_URL": f"{server.url}/v1",
                "ANTHROPIC_API_KEY": "key",
                "ANTHROPIC_BASE_URL": server.url,
                "CO_API_KEY": "key",
                "GOOGLE_API_KEY": "key",
                "GOOGLE_GEMINI_BASE_URL": server.url,
                "OLLAMA_HOST": server.url,
                "CO_API_URL": server.url,
                "AWS_BEARER_TOKEN_BEDROCK": "key",
                "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": server.url,
            },
            cwd=directory,
            input=json.dumps([str(page), blocks]),
            capture_output=True,
            encoding="utf-8",
            timeout=50,
            check=False,
        )
    errors = "\n".join(line for line in done.stderr.splitlines() if not line.startswith(SLOW))
    assert errors == ""
    assert done.returncode == 0
    *outputs, late = done.stdout.split("\x1e\n")
    outputs[-1] += late
    return outputs


@pytest.mark.parametrize("block", [pytest.param(block, id=f"line {block[0]}") for block, _ in programs(PAGES[0])])
def test_program_of_the_readme_runs(block, tmp_path):
    """Each block of the README is a program of its own: it prints something, without a warning or an error."""
    [output] = run(PAGES[0], [block], tmp_path)
    assert output.strip()


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name(page), marks=(needs_xllamacpp, needs_transformers) if name(page) == LOCAL else ())
        for page in PAGES[1:]
        if any(programs(page))
    ],
)
def test_programs_of_a_page_run(page, tmp_path):
    """The blocks of a page run one after another and share their names; each prints what the page shows."""
    if name(page) == LOCAL:
        write_model(tmp_path / FILE)
        (tmp_path / FOLDER).mkdir(parents=True)
        write_folder(tmp_path / FOLDER)
    blocks = list(programs(page))
    outputs = run(page, [block for block, _ in blocks], tmp_path)
    said = [(block[0], text) for block, text in blocks if text is not None]
    printed = [(block[0], output) for (block, text), output in zip(blocks, outputs, strict=True) if text is not None]
    assert said == printed


@pytest.mark.parametrize("page", [pytest.param(page, id=name(page)) for page in PAGES])
def test_every_line_of_code_is_in_a_known_block(page):
    """Blocks have a known language and begin at the margin; a typo would hide a program from these tests."""
    text = page.read_text("utf-8")
    # "py" is a program that needs another library; tests/clients runs it
    known = {"python", "py", "sh", "text", "html", "javascript", "json", "toml", "yaml", None}
    assert known >= {block[1] for block in BLOCK.finditer(text)}
    assert text.count("```") == 2 * len(BLOCK.findall(text))


@pytest.mark.parametrize("page", [pytest.param(page, id=name(page)) for page in PAGES])
def test_links_and_tests_that_a_page_names_exist(page):
    """Files that a page links to, and tests that it refers to, exist."""
    text = BLOCK.sub("", page.read_text("utf-8"))
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [] == [link for link in links if link and not (page.parent / link).exists()]
    if page.is_relative_to(ROOT / "docs"):  # the site has no other pages
        assert [] == [link for link in links if not (page.parent / link).resolve().is_relative_to(ROOT / "docs")]
    for path, function in re.findall(r"`(tests/\S+)::(\w+)`", text):
        assert re.search(rf"^(async )?def {function}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE)


def test_every_public_name_is_in_the_reference():
    """The API reference shows each public name, and no other name."""
    pages = (page.read_text("utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    found = re.findall(r"^::: (rxllm\.\S+)$", "\n".join(pages), re.MULTILINE)
    # griffe does not see what is imported lazily, so these names contain their module
    shown = [re.sub(r"\.redis_log|(?<=\.adapters)\.\w+(?=\.)", "", name) for name in found]
    public = [*(f"rxllm.{each}" for each in rxllm.__all__), *(f"rxllm.testing.{each}" for each in testing.__all__)]
    public += [f"rxllm.serve.{each}" for each in serve.__all__]
    public += [f"rxllm.adapters.{each}" for each in adapters.__all__]
    public += [f"rxllm.jobs.ray.{each}" for each in ray.__all__]
    assert sorted(public) == sorted(shown)


@pytest.mark.parametrize(("mark", "command"), [("run", "rxllm"), ("test", "pytest")])
def test_marked_command_is_one_line(mark, command):
    """Directly after its mark, once, is a sh block of one command that begins on a bare Python 3.11."""
    [found] = re.findall(rf"^<!-- ci: {mark} -->\n```sh\n(.*)\n```$", README, re.MULTILINE)
    assert found.startswith("python3.11 -m venv .venv && .venv/bin/pip install -q ")
    assert f" && .venv/bin/{command} " in found


@pytest.mark.parametrize(
    "line", sorted({line for page in PAGES for line in re.findall(r"^rxllm .*", page.read_text("utf-8"), re.MULTILINE)})
)
def test_command_line_is_understood(line, monkeypatch):
    """The command line knows each option that the pages use."""
    understood = []

    def parse(parser, words):
        understood.append(parse_args(parser, words))
        raise EOFError  # instead of running the command

    parse_args = Parser.parse_intermixed_args
    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(Parser, name, parse)
    with contextlib.suppress(EOFError):
        main(shlex.split(line.partition(" < ")[0])[1:])
    [options] = understood
    assert getattr(options, "prompt", None) != [] or " < " in line


@pytest.mark.parametrize(
    "page",
    [
        page
        for group in ("operators", "combinators")
        for page in sorted((ROOT / "docs" / group).glob("*.md"))
        if page.name not in ("which.md", "bridges.md")  # a table of questions; iterators instead of operators
    ],
    ids=lambda page: page.stem,
)
def test_page_of_an_operator_or_combinator_has_its_facts(page):
    """The page has a marble diagram, and states when it emits, pauses its source, completes and errors."""
    text = page.read_text("utf-8")
    facts = ("| Emits when |", "| Back-pressures when |", "| Completes when |", "| Errors when |")
    assert [] == [fact for fact in facts if fact not in text]
    assert re.search(r"```text\n[^`]*-\||^!\[Marble diagram of .*\]\(marbles/\w+\.svg\)$", text, re.MULTILINE)
