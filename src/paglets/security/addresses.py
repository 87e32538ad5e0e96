"""Patterns of the addresses of hosts, like `https://10.0.0.*:8765` or `https://*.lab.example`.

A star stands for any part of an address in numbers, and within one label of a name: `http://10.0.0.*` is no name that
begins like that, and `https://*.lab.example` is nothing behind an at sign.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

_PORTS: Final = {"http": 80, "https": 443}
_IN_NUMBERS: Final = "[0-9a-f.:]*"
_IN_NAMES: Final = "[a-z0-9_-]*"
_MAX_LENGTH: Final = 2048


def fits(patterns: Sequence[str], url: str) -> bool:
    """Tell whether the host of a URL fits one of some patterns; its path does not count."""
    origin = origin_of(url)
    if origin is None:
        return False
    text, in_numbers = origin
    return any(_compiled(pattern, in_numbers).fullmatch(text) is not None for pattern in patterns)


def origin_of(url: str) -> tuple[str, bool] | None:
    """Return scheme, host and port of a URL in one form, and whether the host is an address in numbers.

    None for what is no URL of a host, and for one with a user, which is written to be misread.
    """
    if len(url) > _MAX_LENGTH or not url.isprintable():
        return None
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not host or "@" in parts.netloc:
        return None
    try:
        host, in_numbers = ip_address(host).compressed, True
    except ValueError:
        in_numbers = False
    if ":" in host:
        host = f"[{host}]"
    return f"{parts.scheme}://{host}:{port or _PORTS[parts.scheme]}".lower(), in_numbers


@lru_cache(maxsize=1024)
def _compiled(pattern: str, in_numbers: bool) -> re.Pattern[str]:
    cleaned = pattern.strip().rstrip("/").lower()
    scheme, _, rest = cleaned.partition("://")
    has_port = re.search(r":(\d+|\*)$", rest) is not None
    if not has_port:
        rest = f"{rest}:{_PORTS.get(scheme, 0)}"
    host, _, port = rest.rpartition(":")
    star = _IN_NUMBERS if in_numbers else _IN_NAMES
    host_pattern = star.join(re.escape(part) for part in host.split("*"))
    port_pattern = "[0-9]*".join(re.escape(part) for part in port.split("*"))
    return re.compile(f"{re.escape(scheme)}://{host_pattern}:{port_pattern}")


class BoundKey(str):
    """A key that a client shows to some hosts only.

    :param hosts: patterns of their addresses; empty for any.
    """

    hosts: tuple[str, ...]

    def __new__(cls, key: str, hosts: Sequence[str]) -> BoundKey:
        """Return the key."""
        made = super().__new__(cls, key)
        made.hosts = tuple(hosts)
        return made

    def __repr__(self) -> str:
        return "<BoundKey>"


def key_for(api_key: str | None, url: str) -> str | None:
    """Return the key to show at a URL, None where none is to be shown."""
    if isinstance(api_key, BoundKey) and api_key.hosts and not fits(api_key.hosts, url):
        return None
    return api_key
