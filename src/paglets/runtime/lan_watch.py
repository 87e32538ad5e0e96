"""Follow the address of this machine in its network: a host that was told `auto` is reached at the one it has now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from paglets.core.errors import PagletError
from paglets.runtime.entrance import Entrance
from paglets.runtime.inlets import HttpInlet
from paglets.runtime.options import Binding

if TYPE_CHECKING:
    from paglets.runtime.host import Host
    from paglets.runtime.node import Node


class LanWatch:
    """Look for another address of the machine from time to time, and move the host there; lives on its loop.

    The new address is bound before anything changes. Then everybody here learns of it, and only then the old one takes
    nobody in any more; connections that were made there go on.

    :param entrance: says whether strangers would be let in at an address.
    :param readdress: called on the loop when the host has other addresses, for those who keep some of them.
    """

    def __init__(
        self, host: Host, node: Node, inlet: HttpInlet, entrance: Entrance, *, readdress: Callable[[], None]
    ) -> None:
        self._host = host
        self._node = node
        self._inlet = inlet
        self._entrance = entrance
        self._readdress = readdress
        # Of its own: finding out the address may take as long as a name server, which nothing else is to wait for.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"paglets-address-{host.name}")
        self._watching: asyncio.Task[None] | None = None
        self._moving: asyncio.Task[None] | None = None
        self._owed = False
        """Whether rows still have to learn of the present address."""
        self._told = ""

    def start(self) -> None:
        """Begin to look, every `bind_watch_interval` seconds."""
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Look no more; a move that has begun is finished first, which waits for nothing but the disk."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
        if self._moving is not None:
            await asyncio.wait((self._moving,))
        self._thread.shutdown(wait=False)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._host.bind_watch_interval)
            try:
                await self._look()
            except Exception as exc:  # whatever it was, the address is looked for again
                self._report(f"{type(exc).__name__}: {exc}" if not isinstance(exc, PagletError) else str(exc))

    async def _look(self) -> None:
        found = await asyncio.get_running_loop().run_in_executor(self._thread, self._host.binding.followed)
        # Once begun it is not broken off: a host at two addresses, or half at one, would be hard to take apart.
        step = self._settle_rows() if found is None else self._move(found)
        self._moving = asyncio.get_running_loop().create_task(step)
        await asyncio.shield(self._moving)
        self._told = ""

    async def _move(self, found: Binding) -> None:
        """Have the host listen at other addresses.

        :raises HostError: it cannot, or must not since strangers could do everything there; nothing has changed.
        """
        host, kernel = self._host, self._node.kernel
        # A network that appears makes a host public that was this machine's alone.
        exposed = self._entrance.check(found.beyond, insecure=host.insecure)
        await self._inlet.listen(found.hosts, host.port)
        former = host.address
        host.rebound(found, open_to_strangers=exposed)
        here = host.address
        self._readdress()
        if here != former:
            self._owed = True
            self._settle(former)
        self._inlet.keep_only(found.hosts)
        try:
            if here != former:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._tell_others, former)
                await self._settle_rows()
        finally:
            kernel.emit(
                "context-rebind",
                data={"old_address": former, "new_address": here, "bind_hosts": list(found.hosts)},
            )

    def _settle(self, former: str) -> None:
        """Have what is in memory name the present address."""
        kernel, node = self._node.kernel, self._node
        for entry in kernel.agents:
            entry.home = kernel.address.of(entry.home)
        node.services.move(former)
        kernel.starter.tell_address()

    async def _settle_rows(self) -> None:
        """Have what is on disk name the present address, and tell the home hosts of the paglets here."""
        if self._owed:
            await self._node.kernel.vault.settle_in(self._node.kernel.agents)
            self._owed = False
            await self._node.whereabouts.tell_everything()

    def _tell_others(self, former: str) -> None:
        self._node.artifacts.set_host_url(self._host.address)
        self._host.mesh.local_address_changed(former)

    def _report(self, text: str) -> None:
        """Tell why the host stays where it is, once for each reason."""
        if text != self._told:
            self._told = text
            kernel = self._node.kernel
            kernel.emit("context-rebind-failed", data={"bind_hosts": list(self._host.bind_hosts)}, error=text)
