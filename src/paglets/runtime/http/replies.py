"""The shapes of answers, as the API's description shows them; an answer may have more fields than these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]


class ErrorReply(msgspec.Struct, kw_only=True):
    """What every refused request is answered with."""

    error_type: Annotated[str, msgspec.Meta(description="Name of the error's class.")]
    error: Annotated[str, msgspec.Meta(description="What went wrong, for people.")]
    refused: Annotated[
        Literal["true"] | msgspec.UnsetType,
        msgspec.Meta(description="There if it is certain that nobody handled the message."),
    ] = msgspec.UNSET


class LeftOutRecord(msgspec.Struct, kw_only=True):
    """A host that is no member of the mesh, because it runs other code."""

    name: str
    url: str
    code_version: str


class RelayNodeRecord(msgspec.Struct, kw_only=True):
    """A host that is, or was, connected to this hub."""

    name: str
    online: bool
    last_seen: Annotated[float, msgspec.Meta(description="Unix seconds.")]
    last_seen_age: Annotated[float, msgspec.Meta(ge=0, description="Seconds.")]
    active_polls: Annotated[Count, msgspec.Meta(description="Links that are up.")]
    queue_depth: Annotated[Count, msgspec.Meta(description="Requests without an answer.")]
    in_flight: Annotated[Count, msgspec.Meta(description="Requests that are under way.")]
    last_error: str | None


class HealthReply(msgspec.Struct, kw_only=True):
    """Who a host is and how it does."""

    name: str
    address: str
    active_count: Count
    inactive_count: Count
    code_version: str | None
    capabilities: list[str]
    tags: list[str]
    properties: dict[str, str]
    auto_update_from_git: bool
    auto_update_restart_scheduled: bool
    encodings: Annotated[list[str], msgspec.Meta(description="Content codings of artifacts that are accepted.")]
    left_out: Annotated[
        list[LeftOutRecord] | msgspec.UnsetType,
        msgspec.Meta(description="There if hosts are kept out of the mesh because their code version is another one."),
    ] = msgspec.UNSET
    relay_nodes: Annotated[
        list[RelayNodeRecord] | msgspec.UnsetType,
        msgspec.Meta(description="There if hosts are, or were, connected to this one: the first by name."),
    ] = msgspec.UNSET


class HostRecord(msgspec.Struct, kw_only=True):
    """One host of the mesh, as another one knows it."""

    name: str
    url: str
    online: bool


class HostsReply(msgspec.Struct, kw_only=True):
    """The hosts a host knows, itself and offline ones included."""

    hosts: list[HostRecord]


class GossipRecord(msgspec.Struct, kw_only=True):
    """What a host says of the others that it knows: who was alive when, and a sum of what they are."""

    beats: list[list[str | int | float]]
    digest: str


class JoinReply(msgspec.Struct, kw_only=True):
    """The hosts that a visitor may not know; all of them where it brought no gossip."""

    hosts: list[HostRecord]
    gossip: GossipRecord | None = None


class EventRecord(msgspec.Struct, kw_only=True):
    """One thing that happened on a host."""

    event_id: Count
    kind: str
    host_name: str
    host_address: str
    timestamp: float
    agent_id: str | None
    class_name: str | None
    message_id: str | None
    service_name: str | None
    data: dict[str, Any]
    error: str | None


class EventsReply(msgspec.Struct, kw_only=True):
    """Events, oldest first."""

    events: list[EventRecord]


class MailboxCounts(msgspec.Struct, kw_only=True):
    """What became of a paglet's messages."""

    queued_count: Count
    in_flight_count: Count
    delivered_count: Count
    failed_count: Count


class BalanceRecord(msgspec.Struct, kw_only=True):
    """What a paglet has used of its allowance, and what is left; null is unlimited."""

    hops_used: Count
    hops_left: Count | None
    clones_used: Count
    clones_left: Count | None
    expires_at: Annotated[float | None, msgspec.Meta(description="Unix time at which it is put to sleep.")]
    max_state_bytes: Count | None
    exceeded: Annotated[
        str | None, msgspec.Meta(description="hops, clones, lifetime or state, where it sleeps until granted more.")
    ]


class AllowanceReply(msgspec.Struct, kw_only=True):
    """The allowance of a paglet."""

    agent_id: str
    allowance: BalanceRecord


class AgentReply(msgspec.Struct, kw_only=True):
    """A paglet; what an inactive one has no use for is missing, and the last three of one that is not."""

    agent_id: str
    class_name: str
    state_class_name: str
    host: str
    address: str
    active: bool
    epoch: Annotated[int, msgspec.Meta(description="Of the stay here; it grows with every move.")]
    home: Annotated[str, msgspec.Meta(description="URL of the host that is told of every move.")] = ""
    durability: str | None = None
    pid: int | None = None
    crashed: bool = False
    exitcode: int | None = None
    error: str | None = None
    mailbox: MailboxCounts | None = None
    resources: dict[str, bool] = {}
    allowance: Annotated[BalanceRecord | None, msgspec.Meta(description="Where anything is limited.")] = None
    deactivated_at: float | None = None
    deactivation_policy: Annotated[dict[str, Any] | None, msgspec.Meta(description="What wakes it.")] = None
    queued_message_count: Annotated[
        int | None, msgspec.Meta(description="Messages that wait for it, in a listing and with its state.")
    ] = None


class AgentsReply(msgspec.Struct, kw_only=True):
    """Paglets: the active and crashed ones in order of creation, then the inactive ones."""

    agents: list[AgentReply]


class StateReply(AgentReply, kw_only=True):
    """A paglet and its state."""

    state: dict[str, Any]


class ProxyRecord(msgspec.Struct, kw_only=True):
    """Where a paglet is."""

    host_url: str
    agent_id: str


class ProxyReply(msgspec.Struct, kw_only=True):
    """Where a paglet is now."""

    proxy: ProxyRecord


class DeactivateReply(ProxyReply, kw_only=True):
    """Where the stored paglet is."""

    ok: bool


class LocationReply(msgspec.Struct, kw_only=True):
    """Where a paglet is now; null when it lives nowhere any more."""

    proxy: ProxyRecord | None


class ResultReply(msgspec.Struct, kw_only=True):
    """What the handler returned; null for a message that nobody waits for."""

    result: Any


class DrainReply(msgspec.Struct, kw_only=True):
    """Whether a host drains, and what became of its paglets so far."""

    draining: bool
    running: bool
    total: int
    moved: list[dict[str, str]]
    asleep: list[dict[str, str]]
    stayed: list[dict[str, str]]


class OkReply(msgspec.Struct, kw_only=True):
    """It is done."""

    ok: bool


class ServiceEntry(msgspec.Struct, kw_only=True):
    """A service that a paglet offers."""

    name: str
    host_name: str
    host_url: str
    proxy: ProxyRecord
    capabilities: list[str]
    metadata: dict[str, Any]
    scope: str


class ServiceReply(msgspec.Struct, kw_only=True):
    """The record of a service."""

    service: ServiceEntry


class ServicesReply(msgspec.Struct, kw_only=True):
    """Records of services."""

    services: list[ServiceEntry]


class LeaseReply(msgspec.Struct, kw_only=True):
    """A lease on a managed service, which ends at `expires_at`, in Unix seconds."""

    lease_id: str
    expires_at: float


class ReleasedReply(msgspec.Struct, kw_only=True):
    """Whether there was such a lease."""

    released: bool


class ResidentEntry(msgspec.Struct, kw_only=True):
    """A managed service, and how it is; times are seconds."""

    service_name: str
    agent_id: str
    class_name: str
    lifecycle: str
    scope: str
    idle_timeout: float
    state: str
    leases: int
    idle_seconds: float | None
    retry_in: float | None
    error: str | None


class ResidentsReply(msgspec.Struct, kw_only=True):
    """The managed services of a host."""

    services: list[ResidentEntry]


class UpdateReply(msgspec.Struct, kw_only=True):
    """What became of a request to update."""

    ok: bool
    status: str
    target_hash: str
    error: str | None = None


class OutcomeReply(msgspec.Struct, kw_only=True):
    """What became of a transfer: ``committed``, ``aborted`` or ``pending``."""

    outcome: str


class CommitReply(msgspec.Struct, kw_only=True):
    """Whether the paglet lives here now; ``unknown`` when no such transfer is."""

    acked: bool | None = None
    unknown: bool | None = None
    location: ProxyRecord | None = None
    settling: bool | None = None


class MovementReply(msgspec.Struct, kw_only=True):
    """Where the paglet is, or how this host votes on a transfer: with a vote, or with a refusal."""

    proxy: ProxyRecord | None = None
    vote: str | None = None
    refused: dict[str, Any] | None = None
    acked: bool | None = None
    location: ProxyRecord | None = None
    settling: bool | None = None


class JourneyEntry(msgspec.Struct, kw_only=True):
    """One thing that happened to a paglet on a host."""

    at: Annotated[float, msgspec.Meta(description="Unix seconds, by the clock of the host.")]
    event: Annotated[str, msgspec.Meta(description="What: created, cloned, arrived, departed, slept, woke, ...")]
    epoch: Annotated[int, msgspec.Meta(description="Of the stay; it grows with every move.")]
    host: str
    host_url: str
    peer: Annotated[str, msgspec.Meta(description="URL of the host that it came from or went to, else empty.")]
    peer_name: str
    cause: str
    size_bytes: Annotated[int, msgspec.Meta(ge=0, description="Of state and files, where known.")]
    seconds: Annotated[float, msgspec.Meta(description="How long it took, where known.")]
    transfer_id: str
    class_name: str


class JourneyLink(msgspec.Struct, kw_only=True):
    """A host on a paglet's way, and the epoch that the paglet has there."""

    host_url: str
    name: str
    epoch: int


class JourneyReply(msgspec.Struct, kw_only=True):
    """A host's piece of a paglet's journey, oldest first."""

    agent_id: str
    entries: list[JourneyEntry]
    previous: JourneyLink | None
    next: JourneyLink | None


class WhereaboutsReply(msgspec.Struct, kw_only=True):
    """Where a paglet is, as far as a host knows."""

    agent_id: str
    host_url: Annotated[str | None, msgspec.Meta(description="Null when not known, or when it ended.")]
    epoch: int | None
    home: Annotated[str | None, msgspec.Meta(description="URL of the host that is told of every move.")]
    here: bool
    ended: bool


class CancelledReply(msgspec.Struct, kw_only=True):
    """Whether the message was withdrawn before its handler began."""

    cancelled: bool


class DeadLetterRecord(msgspec.Struct, kw_only=True):
    """A message that could not be delivered."""

    letter_id: Count
    died_at: Annotated[float, msgspec.Meta(description="Unix seconds.")]
    agent_id: str
    host_url: str
    message_id: str
    kind: str
    reason: str
    size_bytes: Count


class DeadLettersReply(msgspec.Struct, kw_only=True):
    """Dead letters, oldest first, and how many there are."""

    dead_letters: list[DeadLetterRecord]
    count: Count


class DeadLetterReply(DeadLetterRecord, kw_only=True):
    """A dead letter with its message."""

    message: dict[str, Any]
    oneway: bool
    queued_at: float


class RetryFailure(ErrorReply, kw_only=True):
    """Why a letter was not accepted."""

    letter_id: Count


class RetryReply(msgspec.Struct, kw_only=True):
    """What became of the letters that were to be delivered again."""

    accepted: list[int]
    failed: list[RetryFailure]
    untried: Annotated[int, msgspec.Meta(ge=0, description="Left for another time, because these took long.")]


class ClearedReply(msgspec.Struct, kw_only=True):
    """How many dead letters were forgotten."""

    cleared: Count


class ArtifactRecord(msgspec.Struct, kw_only=True):
    """A stored artifact."""

    host_url: str
    artifact_id: str
    name: str
    size_bytes: Count
    sha256: str
    compression: Annotated[str, msgspec.Meta(description="A label that is only stored.")]
    created_at: Annotated[float, msgspec.Meta(description="Unix seconds.")]
    expires_at: Annotated[float, msgspec.Meta(description="Unix seconds, 0 for never.")]
    owner_agent_id: str


class ArtifactReply(msgspec.Struct, kw_only=True):
    """An artifact."""

    artifact: ArtifactRecord


class ArtifactsReply(msgspec.Struct, kw_only=True):
    """Artifacts, by id."""

    artifacts: list[ArtifactRecord]


class OffsetReply(msgspec.Struct, kw_only=True):
    """How many bytes of an upload have arrived."""

    offset: Count


class MissingReply(msgspec.Struct, kw_only=True):
    """The blobs that are not here, each with how many bytes of it have arrived."""

    missing: Annotated[list[list[str | int]], msgspec.Meta(description="Checksum and bytes of each.")]
