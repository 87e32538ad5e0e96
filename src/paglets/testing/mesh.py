"""A mesh of hosts for tests: whole, in this process, with virtual time, and repeatable."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from paglets.core.context_events import ContextEvent
from paglets.core.errors import InvalidAgentError
from paglets.remote.proxy import PagletProxy
from paglets.testing.ground import SIGKILL, MeshGround
from paglets.testing.network import TEST, Fault, Rule

if TYPE_CHECKING:
    from paglets.core.agent import Paglet, PagletState
    from paglets.core.messages import Message


class PagletMesh(MeshGround):
    """Run hosts with these names, all of them in this process.

    The hosts are the real ones: kernel, journal, transfers, HTTP routes and the worker that runs a paglet. In place of
    processes they have threads of which one runs at a time, in place of sockets memory, in place of the clock one that
    jumps to the next thing to do. What happens depends on the seed alone.

    Use it as a context manager, or `close` it. One mesh can be open in a program at a time, and its methods are called
    by the thread that made it. That thread and the paglets see virtual time in `time`.

    :param seed: decides the order of what may happen in any order, how long messages take, and every random number.
    :param directory: where the hosts keep their data; a temporary one by default, removed with the mesh.
    :param host_options: options of every `Host`.
    :raises MeshStuckError: another mesh is open.
    """

    def kill(self, proxy: PagletProxy | str) -> None:
        """End the process of a paglet, as SIGKILL would.

        :raises InvalidAgentError: it has none on any host.
        """
        agent_id = proxy if isinstance(proxy, str) else proxy.agent_id
        for host in self._hosts.values():
            entry = host._node.kernel.agents.get(agent_id)
            if entry is not None and entry.place is not None and not entry.crashed:
                entry.place._process.signal(SIGKILL)
                self._drive(asyncio.sleep(0))
                return
        raise InvalidAgentError(f"paglet {agent_id} has no process in this mesh")

    def where(self, proxy: PagletProxy | str) -> list[str]:
        """Return the names of the running hosts on which a paglet is, active or not: one, unless something is wrong."""
        agent_id = proxy if isinstance(proxy, str) else proxy.agent_id
        found = []
        for name, host in self._hosts.items():
            node = host._node
            if agent_id in node.kernel.agents or agent_id in node.dormitory:
                found.append(name)
        return found

    def state_of(self, proxy: PagletProxy | str) -> str:
        """Return how a paglet does: `active`, `asleep` or `crashed`.

        :raises InvalidAgentError: it is on no running host.
        """
        agent_id = proxy if isinstance(proxy, str) else proxy.agent_id
        for host in self._hosts.values():
            entry = host._node.kernel.agents.get(agent_id)
            if entry is not None:
                return "crashed" if entry.crashed else "active"
            if agent_id in host._node.dormitory:
                return "asleep"
        raise InvalidAgentError(f"paglet {agent_id} is on no running host of this mesh")

    # --- paglets ------------------------------------------------------------------------------------------------------

    def create(
        self,
        name: str,
        agent_cls: type[Paglet[Any]],
        state: PagletState | Any = None,
        *,
        init: Any = None,
        agent_id: str | None = None,
    ) -> PagletProxy:
        """Create a paglet on a host and return a proxy that the test can use; see `Host.create`."""
        made = self.host(name).create(agent_cls, state, init=init, agent_id=agent_id)
        return self.proxy(made.host_url, made.agent_id)

    def proxy(self, name_or_url: str, agent_id: str) -> PagletProxy:
        """Return a proxy of a paglet that the test can use, without asking whether there is one."""
        url = name_or_url if "://" in name_or_url else self.url(name_or_url)
        return PagletProxy(url, agent_id, self.client)

    def send(self, proxy: PagletProxy, message: Message | str, **args: Any) -> Any:
        """Send a message and return the reply; a text is the kind of a message with these arguments."""
        from paglets.core.messages import Message

        return proxy.send(Message(message, args) if isinstance(message, str) else message)

    def state(self, proxy: PagletProxy) -> Any:
        """Return a copy of the present state of an active paglet, as a move would give it.

        :raises InvalidAgentError: it is active on no host.
        """
        for host in self._hosts.values():
            entry = host._node.kernel.agents.get(proxy.agent_id)
            if entry is not None and entry.active:
                from paglets.runtime.worker.main import load_paglet_class, load_state_class

                cls = load_state_class(entry.state_class_name, load_paglet_class(entry.class_name))
                return self.host(host.name).get_state(proxy.agent_id, cls)
        raise InvalidAgentError(f"paglet {proxy.agent_id} is active on no host of this mesh")

    # --- the network --------------------------------------------------------------------------------------------------

    def partition(self, *sides: str | Iterable[str]) -> None:
        """Let nothing pass between hosts any more: each given one, or group of them, and the others.

        Nobody is told: requests end with the time their senders give them. `test` is the test itself.
        """
        groups = [[side] if isinstance(side, str) else list(side) for side in sides]
        if len(groups) == 1:
            groups.append([name for name in self._addresses if name not in groups[0]])
        for group in groups:
            for name in group:
                if name != TEST:
                    self.url(name)
        for number, group in enumerate(groups):
            for other in groups[number + 1 :]:
                self.network.cuts |= {frozenset((one, two)) for one in group for two in other}

    def heal(self) -> None:
        """End every partition, delay and fault."""
        self.network.cuts.clear()
        self.network.extra.clear()
        self.network.rules.clear()

    def delay(self, seconds: float, *pair: str) -> None:
        """Let messages between two hosts, or all, take so much longer in each direction."""
        if len(pair) not in (0, 2):
            raise ValueError("a delay is between two hosts, or all")
        names = [*self._addresses, TEST]
        pairs = [pair] if pair else [(one, two) for one in names for two in names if one < two]
        for each in pairs:
            self.network.extra[frozenset(each)] = seconds

    def lose(
        self,
        count: int | None = 1,
        *,
        what: str = "request",
        sender: str | None = None,
        target: str | None = None,
        path: str = "",
        rate: float = 1.0,
    ) -> None:
        """Let connections break: before the request arrives, or when it has been carried out, before the answer does.

        :param count: how many; None until `heal`.
        :param what: `request` or `answer`.
        :param sender: of this host only, or of the test.
        :param target: to this host only.
        :param path: only requests with this in their path, like `/messages`, `/commit`.
        :param rate: of those that fit only this part, by the seed.
        """
        faults = {"request": Fault.LOSE_REQUEST, "answer": Fault.LOSE_ANSWER}
        if what not in faults:
            raise ValueError("what is lost is a request or an answer")
        self.network.rules.append(Rule(faults[what], sender, target, path, count, rate))

    def duplicate(
        self,
        count: int | None = 1,
        *,
        sender: str | None = None,
        target: str | None = None,
        path: str = "",
        rate: float = 1.0,
    ) -> None:
        """Let requests arrive twice; otherwise like `lose`."""
        self.network.rules.append(Rule(Fault.DUPLICATE, sender, target, path, count, rate))

    # --- what happened ------------------------------------------------------------------------------------------------

    def events(self, name: str | None = None, kind: str | None = None) -> list[ContextEvent]:
        """Return the events of all hosts, or of one, in the order in which they happened; those before a crash too."""
        for host in self._hosts.values():
            self._note_events(host)
        return [
            event
            for event in sorted(self._log, key=lambda each: each.timestamp)
            if name in (None, event.host_name) and kind in (None, event.kind)
        ]
