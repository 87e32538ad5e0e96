"""Paglets that talk: to themselves, to each other, and to those who wait."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paglets.core.agent import Paglet, PagletState, handler
from paglets.core.errors import PagletError, StorageQuotaError
from paglets.core.messages import Message
from paglets.remote.proxy import PagletProxy


@dataclass
class TalkState(PagletState):
    heard: list[Any] = field(default_factory=list)
    running: int = 0
    most_running: int = 0


class Talker(Paglet[TalkState]):
    """Remember what is said."""

    State = TalkState
    MAILBOX_WORKERS = 1

    def _say(self, what: Any) -> None:
        with self.locked_state() as state:
            state.heard.append(what)
        self.notify_all_state_changed()

    @handler
    def hear(self, what: Any) -> int:
        with self.locked_state() as state:
            state.running += 1
            state.most_running = max(state.most_running, state.running)
        self._say(what)
        with self.locked_state() as state:
            state.running -= 1
            return len(state.heard)

    @handler
    def gate(self, path: str) -> str:
        Path(path).read_bytes()
        self._say("gate")
        return "through"

    @handler
    def metadata(self, message: Message) -> dict[str, Any]:
        return message.to_wire()

    @handler
    def raises(self, name: str, text: str = "on purpose") -> None:
        classes: dict[str, type[Exception]] = {
            "ValueError": ValueError,
            "KeyError": KeyError,
            "TypeError": TypeError,
            "PagletError": PagletError,
            "StorageQuotaError": StorageQuotaError,
        }
        raise classes[name](text)

    @handler
    def unencodable(self) -> Any:
        return object()

    # --- itself

    @handler
    def ask_self(self) -> str:
        try:
            self.send(self.agent_id, Message("hear", {"what": "self"}))
        except PagletError as exc:
            return f"{type(exc).__name__}: {exc}"
        return "no error"

    @handler
    async def ask_self_async(self) -> str:
        return self.ask_self()

    @handler
    def tell_self(self) -> str:
        proxy = self.context.get_proxy(self.agent_id)
        assert proxy is not None
        proxy.send_oneway(Message("hear", {"what": "self"}))
        return "told"

    @handler
    def ask_self_from_thread(self) -> str:
        found: list[Any] = []
        thread = threading.Thread(
            target=lambda: found.append(self.send(self.agent_id, Message("hear", {"what": "thread"})))
        )
        thread.start()
        thread.join(0.05)
        return "pending" if thread.is_alive() else "answered"

    # --- others

    @handler
    def ask(self, host_url: str, agent_id: str, kind: str, args: dict[str, Any], timeout: float = 10.0) -> Any:
        """Send a message to another paglet and return the reply or the error."""
        proxy = PagletProxy(host_url, agent_id, self.context.host.client)
        try:
            return ["reply", proxy.send(Message(kind, args), timeout=timeout)]
        except Exception as exc:
            return [type(exc).__name__, str(exc)]

    # --- waiting

    @handler
    def wait(self, timeout: float) -> bool:
        return self.wait_message(timeout)

    @handler
    def wait_for(self, what: str, timeout: float) -> bool:
        return self.wait_state(lambda state: what in state.heard, timeout)

    @handler
    def notify(self) -> str:
        self.notify_all_messages()
        return "notified"

    @handler
    def wait_for_thread(self, timeout: float) -> bool:
        """Wait for a notification that another thread of this paglet gives again and again."""
        over = threading.Event()

        def ring() -> None:
            while not over.wait(0.01):
                self.notify_message()

        thread = threading.Thread(target=ring)
        thread.start()
        try:
            return self.wait_message(timeout)
        finally:
            over.set()
            thread.join()

    @handler
    def wait_state_of_thread(self, timeout: float) -> bool:
        """Wait for a state that another thread of this paglet brings about."""
        thread = threading.Thread(target=self._say, args=("from the thread",))
        thread.start()
        try:
            return self.wait_state(lambda state: "from the thread" in state.heard, timeout)
        finally:
            thread.join()


class Chatty(Talker):
    """Send oneself a message from ``run``."""

    def run(self) -> None:
        self.send(self.agent_id, Message("hear", {"what": "from run"}))
