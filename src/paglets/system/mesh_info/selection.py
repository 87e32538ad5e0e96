"""Which hosts suit work best: decisions only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from paglets.system.mesh_info.agent import MeshHostSnapshot, TargetSelectionRequest

FRESH: Final = "fresh"
ELIGIBLE: Final = "eligible"
OVER_LOAD_LIMIT: Final = "over-load-limit"
FALLBACK: Final = "fallback"


class Ranked(NamedTuple):
    """A host that may be taken; a lower score is better."""

    snapshot: MeshHostSnapshot
    score: float
    reasons: list[str]


class Selection(NamedTuple):
    """The hosts to take, best first, and why the others are not among the eligible ones."""

    targets: list[Ranked]
    rejected: dict[str, str]


def select(snapshots: Iterable[MeshHostSnapshot], request: TargetSelectionRequest, *, own_url: str) -> Selection:
    """Return what a request asks for out of fresh snapshots.

    A host above a limit of load is better than none: it stays, behind all that are not. When no host is eligible those
    that were rejected are returned instead, unless the request says otherwise.
    """
    eligible: list[tuple[bool, Ranked]] = []
    others: list[tuple[bool, Ranked]] = []
    rejected: dict[str, str] = {}
    for snapshot in snapshots:
        score, busy = target_score(snapshot), over_limit(snapshot, request)
        if not request.include_self and snapshot.host_url.rstrip("/") == own_url.rstrip("/"):
            rejected[_label(snapshot)] = "self excluded"
            continue
        reason = target_rejection(snapshot, request)
        if reason is None:
            reasons = [FRESH, ELIGIBLE, *([OVER_LOAD_LIMIT] if busy else [])]
            eligible.append((busy, Ranked(snapshot, score, reasons)))
        else:
            rejected[_label(snapshot)] = reason
            others.append((busy, Ranked(snapshot, score, [FALLBACK, reason])))
    chosen = eligible or (others if request.allow_fallback else [])
    chosen.sort(key=_rank)
    return Selection([ranked for _, ranked in chosen[: max(1, request.limit)]], rejected)


def target_score(snapshot: MeshHostSnapshot) -> float:
    """Return how busy and full a host is, from 0 up; what is not known counts as full."""
    memory = snapshot.memory_percent / 100 if snapshot.memory_total_bytes else 1.0
    storage = snapshot.work_percent_used / 100 if snapshot.work_total_bytes else 1.0
    return round(snapshot.load_per_cpu + snapshot.cpu_percent / 100 + memory + storage, 6)


def target_rejection(snapshot: MeshHostSnapshot, request: TargetSelectionRequest) -> str | None:
    """Return why a host does not do, None if it does."""
    reasons = []
    if snapshot.memory_available_bytes < request.min_memory_available_bytes:
        reasons.append("available memory below minimum")
    if snapshot.work_free_bytes < request.min_work_free_bytes:
        reasons.append("work storage below minimum")
    return "; ".join([*reasons, *snapshot.errors]) or None


def over_limit(snapshot: MeshHostSnapshot, request: TargetSelectionRequest) -> bool:
    """Return whether a host is busier than it should be."""
    return snapshot.load_per_cpu > request.max_load_per_cpu or snapshot.cpu_percent > request.max_cpu_percent


def _rank(candidate: tuple[bool, Ranked]) -> tuple[bool, bool, float, str, str]:
    busy, ranked = candidate
    host = ranked.snapshot
    # Figures that could not be found out are 0, which is no reason to take such a host before others.
    return bool(host.errors), busy, ranked.score, host.host_name, host.host_url


def _label(snapshot: MeshHostSnapshot) -> str:
    return snapshot.host_name or snapshot.host_url
