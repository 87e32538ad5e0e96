"""What the search paglet can be asked, and the state that it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from paglets.examples.search.models import DEFAULT_DRAIN_WAIT_SECONDS, DEFAULT_SEARCH_TIMEOUT_SECONDS
from paglets.patterns import MeshFanoutState
from paglets.services.contracts import EmptyPayload, ServiceOperation


@dataclass
class MeshSearchState(MeshFanoutState):
    """A search: at the parent the whole, at each child that of one host."""

    request: dict[str, Any] = field(default_factory=dict)
    timeout: float = DEFAULT_SEARCH_TIMEOUT_SECONDS
    requested_targets: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    """Those that nobody has acknowledged; to ask for what follows a cursor acknowledges what comes before."""
    next_cursor: int = 1
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What came out, by host."""
    started: bool = False


@dataclass(frozen=True, slots=True)
class SearchStartRequest:
    """Begin a search; `request` are the fields of a `SearchRequest`, no `targets` mean all hosts that are online."""

    request: dict[str, Any] = field(default_factory=dict)
    timeout: float = DEFAULT_SEARCH_TIMEOUT_SECONDS
    targets: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SearchSummaryReply:
    """How far a search is."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The fields of a `HostSearchSummary` for each host that is done."""
    errors: dict[str, str] = field(default_factory=dict)
    """Why nothing more comes from a host."""
    cleanup_errors: dict[str, str] = field(default_factory=dict)
    """Why the paglet at a host could not be ended."""
    pending_hosts: list[str] = field(default_factory=list)
    done_hosts: list[str] = field(default_factory=list)
    event_count: int = 0


@dataclass(frozen=True, slots=True)
class SearchStartReply:
    """Where it is searched."""

    targets: list[dict[str, str]] = field(default_factory=list)
    """Name and URL of each host."""
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchDrainRequest:
    """Ask for the events behind a cursor, as soon as there are any; earlier ones are forgotten."""

    after_cursor: int = 0
    wait_timeout: float = DEFAULT_DRAIN_WAIT_SECONDS
    limit: int = 200


@dataclass(frozen=True, slots=True)
class SearchDrainReply:
    """Events, the cursor to go on with, and whether these were the last."""

    events: list[dict[str, Any]] = field(default_factory=list)
    cursor: int = 0
    done: bool = False
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchChildEventsRequest:
    """Events of one host."""

    host_name: str = ""
    host_url: str = ""
    events: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SearchChildEventsReply:
    """The events were taken, and this is the cursor of the last one."""

    ok: bool = True
    cursor: int = 0


@dataclass(frozen=True, slots=True)
class SearchChildDoneRequest:
    """What came out on one host, or why nothing did."""

    host_name: str = ""
    host_url: str = ""
    summary: dict[str, Any] = field(default_factory=dict)
    error: str = ""


SEARCH_START: Final = ServiceOperation("start", SearchStartRequest, SearchStartReply)
SEARCH_DRAIN: Final = ServiceOperation("drain", SearchDrainRequest, SearchDrainReply)
SEARCH_CHILD_EVENTS: Final = ServiceOperation("child_events", SearchChildEventsRequest, SearchChildEventsReply)
SEARCH_CHILD_DONE: Final = ServiceOperation("child_done", SearchChildDoneRequest, EmptyPayload)
SEARCH_SUMMARY: Final = ServiceOperation("summary", EmptyPayload, SearchSummaryReply)
SEARCH_CLEANUP: Final = ServiceOperation("cleanup", EmptyPayload, SearchSummaryReply)
SEARCH_ADVANCE: Final = ServiceOperation("advance", SearchDrainRequest, SearchDrainReply)
"""Have a child search on until it has something to tell, or for `wait_timeout` seconds."""
