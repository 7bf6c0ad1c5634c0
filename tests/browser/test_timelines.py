"""Timelines in Chromium: the pictures of all situations, and the page."""

import base64
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pictures.situations import GOLDEN, SITUATIONS

import rxllm
from rxllm.testing import MarbleLLM, on_virtual_time

HOSTILE = "</script><script>window.evil = 1</script><img src=x onerror='window.evil = 1'>"
WIDE = {"viewport": {"width": 1180, "height": 500}}


def shoot(page, name):
    """Keep a picture of the page, if the variable names a folder."""
    if folder := os.environ.get("RXLLM_SCREENSHOTS"):
        Path(folder, f"timeline-{name}.png").write_bytes(page.screenshot(full_page=True))


def opened(visit, document, kind, **options):
    """Visit a document of this type."""
    return visit(f"data:{kind};base64,{base64.b64encode(document.encode()).decode()}", **options)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_are_images(visit, scheme):
    """A browser shows each picture as an image of a page, in the reader's scheme."""
    pictures = {name: base64.b64encode((GOLDEN / f"{name}.svg").read_bytes()).decode() for name in SITUATIONS}
    images = [f'<p>{name}<br><img src="data:image/svg+xml;base64,{picture}">' for name, picture in pictures.items()]
    sheet = f'<!DOCTYPE html><meta name="color-scheme" content="light dark">{"".join(images)}'
    page = opened(visit, sheet, "text/html", color_scheme=scheme)
    widths = "Promise.all([...document.images].map(async (image) => (await image.decode(), image.naturalWidth)))"
    assert {960} == set(page.evaluate(widths))
    shoot(page, f"all-{scheme}")


@pytest.mark.parametrize("name", SITUATIONS)
def test_texts_of_a_picture_are_inside_of_it_and_apart(visit, name):
    """The texts of a picture neither leave it nor cover each other."""
    page = opened(visit, (GOLDEN / f"{name}.svg").read_text("utf-8"), "image/svg+xml")
    width = page.evaluate("document.documentElement.width.baseVal.value")
    height = page.evaluate("document.documentElement.height.baseVal.value")
    boxes = page.evaluate(
        """[...document.querySelectorAll("text")].map((text) => {
          const {x, y, width, height} = text.getBBox();
          return [x, y, x + width, y + height, text.textContent];
        })"""
    )
    for left, top, right, bottom, text in boxes:
        assert 0 <= left < right <= width, text
        assert 0 <= top < bottom <= height, text
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] + 3 or other[3] <= one[1] + 3
            assert apart, (one, other)


@pytest.fixture
def drawn():
    """Return the page of a model with texts, one of them hostile."""

    @on_virtual_time
    async def page():
        timeline = rxllm.Timeline(texts=True)
        llm = MarbleLLM("--Hel-lo------x-|", values={"x": HOSTILE}, run_name=HOSTILE)
        await llm.ainvoke("hi", handlers=[timeline])
        return timeline.html()

    with ThreadPoolExecutor() as elsewhere:  # the browser's client runs an event loop in this thread
        return elsewhere.submit(page).result()


def test_page_tells_about_chunks_and_waits(visit, drawn):
    """The pointer finds a chunk with its time and its text, and a wait with its length; no text is run."""
    page = opened(visit, drawn, "text/html", **WIDE)
    svg, tip = page.locator("svg.rxllm-timeline"), page.locator("#tip")
    box = svg.bounding_box()

    data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")

    def point(time):
        x = data["left"] + time / data["span"] * data["track"]
        page.mouse.move(box["x"] + x, box["y"] + data["rows"][0]["y"])

    point(6)
    assert "chunk 2 at 6 s, 4 s after the one before\nlo" == tip.inner_text()
    point(14)
    assert HOSTILE in tip.inner_text()
    point(1)
    assert tip.inner_text().endswith("waits for the first chunk: 2 s")
    shoot(page, "page")
    assert page.evaluate("window.evil") is None


def test_page_zooms(visit, drawn):
    """A drag over a part, the keys and the buttons choose what the axis shows."""
    page = opened(visit, drawn, "text/html", **WIDE)

    def axis():
        return page.locator("svg [data-axis] text").all_text_contents()

    whole = axis()
    assert "0 s" == whole[0]
    box = page.locator("svg.rxllm-timeline").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 30)
    page.mouse.up()
    near = axis()
    assert "0 s" not in near
    shoot(page, "page-zoomed")
    page.keyboard.press("ArrowRight")
    assert near != axis()
    page.get_by_role("button", name="All").click()
    assert "0 s" == axis()[0]
    page.keyboard.press("+")
    assert "0 s" not in axis()
    page.keyboard.press("0")
    assert "0 s" == axis()[0]
