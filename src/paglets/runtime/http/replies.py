"""The shapes of answers, as the API's description shows them; an answer may have more fields than these."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]


class ErrorReply(msgspec.Struct, kw_only=True):
    """What every refused request is answered with."""

    error_type: Annotated[str, msgspec.Meta(description="Name of the error's class.")]
    error: Annotated[str, msgspec.Meta(description="What went wrong, for people.")]


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


class HostRecord(msgspec.Struct, kw_only=True):
    """One host of the mesh, as another one knows it."""

    name: str
    url: str
    online: bool


class HostsReply(msgspec.Struct, kw_only=True):
    """The hosts a host knows, itself and offline ones included."""

    hosts: list[HostRecord]


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


class AgentReply(msgspec.Struct, kw_only=True):
    """A paglet: an active or crashed one has all fields but the last, an inactive one the first six and the last."""

    agent_id: str
    class_name: str
    state_class_name: str
    host: str
    address: str
    active: bool
    pid: int | None = None
    crashed: bool = False
    exitcode: int | None = None
    error: str | None = None
    mailbox: MailboxCounts | None = None
    resources: dict[str, bool] = {}
    deactivated_at: float | None = None


class AgentsReply(msgspec.Struct, kw_only=True):
    """Paglets: the active and crashed ones in order of creation, then the inactive ones."""

    agents: list[AgentReply]


class StateReply(AgentReply, kw_only=True):
    """A paglet and its state; of an inactive one also what wakes it and how many messages wait."""

    state: dict[str, Any]
    deactivation_policy: dict[str, Any] | None = None
    queued_message_count: Count | None = None


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
