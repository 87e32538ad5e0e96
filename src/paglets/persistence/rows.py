"""What one row of each table of the journal is, as the rest of the host sees it.

Times are Unix seconds. `bytes` are opaque here: packed wire values or a paglet's encoded state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

from paglets.core.allowance import NOTHING_USED, AllowanceBalance
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.core.runtime_values import Durability

TransferRole = Literal["commit", "prepared", "activated"]


def kept_text(text: str) -> str:
    """Return a text for people as SQLite keeps it: half of a surrogate pair, as in a file name, becomes its escape."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


class Status(IntEnum):
    """What a stored paglet is doing, and so what a host does with it after a crash."""

    INACTIVE = 0
    """It sleeps."""
    ACTIVE = 1
    """It runs; the row is its last durable state."""
    CRASHED = 2
    """Its process died and is not started again by itself."""
    DEPARTING = 3
    """It was handed over; its commit record decides when the row goes."""


@dataclass(frozen=True, slots=True)
class StateRef:
    """Where the encoded state of a paglet is: in the row itself, or in a file beside the journal."""

    inline: bytes | None
    """The state, or None when it is in a file."""
    file: str
    """The name of the file among the states, "" when inline."""
    crc: int
    """CRC-32 of the state."""
    nbytes: int
    """Size of the state in bytes."""


@dataclass(slots=True)
class StoredRecord:
    """One paglet that is owned here.

    `state_blob` is opaque; `deactivated_at` says since when the paglet has its status; `metadata` are wire values.
    """

    agent_id: str
    agent_class_name: str
    state_class_name: str
    state_blob: bytes | memoryview
    policy: DeactivationPolicy
    request: DeactivationRequest
    deactivated_at: float
    metadata: dict[str, Any] = field(default_factory=dict)
    status: Status = Status.INACTIVE
    epoch: int = 1
    home: str = ""
    """URL of the host that created it."""
    durability: Durability | None = None
    error: str = ""
    """Why it crashed."""
    balance: AllowanceBalance = NOTHING_USED
    """What it has used of its allowance, and what is left."""
    holder: str = ""
    """The name of the key that created or brought it; empty for the host's own program."""


@dataclass(slots=True)
class RecordSummary:
    """What a listing shows of a stored paglet, read without its state."""

    agent_id: str
    agent_class_name: str
    state_class_name: str
    deactivated_at: float
    status: Status = Status.INACTIVE
    epoch: int = 1
    policy: DeactivationPolicy = field(default_factory=DeactivationPolicy)
    queued_message_count: int = 0
    balance: AllowanceBalance = NOTHING_USED
    holder: str = ""


@dataclass(slots=True)
class HandledMessage:
    """A message that was handled, with the packed reply or the packed error that it ended in."""

    message_id: str
    handled_at: float
    reply: bytes | None
    error: bytes | None


@dataclass(slots=True)
class OutboxRow:
    """A one-way message on its way to another paglet; `body` is the packed message."""

    position: int
    sender_id: str
    host_url: str
    agent_id: str
    body: bytes
    attempts: int


@dataclass(slots=True)
class DeadLetter:
    """A message that could not be delivered, and why; `body` is a packed `QueuedMessage`."""

    letter_id: int
    died_at: float
    agent_id: str
    host_url: str
    message_id: str
    kind: str
    reason: str
    body: bytes


@dataclass(slots=True)
class ReminderRow:
    """A timer of a paglet: when it fires next, every how many seconds (None: once), how often it has fired."""

    agent_id: str
    name: str
    due_at: float
    every: float | None
    count: int
    args: bytes


@dataclass(slots=True)
class DepartedRow:
    """A forwarder: the paglet left in this epoch for the host at `target`; its home host may know more."""

    agent_id: str
    epoch: int
    target: str
    home: str
    departed_at: float


@dataclass(slots=True)
class HomeRow:
    """Where a paglet that was created here is now; without `host_url` it has ended."""

    agent_id: str
    epoch: int
    host_url: str | None
    told_at: float


@dataclass(slots=True)
class NoticeRow:
    """News for the home host of a paglet that is or was here, until that host has acknowledged it."""

    agent_id: str
    home: str
    epoch: int
    host_url: str | None


@dataclass(slots=True)
class LedgerRow:
    """One thing that happened to a paglet on this host.

    `peer` is the URL of the other host or "", `seconds` how long it took.
    """

    sequence: int
    at: float
    agent_id: str
    class_name: str
    event: str
    epoch: int
    peer: str
    peer_name: str
    cause: str
    size_bytes: int
    seconds: float
    transfer_id: str


@dataclass(slots=True)
class RelayName:
    """A name under which a host connected; `credential` stands for its key and is none."""

    name: str
    credential: bytes
    seen_at: float


@dataclass(slots=True)
class TransferRow:
    """One side's record of a move: a commit at the source, an inert copy or an activation at the target."""

    transfer_id: str
    role: TransferRole
    record: bytes
    luggage: bytes
    state: StateRef | None
