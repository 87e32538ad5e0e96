"""A paglet that searches the files of many hosts with clones of itself, and hands on what they find at once.

The parent makes a clone for each host, here, which takes a few milliseconds whatever is wrong elsewhere. A thread for
each clone then sends it to its host and asks it for results again and again. A clone searches only while it is asked:
so nothing piles up anywhere when nobody reads, everything stands still when the parent is gone, and a clone that
cannot be asked any more is noticed at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, ClassVar, Final

from paglets.core.errors import ConflictError, HostError, PagletError
from paglets.core.events import PersistencyEvent
from paglets.core.runtime_values import Durability
from paglets.examples.search.gathering import MAX_WAITING_EVENTS, RETRY_SECONDS, Gatherer
from paglets.examples.search.local_search import checked
from paglets.examples.search.models import SearchRequest
from paglets.examples.search.operations import (
    SEARCH_ADVANCE,
    SEARCH_CHILD_DONE,
    SEARCH_CHILD_EVENTS,
    SEARCH_CLEANUP,
    SEARCH_DRAIN,
    SEARCH_START,
    SEARCH_SUMMARY,
    MeshSearchState,
    SearchChildDoneRequest,
    SearchChildEventsReply,
    SearchChildEventsRequest,
    SearchDrainReply,
    SearchDrainRequest,
    SearchStartReply,
    SearchStartRequest,
    SearchSummaryReply,
)
from paglets.examples.search.worker import SlicedSearch
from paglets.patterns import CursorDrainMixin, MeshFanoutMixin, OperationPaglet
from paglets.patterns.coordination import CHILD_ROLE, PARENT_ROLE
from paglets.protocol.membership import HostRef
from paglets.serialization.codec import dataclass_from_wire, dataclass_to_wire
from paglets.services.contracts import EmptyPayload, ServiceOperation

__all__ = [
    "SEARCH_CHILD_DONE",
    "SEARCH_CHILD_EVENTS",
    "SEARCH_CLEANUP",
    "SEARCH_DRAIN",
    "SEARCH_START",
    "SEARCH_SUMMARY",
    "MeshSearchAgent",
    "MeshSearchState",
    "SearchChildDoneRequest",
    "SearchChildEventsReply",
    "SearchChildEventsRequest",
    "SearchDrainReply",
    "SearchDrainRequest",
    "SearchStartReply",
    "SearchStartRequest",
    "SearchSummaryReply",
]

TIMED_OUT: Final = "timed out waiting for search result"
CANCELLED: Final = "the search was cancelled"
NO_HOSTS: Final = "no online target hosts found"

MAX_TIMEOUT_SECONDS: Final = 86_400.0
MAX_DRAIN_WAIT_SECONDS: Final = 30.0
#: A clone that nobody asks ends itself, and so does a parent.
CHILD_LINGERS_SECONDS: Final = 30.0
PARENT_LINGERS_SECONDS: Final = 120.0
#: How long the end of a search waits for the clones to end.
CLEANUP_SECONDS: Final = 5.0


class MeshSearchAgent(CursorDrainMixin, MeshFanoutMixin, OperationPaglet[MeshSearchState]):
    """Search the hosts of the mesh; `SEARCH_START` begins, `SEARCH_DRAIN` hands on what is found.

    Nothing of it survives its host: whoever searches asks again.
    """

    State = MeshSearchState
    DURABILITY: ClassVar[Durability] = Durability.NONE
    child_lingers_seconds: ClassVar[float] = CHILD_LINGERS_SECONDS
    parent_lingers_seconds: ClassVar[float] = PARENT_LINGERS_SECONDS
    Operations = (
        SEARCH_START,
        SEARCH_DRAIN,
        SEARCH_CHILD_EVENTS,
        SEARCH_CHILD_DONE,
        SEARCH_SUMMARY,
        SEARCH_CLEANUP,
        SEARCH_ADVANCE,
    )

    def __init__(self, state: MeshSearchState | None = None, *, agent_id: str | None = None) -> None:
        super().__init__(state, agent_id=agent_id)
        self._stopping = threading.Event()
        self._gatherers: list[threading.Thread] = []
        self._asked_at = time.monotonic()
        self._search: SlicedSearch | None = None
        # Cursors go on from one search to the next: a question about the former that comes late acknowledges nothing.
        self._first_cursor = 1

    def operation_handlers(self) -> Mapping[ServiceOperation[Any, Any], Callable[[Any], Any]]:
        """Return what answers each operation."""
        return {
            SEARCH_START: self.start,
            SEARCH_DRAIN: self.drain,
            SEARCH_CHILD_EVENTS: self.record_child_events,
            SEARCH_CHILD_DONE: self.record_child_done,
            SEARCH_SUMMARY: self.summary,
            SEARCH_CLEANUP: self.cleanup_children,
            SEARCH_ADVANCE: self._advance,
        }

    def run(self) -> None:
        """See to it that this paglet ends when nobody asks it any more."""
        # In a thread: those who create or clone a paglet wait for the end of `run`.
        threading.Thread(target=self._end_when_forgotten, name="search-watch", daemon=True).start()

    # --- what is asked of the parent ----------------------------------------------------------------------------------

    def start(self, request: SearchStartRequest) -> SearchStartReply:
        """Begin a search on the hosts that are meant.

        A host that is not online is among the errors, and the others are searched.

        :raises ValueError: the request makes no sense.
        :raises SerializationError: a field of it does not fit a `SearchRequest`. Fields that this has not are ignored.
        :raises ConflictError: a search is under way here.
        """
        self._touch()
        checked(dataclass_from_wire(SearchRequest, request.request, path="request"))
        if not 0 < request.timeout <= MAX_TIMEOUT_SECONDS:
            raise ValueError(f"timeout must be within 0 and {MAX_TIMEOUT_SECONDS:g} s, not {request.timeout:g}")
        with self.locked_state() as state:
            if state.pending_hosts:
                raise ConflictError(f"paglet {self.agent_id} is searching; clean up first, or use another one")
            self._stopping = threading.Event()
            self.fanout_reset(timeout=request.timeout)
            state.request, state.timeout = dict(request.request), request.timeout
            state.requested_targets = list(request.targets)
            state.events, state.summaries, state.started = [], {}, True
            self._first_cursor = state.next_cursor
        hosts = self._hosts(request.targets)
        if not hosts and not self.state.errors:
            self.fanout_record_error("mesh", NO_HOSTS)
        with self.locked_state() as state:  # so that nobody takes the first hosts that are done for all
            state.pending_hosts = [host.name for host in hosts]
        self._gatherers = []
        for host in hosts:
            thread = self._clone_for(host)
            if thread is None:
                continue
            self._gatherers.append(thread)
            if host.url == self.context.address:  # so that there is something to tell with the answer to this
                thread.start()
        for thread in self._gatherers:
            if thread.ident is None:  # not before: moves would hold up the clones that are still to be made
                thread.start()
        targets = [{"name": host.name, "url": host.url} for host in hosts]
        return SearchStartReply(targets, self._summary_wire())

    def drain(self, request: SearchDrainRequest) -> SearchDrainReply:
        """Return the events behind a cursor as soon as there are any, and forget those up to it."""
        self._touch()
        self._forget_until(request.after_cursor)
        wait = min(max(0.0, request.wait_timeout), MAX_DRAIN_WAIT_SECONDS)
        self.fanout_wait_for(lambda state: bool(state.events) or not state.pending_hosts, wait_timeout=wait)
        self._give_up_late()
        with self.locked_state() as state:
            events, cursor, more = self.cursor_drain_events(
                after_cursor=request.after_cursor, limit=min(request.limit, MAX_WAITING_EVENTS)
            )
            done = not state.pending_hosts and not more
            return SearchDrainReply(events, cursor, done, self._summary_wire())

    def summary(self, request: EmptyPayload | None = None) -> SearchSummaryReply:
        """Return how far the search is."""
        self._touch()
        self._give_up_late()
        with self.locked_state() as state:
            return SearchSummaryReply(
                dict(state.summaries),
                dict(state.errors),
                dict(state.cleanup_errors),
                list(state.pending_hosts),
                list(state.done_hosts),
                state.next_cursor - self._first_cursor,
            )

    def cleanup_children(self, request: EmptyPayload | None = None) -> SearchSummaryReply:
        """Stop the search on all hosts, and end the clones there."""
        self._touch()
        self._stop()
        with self.locked_state() as state:
            for host_name in list(state.pending_hosts):
                self.fanout_record_error(host_name, CANCELLED)
        self.fanout_cleanup_children()
        return self.summary()

    def record_child_events(self, request: SearchChildEventsRequest) -> SearchChildEventsReply:
        """Take events of one host."""
        return SearchChildEventsReply(True, self.cursor_append_events(request.events))

    def record_child_done(self, request: SearchChildDoneRequest) -> EmptyPayload:
        """Take what came out on one host."""
        with self.locked_state() as state:
            if request.summary:
                state.summaries[request.host_name] = request.summary
            if request.error:
                self.fanout_record_error(request.host_name, request.error)
            else:
                self.fanout_record_done(request.host_name)
        return EmptyPayload()

    def on_disposing(self, event: PersistencyEvent) -> None:
        """End the clones, or the search of this one."""
        if self._search is not None:
            self._search.close()
        if self.state.role == PARENT_ROLE:
            self._stop()
            self.fanout_cleanup_children()

    # --- the parent ---------------------------------------------------------------------------------------------------

    def _hosts(self, targets: list[str]) -> list[HostRef]:
        """Return the hosts to search, this one first; those that are not there are among the errors."""
        chosen: dict[str, HostRef] = {}
        for target in targets:
            try:
                (host,) = self.fanout_select_hosts([target])
            except HostError as exc:
                self.fanout_record_error(target, str(exc))
            else:
                chosen.setdefault(host.url, host)
        hosts = list(chosen.values()) if targets else self.fanout_available_hosts()
        return sorted(hosts, key=lambda host: host.url != self.context.address)

    def _clone_for(self, host: HostRef) -> threading.Thread | None:
        """Make the clone for a host, and return the thread that will gather what it finds."""
        child = {
            "role": CHILD_ROLE,
            "target_host_name": host.name,
            "target_host_url": host.url,
            "deadline": 0.0,
            **{name: [] for name in ("events", "pending_hosts", "done_hosts", "requested_targets")},
            **{name: {} for name in ("summaries", "child_proxies", "errors", "cleanup_errors")},
            "next_cursor": 1,
        }
        try:
            proxy = self.clone_to(self.context.address, state_overrides=child)
        except PagletError as exc:
            self.fanout_record_error(host.name, str(exc))
            return None
        self.fanout_record_child_proxy(host.name, proxy)
        gatherer = Gatherer(self, host, proxy, self._stopping)
        return threading.Thread(target=gatherer.run, name=f"search-{host.name}", daemon=True)

    def _stop(self) -> None:
        """Have the gatherers stop, and wait for them: each ends its clone."""
        self._stopping.set()
        until = time.monotonic() + CLEANUP_SECONDS
        self.notify_all_state_changed()
        for thread in self._gatherers:
            thread.join(max(0.0, until - time.monotonic()))

    def _give_up_late(self) -> None:
        """When the time of the search is over, stop what still goes on."""
        with self.locked_state() as state:
            if state.role == PARENT_ROLE and state.pending_hosts and time.monotonic() >= state.deadline:
                self._stopping.set()
                self.fanout_expire_pending(TIMED_OUT)

    def _forget_until(self, cursor: int) -> None:
        with self.locked_state() as state:
            if state.events and state.events[0]["cursor"] <= cursor:
                state.events = [event for event in state.events if event["cursor"] > cursor]
                self.notify_all_state_changed()

    def _summary_wire(self) -> dict[str, Any]:
        return dataclass_to_wire(self.summary())

    # --- the end ------------------------------------------------------------------------------------------------------

    def _touch(self) -> None:
        self._asked_at = time.monotonic()

    def _end_when_forgotten(self) -> None:
        """Give up hosts when the time of the search is over, and end when nobody has asked for anything for a while."""
        lingers = self.child_lingers_seconds if self.state.role == CHILD_ROLE else self.parent_lingers_seconds
        wait = threading.Event().wait
        while True:
            now = time.monotonic()
            self._give_up_late()
            left = self._asked_at + lingers - now
            if left <= 0:
                with suppress(PagletError):  # a handler takes its time, so it was asked for something
                    self.dispose()
                left = RETRY_SECONDS
            wait(min(left, max(self.state.deadline - now, RETRY_SECONDS)) if self.state.pending_hosts else left)

    # --- the child ----------------------------------------------------------------------------------------------------

    def _advance(self, request: SearchDrainRequest) -> SearchDrainReply:
        """Search on for a while, and return what was found."""
        self._touch()
        self._forget_until(request.after_cursor)
        state, context = self.state, self.context
        if not state.events and context.name not in state.summaries:
            if self._search is None:
                order = dataclass_from_wire(SearchRequest, state.request)
                self._search = SlicedSearch(order, host_name=context.name, host_url=context.address)
            found = self._search.advance(limit=request.limit, seconds=request.wait_timeout)
            self.cursor_append_events([dataclass_to_wire(event) for event in found])
            if self._search.done:
                state.summaries[context.name] = dataclass_to_wire(self._search.summary())
        # An answer that was lost is given once more.
        events, cursor, _ = self.cursor_drain_events(after_cursor=request.after_cursor, limit=MAX_WAITING_EVENTS)
        summary = state.summaries.get(context.name, {})
        return SearchDrainReply(events, cursor, bool(summary), summary)
