"""The service that knows how busy all hosts of the mesh are, and which suit work best."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from paglets.core.agent import NOT_HANDLED, Paglet, PagletState
from paglets.core.events import CreationEvent, MobilityEvent, PersistencyEvent
from paglets.core.messages import Message
from paglets.core.runtime_values import Durability, ResidentLifecycle, ServiceScope
from paglets.protocol.membership import HostRef
from paglets.remote.gossip import for_each_at_once
from paglets.serialization.codec import from_wire, to_wire
from paglets.services.contracts import ServiceContract, ServiceOperation
from paglets.services.resident import ResidentServiceSpec
from paglets.system.mesh_info.ages import Ages
from paglets.system.mesh_info.landscape import Landscape, key_of, news_of
from paglets.system.mesh_info.peers import PeerServices
from paglets.system.mesh_info.sample import LocalSampler
from paglets.system.mesh_info.selection import select, target_rejection, target_score

DEFAULT_SAMPLE_INTERVAL_SECONDS: Final = 5.0
DEFAULT_GOSSIP_INTERVAL_SECONDS: Final = 2.0
DEFAULT_SAMPLE_TTL_SECONDS: Final = 20.0
DEFAULT_PEER_BATCH_SIZE: Final = 8
DEFAULT_SYNC_BATCH_SIZE: Final = 64
MESH_INFO_LOOP_ERROR_KEY: Final = "mesh-info-loop"
MESH_INFO_SYNC_TIMEOUT_SECONDS: Final = 1.0

SHORTEST_GOSSIP_SECONDS: Final = 0.1
MAX_SYNC_SNAPSHOTS: Final = 1024
MAX_ERRORS: Final = 256
_LOOP_RESOURCE: Final = "mesh-info-loop"

# By the names that they had.
_target_rejection = target_rejection
_target_score = target_score


@dataclass(frozen=True, slots=True)
class MeshHostSnapshot:
    """How one host does. What could not be found out is 0, and `errors` says why."""

    host_name: str
    host_url: str
    code_version: str
    observed_at: float
    """Unix seconds: by the clock of that host between services, by that of the answering one in a landscape."""
    platform: str = ""
    cpu_count_logical: int = 0
    cpu_percent: float = 0.0
    load_average: list[float] = field(default_factory=list)
    load_per_cpu: float = 0.0
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    memory_percent: float = 0.0
    swap_percent: float = 0.0
    work_path: str = ""
    """The work directory of the service; the figures that follow are of its volume."""
    work_total_bytes: int = 0
    work_free_bytes: int = 0
    work_percent_used: float = 0.0
    active_count: int = 0
    """Paglets with a process."""
    inactive_count: int = 0
    host_tags: tuple[str, ...] = ()
    host_properties: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """How does this host do? `force` wants figures of now."""

    force: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotReply:
    """How this host does."""

    snapshot: MeshHostSnapshot | None = None
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LandscapeRequest:
    """How do all hosts do?"""

    fresh_only: bool = True
    max_age_seconds: float = 0.0
    """What counts as fresh; 0 what the service thinks."""
    limit: int = 0
    """At most so many; 0 for all."""


@dataclass(frozen=True, slots=True)
class LandscapeReply:
    """How the hosts do, by name, and what went wrong with some."""

    generated_at: float
    hosts: list[MeshHostSnapshot] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MeshInfoSyncRequest:
    """News for another service, which is asked for its own."""

    snapshots: list[MeshHostSnapshot] = field(default_factory=list)
    max_age_seconds: float = 0.0
    limit: int = DEFAULT_SYNC_BATCH_SIZE
    ages: dict[str, float] = field(default_factory=dict)
    """How many seconds old each snapshot is, by host URL."""


@dataclass(frozen=True, slots=True)
class MeshInfoSyncReply:
    """What the other service knows."""

    generated_at: float
    accepted: int = 0
    """How many snapshots were news."""
    snapshots: list[MeshHostSnapshot] = field(default_factory=list)
    ages: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TargetSelectionRequest:
    """Which hosts suit work best?"""

    limit: int = 1
    max_age_seconds: float = 0.0
    max_load_per_cpu: float = 1.0
    """Hosts above this, or above the next, come after all others."""
    max_cpu_percent: float = 100.0
    min_memory_available_bytes: int = 0
    min_work_free_bytes: int = 0
    include_self: bool = True
    allow_fallback: bool = True
    """Whether hosts that do not do are returned when none does, with the reason `fallback`."""


@dataclass(frozen=True, slots=True)
class TargetCandidate:
    """A host that suits; a lower score is better."""

    snapshot: MeshHostSnapshot
    score: float
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TargetSelectionReply:
    """The hosts that suit, best first, and why others do not."""

    generated_at: float
    targets: list[TargetCandidate] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


GET_SNAPSHOT: Final = ServiceOperation("snapshot", SnapshotRequest, SnapshotReply)
GET_LANDSCAPE: Final = ServiceOperation("landscape", LandscapeRequest, LandscapeReply)
SYNC_MESH_INFO: Final = ServiceOperation("sync", MeshInfoSyncRequest, MeshInfoSyncReply)
SELECT_TARGETS: Final = ServiceOperation("select", TargetSelectionRequest, TargetSelectionReply)
MESH_INFO: Final = ServiceContract("mesh-info", (GET_SNAPSHOT, GET_LANDSCAPE, SYNC_MESH_INFO, SELECT_TARGETS))


@dataclass
class MeshInfoState(PagletState):
    """How often the service looks and talks, in seconds, and what it knows."""

    service_scope: ServiceScope = ServiceScope.MESH
    sample_interval: float = DEFAULT_SAMPLE_INTERVAL_SECONDS
    gossip_interval: float = DEFAULT_GOSSIP_INTERVAL_SECONDS
    sample_ttl: float = DEFAULT_SAMPLE_TTL_SECONDS
    peer_batch_size: int = DEFAULT_PEER_BATCH_SIZE
    sync_batch_size: int = DEFAULT_SYNC_BATCH_SIZE
    include_gpu: bool = False
    last_sample_at: float = 0.0
    snapshots: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Encoded snapshots by host URL."""
    errors: dict[str, str] = field(default_factory=dict)


class MeshInfoAgent(Paglet[MeshInfoState]):
    """Look at the own host now and then, exchange news with some others, and answer from what is known."""

    State = MeshInfoState
    DURABILITY = Durability.NONE  # what it knows is outdated when a host comes back
    RESIDENT_SERVICES: ClassVar[tuple[ResidentServiceSpec, ...]] = (
        ResidentServiceSpec(
            MESH_INFO,
            scope=ServiceScope.MESH,
            lifecycle=ResidentLifecycle.EAGER,
            agent_id="service.mesh-info",
            idle_timeout=0.0,
        ),
    )

    def __init__(self, state: MeshInfoState | None = None, *, agent_id: str | None = None) -> None:
        super().__init__(state, agent_id=agent_id)
        self._ages = Ages()
        self._stopping = threading.Event()
        self._sampling = threading.Lock()
        self._sampler = LocalSampler()
        self._peers = PeerServices()

    def on_creation(self, event: CreationEvent) -> None:
        """Offer the service."""
        self.advertise_contract(MESH_INFO, scope=self.state.service_scope)

    def on_activation(self, event: PersistencyEvent) -> None:
        """Offer the service again."""
        self._forget_mesh()
        self.advertise_contract(MESH_INFO, scope=self.state.service_scope)

    def on_arrival(self, event: MobilityEvent) -> None:
        """Look at the mesh anew, from here."""
        self._forget_mesh()

    def _forget_mesh(self) -> None:
        # How old news was by the own clock is known no more, and its stamps are of other clocks.
        with self.locked_state() as state:
            state.snapshots, state.errors, state.last_sample_at = {}, {}, 0.0

    def run(self) -> None:
        """Look at this host and begin to talk with others, which goes on until the paglet leaves or ends."""
        self._stopping.clear()
        self.resources.register(_LOOP_RESOURCE, self._stop)
        self._refresh_local_snapshot()
        threading.Thread(target=self._loop, name="paglet-mesh-info", daemon=True).start()

    def _stop(self) -> None:
        self._stopping.set()

    def handle_message(self, message: Message) -> Any:
        """Answer the operations of the contract."""
        return MESH_INFO.route(
            message,
            {
                GET_SNAPSHOT: self.get_snapshot,
                GET_LANDSCAPE: self.get_landscape,
                SYNC_MESH_INFO: self.sync,
                SELECT_TARGETS: self.select_targets,
            },
            default=NOT_HANDLED,
        )

    # --- answers ------------------------------------------------------------------------------------------------------

    def get_snapshot(self, request: SnapshotRequest) -> SnapshotReply:
        """Return how this host does."""
        snapshot = self._refresh_local_snapshot(force=request.force)
        return SnapshotReply(snapshot, list(snapshot.errors))

    def get_landscape(self, request: LandscapeRequest) -> LandscapeReply:
        """Return how the hosts of the mesh do."""
        self._refresh_local_snapshot()
        now = time.time()
        with self.locked():
            known = self._landscape()
            longest = self._longest(request.max_age_seconds) if request.fresh_only else math.inf
            found = known.fresh(longest, now=now)
            shown = found[: request.limit] if request.limit > 0 else found
            return LandscapeReply(now, known.on_own_clock(shown), dict(self.state.errors))

    def select_targets(self, request: TargetSelectionRequest) -> TargetSelectionReply:
        """Return the hosts that suit work best."""
        self._refresh_local_snapshot()
        now = time.time()
        with self.locked():
            known = self._landscape()
            fresh = known.on_own_clock(known.fresh(self._longest(request.max_age_seconds), now=now))
            errors = dict(self.state.errors)
        selection = select(fresh, request, own_url=self.context.address)
        targets = [TargetCandidate(*ranked) for ranked in selection.targets]
        return TargetSelectionReply(now, targets, selection.rejected, errors)

    def sync(self, request: MeshInfoSyncRequest) -> MeshInfoSyncReply:
        """Take in the news of another service and return those that it does not have."""
        now = time.time()
        accepted = self._merge(request.snapshots, request.ages, now)
        had = {key_of(each.host_url): each.observed_at for each in request.snapshots}
        limit = min(request.limit, MAX_SYNC_SNAPSHOTS)
        with self.locked():
            known = self._landscape()
            news = news_of(known.freshest(self._longest(request.max_age_seconds), limit, now=now), had)
            return MeshInfoSyncReply(now, accepted, news, known.ages_of(news, now=now))

    # --- the own host -------------------------------------------------------------------------------------------------

    def _refresh_local_snapshot(self, *, force: bool = False) -> MeshHostSnapshot:
        if not force and self._sampling.locked():
            known = self._last_sample(self.state.sample_ttl)
            if known is not None:
                return known  # whoever asks need not wait until the next one is there
        with self._sampling:
            known = None if force else self._last_sample(self.state.sample_interval)
            if known is not None:
                return known
            sample = self._sampler.sample(self, include_gpu=self.state.include_gpu, patience=self.state.sample_ttl)
            snapshot = MeshHostSnapshot(observed_at=time.time(), **sample)
            with self.locked_state() as state:
                state.last_sample_at = snapshot.observed_at
                state.snapshots[key_of(self.context.address)] = to_wire(snapshot)
            return snapshot

    def _last_sample(self, longest: float) -> MeshHostSnapshot | None:
        with self.locked_state() as state:
            known = state.snapshots.get(key_of(self.context.address))
            # A clock that was set back must not keep the sample for ever.
            fresh = 0 <= time.time() - state.last_sample_at < longest
            return _decoded(known) if known is not None and fresh else None

    # --- what is known ------------------------------------------------------------------------------------------------

    def _landscape(self) -> Landscape:
        own_url = "" if self._context is None else self.context.address
        return Landscape(self.state.snapshots, self._ages, own_url, _decoded)

    def _longest(self, max_age_seconds: float) -> float:
        return max_age_seconds if max_age_seconds > 0 else self.state.sample_ttl

    def _merge(self, snapshots: Iterable[MeshHostSnapshot], ages: dict[str, float], now: float) -> int:
        accepted = 0
        for snapshot in list(snapshots)[:MAX_SYNC_SNAPSHOTS]:
            accepted += self._merge_snapshot(snapshot, age=ages.get(key_of(snapshot.host_url)), now=now)
        return accepted

    def _merge_snapshot(
        self, snapshot: MeshHostSnapshot, *, age: float | None = None, now: float | None = None
    ) -> bool:
        with self.locked():
            news = self._landscape().merge(snapshot, age=age, now=time.time() if now is None else now)
            if news:
                self._clear_error_keys(snapshot.host_name, snapshot.host_url, key_of(snapshot.host_url))
            return news

    def _drop_outdated(self) -> None:
        with self.locked_state() as state:
            longest = max(3 * state.sample_ttl, state.sample_ttl + 1)
            self._landscape().drop_outdated(longest, now=time.time())

    # --- talking ------------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self._refresh_local_snapshot()
                self._gossip_once()
                self._drop_outdated()
            except Exception as exc:  # the next round may do better, and the service answers meanwhile
                self._record_error(MESH_INFO_LOOP_ERROR_KEY, str(exc) or type(exc).__name__)
            else:
                self._clear_error_keys(MESH_INFO_LOOP_ERROR_KEY)
            self._stopping.wait(max(SHORTEST_GOSSIP_SECONDS, self.state.gossip_interval))

    def _gossip_once(self) -> None:
        peers = self.context.available_hosts(include_self=False)
        self._peers.keep({peer.url for peer in peers})
        self._keep_errors({MESH_INFO_LOOP_ERROR_KEY, *(name for peer in peers for name in (peer.name, peer.url))})
        batch = max(1, self.state.peer_batch_size)
        # Whoever is drawn: news reach n hosts in about log(n) rounds.
        chosen = {peer.url: peer for peer in random.sample(peers, min(batch, len(peers)))}
        if not chosen:
            return
        now = time.time()
        with self.locked_state() as state:
            limit, longest, known = state.sync_batch_size, state.sample_ttl, self._landscape()
            news = known.freshest(longest, limit, now=now)
            request = MeshInfoSyncRequest(news, longest, limit, known.ages_of(news, now=now))
        for_each_at_once(
            chosen,
            lambda url: self._sync_with(chosen[url], request),
            threads=batch,
            name="paglet-gossip",
            stopping=self._stopping,
        )

    def _sync_with(self, peer: HostRef, request: MeshInfoSyncRequest) -> None:
        try:
            service = self._peers.find(self.context, peer.url, MESH_INFO, timeout=MESH_INFO_SYNC_TIMEOUT_SECONDS)
            answer = service.send(
                SYNC_MESH_INFO.to_message(request), no_delay=True, timeout=MESH_INFO_SYNC_TIMEOUT_SECONDS
            )
            reply = SYNC_MESH_INFO.decode_reply(answer)
        except Exception as exc:  # whatever a peer does, the others are talked to
            self._peers.forget(peer.url)
            self._record_peer_error(peer, str(exc) or type(exc).__name__)
        else:
            self._merge(reply.snapshots, reply.ages, time.time())
            self._clear_error_keys(peer.name, peer.url, key_of(peer.url))

    def _record_peer_error(self, peer: HostRef, error: str) -> None:
        self._record_error(peer.name or peer.url, error)

    def _record_error(self, key: str, error: str) -> None:
        with self.locked_state() as state:
            state.errors.pop(key, None)
            state.errors[key] = error
            while len(state.errors) > MAX_ERRORS:
                del state.errors[next(iter(state.errors))]

    def _keep_errors(self, keys: set[str]) -> None:
        with self.locked_state() as state:
            for key in state.errors.keys() - keys:
                del state.errors[key]

    def _clear_error_keys(self, *keys: str) -> None:
        with self.locked_state() as state:
            for key in keys:
                state.errors.pop(key, None)


def _decoded(wire: dict[str, Any]) -> MeshHostSnapshot:
    snapshot: MeshHostSnapshot = from_wire(MeshHostSnapshot, wire)
    return snapshot
