"""Importing this module refuses connections to other machines. As an audit hook it also sees what C code does."""

import ipaddress
import sys


def only_this_machine(event, arguments):
    """Refuses addresses and names of other machines."""
    if event == "socket.connect" or event == "socket.sendto":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost"):
        return
    try:
        local = ipaddress.ip_address(host).is_loopback or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        local = False
    if not local:
        raise RuntimeError(f"A test tried to reach {host}; tests talk to this machine only.")


sys.addaudithook(only_this_machine)
