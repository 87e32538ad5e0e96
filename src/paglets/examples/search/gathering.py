"""Fetch the results of one host, for the paglet that searches many."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from paglets.core.errors import HostError, InvalidAgentError, PagletError, RemoteHostError
from paglets.examples.search.operations import (
    SEARCH_ADVANCE,
    SEARCH_SUMMARY,
    SearchChildDoneRequest,
    SearchChildEventsRequest,
    SearchDrainRequest,
)
from paglets.patterns import OperationClient
from paglets.protocol.membership import HostRef
from paglets.remote.proxy import PagletProxy

if TYPE_CHECKING:
    from paglets.examples.search.agent import MeshSearchAgent

#: Events that wait at the parent for whoever asked; the search stands still when there are more.
MAX_WAITING_EVENTS: Final = 5_000
#: What a clone is asked for at once.
SLICE_EVENTS: Final = 500
SLICE_SECONDS: Final = 0.25
#: How much longer than its slice the answer of a clone may take: a slow pattern is stopped after 2 s.
ANSWER_SECONDS: Final = 5.0
#: A host that does not answer so often in a row is given up.
MOST_FAILURES: Final = 3
RETRY_SECONDS: Final = 0.25


class Gatherer:
    """What one thread of the parent does: bring a clone to its host, and fetch from it what it finds.

    :param stopping: set to stop it.
    """

    def __init__(self, parent: MeshSearchAgent, host: HostRef, proxy: PagletProxy, stopping: threading.Event) -> None:
        self._parent = parent
        self._host = host
        self._proxy = proxy
        self._stopping = stopping

    def run(self) -> None:
        """Gather until the host is done, or given up; then end the clone."""
        parent, name = self._parent, self._host.name
        try:
            if self._host.url != parent.context.address:
                self._proxy = self._proxy.dispatch(self._host.url)
                parent.fanout_record_child_proxy(name, self._proxy)
            self._gather()
        except Exception as exc:  # whatever it is, it is what this host comes to
            if name in parent.state.pending_hosts:
                parent.fanout_record_error(name, str(exc) or type(exc).__name__)
        self._end_clone()

    def _gather(self) -> None:
        clone, parent = OperationClient(self._proxy), self._parent
        name, url = self._host.name, self._host.url
        cursor = failures = 0
        while not self._stopping.is_set():
            try:
                reply = clone.call(
                    SEARCH_ADVANCE,
                    SearchDrainRequest(cursor, SLICE_SECONDS, SLICE_EVENTS),
                    timeout=SLICE_SECONDS + ANSWER_SECONDS,
                )
            except RemoteHostError as exc:
                failures += 1
                if failures >= MOST_FAILURES:
                    raise HostError(f"{name} does not answer any more: {exc}") from exc
                self._stopping.wait(RETRY_SECONDS)
                continue
            failures = 0
            cursor = reply.cursor
            if reply.events:
                if not self._await_room(clone):
                    return
                parent.record_child_events(SearchChildEventsRequest(name, url, reply.events))
            if reply.done:
                parent.record_child_done(SearchChildDoneRequest(name, url, reply.summary))
                return

    def _await_room(self, clone: OperationClient) -> bool:
        """Wait until somebody has taken events, and tell whether the search goes on."""
        parent, stopping = self._parent, self._stopping
        while not parent.wait_state(
            lambda state: len(state.events) < MAX_WAITING_EVENTS or stopping.is_set(),
            parent.child_lingers_seconds / 3,
        ):
            clone.call(SEARCH_SUMMARY, timeout=ANSWER_SECONDS)  # so that it does not believe to be forgotten
        return not stopping.is_set()

    def _end_clone(self) -> None:
        parent, name = self._parent, self._host.name
        try:
            with suppress(InvalidAgentError):  # it is gone already
                self._proxy.dispose()
        except PagletError as exc:
            with parent.locked_state() as state:
                state.cleanup_errors[name] = str(exc) or type(exc).__name__
            return
        with parent.locked_state() as state:
            state.child_proxies.pop(name, None)
            parent.notify_all_state_changed()
