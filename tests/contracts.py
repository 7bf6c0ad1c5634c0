"""`ProtocolContract`: the contract of a provider whose replies a `Protocol` writes."""

import attrs

from rxllm.testing import ProviderContract
from rxllm.wire.timeouts import Timeouts

__all__ = ["ProtocolContract"]


class ProtocolContract(ProviderContract):
    """The contract of a provider. A subclass sets `protocol`, and overrides `provider`.

    Attributes:
        protocol: writes the replies of the server.
    """

    protocol = None

    def impatient(self, url, seconds):
        """Return a model with short time limits."""
        return attrs.evolve(self.provider(url), timeout=Timeouts(first_chunk=seconds, idle=seconds))

    def stream(self, text, *, usage=None, finish="stop"):
        """Return the pieces of a streamed answer."""
        return self.protocol.stream(text, usage=usage, finish=finish)

    def whole(self, text, *, usage=None, finish="stop"):
        """Return the body of a whole answer."""
        return self.protocol.whole(text, usage=usage, finish=finish)

    def error_body(self, status, message):
        """Return the body of an error."""
        return self.protocol.error_body(status, message)

    def error_frame(self, message):
        """Return the frame of an error within a stream."""
        return self.protocol.error_frame(message)
