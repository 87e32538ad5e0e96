"""Paglets that write messages down and pass them on: what arrived, how often and in what order, can be told then."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.errors import InvalidAgentError, PagletError, RemoteTimeoutError
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, RestartPolicy
from paglets.core.runtime_values import Durability
from paglets.remote.proxy import PagletProxy


@dataclass
class ClerkState(PagletState):
    """What a clerk has written down."""

    entries: list[str] = field(default_factory=list)
    deaf: bool = False
    """Whether it sleeps until it is woken, whatever is sent to it."""
    calls: list[list[str]] = field(default_factory=list)
    """Host URL and id of paglets that `run` asks."""
    deaths: str = ""
    """A file with a byte for each death of a `Drowsy` one."""
    dies: int = 0
    """How often it dies while it wakes."""


class Clerk(Paglet[ClerkState]):
    """A clerk whose every handled message is durable."""

    State = ClerkState
    DURABILITY: ClassVar[Durability] = Durability.MESSAGE
    RESTART: ClassVar[RestartPolicy] = RestartPolicy(restarts=1000, window=1.0, backoff=0.01, max_backoff=0.05)

    def deactivation_policy(self, request: Any) -> DeactivationPolicy:
        """Wake for every message unless deaf."""
        return DeactivationPolicy(activate_on_message=not self.state.deaf)

    def run(self) -> None:
        """Ask whom the state names."""
        for url, agent_id in self.state.calls:
            self._enter(f"run {self._peer(url, agent_id).send(Message('note', {'entry': 'from run'}))}")

    def _enter(self, entry: str) -> int:
        with self.locked_state() as state:
            state.entries.append(entry)
            return len(state.entries)

    def _peer(self, url: str, agent_id: str) -> PagletProxy:
        return PagletProxy(url, agent_id, self.context.host.client)

    @handler
    def note(self, entry: str, padding: Any = None) -> int:
        """Enter something; return how many entries there are."""
        return self._enter(entry)

    @handler
    def book(self) -> list[str]:
        """Return what was entered."""
        return list(self.state.entries)

    @handler
    def gate(self, path: str, entry: str = "gate") -> int:
        """Wait in a gate, then enter something."""
        Path(path).read_bytes()
        return self._enter(entry)

    @handler
    def deafen(self) -> None:
        """Sleep through messages from now on."""
        self.state.deaf = True

    @handler
    def refuse(self, entry: str = "refused") -> None:
        """Enter something and say that there is no such paglet."""
        self._enter(entry)
        raise InvalidAgentError("said by the handler")

    @handler
    def late(self, entry: str = "late") -> None:
        """Enter something and fail as one does who waited in vain for somebody else."""
        self._enter(entry)
        raise RemoteTimeoutError("said by the handler")

    @handler
    def die(self, entry: str, once: str = "") -> int:
        """Enter something and take the process along; only the first time where there is a path to note that."""
        count = self._enter(entry)
        if not once or not Path(once).exists():
            if once:
                Path(once).touch()
            os._exit(7)
        return count

    @handler
    def go(self, to: str) -> None:
        """Move."""
        self.dispatch(to)

    @handler
    def rest(self, entry: str) -> int:
        """Enter something and go to sleep."""
        count = self._enter(entry)
        self.deactivate(reason="rest")
        return count

    # --- others

    @handler
    def ask(self, url: str, agent_id: str, kind: str, args: dict[str, Any], timeout: float = 20.0) -> list[Any]:
        """Send a message to another paglet and return the reply or the error."""
        try:
            return ["reply", self._peer(url, agent_id).send(Message(kind, args), timeout=timeout)]
        except PagletError as exc:
            return [type(exc).__name__, str(exc)]

    @handler
    def tell(self, to: list[list[str]], entry: str, times: int = 1, once: str = "") -> int:
        """Send entries one-way to some paglets; then die where a path says that this has not happened yet."""
        for number in range(times):
            for url, agent_id in to:
                message = Message("note", {"entry": entry if times == 1 else f"{entry}:{number}"})
                self._peer(url, agent_id).send_oneway(message)
        if once and not Path(once).exists():
            Path(once).touch()
            os._exit(7)
        return self._enter(f"told {entry}")

    @handler
    def consult(self, url: str, agent_id: str, entry: str, once: str = "") -> list[int]:
        """Have another clerk enter something twice; then die where a path says that this has not happened yet."""
        peer = self._peer(url, agent_id)
        counts = [peer.send(Message("note", {"entry": f"{entry}:{number}"})) for number in range(2)]
        if once and not Path(once).exists():
            Path(once).touch()
            os._exit(7)
        return counts

    @handler
    def around(self, way: list[list[str]]) -> Any:
        """Ask the next clerk on a way to do the same with the rest; return what the last one says, or the error."""
        if not way:
            return self._enter("end of the way")
        (url, agent_id), *rest = way
        return self._peer(url, agent_id).send(Message("around", {"way": rest}), timeout=20.0)

    @handler
    async def around_async(self, way: list[list[str]]) -> Any:
        """Do the same in a coroutine, and the sending in a thread of it."""
        if not way:
            return self._enter("end of the way")
        (url, agent_id), *rest = way
        message = Message("around_async", {"way": rest})
        return await asyncio.to_thread(self._peer(url, agent_id).send, message, timeout=20.0)

    @handler
    def around_oneway(self, way: list[list[str]]) -> int:
        """Pass a message on without waiting for it."""
        if way:
            (url, agent_id), *rest = way
            self._peer(url, agent_id).send_oneway(Message("around_oneway", {"way": rest}))
        return self._enter("passed on")

    @handler
    def ask_beside(self, url: str, agent_id: str) -> str:
        """Ask somebody from a thread that outlives the handler."""

        def ask() -> None:
            self._enter(f"answered {self._peer(url, agent_id).send(Message('note', {'entry': 'asked'}))}")

        threading.Thread(target=ask, daemon=True).start()
        return "asked"


class LightClerk(Clerk):
    """A clerk that keeps checkpoints."""

    DURABILITY = Durability.CHECKPOINT


class Drowsy(Clerk):
    """A clerk whose process ends a number of times before it is awake."""

    def on_activation(self, event: Any) -> None:
        """Die, unless that was often enough."""
        with Path(self.state.deaths).open("ab") as deaths:
            if deaths.tell() >= self.state.dies:
                return
            deaths.write(b".")
        os._exit(7)
