"""Where hosts and the classes of paglets are looked for, and which host answers first."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from paglets.core.errors import AuthenticationError, PagletError
from paglets.core.wire_fields import WireFields
from paglets.protocol.membership import normalize_host_url
from paglets.remote.client import HostClient
from paglets.remote.discovery import announced_hosts
from paglets.remote.lan import lan_address

DEFAULT_LAN_DISCOVERY_TIMEOUT_SECONDS: Final = 0.25
DEFAULT_LAN_DISCOVERY_WORKERS: Final = 64

_API_KEY_ENV: Final = "PAGLETS_API_KEY"
_LOOKING_WITH: ContextVar[str | None] = ContextVar("paglets_looking_with", default=None)


@dataclass(frozen=True, slots=True)
class ServerRef:
    """A host to look after; what covers all hosts leaves out those that are not `enabled`."""

    name: str
    url: str
    enabled: bool = True
    local_start: bool = False
    """Whether whoever looks after it may start it on this machine."""


@dataclass(slots=True)
class AgentDiscoveryConfig:
    """Where to look for classes of paglets: directories, and names of modules."""

    paths: list[str]
    modules: list[str]


def normalize_server_url(url: str) -> str:
    """Return a host URL without surrounding blanks and trailing slashes, with `http://` when it names no scheme.

    :raises ValueError: nothing is left.
    """
    return normalize_host_url(url)


def normalize_discovery_path(path: str, *, base_path: Path | str | None = None) -> str:
    """Return a path as an absolute one with links resolved; it need not exist.

    :param base_path: what a relative path starts from, the current directory by default.
    :raises ValueError: it is empty.
    """
    text = path.strip()
    if not text:
        raise ValueError("a discovery path must not be empty")
    base = Path.cwd() if base_path is None else Path(base_path).expanduser()
    return str((base / Path(text).expanduser()).resolve())


def default_agent_discovery_config() -> AgentDiscoveryConfig:
    """Return where to look when nothing is configured: the `demos` of a checkout, if this is one."""
    demos = Path(__file__).resolve().parents[3] / "demos"
    return AgentDiscoveryConfig([str(demos)] if demos.is_dir() else [], [])


# --- hosts ------------------------------------------------------------------------------------------------------------


def detect_lan_host() -> str:
    """Return the address of this machine in its local network, or the loopback address."""
    return lan_address()


def discover_mesh_entry_servers(*, timeout: float = 0.75, api_key: str | None = None) -> list[ServerRef]:
    """Return the hosts that announce themselves in the local network, sorted by name and URL.

    A network that does not take multicast has none.

    :param timeout: how many seconds to listen.
    :param api_key: only hosts that have this key count, so that it is not shown to others; by default that of
        `looking_with`, or the one in the environment variable `PAGLETS_API_KEY`.
    """
    key = api_key or _LOOKING_WITH.get() or os.environ.get(_API_KEY_ENV) or None
    try:
        return [ServerRef(each.name, each.url) for each in announced_hosts(timeout=timeout, key=key)]
    except OSError:
        return []


def discover_lan_entry_servers(
    *,
    ports: set[int] | list[int] | tuple[int, ...] | None = None,
    timeout: float = DEFAULT_LAN_DISCOVERY_TIMEOUT_SECONDS,
    workers: int = DEFAULT_LAN_DISCOVERY_WORKERS,
) -> list[ServerRef]:
    """Return the hosts that announce themselves in the local network and listen on one of some ports.

    Nothing ever scans a network.

    :param ports: None for any.
    :param timeout: how many seconds to listen.
    :param workers: kept for programs that give it; there is nobody to be asked.
    """
    return [
        server
        for server in discover_mesh_entry_servers(timeout=timeout)
        if ports is None or urlsplit(server.url).port in ports
    ]


@contextmanager
def looking_with(api_key: str | None) -> Iterator[None]:
    """Have discovery inside accept only hosts that have the key, because it will be shown to them."""
    token = _LOOKING_WITH.set(api_key)
    try:
        yield
    finally:
        _LOOKING_WITH.reset(token)


def first_reachable(candidates: Iterable[str], *, name: str | None, client: HostClient, timeout: float) -> ServerRef:
    """Return the first host that answers; no candidate is asked for while one before it may be the answer.

    :param candidates: URLs; repetitions are skipped.
    :param name: accept only the host of this name.
    :param timeout: how many seconds one host may take.
    :raises ValueError: no such host answered, or one wants an API key; the text says what was tried.
    """
    tried: dict[str, str] = {}
    refused = False
    for candidate in candidates:
        url = normalize_server_url(candidate)
        if url in tried:
            continue
        try:
            found = _described(client.get_json(f"{url}/health", timeout=timeout), url)
        except AuthenticationError:
            refused, tried[url] = True, "wants an API key"
        except PagletError as exc:
            tried[url] = str(exc)
        else:
            if name in (None, found.name):
                return found
            tried[url] = f"is {found.name!r}"
    attempts = "; ".join(f"{url} ({outcome})" for url, outcome in tried.items())
    if refused:
        raise ValueError(
            "A host wants an API key: set PAGLETS_API_KEY, or name another environment variable with --api-key-env. "
            f"Tried {attempts}"
        )
    raise ValueError(f"No paglets host{f' named {name!r}' if name else ''} answered. Tried {attempts}")


def _described(health: Any, url: str) -> ServerRef:
    fields = WireFields(health, "health")
    return ServerRef(fields.text("name"), fields.text_or("address", url).rstrip("/"))
