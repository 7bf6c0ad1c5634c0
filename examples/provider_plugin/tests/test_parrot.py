"""The required behaviour of every provider over HTTP, and the entry point."""

import json

from rxllm_parrot import Parrot

import rxllm
from rxllm.testing import ProviderContract


def line(**fields):
    """Return an event of the protocol."""
    return json.dumps(fields, ensure_ascii=False).encode() + b"\n"


class TestParrot(ProviderContract):
    """Errors, cuts, silence, cancellation, back-pressure and secrets, against a local server."""

    content_type = "application/x-ndjson"

    def provider(self, url):
        """Return the model."""
        return Parrot("grey", base_url=url, api_key=self.key)

    def impatient(self, url, seconds):
        """Return the model with a short time limit."""
        return Parrot("grey", base_url=url, api_key=self.key, timeout=seconds)

    def stream(self, text, *, usage=None, finish="stop"):
        """Return the bytes of an answer."""
        return [*(line(text=piece) for piece in text), line(done=finish, usage=usage)]

    def error_frame(self, message):
        """Return the bytes of an error within a stream."""
        return line(error=message)


def test_name_finds_the_class():
    """The entry point is installed, and the features are listed."""
    assert isinstance(rxllm.model("parrot:grey"), Parrot)
    [info] = [info for info in rxllm.providers() if info.name == "parrot"]
    assert (("PARROT_API_KEY",), True) == (info.keys, info.usage)
