"""The address of this machine in its local network, and what never leaves the machine."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit


def is_loopback(url: str) -> bool:
    """Tell whether a URL names this machine by its loopback address, so that nothing goes over a network."""
    try:
        name = urlsplit(url).hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


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
