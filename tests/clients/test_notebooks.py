"""Notebooks: nbclient runs cells in a kernel of ipykernel, and the cells ask a server of the test."""

import asyncio
import importlib.util
import textwrap
import time
from itertools import pairwise

import pytest
from protocols import Chat

from rxllm.testing import End, FakeServer, Reply, Signal

if importlib.util.find_spec("nbclient") is None or importlib.util.find_spec("ipykernel") is None:
    pytest.skip("the extra 'clients' is not installed", allow_module_level=True)

import nbclient
import nbformat
from jupyter_core.utils import ensure_async
from nbclient.exceptions import CellExecutionError

CHAT = Chat()
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>[x](javascript:alert(3))![y](http://192.0.2.1/z)"
STREAMS = ("rxllm.show({}.stream('?'))", "await rxllm.show({}.astream('?'))")


class Notebook(nbclient.NotebookClient):
    """Runs cells in a kernel of its own.

    Attributes:
        updates: the displays and their changes, each with the time at which it arrived.
        on_update: is called with the plain text of each.
    """

    def __init__(self, server, *cells):
        beginning = f"""
            import rxllm
            from rxllm import drafts, message, parallel, pipe, snapshots, text, words
            llm = rxllm.OpenAI("m", base_url="{server.url}", api_key="key-of-a-notebook", max_retries=0)
        """
        sources = [nbformat.v4.new_code_cell(textwrap.dedent(cell).strip()) for cell in (beginning, *cells)]
        super().__init__(nbformat.v4.new_notebook(cells=sources), timeout=100, kernel_name="python3")
        self.updates = []
        self.on_update = lambda text: None

    def process_message(self, message, cell, cell_index):
        """Keep what is displayed. nbclient calls this for each message of the kernel."""
        if message["header"]["msg_type"] in ("display_data", "update_display_data"):
            self.updates.append((time.monotonic(), message["content"]))
            self.on_update(message["content"]["data"]["text/plain"])
        return super().process_message(message, cell, cell_index)

    @property
    def outputs(self):
        """The outputs of each cell."""
        return [cell.outputs for cell in self.nb.cells[1:]]

    def run(self):
        """Run all cells."""
        asyncio.run(self.async_execute())


def answering(*texts):
    """Return a server that answers each request with these texts."""
    return FakeServer(lambda _: Reply(b"".join(CHAT.stream(list(texts)))))


def shown(output):
    """Return the HTML of an output without line ends, and its plain text."""
    return output.data.get("text/html", "").replace("\n", ""), output.data["text/plain"]


# ── show ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_show_ends_with_the_whole_answer_as_one_output():
    """For models and pipelines, in both forms. The output is HTML of the Markdown, and the text."""
    tea = "<p>Tea is <em>hot</em>.</p>"
    stages = {
        "llm": tea,
        "pipe(llm, text())": tea,
        "pipe(llm, words())": tea,
        "pipe(llm, message())": tea,
        "parallel(one=llm, two=pipe(llm, text()))": f"<p><b>two</b></p>{tea}",
    }
    cells = {form.format(stage): html for stage, html in stages.items() for form in STREAMS}
    with answering("Tea ", "is *ho", "t*.") as server:
        book = Notebook(server, *cells)
        book.run()
    for (cell, html), [output] in zip(cells.items(), book.outputs, strict=True):
        assert html in shown(output)[0], cell
        assert "Tea is *hot*." in shown(output)[1]


def test_show_shows_values_that_grow():
    """The drafts of a JSON value are shown by their keys, and what is shown has the answer."""
    with answering('{"title": "Pan', 'cakes", "steps": ["stir"]}') as server:
        book = Notebook(server, "rxllm.show(pipe(llm, drafts()).stream('?')).answer['steps']")
        book.run()
    [draft, answer] = book.outputs[0]
    assert (
        "<p><b>title</b></p><p>Pancakes</p><p><b>steps</b></p><ol start=0><li><p>stir</p></li></ol>" == shown(draft)[0]
    )
    assert "['stir']" == answer.data["text/plain"]


@pytest.mark.parametrize("form", STREAMS)
def test_show_draws_at_most_ten_times_a_second(form):
    """Of 400 chunks, one each few milliseconds, an update comes each tenth of a second, in one output."""
    words = [f"word{number} " for number in range(400)]
    steps = [step for event in CHAT.stream(words) for step in (event, 0.005)]
    with FakeServer(Reply(steps)) as server:
        book = Notebook(server, form.format("llm"))
        book.run()
    times = [at for at, _ in book.updates]
    assert 3 < len(times) <= 10 * (times[-1] - times[0]) + 2
    texts = [content["data"]["text/plain"] for _, content in book.updates]
    assert "".join(words) == texts[-1]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert 1 == len({content["transient"]["display_id"] for _, content in book.updates})
    assert 1 == len(book.outputs[0])


@pytest.mark.parametrize("form", STREAMS)
def test_show_draws_what_has_come_before_a_silence(form):
    """A chunk less than a tenth of a second after the first one is drawn while the model is silent."""
    events = CHAT.stream(["Hel", "lo", " world"])
    begin = CHAT.before(" world", events)
    silence = Signal()
    with FakeServer(Reply([*begin, silence, *events[len(begin) :]])) as server:
        book = Notebook(server, form.format("llm"))
        book.on_update = lambda text: silence.set() if text == "Hello" else None
        book.run()
        assert silence.is_set()
    assert "Hello world" == shown(book.outputs[0][0])[1]


@pytest.mark.parametrize(
    "cell",
    [
        *(form.format("llm") for form in STREAMS),
        "for chunk in llm.stream('?'): print(chunk, end='', flush=True)",
        "async for chunk in llm.astream('?'): print(chunk, end='', flush=True)",
        "llm.invoke('?')",
        "await llm.ainvoke('?')",
        "llm.batch(['?'])",
        "await llm.abatch(['?'])",
    ],
)
def test_interrupting_a_cell_closes_the_request(cell):
    """The server sees it while the model is silent, and what has been shown stays."""
    begin = CHAT.before(" world", CHAT.stream(["Hel", "lo", " world"]))
    with FakeServer(Reply([*begin, End.HANG])) as server:
        book = Notebook(server, cell)

        async def interrupted():
            drawn = asyncio.Event()
            book.on_update = lambda text: drawn.set() if text == "Hello" else None
            running = asyncio.create_task(book.async_execute())
            await server.exchange(0).arrived.soon(timeout=60)
            await asyncio.to_thread(server.exchange(0).wait_stalled, 0.5)  # the kernel's loop sleeps by now
            if "show" in cell:
                await asyncio.wait_for(drawn.wait(), 60)
            await ensure_async(book.km.interrupt_kernel())
            await server.exchange(0).closed_soon(timeout=60)
            with pytest.raises(CellExecutionError):
                await running

        asyncio.run(interrupted())
        assert server.exchange(0).aborted
    *outputs, error = book.outputs[0]
    assert error.ename in ("KeyboardInterrupt", "CancelledError")
    texts = [output.text if output.output_type == "stream" else shown(output)[1] for output in outputs]
    assert ("Hello" if "show" in cell or "print" in cell else "") == "".join(texts)


def test_show_of_a_failing_stream_keeps_the_text():
    """The last text is drawn before the error, and nothing of it is lost."""
    begin = CHAT.before(" world", CHAT.stream(["Hel", "lo", " world"]))
    with FakeServer(lambda _: Reply([b"".join(begin), End.FIN])) as server:
        book = Notebook(server, *(f"try: {form.format('llm')}\nexcept rxllm.Interrupted: pass" for form in STREAMS))
        book.run()
    assert [["Hello"]] * 2 == [[shown(output)[1] for output in outputs] for outputs in book.outputs]


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cells_show_values_in_a_useful_form():
    """Messages and results as HTML in which nothing runs, pipelines as flowcharts, everything else as code."""
    cells = {
        "llm.invoke('?')": "text/html",
        "llm.generate(['?', '?'])": "text/html",
        "llm.invoke('?').usage": "text/plain",
        "llm.batch(['?', '?'])": "text/plain",
        "llm": "text/plain",
        "llm.stream('?')": "text/plain",
        "pipe(llm, text())": "text/vnd.mermaid",
        "rxllm.retry(llm)": "text/vnd.mermaid",
        "pipe(llm, text()).graph()": "text/vnd.mermaid",
    }
    with answering(HOSTILE) as server:
        book = Notebook(server, *cells)
        book.run()
    for (cell, media_type), [output] in zip(cells.items(), book.outputs, strict=True):
        assert media_type in output.data, cell
        data = "".join(output.data.values())
        assert "key-of-a-notebook" not in data
        assert not {"text/html", "text/markdown"} & output.data.keys() - {media_type}
        html = output.data.get("text/html", "")
        assert not any(mark in html for mark in ("<img", "<script", 'href="javascript'))
        assert "\x1b" not in data


def test_progress_is_one_line_in_a_notebook():
    """The progress handler draws one output, without ipywidgets and without a warning."""
    with answering("Hello") as server:
        book = Notebook(
            server,
            """
            with rxllm.ProgressHandler(total=20) as progress:
                answers = llm.batch(["?"] * 20, handlers=[progress])
            """,
            """
            with rxllm.ProgressHandler(total=20) as progress:
                answers = await llm.abatch(["?"] * 20, handlers=[progress])
            """,
        )
        book.run()
    for [output] in book.outputs:
        assert output.data["text/plain"].startswith("20/20 done, 0 running, 0 failed, ")
    assert len(book.updates) < 50
