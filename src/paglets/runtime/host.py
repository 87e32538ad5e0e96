"""A host: the place paglets live in. What it is made of, where it is reached, and how it starts and stops.

What may be asked of it is in `paglets.runtime.host_operations`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from paglets.artifacts import (
    DEFAULT_ARTIFACT_MAX_BYTES,
    DEFAULT_ARTIFACT_SPOOL_TTL_SECONDS,
    DEFAULT_ARTIFACT_STORAGE_QUOTA_BYTES,
)
from paglets.artifacts.backends import artifact_place
from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.compression import encodings
from paglets.artifacts.store import ArtifactStore
from paglets.config.startup import LaunchConfig, LaunchConfigSyncResult
from paglets.core.context import same_url
from paglets.core.context_events import ContextEvent, ContextEventLog, ContextListener
from paglets.core.errors import HostUnreachableError
from paglets.persistence.directory import DirectoryLock
from paglets.persistence.storage import DEFAULT_PERSISTENT_STORAGE_QUOTA_BYTES
from paglets.remote.client import HostClient
from paglets.remote.fabric import HostFabric
from paglets.remote.mesh import HostRef, MeshRegistry
from paglets.runtime.assembly import Assembly
from paglets.runtime.at_rest import stored_count
from paglets.runtime.deactivation import SHUTDOWN_DEACTIVATE_TIMEOUT_SECONDS
from paglets.runtime.host_operations import HostOperations
from paglets.runtime.kernel import CHECKPOINT_INTERVAL_SECONDS
from paglets.runtime.launch.base import Launcher
from paglets.runtime.local_client import LocalHostClient
from paglets.runtime.options import (
    DEFAULT_PERSISTENCE_ROOT,
    Binding,
    at_least,
    base_url,
    checked_name,
    checked_public_url,
    cleaned_properties,
    cleaned_tags,
    host_directory,
    is_loopback,
    key_files,
    not_available,
)
from paglets.runtime.own_url import OwnUrl
from paglets.runtime.relay.hub import RelaySettings
from paglets.runtime.service_desk import MESH_SERVICE_LOOKUP_TIMEOUT_SECONDS
from paglets.runtime.surroundings import Surroundings
from paglets.security.addresses import BoundKey
from paglets.security.policy import Policy
from paglets.security.tls import TlsOptions, host_client_context
from paglets.services.contracts import ServiceRegistry

AUTO_UPDATE_REQUEST_INTERVAL_SECONDS = 10.0
AUTO_UPDATE_REQUEST_TIMEOUT_SECONDS = 10.0
AUTO_UPDATE_RESTART_DELAY_SECONDS = 0.2
NETWORK_BIND_WATCH_INTERVAL_SECONDS = 5.0
BIND_WATCH_LEAST_SECONDS = 0.1
RELAY_OFFLINE_AFTER_SECONDS = 30.0
RELAY_QUEUE_LIMIT = 1024
EVENT_FLUSH_SECONDS = 0.2
MOST_LEFT_OUT = 32
"""Hosts of other code versions that `Host.health` names."""
MOST_RELAY_NODES = 100
"""Connected hosts that `Host.health` tells of; `Host.relay_diagnostics` tells of all."""

HOST_CAPABILITIES = [
    "agents:list",
    "agents:state",
    "agents:create",
    "agents:message",
    "agents:dispatch",
    "agents:clone",
    "agents:retract",
    "agents:activate",
    "agents:deactivate",
    "agents:dispose",
    "events:list",
    "hosts:list",
    "hosts:join",
    "messages:mailbox",
    "services:list",
    "services:mesh",
    "transfer:tickets",
    "admin:git-update",
    "artifacts:upload",
    "artifacts:download",
    "artifacts:list",
    "artifacts:delete",
]
"""Every capability there is, in order; `Host.health` lists those that this version has."""

__all__ = [
    "AUTO_UPDATE_REQUEST_INTERVAL_SECONDS",
    "AUTO_UPDATE_REQUEST_TIMEOUT_SECONDS",
    "AUTO_UPDATE_RESTART_DELAY_SECONDS",
    "DEFAULT_PERSISTENCE_ROOT",
    "HOST_CAPABILITIES",
    "MESH_SERVICE_LOOKUP_TIMEOUT_SECONDS",
    "NETWORK_BIND_WATCH_INTERVAL_SECONDS",
    "RELAY_OFFLINE_AFTER_SECONDS",
    "RELAY_QUEUE_LIMIT",
    "SHUTDOWN_DEACTIVATE_TIMEOUT_SECONDS",
    "Host",
]


class Host(HostOperations):
    """Run paglets and let programs, other hosts and people reach them.

    :param name: shown to others and used for the default directory.
    :param host: address or addresses to listen on; ``auto`` is the address in the local network, which is followed when
        it changes.
    :param port: 0 takes a free one at start; `port` has it then.
    :param client: used for calls to other hosts and by the proxies this host hands out.
    :param api_key: every request must show it as bearer key.
    :param public_url: base URL under which a reverse proxy makes this host reachable; other hosts may connect to it.
    :param bind_watch_interval: seconds between two looks at that address, at least 0.1.
    :param connect_to: base URL of a hub; this host is reached through it and listens nowhere.
    :param fabric: reaches others and is reached by them instead of HTTP; the host listens nowhere then.
    :param relay_offline_after: seconds of silence after which the other end of a link is taken for dead, at least 0.1.
    :param relay_delivery_timeout: seconds that a connected host may take to answer where whoever asks sets no limit,
        at least 0.01; None for as long as he waits.
    :param relay_queue_limit: requests that may be under way to one connected host, at least 1.
    :param persistence_dir: where everything durable is kept; ``~/.paglets/hosts/<name>`` by default.
    :param artifact_store: where artifacts are kept: a directory, or `s3://BUCKET[/PREFIX][?endpoint=URL][&region=NAME]`,
        for which `artifacts` in the host's directory is the cache; that directory by default.
    :param artifact_max_bytes: the most bytes of one artifact; None and 0 are unlimited.
    :param artifact_storage_quota_bytes: the most bytes of all artifacts and of what is being received; None is
        unlimited.
    :param artifact_spool_ttl_seconds: how long an upload that broke off waits for its sender.
    :param allow: patterns of classes that others may create or send here (``myapp``, ``myapp.*``,
        ``myapp.jobs:Survey``); None for every
        importable class outside the standard library.
    :param preload: modules that the fork server imports ahead, so that paglets that need them start faster.
    :param launcher: starts paglet processes; the fork server shared by this program where there is one.
    :param run_settle_seconds: how long replies to create, arrival, clone and activation wait for ``run`` to finish or
        leave.
    :param checkpoint_interval: seconds; how old the durable state of a paglet that keeps checkpoints may be.
    :param keys: key files, made with ``paglets keys``; they may come later and are followed while the host runs.
    :param tls: speak TLS, with these files.
    :param policy: what others may bring here; the one of the launch configuration by default. ``allow`` is added to
        its classes.
    :param insecure: listen beyond this machine although nobody has to show a key. Without it such a host does not
        start.
    :raises ValueError: an option makes no sense.
    :raises HostError: an option needs something that this version does not have.
    """

    surroundings: ClassVar[Surroundings] = Surroundings()
    """What the host takes from the machine it runs on."""

    def __init__(
        self,
        name: str,
        host: str | Sequence[str] = "127.0.0.1",
        port: int = 0,
        *,
        client: HostClient | None = None,
        api_key: str | None = None,
        public_url: str | None = None,
        connect_to: str | None = None,
        mesh: bool = True,
        peers: list[str] | None = None,
        mesh_multicast: bool = True,
        mesh_lan_discovery: bool = True,
        mesh_version: str | None = None,
        mesh_gossip_interval: float = 1.0,
        mesh_offline_after: float = 10.0,
        persistence_dir: str | Path | None = None,
        persistent_storage_quota_bytes: int | None = DEFAULT_PERSISTENT_STORAGE_QUOTA_BYTES,
        artifact_store: str | Path | None = None,
        artifact_max_bytes: int | None = DEFAULT_ARTIFACT_MAX_BYTES,
        artifact_storage_quota_bytes: int | None = DEFAULT_ARTIFACT_STORAGE_QUOTA_BYTES,
        artifact_spool_ttl_seconds: float = DEFAULT_ARTIFACT_SPOOL_TTL_SECONDS,
        launch_config: LaunchConfig | None = None,
        launch_config_sync_result: LaunchConfigSyncResult | None = None,
        auto_update_from_git: bool = False,
        git_repo_root: str | Path | None = None,
        git_process_start_head: str | None = None,
        auto_update_restart_callback: Callable[[], None] | None = None,
        auto_update_reporter: Callable[[str], None] | None = None,
        auto_update_restart_delay: float = AUTO_UPDATE_RESTART_DELAY_SECONDS,
        bind_watch_interval: float = NETWORK_BIND_WATCH_INTERVAL_SECONDS,
        relay_offline_after: float = RELAY_OFFLINE_AFTER_SECONDS,
        relay_delivery_timeout: float | None = None,
        relay_queue_limit: int = RELAY_QUEUE_LIMIT,
        tags: Sequence[str] | None = None,
        properties: dict[str, str] | None = None,
        allow: Sequence[str] | None = None,
        preload: Sequence[str] = (),
        launcher: Launcher | None = None,
        run_settle_seconds: float = 0.25,
        checkpoint_interval: float = CHECKPOINT_INTERVAL_SECONDS,
        keys: str | Path | Sequence[str | Path] | None = None,
        tls: TlsOptions | None = None,
        policy: Policy | None = None,
        insecure: bool = False,
        fabric: HostFabric | None = None,
    ) -> None:
        if auto_update_from_git:
            raise not_available("auto_update_from_git")
        # Accepted so that programs run unchanged; what they tune comes with relaying and updates.
        del git_repo_root, git_process_start_head, auto_update_restart_callback, auto_update_reporter
        del auto_update_restart_delay
        self.name = checked_name(name)
        self._binding = Binding.of(host)
        self.bind_watch_interval = at_least(BIND_WATCH_LEAST_SECONDS, bind_watch_interval, "bind_watch_interval")
        self.own_url = OwnUrl(lambda: self.address, is_anothers=self._is_anothers)
        """Tells which URLs name this host: its address, and those that it had before."""
        self.port = port
        self.api_key = api_key
        self.public_url = checked_public_url(public_url)
        self.connect_to = checked_public_url(connect_to, "connect_to")
        if self.public_url is not None and self.connect_to is not None:
            raise ValueError("a host is a hub or connected to one: give public_url or connect_to")
        if fabric is not None and (self.public_url is not None or self.connect_to is not None):
            raise ValueError("a host is reached over HTTP or over a fabric of its own: give fabric alone")
        self.fabric = fabric
        self.relay_mode = self.public_url is not None or self.connect_to is not None
        self.relay_settings = RelaySettings(
            accepts=self.public_url is not None,
            offline_after=at_least(0.1, relay_offline_after, "relay_offline_after"),
            delivery_timeout=(
                None
                if relay_delivery_timeout is None
                else at_least(0.01, relay_delivery_timeout, "relay_delivery_timeout")
            ),
            queue_limit=int(at_least(1, relay_queue_limit, "relay_queue_limit")),
        )
        self.tags = cleaned_tags(tags)
        self.host_properties = cleaned_properties(properties)
        self.persistence_dir = host_directory(name, persistence_dir)
        self.persistent_storage_quota_bytes = persistent_storage_quota_bytes
        self.artifact_place = None if artifact_store is None else artifact_place(str(artifact_store))
        self.artifact_max_bytes = max(0, artifact_max_bytes or 0)
        self.artifact_storage_quota_bytes = (
            None if artifact_storage_quota_bytes is None else max(0, artifact_storage_quota_bytes)
        )
        self.artifact_spool_ttl_seconds = max(1.0, artifact_spool_ttl_seconds)
        self.launch_config = launch_config
        self.launch_config_sync_result = launch_config_sync_result
        self.allow = None if allow is None else tuple(allow)
        self.key_files = key_files(keys)
        self.tls = tls
        chosen = (None if launch_config is None else launch_config.policy) or Policy()
        self.policy = (chosen if policy is None else policy).allowing(self.allow)
        self.insecure = insecure
        self.open_to_strangers = False
        """Whether a running host can be reached by other machines and asks them for nothing."""
        self.preload = tuple(preload)
        self.run_settle_seconds = run_settle_seconds
        if not 0 < checkpoint_interval < float("inf"):
            raise ValueError(f"checkpoint_interval must be a number of seconds above 0, not {checkpoint_interval!r}")
        self.checkpoint_interval = checkpoint_interval
        self.tls_context = host_client_context(tls)
        self.shown_key = None if api_key is None else BoundKey(api_key, self.policy.hosts)
        """What this host shows to others, as far as its policy lets it."""
        self.client: HostClient = (
            LocalHostClient(
                self,
                api_key=self.shown_key,
                ssl_context=self.tls_context,
                fabric=None if fabric is None else fabric.for_threads(),
            )
            if client is None
            else client
        )
        if self.client.api_key is None:
            self.client.api_key = self.shown_key
        self.services = ServiceRegistry()
        self.events = ContextEventLog()
        self._launcher = launcher
        self._properties: dict[str, Any] = {}
        self._lifecycle = threading.RLock()
        self._stopped = threading.Event()
        self._assembly: Assembly | None = None
        self._directory_lock = DirectoryLock(self.persistence_dir)
        self.mesh = MeshRegistry(
            self,
            enabled=mesh,
            peers=peers,
            code_version=mesh_version,
            multicast=mesh_multicast and connect_to is None,  # who cannot be called has nothing to announce
            lan_discovery=mesh_lan_discovery,
            gossip_interval=mesh_gossip_interval,
            offline_after=mesh_offline_after,
            discovery_key=lambda: self.client.api_key,
            left_out=self._host_left_out,
        )
        if self.connect_to is not None:
            self.mesh.add_seed(self.connect_to)

    # --- address ------------------------------------------------------------------------------------------------------

    @property
    def listens(self) -> bool:
        """Whether this host listens on addresses of its machine."""
        return self.connect_to is None and self.fabric is None

    @property
    def binding(self) -> Binding:
        """Where this host was told to listen, and what addresses that comes to now."""
        return self._binding

    def rebound(self, binding: Binding, *, open_to_strangers: bool) -> None:
        """Know that this host listens on other addresses from now on; see `paglets.runtime.lan_watch`."""
        self.own_url.left(self.address)
        self._binding = binding
        self.open_to_strangers = open_to_strangers

    def _is_anothers(self, url: str) -> bool:
        """Tell whether another host of the mesh is known at an address that this one had."""
        known = self.mesh.lookup(url)
        return known is not None and not same_url(known.url, self.address)

    @property
    def bind_hosts(self) -> list[str]:
        """The addresses this host listens on, none where it is connected to a hub."""
        return list(self._binding.hosts) if self.listens else []

    @property
    def bind_host(self) -> str:
        """The first address this host listens on."""
        return self._binding.hosts[0]

    @property
    def public_host(self) -> str:
        """The address under which others reach this host directly."""
        return self._binding.public_host

    @property
    def address(self) -> str:
        """Base URL for others, without a trailing slash."""
        if self.fabric is not None:
            return self.fabric.address(self.name).rstrip("/")
        if self.connect_to is not None:
            return f"{self.connect_to}/relay/hosts/{quote(self.name, safe='')}"
        return self.public_url or base_url(self.public_host, self.port, tls=self.tls is not None)

    @property
    def running(self) -> bool:
        """Whether the host is started."""
        return self._assembly is not None

    @property
    def sends_in_clear(self) -> bool:
        """Whether other machines talk to this host without encryption."""
        if self.fabric is not None:
            return False  # what it sends is the fabric's to know
        if self.connect_to is not None:
            return self.connect_to.startswith("http:") and not is_loopback(urlsplit(self.connect_to).hostname or "")
        return bool(self._binding.beyond) and self.tls is None and self.public_url is None

    # --- starting and stopping ----------------------------------------------------------------------------------------

    def start_background(self) -> None:
        """Start the host and return when it serves requests; a started host is left alone.

        :raises HostError: its address or its directory is in use, its journal cannot be read, a key or a certificate
            cannot be used, or strangers on other machines could do everything and ``insecure`` was not given.
        """
        with self._lifecycle:
            if self._assembly is not None:
                return
            self._stopped.clear()
            if self.listens:
                self._binding = self._binding.now()
            self._directory_lock.acquire()
            try:
                self._assembly = Assembly.start(self, self._binding, launcher=self._launcher, services=self.services)
            except BaseException:
                self._directory_lock.release()
                raise
            self._assembly.kernel.properties = self._properties
        self.mesh.start()
        self._assembly.emit("context-start")

    def serve_forever(self) -> None:
        """Start if needed and block until the host is stopped; Ctrl-C shuts it down in order."""
        self.start_background()
        try:
            # In slices, because waiting without end would keep signals from the main thread on some systems.
            while not self._stopped.wait(0.5):
                continue
        except KeyboardInterrupt:
            self.shutdown()

    def shutdown(self) -> None:
        """Store every active paglet for the next start, then stop."""
        self.stop(deactivate_active=True)

    def stop(self, *, deactivate_active: bool = False) -> None:
        """End every paglet and stop; a host that does not run is left alone.

        :param deactivate_active: store the paglets first, to be woken by the next start. Without it the active ones
            end for good, as if disposed without their hook; only the end of a host that was not asked for brings them
            back.
        """
        with self._lifecycle:
            assembly = self._assembly
            if assembly is None:
                return
            self.mesh.stop()
            try:
                assembly.stop(store_active=deactivate_active)
            finally:
                self._assembly = None
                self._directory_lock.release()
                self.events.close()
                self.client.close()
                self._stopped.set()

    @property
    def artifacts(self) -> ArtifactStore:
        """The artifacts of this host.

        :raises HostError: the host is not started; its directory may be that of another host by now.
        """
        return self._node.artifacts

    @property
    def blobs(self) -> BlobStore:
        """The content that artifacts and moving paglets of this host have in common.

        :raises HostError: the host is not started.
        """
        return self._node.blobs

    # --- information --------------------------------------------------------------------------------------------------

    def agent_counts(self) -> tuple[int, int]:
        """Return how many paglets are active and how many inactive."""
        assembly = self._assembly
        if assembly is None:
            return 0, stored_count(self.persistence_dir)
        return assembly.kernel.agents.counts()[0], len(assembly.node.dormitory)

    def health(self) -> dict[str, Any]:
        """Return who this host is and how it does."""
        active, inactive = self.agent_counts()
        return {
            "name": self.name,
            "address": self.address,
            "active_count": active,
            "inactive_count": inactive,
            "code_version": self.mesh.code_version,
            "capabilities": [name for name in HOST_CAPABILITIES if not name.startswith("admin:")],
            "tags": list(self.tags),
            "properties": dict(self.host_properties),
            "auto_update_from_git": False,
            "auto_update_restart_scheduled": False,
            **({"insecure": True} if self.open_to_strangers else {}),
            "encodings": encodings(),
            **self._left_out(),
            **({"draining": True} if self._assembly is not None and self._assembly.kernel.draining else {}),
            **self._relay_nodes(),
        }

    def _relay_nodes(self) -> dict[str, Any]:
        # They need no higher role than health does; see `paglets.runtime.http.access`.
        assembly = self._assembly
        nodes = [] if assembly is None else assembly.relay_nodes(MOST_RELAY_NODES)
        return {"relay_nodes": nodes} if nodes else {}

    def relay_diagnostics(self) -> dict[str, Any]:
        """Return under ``nodes`` how each host does that is, or was, connected to this hub since it started, by name.

        The answer of ``GET /relay/diagnostics``; empty on a host that is no hub or is not started.
        """
        assembly = self._assembly
        return {"nodes": [] if assembly is None else assembly.relay_nodes()}

    def relay_host_health(self, target: str) -> dict[str, Any]:
        """Return what a host that is connected to this hub says of itself now: the answer of
        ``GET /relay/hosts/NAME/health``, asked by this host's client with its key.

        :param target: name of the connected host; this host's own gives its own health.
        :raises HostUnreachableError: it is not connected, offline, or has too many requests under way.
        :raises ConnectionLostError: its link broke.
        :raises RemoteTimeoutError: it does not answer.
        :raises AuthenticationError: the key of this host is not one that the hub and the connected host take.
        :raises HostError: this hub is not started.
        """
        if target == self.name:
            return self.health()
        if not self.relay_settings.accepts:
            raise HostUnreachableError(f"Relay target {target!r} is not connected")
        self._running()
        health: dict[str, Any] = self.client.get_json(f"{self.address}/relay/hosts/{quote(target, safe='')}/health")
        return health

    def _left_out(self) -> dict[str, Any]:
        others = self.mesh.left_out()[:MOST_LEFT_OUT]
        named = [{"name": ref.name, "url": ref.url, "code_version": ref.code_version} for ref in others]
        return {"left_out": named} if named else {}

    def _host_left_out(self, ref: HostRef) -> None:
        assembly = self._assembly
        if assembly is not None:
            assembly.emit(
                "mesh-host-left-out",
                data={"name": ref.name, "url": ref.url, "code_version": ref.code_version},
                error=f"code version {ref.code_version!r} != {self.mesh.code_version!r}",
            )

    def list_hosts(self, *, online_only: bool = False, include_self: bool = True) -> list[HostRef]:
        """Return the hosts of the mesh that this host knows."""
        return self.mesh.hosts(online_only=online_only, include_self=include_self)

    def join_mesh(self, payload: dict[str, Any]) -> list[HostRef]:
        """Register a host by its record and return the known hosts."""
        self.mesh.register_wire(payload)
        return self.mesh.hosts()

    # --- updates from git, which this version does not do -------------------------------------------------------------

    def handle_git_update_request(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Answer a request to update from git: this host does not."""
        return {
            "ok": False,
            "status": "disabled",
            "error": "auto update from git is disabled on this host",
            "target_hash": str(payload.get("target_hash", "")),
        }

    def broadcast_git_update(
        self, targets: list[str] | None = None, *, validate_targets: bool = False, report_unreachable: bool = True
    ) -> list[dict[str, Any]]:
        """Ask other hosts to update: none, because updating is off here."""
        del targets, validate_targets, report_unreachable
        return []

    def request_peer_git_update(
        self,
        url: str,
        *,
        target_hash: str | None = None,
        health: dict[str, Any] | None = None,
        throttle: bool = True,
        validate_health: bool = False,
        report_unreachable: bool = True,
    ) -> dict[str, Any] | None:
        """Ask a peer to update: not done, because updating is off here."""
        del url, target_hash, health, throttle, validate_health, report_unreachable
        return None

    # --- events and properties ----------------------------------------------------------------------------------------

    def add_listener(self, listener: ContextListener) -> None:
        """Tell ``listener`` of every event from now on, from a thread of its own."""
        self.events.add_listener(listener)

    def remove_listener(self, listener: ContextListener) -> None:
        """Tell a listener nothing more."""
        self.events.remove_listener(listener)

    def list_events(self, *, since: int = 0, limit: int = 100) -> list[ContextEvent]:
        """Return events with an id greater than ``since``, oldest first."""
        self.events.flush(EVENT_FLUSH_SECONDS)
        return self.events.events_since(since, limit=limit)

    def get_property(self, key: str, default: Any = None) -> Any:
        """Return a property that all paglets of this host share."""
        return self._properties.get(key, default)

    def set_property(self, key: str, value: Any) -> None:
        """Set a property in memory; None removes it."""
        if value is None:
            self._properties.pop(key, None)
        else:
            self._properties[key] = value
