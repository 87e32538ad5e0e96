"""Look after the paglets of several hosts: find a first host, see what runs where, and act on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from paglets.core.allowance import Allowance, AllowanceBalance, AllowanceGrant
from paglets.core.errors import PagletError, RemoteHostError, SerializationError
from paglets.core.messages import Message
from paglets.core.runtime_values import ServiceScope, require_enum
from paglets.core.wire_fields import WireFields
from paglets.protocol.membership import HostRef
from paglets.remote import requests
from paglets.remote.client import HostClient
from paglets.remote.entry_hosts import (
    DEFAULT_LAN_DISCOVERY_TIMEOUT_SECONDS,
    DEFAULT_LAN_DISCOVERY_WORKERS,
    AgentDiscoveryConfig,
    ServerRef,
    default_agent_discovery_config,
    detect_lan_host,
    discover_lan_entry_servers,
    discover_mesh_entry_servers,
    first_reachable,
    looking_with,
    normalize_discovery_path,
    normalize_server_url,
)
from paglets.remote.journey import Journey, follow_journey
from paglets.remote.proxy import PagletProxy
from paglets.services.records import ServiceRecord

__all__ = [
    "DEFAULT_LAN_DISCOVERY_TIMEOUT_SECONDS",
    "DEFAULT_LAN_DISCOVERY_WORKERS",
    "AgentDiscoveryConfig",
    "AgentRecord",
    "PagletsAdminClient",
    "ServerRef",
    "ServerStatus",
    "ServiceSummary",
    "default_agent_discovery_config",
    "detect_lan_host",
    "discover_lan_entry_servers",
    "discover_mesh_entry_servers",
    "entry_server",
    "normalize_discovery_path",
    "normalize_server_url",
    "select_reachable_entry_server",
]

_ENTRY_PORT: Final = 8765
_MESH_DISCOVERY_SECONDS: Final = 0.75
_CLIENT_TIMEOUT_SECONDS: Final = 2.0
_SERVERS_AT_ONCE: Final = 16

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How a host did when it was asked; `error` says why it is not `reachable`, and then the counts are 0."""

    name: str
    url: str
    reachable: bool
    latency_ms: float
    active_count: int
    inactive_count: int
    error: str | None = None
    code_version: str | None = None


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """A paglet, and the host it was on when that was asked."""

    server_name: str
    host_url: str
    agent_id: str
    class_name: str
    state_class_name: str
    active: bool


@dataclass(frozen=True, slots=True)
class ServiceSummary:
    """A service, and the paglet that offers it."""

    server_name: str
    name: str
    host_url: str
    agent_id: str
    capabilities: tuple[str, ...]
    scope: ServiceScope


# --- finding a first host ---------------------------------------------------------------------------------------------


def select_reachable_entry_server(*, entry_name: str | None, client: HostClient, timeout: float = 1.0) -> ServerRef:
    """Return the first host that answers: on this machine, at its address in the local network, or a discovered one.

    A place is looked for only when nobody answered at those before.

    :param entry_name: accept only the host of this name; what contains `://` is a URL, the only one to try.
    :param timeout: how many seconds one host may take.
    :raises ValueError: no such host answered, or one wants an API key; the text says what was tried.
    """
    if entry_name and "://" in entry_name:
        return first_reachable((entry_name,), name=None, client=client, timeout=timeout)
    # A stand-in that only has `get_json` will do; it has no key.
    with looking_with(getattr(client, "api_key", None)):
        return first_reachable(_entry_candidates(), name=entry_name or None, client=client, timeout=timeout)


def entry_server(entry_name: str | None, client: HostClient, timeout: float) -> ServerRef:
    """Return the host to begin with, at the URL by which it was found where one was given.

    :param entry_name: as for `select_reachable_entry_server`.
    :param timeout: how many seconds one host may take.
    :raises ValueError: none answers; the text says what was tried.
    """
    found = select_reachable_entry_server(entry_name=entry_name, client=client, timeout=timeout)
    # Whatever a host says of itself, it is reached as it was found.
    if entry_name and "://" in entry_name:
        return ServerRef(found.name, normalize_server_url(entry_name))
    return found


def _entry_candidates() -> Iterator[str]:
    yield f"http://127.0.0.1:{_ENTRY_PORT}"
    address = detect_lan_host()
    if address not in ("localhost", "::1") and not address.startswith("127."):
        yield f"http://{address}:{_ENTRY_PORT}"
    yield from (server.url for server in discover_mesh_entry_servers(timeout=_MESH_DISCOVERY_SECONDS))
    yield from (server.url for server in discover_lan_entry_servers(ports={_ENTRY_PORT}))


# --- looking after hosts ----------------------------------------------------------------------------------------------


class PagletsAdminClient:
    """See and manage the paglets of some hosts, from any thread.

    Records carry the URL by which this client reaches the host, which need not be the one that the host itself gives.
    Methods raise what `HostClient` raises: `RemoteHostError` for a host that cannot be reached or understood, and the
    error that the host named.

    :param servers: the hosts to begin with.
    :param client: whose timeout then holds for every call. The default one gives a host 2 s to say how it is and 10 s
        for what runs code of a paglet; moves have what `HostClient.operate` gives them.
    """

    def __init__(self, servers: list[ServerRef], *, client: HostClient | None = None) -> None:
        self.servers = list(servers)
        self.client = HostClient(_CLIENT_TIMEOUT_SECONDS) if client is None else client
        self._action_timeout = requests.DEFAULT_TIMEOUT_SECONDS if client is None else None

    # --- hosts --------------------------------------------------------------------------------------------------------

    def enabled_servers(self) -> list[ServerRef]:
        """Return the hosts that are enabled."""
        return [server for server in self.servers if server.enabled]

    def set_servers(self, servers: list[ServerRef]) -> None:
        """Look after these hosts from now on."""
        self.servers = list(servers)

    def get_server(self, name_or_url: str) -> ServerRef:
        """Return the host of this name or URL, or a reference to a host that is not known under what was given.

        :raises ValueError: it is empty.
        """
        for server in self.servers:
            if server.name == name_or_url:
                return server
        url = normalize_server_url(name_or_url)
        known = (server for server in self.servers if normalize_server_url(server.url) == url)
        return next(known, None) or ServerRef(name_or_url, url)

    def health_all(self) -> list[ServerStatus]:
        """Return how the enabled hosts are, in their order; several are asked at once."""
        return self._ask_all(self.health)

    def health(self, server: ServerRef) -> ServerStatus:
        """Return how a host is; one that cannot be reached, or refuses to say, is a status with an error."""
        started = time.perf_counter()
        try:
            fields = WireFields(self.client.get_json(_url(server, "health")), "health")
            counts = fields.integer_or("active_count", 0), fields.integer_or("inactive_count", 0)
            version, error = fields.text_or_none("code_version"), None
        except (PagletError, ValueError) as exc:
            counts, version, error = (0, 0), None, str(exc) or type(exc).__name__
        latency_ms = (time.perf_counter() - started) * 1000
        return ServerStatus(server.name, server.url, error is None, latency_ms, *counts, error, version)

    def list_hosts(self, server: ServerRef) -> list[HostRef]:
        """Return the hosts that a host knows, itself and offline ones included."""
        url = _url(server, "hosts")
        items = self._list(url, "hosts")
        with _understanding(url):
            return [HostRef.from_wire(wire) for wire in items]

    def list_services(
        self,
        server: ServerRef,
        *,
        name: str | None = None,
        capability: str | None = None,
        scope: ServiceScope = ServiceScope.LOCAL,
    ) -> list[ServiceSummary]:
        """Return the services that paglets of a host offer.

        :param name: only this service.
        :param capability: only those that have it.
        :param scope: `MESH` for only those that are offered to the whole mesh.
        :raises TypeError: the scope is no `ServiceScope`.
        """
        wanted = require_enum(scope, ServiceScope, "scope")
        url = _url(server, "services", name=name, capability=capability, scope=wanted.value)
        items = self._list(url, "services")
        with _understanding(url):
            records = [ServiceRecord.from_wire(wire) for wire in items]
        host_url = normalize_server_url(server.url)
        return [
            ServiceSummary(server.name, record.name, host_url, record.proxy.agent_id, record.capabilities, record.scope)
            for record in records
        ]

    def list_events(self, server: ServerRef, *, since: int = 0, limit: int = 100) -> list[dict[str, Any]]:
        """Return what happened on a host, oldest first.

        :param since: only events with a greater id.
        :param limit: at most so many; the host has a limit of its own.
        """
        return self._list(_url(server, "events", since=since, limit=limit), "events")

    # --- messages that nobody received --------------------------------------------------------------------------------

    def list_dead_letters(
        self, server: ServerRef, *, since: int = 0, limit: int = 100, agent_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the messages that a host could not deliver, oldest first; see `HostClient.dead_letters`."""
        url = normalize_server_url(server.url)
        return self.client.dead_letters(url, since=since, limit=limit, agent_id=agent_id)

    def retry_dead_letter(self, server: ServerRef, letter_id: int) -> None:
        """Have a dead letter delivered again; it is gone when it was accepted."""
        self.client.retry_dead_letter(normalize_server_url(server.url), letter_id, timeout=self._action_timeout)

    def clear_dead_letter(self, server: ServerRef, letter_id: int) -> None:
        """Have a host forget a dead letter."""
        self.client.clear_dead_letter(normalize_server_url(server.url), letter_id)

    # --- paglets of a host --------------------------------------------------------------------------------------------

    def list_agents_all(self) -> list[AgentRecord]:
        """Return the paglets of the enabled hosts; hosts that cannot be reached or understood are left out."""
        return [record for records in self._ask_all(self._agents_if_reachable) for record in records]

    def list_agents(self, server: ServerRef) -> list[AgentRecord]:
        """Return the paglets of a host, active and inactive."""
        payloads = self.list_agent_payloads(server)
        with _understanding(server.url):
            return [_agent_record(payload) for payload in payloads]

    def list_agent_payloads(self, server: ServerRef, *, include_state: bool = False) -> list[dict[str, Any]]:
        """Return what a host says about its paglets, each with `server_name` and `host_url`.

        :param include_state: add `state`, or `state_error` where it could not be had.
        """
        url = _url(server, "agents", state="all", include_state="true" if include_state else None)
        origin = {"server_name": server.name, "host_url": normalize_server_url(server.url)}
        timeout = self._action_timeout if include_state else None
        return [payload | origin for payload in self._list(url, "agents", timeout=timeout)]

    def create_agent(
        self,
        server: ServerRef,
        agent_class_name: str,
        state_class_name: str,
        state: dict[str, Any] | None = None,
        *,
        init: Any = None,
        agent_id: str | None = None,
        allowance: Allowance | None = None,
    ) -> dict[str, str]:
        """Create a paglet on a host and return its location as plain values.

        :param agent_class_name: `module:qualname`, importable on the host and allowed there.
        :param state_class_name: of its state; empty for the one that the class declares.
        :param state: fields of its state, defaults for those that are missing.
        :param init: what `on_creation` finds in its event.
        :param agent_id: its id; a fresh one by default.
        :param allowance: what it may use up, as far as the host lets it; by default what its class says.
        """
        url = _url(server, "agents")
        payload: dict[str, Any] = {
            "agent_class_name": agent_class_name,
            "state_class_name": state_class_name,
            "state": state,
            "init": init,
        }
        if agent_id is not None:
            payload["agent_id"] = agent_id
        if allowance is not None:
            payload["allowance"] = allowance.to_wire()
        reply = self.client.post_json(url, payload, timeout=self._action_timeout)
        return requests.location_of(requests.dict_of(reply, url), url).to_wire()

    # --- one paglet ---------------------------------------------------------------------------------------------------

    def send(
        self,
        agent: AgentRecord,
        message: Message,
        *,
        oneway: bool = False,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
    ) -> Any:
        """Send a message and return the reply of the handler, None if `oneway`.

        :param activate_if_inactive: wake an inactive paglet, if its policy lets messages wake it.
        :param no_delay: fail instead of storing the message for a paglet that stays inactive.
        """
        proxy = PagletProxy(agent.host_url, agent.agent_id, self.client)
        send = proxy.send_oneway if oneway else proxy.send
        return send(message, activate_if_inactive=activate_if_inactive, no_delay=no_delay, timeout=self._action_timeout)

    def dispatch(self, agent: AgentRecord, target_url: str) -> dict[str, str]:
        """Move a paglet and return its new location as plain values."""
        return self._moved(agent, "dispatch", requests.move_payload(target_url))

    def clone(self, agent: AgentRecord, target_url: str | None = None) -> dict[str, str]:
        """Copy a paglet, to the host it is on by default, and return the location of the copy as plain values."""
        return self._moved(agent, "clone", requests.move_payload(target_url))

    def retract(self, agent: AgentRecord, target_url: str) -> dict[str, str]:
        """Have a paglet called back to a host and return its new location as plain values."""
        return self._moved(agent, "retract", {"target": target_url})

    def activate(self, agent: AgentRecord) -> dict[str, str]:
        """Wake an inactive paglet and return its location as plain values."""
        return requests.location_of(self._act(agent, "activate"), agent.host_url).to_wire()

    def deactivate(self, agent: AgentRecord) -> None:
        """Store a paglet on disk and end its process."""
        self._act(agent, "deactivate")

    def dispose(self, agent: AgentRecord) -> None:
        """End a paglet for good."""
        self._act(agent, "dispose")

    def get_agent_info(self, agent: AgentRecord) -> dict[str, Any]:
        """Return what its host says about a paglet."""
        return self.client.agent_info(agent.host_url, agent.agent_id)

    def get_agent_state(self, agent: AgentRecord) -> dict[str, Any]:
        """Return what its host says about a paglet, with the fields of its state under `state`."""
        url = requests.agent_url(agent.host_url, agent.agent_id, "state")
        return requests.dict_of(self.client.get_json(url, timeout=self._action_timeout), url)

    def allowance(self, agent: AgentRecord) -> AllowanceBalance:
        """Return what a paglet has used of its allowance, and what is left."""
        return self.client.allowance(agent.host_url, agent.agent_id)

    def grant_allowance(self, agent: AgentRecord, grant: AllowanceGrant) -> AllowanceBalance:
        """Change what a paglet has left, and return that; needs the role `admin` at its host."""
        return self.client.grant_allowance(agent.host_url, agent.agent_id, grant, timeout=self._action_timeout)

    def locate(self, agent: AgentRecord) -> dict[str, Any]:
        """Return where a paglet is now, as far as the host knows on which it was seen; see `HostClient.locate`."""
        return self.client.locate(agent.host_url, agent.agent_id)

    def journey(self, agent: AgentRecord) -> Journey:
        """Return where a paglet was and is, put together from all hosts on its way that answer."""
        return follow_journey(self.client, agent.host_url, agent.agent_id)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _ask_all(self, ask: Callable[[ServerRef], T]) -> list[T]:
        servers = self.enabled_servers()
        if len(servers) < 2:
            return [ask(server) for server in servers]
        with ThreadPoolExecutor(min(len(servers), _SERVERS_AT_ONCE), "paglets-admin") as threads:
            return list(threads.map(ask, servers))

    def _agents_if_reachable(self, server: ServerRef) -> list[AgentRecord]:
        try:
            return self.list_agents(server)
        except RemoteHostError:
            return []

    def _list(self, url: str, field: str, *, timeout: float | None = None) -> list[dict[str, Any]]:
        items = requests.field_of(self.client.get_json(url, timeout=timeout), field, url)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise RemoteHostError(f"{url} answered with {field} that are no list of objects")
        return items

    def _moved(self, agent: AgentRecord, operation: str, payload: dict[str, Any]) -> dict[str, str]:
        reply = self.client.operate(agent.host_url, agent.agent_id, operation, payload)
        return requests.location_of(reply, agent.host_url).to_wire()

    def _act(self, agent: AgentRecord, operation: str) -> dict[str, Any]:
        return self.client.operate(agent.host_url, agent.agent_id, operation, {}, timeout=self._action_timeout)


def _url(server: ServerRef, path: str, **query: str | int | None) -> str:
    given = urlencode({key: value for key, value in query.items() if value is not None})
    return f"{normalize_server_url(server.url)}/{path}" + (f"?{given}" if given else "")


def _agent_record(payload: dict[str, Any]) -> AgentRecord:
    fields = WireFields(payload, "paglet")
    return AgentRecord(
        fields.text("server_name"),
        fields.text("host_url"),
        fields.text("agent_id"),
        fields.text("class_name"),
        fields.text_or("state_class_name", ""),
        fields.flag_or("active", True),
    )


@contextmanager
def _understanding(url: str) -> Iterator[None]:
    """Raise `RemoteHostError` for what cannot be made out of the answer of a host."""
    try:
        yield
    except (SerializationError, TypeError, ValueError) as exc:
        raise RemoteHostError(f"{url} answered with something unreadable: {exc}") from exc
