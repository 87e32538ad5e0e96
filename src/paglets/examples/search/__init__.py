"""Search the files of all hosts: `paglets search`, and `paglets-search`."""

from paglets.examples.search.agent import (
    SEARCH_CLEANUP,
    SEARCH_DRAIN,
    SEARCH_START,
    MeshSearchAgent,
    MeshSearchState,
    SearchDrainRequest,
    SearchStartRequest,
)
from paglets.examples.search.local_search import run_local_search
from paglets.examples.search.models import SEARCH_TYPES, HostSearchSummary, SearchEvent, SearchRequest

__all__ = [
    "SEARCH_CLEANUP",
    "SEARCH_DRAIN",
    "SEARCH_START",
    "SEARCH_TYPES",
    "HostSearchSummary",
    "MeshSearchAgent",
    "MeshSearchState",
    "SearchDrainRequest",
    "SearchEvent",
    "SearchRequest",
    "SearchStartRequest",
    "run_local_search",
]
