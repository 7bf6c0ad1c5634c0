"""A port of this machine, for a server that takes the number of its port, and for an address without a server."""

import socket


def free_port():
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
