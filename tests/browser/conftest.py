"""Tests of the chat page in headless Chromium. They need ``.ci/install chromium`` and the extra ``browser``."""

import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium")
try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    sync_playwright = None

PATIENCE = 30_000  # milliseconds; the machine may be busy
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
SANDBOX = ["--no-sandbox", "--disable-gpu"]  # the container of a build has no user namespaces


def pytest_collection_modifyitems(items):
    """Skip the tests of this folder where there is no browser."""
    if sync_playwright is not None and CHROMIUM is not None:
        return
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.skip(reason="Chromium or the extra 'browser' is not installed"))


@pytest.fixture(scope="session")
def chromium():
    """Start one browser for all tests."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *SANDBOX])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """Return a function that opens an address in a visit of its own. No page may log an error."""
    contexts, errors = [], []

    def go(url, **options):
        context = chromium.new_context(
            **{"viewport": {"width": 1280, "height": 860}, "reduced_motion": "reduce", **options}
        )
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(dialog.message))
        page.on("console", lambda message: errors.append(message.text) if "Security Policy" in message.text else None)
        page.goto(url)
        return page

    yield go
    for context in contexts:
        context.close()
    assert errors == []
