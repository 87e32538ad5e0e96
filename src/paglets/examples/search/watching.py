"""One search, seen from outside: a paglet is created, its results are taken as they come, and it is ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from paglets.core.errors import InvalidAgentError, PagletError
from paglets.examples.search.agent import CHILD_LINGERS_SECONDS, PARENT_LINGERS_SECONDS, MeshSearchAgent
from paglets.examples.search.models import DEFAULT_DRAIN_WAIT_SECONDS, DEFAULT_SEARCH_TIMEOUT_SECONDS, SearchRequest
from paglets.examples.search.operations import (
    SEARCH_CLEANUP,
    SEARCH_DRAIN,
    SEARCH_START,
    MeshSearchState,
    SearchDrainRequest,
    SearchStartRequest,
    SearchSummaryReply,
)
from paglets.patterns import OperationClient
from paglets.remote.admin import PagletsAdminClient, ServerRef
from paglets.remote.client import HostClient
from paglets.remote.entry_hosts import normalize_server_url
from paglets.remote.proxy import PagletProxy
from paglets.serialization.codec import dataclass_from_wire, dataclass_to_wire
from paglets.serialization.names import qualified_name

#: How long the entry host may take to answer, beyond what it is asked to wait.
ANSWER_SECONDS: Final = 15.0
DEFAULT_DRAIN_LIMIT: Final = 200


class RunningSearch:
    """A search under way."""

    def __init__(self, operations: OperationClient) -> None:
        self._operations = operations
        self.summary = SearchSummaryReply()
        """What was last heard of it; complete when the events have ended, or the search has."""
        self.started_at = 0.0
        """When it was asked to begin, on the clock of `time.perf_counter`."""

    def start(self, request: SearchRequest, targets: list[str], timeout: float) -> list[dict[str, str]]:
        """Begin, and return name and URL of each host that is searched.

        :raises ValueError: the request makes no sense.
        :raises PagletError: the entry host does not answer.
        """
        order = SearchStartRequest(dataclass_to_wire(request), timeout, targets)
        self.started_at = time.perf_counter()
        reply = self._operations.call(SEARCH_START, order, timeout=timeout + ANSWER_SECONDS)
        self._hear(reply.summary)
        return reply.targets

    def events(
        self, *, wait: float = DEFAULT_DRAIN_WAIT_SECONDS, limit: int = DEFAULT_DRAIN_LIMIT
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield events as they come, several at once, until there are no more.

        :param wait: how long one answer waits for events, seconds.
        :raises PagletError: the entry host does not answer any more.
        """
        cursor, done = 0, False
        while not done:
            asked = SearchDrainRequest(cursor, wait, limit)
            reply = self._operations.call(SEARCH_DRAIN, asked, timeout=wait + ANSWER_SECONDS)
            self._hear(reply.summary)
            cursor, done = reply.cursor, reply.done
            if reply.events:
                yield reply.events

    def stop(self) -> None:
        """Stop the search on all hosts and end the paglets there.

        :raises PagletError: the entry host does not answer.
        """
        self.summary = self._operations.call(SEARCH_CLEANUP, timeout=ANSWER_SECONDS)

    def _hear(self, wire: dict[str, Any]) -> None:
        self.summary = dataclass_from_wire(SearchSummaryReply, wire)


@contextmanager
def searching(
    entry: ServerRef,
    request: SearchRequest,
    *,
    client: HostClient,
    targets: list[str] | None = None,
    timeout: float = DEFAULT_SEARCH_TIMEOUT_SECONDS,
) -> Iterator[RunningSearch]:
    """Begin a search from a host, and end it with everything that belongs to it, however this block ends.

    :param targets: names or URLs of the hosts to search; all that are online by default.
    :param timeout: seconds after which hosts that are not done are given up.
    :raises ValueError: the request makes no sense.
    :raises PagletError: the entry host does not answer, or does not create the paglet. What may be left of the search
        is in the notes of the error.
    """
    url = normalize_server_url(entry.url)
    wire = PagletsAdminClient([entry], client=client).create_agent(
        entry, qualified_name(MeshSearchAgent), qualified_name(MeshSearchState)
    )
    proxy = PagletProxy(url, wire["agent_id"], client)
    search = RunningSearch(OperationClient(proxy))
    try:
        search.start(request, targets or [], timeout)
        yield search
    except BaseException as exc:
        try:
            _end(search, proxy)
        except PagletError as left:
            exc.add_note(_what_is_left(entry, proxy, left))
        raise
    _end(search, proxy)


def _end(search: RunningSearch, proxy: PagletProxy) -> None:
    with suppress(InvalidAgentError):  # it has ended by itself, so nothing is left
        try:
            search.stop()
        finally:
            proxy.dispose()


def _what_is_left(entry: ServerRef, proxy: PagletProxy, error: PagletError) -> str:
    return (
        f"paglet {proxy.agent_id} may be left at {entry.name} ({error}); it would end by itself within "
        f"{PARENT_LINGERS_SECONDS:g} s, and the search on other hosts within {CHILD_LINGERS_SECONDS:g} s"
    )
