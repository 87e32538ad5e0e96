"""How a paglet asks the same of all hosts through clones of itself, apart from what it asks."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

from paglets.core.agent import NOT_HANDLED, Paglet
from paglets.core.errors import HostError, RemoteTimeoutError
from paglets.core.events import CloneEvent
from paglets.core.messages import Message
from paglets.protocol.membership import HostRef
from paglets.remote.proxy import PagletProxy
from paglets.remote.transfer import TransferTicket

PARENT: Final = "parent"
CHILD: Final = "child"
TIMED_OUT: Final = "timed out waiting for server-info result"

#: What a parent asks its clone.
ASK_CHILD: Final = "ask_local_service"

MAX_ANSWERS_AT_ONCE: Final = 64
MAX_TIMEOUT_SECONDS: Final = 600.0
MAX_WAIT_SECONDS: Final = 10.0


class Collecting:
    """The books of a parent, and what its clones do; mixed in before `Paglet`.

    The clones are sent out by the handler of `collect`. Their answers are waited for by threads of the parent, so that
    a handler that waits as well, that of `drain`, holds none of them up. A clone ends once it has answered, or when
    nobody has asked it in time.
    """

    #: Set in a clone that has answered.
    _answered: threading.Event | None = None

    @property
    def _paglet(self) -> Paglet[Any]:
        # Not `PagletMixin`: with its package each clone would load three times as much as it needs.
        return cast("Paglet[Any]", self)

    def ask_local_service(self, timeout: float) -> dict[str, Any]:
        """Return what the present host has to tell, as plain values."""
        raise NotImplementedError

    def knows(self, operation: str) -> bool:
        """Return whether there is such an operation."""
        raise NotImplementedError

    # --- messages -----------------------------------------------------------------------------------------------------

    def handle_message(self, message: Message) -> Any:
        """Answer `collect`, `drain`, `summary` and what clones and parents say to each other."""
        match message.kind:
            case "collect":
                with self._paglet.locked_state() as state:
                    state.operation = str(message.args.get("operation", state.operation))
                    state.request = _fields(message.args.get("request") or {})
                    state.timeout = float(message.args.get("timeout", state.timeout))
                return self.collect()
            case "drain":
                return self.drain(wait_timeout=float(message.args.get("wait_timeout", 0.5)))
            case "summary":
                return self.summary()
            case "child_result":
                self.record_child_result(message.args)
                return {"ok": True}
            case kind if kind == ASK_CHILD:
                return self._answer()
        return NOT_HANDLED

    # --- the parent ---------------------------------------------------------------------------------------------------

    def collect(self) -> dict[str, Any]:
        """Send a clone to every host of the mesh that is online, this one included, and return the summary so far.

        They are waited for `timeout` seconds, `MAX_TIMEOUT_SECONDS` at most.

        :raises HostError: there is no such operation, or the timeout is no time.
        """
        paglet = self._paglet
        with paglet.locked_state() as state:
            if not self.knows(state.operation):
                raise HostError(f"server-info has no operation {state.operation!r}")
            if not state.timeout > 0:
                raise HostError(f"timeout must be more than 0 s, not {state.timeout!r}")
            state.timeout = min(state.timeout, MAX_TIMEOUT_SECONDS)
            hosts = {host.url: host for host in paglet.context.available_hosts()}
            state.role = PARENT
            state.parent_host_url, state.parent_agent_id = paglet.context.address, paglet.agent_id
            state.deadline = time.time() + state.timeout
            state.pending_hosts = sorted(host.name for host in hosts.values())
            state.results, state.errors = {}, {}
        answers = ThreadPoolExecutor(MAX_ANSWERS_AT_ONCE, "paglet-answers")
        for host in hosts.values():
            self._send_clone(host, answers)
        answers.shutdown(wait=False)
        return self.summary()

    def _send_clone(self, host: HostRef, answers: ThreadPoolExecutor) -> None:
        paglet = self._paglet
        try:
            # One clone is made at a time: one that cannot get away leaves half of the time for the others.
            child = paglet.clone(TransferTicket(host.url, timeout=max(0.1, self._left() / 2)))
            answers.submit(self._await_answer, host, child)
        except Exception as exc:  # whatever keeps one host from being asked, the others are
            self._record(host.name, error=str(exc) or type(exc).__name__)

    def _await_answer(self, host: HostRef, child: PagletProxy) -> None:
        try:
            result = child.send(Message(ASK_CHILD), timeout=max(0.1, self._left()))
        except RemoteTimeoutError:
            self._record(host.name, error=TIMED_OUT)
        except Exception as exc:  # likewise
            self._record(host.name, error=str(exc) or type(exc).__name__)
        else:
            self._record(host.name, result={"host_url": host.url, "result": result})

    def record_child_result(self, payload: dict[str, Any]) -> None:
        """Take down what a clone reports: `host_name`, `host_url`, and `result` or `error`."""
        name = str(payload.get("host_name", ""))
        if "error" in payload:
            self._record(name, error=str(payload["error"]))
        else:
            told = {"host_url": str(payload.get("host_url", "")), "result": dict(payload.get("result") or {})}
            self._record(name, result=told)

    def _record(self, host_name: str, *, result: dict[str, Any] | None = None, error: str = "") -> None:
        with self._paglet.locked_state() as state:
            if host_name not in state.pending_hosts:
                return  # given up, or told already
            state.pending_hosts.remove(host_name)
            if result is None:
                state.errors[host_name] = error
            else:
                state.results[host_name] = result
            self._paglet.notify_all_state_changed()

    def drain(self, *, wait_timeout: float = 0.5) -> dict[str, Any]:
        """Wait until all hosts have answered, and return whether that is so, and the summary.

        :param wait_timeout: seconds; after the time for everything hosts that are missing are given up.
        """
        wait = min(max(0.0, wait_timeout), MAX_WAIT_SECONDS, max(0.0, self._left()))
        self._paglet.wait_state(lambda state: not state.pending_hosts, wait)
        with self._paglet.locked_state() as state:
            if self._left() <= 0:
                for name in list(state.pending_hosts):
                    self._record(name, error=TIMED_OUT)
            return {"done": not state.pending_hosts, "summary": self.summary()}

    def summary(self) -> dict[str, Any]:
        """Return what the hosts have told so far."""
        with self._paglet.locked_state() as state:
            return {
                "operation": state.operation,
                "results": dict(state.results),
                "errors": dict(state.errors),
                "pending_hosts": list(state.pending_hosts),
            }

    def _left(self) -> float:
        state = self._paglet.state
        # A clock that was set back must not make it longer.
        return float(min(state.deadline - time.time(), state.timeout))

    # --- a clone ------------------------------------------------------------------------------------------------------

    def on_clone(self, event: CloneEvent) -> None:
        """Become a child of the paglet that this is a copy of."""
        paglet = self._paglet
        with paglet.locked_state() as state:
            state.role = CHILD
            state.target_host_name, state.target_host_url = paglet.context.name, paglet.context.address
            # Counted anew: clocks of two hosts need not agree.
            state.deadline = time.time() + state.timeout
            state.pending_hosts, state.results, state.errors = [], {}, {}
        self._answered = threading.Event()
        threading.Thread(target=self._end_after, args=(self._answered,), name="paglet-end", daemon=True).start()

    def _answer(self) -> dict[str, Any]:
        if self._answered is None:
            raise HostError("this paglet is no clone; ask it to collect")
        try:
            return self.ask_local_service(max(0.1, self._left()))
        finally:
            self._answered.set()

    def _end_after(self, answered: threading.Event) -> None:
        # Not in the handler that answers, which the end would cut off: from another thread it waits for its reply.
        answered.wait(self._paglet.state.timeout)
        self._paglet.dispose()


def _fields(request: Any) -> dict[str, Any]:
    if not isinstance(request, dict):
        raise HostError(f"a request is a mapping of the fields of its operation, not {type(request).__name__}")
    return dict(request)
