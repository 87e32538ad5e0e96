"""Two worlds with the same two hosts: a testing mesh, and real hosts. A scenario cannot tell which it is in."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from paglets.core.errors import PagletError
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.testing.mesh import PagletMesh
from tests.support import eventually

NAMES = ("alpha", "beta")


class World(AbstractContextManager["World"], Protocol):
    """Two hosts and a program beside them."""

    def host(self, name: str) -> Any: ...

    def url(self, name: str) -> str: ...

    def client(self) -> HostClient: ...

    def reboot(self, name: str) -> None: ...

    def eventually(self, look: Callable[[], Any]) -> Any: ...


class Observer:
    """Write down what somebody outside sees, without what is different every time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seen: list[Any] = []
        self._ids: dict[str, str] = {}

    def create(self, name: str, cls: type[Any], state: Any = None, **options: Any) -> PagletProxy:
        made = self.world.host(name).create(cls, state, **options)
        self._ids.setdefault(made.agent_id, f"<paglet {len(self._ids) + 1}>")
        return PagletProxy(made.host_url, made.agent_id, self.world.client())

    def attempt(self, work: Callable[[], Any]) -> Any:
        """Do something and note what came of it."""
        try:
            outcome = work()
        except PagletError as exc:
            self.note(f"{type(exc).__name__}: {str(exc).splitlines()[0]}")
            return None
        self.note(outcome.to_wire() if isinstance(outcome, PagletProxy) else outcome)
        return outcome

    def ask(self, proxy: PagletProxy, kind: str, /, **args: Any) -> Any:
        return self.attempt(lambda: proxy.send(Message(kind, args)))

    def note(self, what: Any) -> None:
        self.seen.append(self._plain(what))

    def note_events(self, proxy: PagletProxy) -> None:
        for name in NAMES:
            events = self.world.host(name).list_events(limit=10_000)
            self.note([name, [event.kind for event in events if event.agent_id == proxy.agent_id]])

    def _plain(self, what: Any) -> Any:
        if isinstance(what, dict):
            return {key: self._plain(value) for key, value in what.items() if key not in ("pid", "timestamp")}
        if isinstance(what, (list, tuple)):
            return [self._plain(value) for value in what]
        if not isinstance(what, str):
            return what
        for name in NAMES:
            what = what.replace(self.world.url(name), f"<{name}>")
        for agent_id, label in self._ids.items():
            what = what.replace(agent_id, label)
        # Why a connection is refused is told by the library that asked for it.
        what = re.sub(r"(Could not reach \S+?): .*", r"\1", what)
        return re.sub(r"[0-9a-f]{32}", "<id>", what)


class MeshWorld:
    """A testing mesh."""

    def __enter__(self) -> MeshWorld:
        self._mesh = PagletMesh(*NAMES, seed=3)
        return self

    def __exit__(self, *_: object) -> None:
        self._mesh.close()

    def host(self, name: str) -> Any:
        return self._mesh.host(name)

    def url(self, name: str) -> str:
        return self._mesh.url(name)

    def client(self) -> HostClient:
        return self._mesh.client

    def reboot(self, name: str) -> None:
        self._mesh.stop(name)
        self._mesh.restart(name)

    def eventually(self, look: Callable[[], Any]) -> Any:
        return self._mesh.until(look)


class RealWorld:
    """Real hosts."""

    def __enter__(self) -> RealWorld:
        self._directory = tempfile.TemporaryDirectory()
        self._client = HostClient()
        self._hosts: dict[str, Host] = {}
        self._ports = dict.fromkeys(NAMES, 0)
        for name in NAMES:
            self._start(name)
        self._hosts["beta"].mesh.gossip_once()
        self._hosts["alpha"].mesh.gossip_once()
        return self

    def _start(self, name: str) -> None:
        peers = [host.address for host in self._hosts.values() if host.name != name]
        directory = Path(self._directory.name) / name
        host = Host(name, port=self._ports[name], persistence_dir=directory, mesh_version="testing", peers=peers)
        host.start_background()
        self._ports[name] = host.port
        self._hosts[name] = host

    def __exit__(self, *_: object) -> None:
        for host in self._hosts.values():
            host.stop()
        self._client.close()
        self._directory.cleanup()

    def host(self, name: str) -> Any:
        return self._hosts[name]

    def url(self, name: str) -> str:
        return self._hosts[name].address

    def client(self) -> HostClient:
        return self._client

    def reboot(self, name: str) -> None:
        self._hosts[name].shutdown()
        self._start(name)

    def eventually(self, look: Callable[[], Any]) -> Any:
        return eventually(look, "what a scenario waits for")
