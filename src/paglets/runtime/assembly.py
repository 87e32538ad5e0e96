"""Put a host together when it starts, and take it apart in order when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from paglets.config.startup import LaunchConfig
from paglets.core.errors import ForbiddenError, TransferError
from paglets.core.runtime_values import LaunchConfigSyncAction
from paglets.persistence.journal import Journal
from paglets.remote.aio import AsyncHostClient
from paglets.remote.fabric import Inlet
from paglets.remote.idle import Origin
from paglets.remote.shortcut import Detour
from paglets.runtime import platform
from paglets.runtime.artifact_home import ArtifactHome
from paglets.runtime.calls import CallDesk
from paglets.runtime.entrance import Entrance
from paglets.runtime.http.app import application
from paglets.runtime.http.guards import GuardPolicy, own_host_names
from paglets.runtime.inlets import HttpInlet, LinkInlet
from paglets.runtime.kernel import Kernel, KernelConfig
from paglets.runtime.lan_watch import LanWatch
from paglets.runtime.launch.base import Launcher
from paglets.runtime.loop import LoopThread
from paglets.runtime.node import Node, NodePorts
from paglets.runtime.options import Binding, own_shortcut
from paglets.runtime.own_url import FormerAddresses
from paglets.runtime.relay.wiring import Relay
from paglets.runtime.residents.declared import own_modules
from paglets.runtime.resumption import RESUME_SECONDS
from paglets.runtime.startup_agents import start_agents
from paglets.services.contracts import ServiceRegistry

if TYPE_CHECKING:
    from paglets.runtime.host import Host

T = TypeVar("T")

#: The longest time between two looks at what has expired in it.
SWEEP_SECONDS = 300.0
#: The file in the host's directory that has everything durable but large states and files.
JOURNAL_NAME = "journal.db"
MAX_PEER_CALLS = 1000
#: How long a stopping host waits for the transfers it is in the middle of.
TRANSFER_FINISH_SECONDS = 0.5
#: How long requests that came over a link may go on when the host stops.
GRACEFUL_SECONDS = 1.0


class Assembly:
    """Everything a started host consists of."""

    def __init__(
        self, host: Host, thread: LoopThread, node: Node, words: AsyncHostClient, artifacts: ArtifactHome
    ) -> None:
        self._host = host
        self._thread = thread
        self.node = node
        self._words = words
        self._relay = Relay(host, node.kernel)
        self._artifacts = artifacts
        self._inlet: Inlet | None = None
        self._timekeeper: asyncio.Task[None] | None = None
        self._entrance: Entrance | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._lan_watch: LanWatch | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._served = False
        self.loop = thread.loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the host's loop and wait for it."""
        return self._thread.run(work)

    def call(self, work: Callable[[], T]) -> T:
        """Call a function on the host's loop and wait for its result."""
        return self._thread.call(work)

    @property
    def kernel(self) -> Kernel:
        """The kernel."""
        return self.node.kernel

    @classmethod
    def start(cls, host: Host, binding: Binding, *, launcher: Launcher | None, services: ServiceRegistry) -> Assembly:
        """Start a host whose directory this process holds.

        :raises HostError: its address is in use, its journal cannot be read, or a module to preload is refused.
        """
        platform.raise_descriptor_limit()
        prepare_directory(host)
        entrance = entrance_of(host)
        # Before anything listens.
        beyond = binding.beyond if host.listens else ()
        host.open_to_strangers = entrance.check(beyond, insecure=host.insecure)
        around = host.surroundings
        launcher = launcher or around.launcher()
        launcher.start()
        sockets = around.bind(binding.hosts, host.port) if host.listens else []
        try:
            if sockets:
                host.port = sockets[0].getsockname()[1]
            artifacts = ArtifactHome.open(host)
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        try:
            journal = around.journal(host.persistence_dir / JOURNAL_NAME)
            thread = around.loop_thread(f"paglets-{host.name}")
        except BaseException:
            for sock in sockets:
                sock.close()
            artifacts.close()
            raise
        assembly: Assembly | None = None
        try:
            refused = launcher.preload([*host.preload, *own_modules(host.launch_config)])
            for module, why in refused.items():
                if module not in host.preload:
                    continue  # who cannot import it says so when its service is started
                host.events.emit(
                    kind="preload-refused",
                    host_name=host.name,
                    host_address=host.address,
                    data={"module": module},
                    error=why,
                )
            journal.attach(thread.loop)
            assembly = thread.run(build(host, thread, launcher, journal, services, artifacts))
            thread.run(assembly._begin(sockets, entrance, journal.warnings))
        except BaseException:
            if assembly is not None:
                thread.run(assembly._end())
            for sock in sockets:
                sock.close()
            thread.stop()
            artifacts.close()
            journal.close()
            raise
        return assembly

    async def _begin(self, sockets: list[Any], entrance: Entrance, warnings: list[str]) -> None:
        node, host = self.node, self._host
        for warning in warnings:
            self.emit("journal-warning", error=warning)
        wanted = await node.resumption.load()
        self._emit_sync_result()
        config = host.launch_config or LaunchConfig()
        # Known before anybody can ask for them; they are started when others can be asked.
        await node.residents.declare(config.resident_services)
        self._entrance = entrance
        served = application(
            node, self._policy(), version=product_version, relay=self._relay.gateway, gate=entrance.gate()
        )
        inlet = self._inlet = self._way_in(sockets, entrance)
        await inlet.open(served)
        if host.listens:
            self._take_detour()
        self._served = True
        self._watcher = self.loop.create_task(entrance.watch())
        await node.residents.start_wanted(RESUME_SECONDS)
        # One paglet that takes its time to come back does not keep the others from being reached.
        resuming = self.loop.create_task(self.kernel.guarded(node.resumption.resume(wanted)))
        self.kernel.keep(resuming)
        await asyncio.wait((resuming,), timeout=RESUME_SECONDS)
        await start_agents(node, config.startup_agents)
        self._timekeeper = self.loop.create_task(node.timers.run())
        self._sweeper = self.loop.create_task(self._sweep_artifacts())
        host.mesh.refresh_self()
        await inlet.settle()
        if isinstance(inlet, HttpInlet) and host.binding.follows:
            self._lan_watch = LanWatch(host, node, inlet, entrance, readdress=self._readdress)
            self._lan_watch.start()

    def _way_in(self, sockets: list[Any], entrance: Entrance) -> Inlet:
        host = self._host
        if host.fabric is not None:
            return host.fabric.inlet(host.name)
        if host.connect_to is not None:
            return LinkInlet(self._relay, GRACEFUL_SECONDS)
        return HttpInlet(host.surroundings, dict(zip(host.binding.hosts, sockets, strict=False)), tls=entrance.context)

    def _readdress(self) -> None:
        """Have what keeps an address of the host take the present one."""
        self._guard_policy = self._present_policy()
        self._take_detour()

    def _take_detour(self) -> None:
        """Have this host reach itself, and what is connected to it, without leaving its machine."""
        host = self._host
        detour: Detour | None = None
        if host.public_url is not None:
            # With TLS its certificate is for the public name, not for the address of the socket.
            detour = None if host.tls is not None else own_shortcut(host.public_url, host.bind_host, host.port)
        elif host.own_url.former:
            way = Origin("http" if host.tls is None else "https", host.public_host, host.port)
            detour = FormerAddresses(host.own_url, way)
        host.client.connections.shortcut = self._words.http.shortcut = detour

    async def _sweep_artifacts(self) -> None:
        """Remove what has expired, now and from time to time; what is found damaged is told once."""
        store = self.node.artifacts
        while True:
            try:
                await self.node.content.with_store(store, store.cleanup_temporary)
            except TransferError as exc:
                self.emit("artifact-fault", error=str(exc))
            while store.problems:
                self.emit("artifact-fault", error=store.problems.popleft())
            await asyncio.sleep(max(1.0, min(store.spool_ttl_seconds, SWEEP_SECONDS)))

    def _policy(self) -> Callable[[], GuardPolicy]:
        self._guard_policy = self._present_policy()
        return lambda: self._guard_policy

    def _present_policy(self) -> GuardPolicy:
        host = self._host
        parts = urlsplit(host.public_url or "")
        return GuardPolicy(
            api_key=host.api_key,
            host_names=own_host_names(*host.bind_hosts, host.public_host, parts.hostname or ""),
            path_prefix=parts.path.rstrip("/"),
        )

    def _emit_sync_result(self) -> None:
        result = self._host.launch_config_sync_result
        if result is None or result.action not in (LaunchConfigSyncAction.COPIED, LaunchConfigSyncAction.UPDATED):
            return
        data = {"path": str(result.path), "message": result.message}
        if result.action is LaunchConfigSyncAction.UPDATED:
            data["backup_path"] = str(result.backup_path or "")
        kind = "copy" if result.action is LaunchConfigSyncAction.COPIED else "update"
        self.emit(f"launch-config-{kind}", data=data)

    def relay_nodes(self, most: int | None = None) -> list[dict[str, Any]]:
        """Return how the hosts do that are connected to this one, by name; any thread may ask.

        :param most: how many of them, the first by name; None for all.
        """
        return self._relay.hub.diagnostics(most)

    def emit(self, kind: str, **fields: Any) -> None:
        """Record an event of the host."""
        self.kernel.emit(kind, **fields)

    def stop(self, *, store_active: bool) -> None:
        """Stop serving, store the active paglets if asked to, end every process and the loop."""
        try:
            self.run(self._end(store_active=store_active))
        finally:
            self._thread.stop()
            self._artifacts.close()
            self.kernel.journal.close()

    async def _end(self, *, store_active: bool = False) -> None:
        if self._lan_watch is not None:
            await self._lan_watch.stop()
        for task in (self._timekeeper, self._watcher, self._sweeper):
            if task is not None:
                task.cancel()
        self.kernel.closing = True
        # First: a paglet that is stored here must not be handed over to another host as well.
        await self.node.departures.finish("the host is shutting down", TRANSFER_FINISH_SECONDS)
        if store_active:
            await self.node.deactivator.put_everyone_to_sleep()
        await self.node.close()
        if self._served:
            self.emit("context-shutdown")
        self._relay.close()
        if self._inlet is not None:
            await self._inlet.close()
        await self._relay.ended()
        self._host.client.connections.shortcut = None
        if self._entrance is not None:
            await self._entrance.close()
        await self._words.aclose()
        # Last: what the end of a request leaves behind is removed on these threads.
        await self.node.content.close()


async def build(
    host: Host,
    thread: LoopThread,
    launcher: Launcher,
    journal: Journal,
    services: ServiceRegistry,
    artifacts: ArtifactHome,
) -> Assembly:
    """Create the parts of a host on its loop."""
    config = KernelConfig(
        host.name,
        host.persistence_dir,
        host.policy,
        run_settle_seconds=host.run_settle_seconds,
        checkpoint_interval=host.checkpoint_interval,
    )
    if host.policy.max_paglets is not None:
        config.max_paglets = host.policy.max_paglets
    kernel = Kernel(config, thread.loop, launcher, host.events, host.own_url, journal)
    words = host.surroundings.words(
        api_key=host.shown_key or host.client.api_key,
        ssl_context=host.tls_context or host.client.connections.ssl_context,
        max_connections=MAX_PEER_CALLS,
        fabric=None if host.fabric is None else host.fabric.for_loop(),
        content=None if host.fabric is None else host.fabric.for_threads(),
    )
    ports = NodePorts(
        client=host.client,
        words=words,
        mesh=host.mesh,
        services=services,
        health=host.health,
        git_update=partial(git_update, host),
        storage_quota_bytes=host.persistent_storage_quota_bytes,
        artifacts=artifacts.store,
    )
    node = Node(kernel, ports)
    CallDesk(node)
    return Assembly(host, thread, node, words, artifacts)


def entrance_of(host: Host) -> Entrance:
    """Return what decides who gets into a host.

    :raises HostError: a key file or a certificate cannot be used.
    """

    def report(kind: str, text: str) -> None:
        host.events.emit(kind=kind, host_name=host.name, host_address=host.address, error=text or None)

    return Entrance(
        host.name,
        api_key=host.api_key,
        key_files=host.key_files,
        tls=host.tls,
        directory=host.persistence_dir,
        report=report,
    )


def git_update(host: Host, payload: dict[str, Any]) -> dict[str, Any]:
    """Answer a request to update from version control.

    :raises ForbiddenError: the host is reached through a relay, which must not decide what runs here.
    """
    if host.relay_mode:
        raise ForbiddenError("a host in relay mode does not take requests to update")
    return host.handle_git_update_request(payload)


def prepare_directory(host: Host) -> None:
    """Make sure that the host's directory can be used.

    :raises OSError: it cannot.
    """
    host.persistence_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


def product_version() -> str:
    """Return the version of the installed package."""
    # Finding it out takes longer than most of what a host does when it starts, and hardly anybody asks.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("paglets")
    except PackageNotFoundError:
        return "0"
