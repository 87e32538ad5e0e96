"""The shapes of JSON requests; unknown fields are ignored, wrong types are answered with the field's name."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any

import msgspec

from paglets.core.allowance import LONGEST_LIFETIME, Allowance, AllowanceGrant
from paglets.core.messages import NORMAL_PRIORITY, SYNCHRONOUS, Message
from paglets.core.terms import FIRST_ATTEMPT, DeliveryTerms
from paglets.remote.bounds import Attempt, Chain, Hops, MessageType, Name, Priority, Seconds, ShortText
from paglets.runtime.dead_letters import MAX_RETRIED

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class MessageBody(msgspec.Struct, kw_only=True):
    """A message, as sent."""

    kind: Name
    args: dict[str, Any] | None = None
    arg: Any = None
    sender: ShortText | None = None
    reply_to: ShortText | None = None
    priority: Priority | None = None
    message_type: MessageType | None = None
    timestamp: float | None = None
    message_id: ShortText | None = None

    def message(self) -> Message:
        """Return the message, with defaults for what is missing."""
        return Message(
            self.kind,
            self.args or {},
            self.arg,
            self.sender,
            self.reply_to,
            NORMAL_PRIORITY if self.priority is None else self.priority,
            SYNCHRONOUS if self.message_type is None else self.message_type,
            time.time() if self.timestamp is None else self.timestamp,
            self.message_id or uuid.uuid4().hex,
        )


class DeliverBody(msgspec.Struct, kw_only=True):
    """A delivery."""

    message: MessageBody
    oneway: bool = False
    activate_if_inactive: bool = True
    no_delay: bool = False
    attempt: Attempt = 1
    timeout: Seconds | None = None
    chain: Chain = msgspec.field(default_factory=list)
    hops: Hops = 0

    def terms(self) -> DeliveryTerms:
        """Return what travels beside the message."""
        if self.attempt == 1 and self.timeout is None and not self.chain and not self.hops:
            return FIRST_ATTEMPT
        return DeliveryTerms(self.attempt, self.timeout, tuple(self.chain), self.hops)


class AllowanceBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a paglet may use up; null is unlimited."""

    max_hops: Count | None = None
    max_clones: Count | None = None
    lifetime: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_LIFETIME)] | None = None
    max_state_bytes: Count | None = None

    def allowance(self) -> Allowance:
        """Return the allowance."""
        return Allowance(self.max_hops, self.max_clones, self.lifetime, self.max_state_bytes)


Change = Annotated[str, msgspec.Meta(max_length=32)] | Count
SecondsChange = Annotated[str, msgspec.Meta(max_length=32)] | Annotated[float, msgspec.Meta(ge=0, le=LONGEST_LIFETIME)]


class GrantBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is granted: a number for so much from now on, "+5" or "-5" for more or less, "unlimited"."""

    hops: Change | None = None
    clones: Change | None = None
    lifetime: SecondsChange | None = None
    state: Change | None = None

    def grant(self) -> AllowanceGrant:
        """Return the grant.

        :raises ValueError: it is malformed, or grants nothing.
        """
        return AllowanceGrant(self.hops, self.clones, self.lifetime, self.state)


class CreateBody(msgspec.Struct, kw_only=True):
    """The creation of a paglet, or the import of one from an envelope."""

    agent_class_name: ShortText | None = None
    state_class_name: ShortText | None = None
    state: dict[str, Any] | None = None
    init: Any = None
    agent_id: ShortText | None = None
    allowance: AllowanceBody | None = None
    allowance_cap: AllowanceBody | None = None
    envelope: dict[str, Any] | None = None


class TicketBody(msgspec.Struct, kw_only=True):
    """Where to, and on which conditions."""

    destination: Name
    timeout: Seconds = 10.0
    retries: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    retry_interval: Seconds = 0.25
    required_capabilities: list[ShortText] = msgspec.field(default_factory=list)
    expected_code_version: ShortText | None = None
    arrival_mode: ShortText = "activate"


class MoveBody(msgspec.Struct, kw_only=True):
    """A move or a clone: a ticket, or just a target."""

    ticket: TicketBody | None = None
    target: ShortText | None = None


class RetractBody(msgspec.Struct, kw_only=True):
    """A retraction."""

    target: Name


class DeactivateBody(msgspec.Struct, kw_only=True):
    """A deactivation."""

    request: dict[str, Any] | None = None


class ServiceBody(msgspec.Struct, kw_only=True):
    """A service advertisement."""

    name: Name
    capabilities: list[ShortText] | None = None
    metadata: dict[str, Any] | None = None
    scope: ShortText = "local"
    ttl: Annotated[float, msgspec.Meta(gt=0)] | None = None


class ServiceNameBody(msgspec.Struct, kw_only=True):
    """The withdrawal of a service."""

    name: Name


class LeaseBody(msgspec.Struct, kw_only=True):
    """A lease on a managed service."""

    agent_id: Name
    service_name: Name
    ttl: float = 60.0


class DrainBody(msgspec.Struct, kw_only=True):
    """Where the paglets of a host are to go."""

    to: Annotated[list[ShortText], msgspec.Meta(max_length=256)] | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0


class VoteBody(msgspec.Struct, kw_only=True):
    """A word about a transfer."""

    vote: ShortText = ""


class GossipBody(msgspec.Struct, kw_only=True):
    """What a host says of the others that it knows."""

    beats: list[list[str | int | float]] = msgspec.field(default_factory=list)
    digest: ShortText = ""


class JoinBody(msgspec.Struct, kw_only=True):
    """What a host says about itself: its record, or its health."""

    name: ShortText
    code_version: ShortText
    url: ShortText | None = None
    address: ShortText | None = None
    online: bool = True
    last_seen: float = 0.0
    active_count: Count = 0
    inactive_count: Count = 0
    tags: list[ShortText] = msgspec.field(default_factory=list)
    properties: dict[str, str] = msgspec.field(default_factory=dict)
    error: ShortText | None = None
    gossip: GossipBody | None = None


class GitUpdateBody(msgspec.Struct, kw_only=True):
    """A request to update from version control."""

    target_hash: ShortText = ""
    source_name: ShortText = ""
    source_url: ShortText = ""


class NewsBody(msgspec.Struct, kw_only=True):
    """Where a paglet is that was created on the host that is told."""

    epoch: Count
    host_url: Annotated[str, msgspec.Meta(max_length=4096, pattern="^https?://")] | None = None


class LettersBody(msgspec.Struct, kw_only=True):
    """Which dead letters: all, or those to one paglet."""

    agent_id: ShortText | None = None
    limit: Annotated[int, msgspec.Meta(ge=0, le=MAX_RETRIED)] = MAX_RETRIED
