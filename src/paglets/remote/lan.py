"""The address of this machine in its local network."""

from __future__ import annotations

import socket


def lan_address() -> str:
    """Return the address other machines of the local network reach this one by, or the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address; connecting a datagram socket sends nothing
            found = str(probe.getsockname()[0])
            if not found.startswith("127."):
                return found
        except OSError:
            found = ""
    try:
        for *_, address in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET):
            if not str(address[0]).startswith("127."):
                return str(address[0])
    except OSError:
        return "127.0.0.1"
    return "127.0.0.1"
