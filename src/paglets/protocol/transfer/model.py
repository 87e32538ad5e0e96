"""Name the values a transfer is made of: its plan, its records, its answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from paglets.core.allowance import NOTHING_USED, AllowanceBalance


class TransferProtocolError(Exception):
    """Report an event that the machine's phase does not allow.

    It is a mistake of the shell that drives the machine, never of a network or a peer: whatever can arrive from
    outside, late, twice or out of order, has a transition.
    """


class TransferKind(StrEnum):
    """Say who asked for a transfer and what stays behind."""

    DISPATCH = "dispatch"
    """The holder sends the paglet away."""
    RETRACT = "retract"
    """The receiver asked for it; the holder still coordinates."""
    CLONE = "clone"
    """A copy with an id of its own arrives; the original stays."""
    LOCAL = "local"
    """A dispatch to the very host that has it: same id, new process, files stay where they are."""


class Hook(StrEnum):
    """Name the lifecycle hook the shell has to run."""

    DISPATCHING = "on_dispatching"
    REVERTING = "on_reverting"
    CLONING = "on_cloning"
    CLONED = "on_cloned"
    ARRIVAL = "on_arrival"
    CLONE = "on_clone"


class Stage(StrEnum):
    """Say how far a transfer had come when it failed."""

    PREFLIGHT = "preflight"
    QUIESCE = "quiesce"
    HOOK = "hook"
    CLEANUP = "cleanup"
    SNAPSHOT = "snapshot"
    STAGING = "staging"
    PREPARE = "prepare"
    COMMIT = "commit"


class Outcome(StrEnum):
    """Answer a target that asks what became of a transfer."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    """There is no commit record: never decided, decided against, or settled and forgotten long ago."""
    PENDING = "pending"
    """Not decided yet; ask again."""


class RefusalReason(StrEnum):
    """Say why a target does not take a paglet."""

    CONFLICT = "conflict"
    """Another paglet with this id lives there."""
    STALE = "stale"
    """This epoch, or a later one, has already been there."""
    BUSY = "busy"
    """An undecided copy of this paglet from another transfer is there; its outcome is being asked for."""
    CLASS_NOT_ALLOWED = "class-not-allowed"
    VERSION = "version"
    QUOTA = "quota"
    POLICY = "policy"
    ARRIVAL_FAILED = "arrival-failed"
    """The process did not start, or its arrival hook raised."""
    STORAGE_FAILED = "storage-failed"
    ABORTED = "aborted"
    """The source had already called this transfer off."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Carry a target's no."""

    reason: RefusalReason
    text: str = ""
    """What went wrong, for people; the text of the hook's exception when there is one."""
    retryable: bool = False
    """Whether another attempt with the same transfer id may succeed."""
    cause: BaseException | None = None
    """The exception itself, where it was raised on this side."""


@dataclass(frozen=True, slots=True)
class TransferPlan:
    """Fix everything about one transfer before it starts; both sides and both journals hold the same plan."""

    transfer_id: str
    """Unique for ever: a transfer that failed is never taken up again under its id."""
    kind: TransferKind
    agent_id: str
    """The id of the paglet at the target; the new id for a clone."""
    epoch: int
    """Its epoch there: one more than at the source, 0 for a clone."""
    source: str
    target: str
    origin_id: str = ""
    """For a clone the id of the original; otherwise empty."""
    attempts: int = 1
    """How often PREPARE may be sent before the source gives up (the ticket's retries + 1)."""
    retry_interval: float = 0.25
    """Seconds between attempts; the first pause of every later back-off too."""
    activate: bool = True
    """False to store the paglet inactive at the target, without process or hook."""
    by_itself: bool = False
    """Whether the paglet asked for it from a handler or from `run`, so that no handler may be waited for."""
    carried: AllowanceBalance = NOTHING_USED
    """What the paglet has left of its allowance at the target."""
    kept: AllowanceBalance | None = None
    """For a clone what the original has left from the commit on; otherwise None."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("attempts must be at least 1")
        if self.epoch < 0 or (self.epoch == 0) is not (self.kind is TransferKind.CLONE):
            raise ValueError("a clone starts at epoch 0 and every move arrives with a higher one")

    @property
    def leaves_source(self) -> bool:
        """Tell whether the source ceases to own the paglet."""
        return self.kind is not TransferKind.CLONE

    @property
    def departed_epoch(self) -> int:
        """Name the epoch that ends at the source by a move: its process, its registrations, its queue."""
        return self.epoch - 1

    @property
    def departure_hook(self) -> Hook:
        """Name the hook that runs at the source before the snapshot."""
        return _DEPARTURE_HOOKS[self.kind]

    @property
    def arrival_hook(self) -> Hook:
        """Name the hook that runs at the target before it votes."""
        return Hook.CLONE if self.kind is TransferKind.CLONE else Hook.ARRIVAL


_DEPARTURE_HOOKS = {
    TransferKind.DISPATCH: Hook.DISPATCHING,
    TransferKind.LOCAL: Hook.DISPATCHING,
    TransferKind.RETRACT: Hook.REVERTING,
    TransferKind.CLONE: Hook.CLONING,
}


@dataclass(frozen=True, slots=True)
class LifecycleCall:
    """Hold a lifecycle call that an arriving paglet made on itself until the transfer is decided."""

    operation: str
    """`dispatch`, `deactivate`, `clone` or `dispose`."""
    argument: str = ""
    """What the call needs, in a form the journal can keep (the shell's own encoding)."""


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """Make a hand-over durable at the source."""

    plan: TransferPlan
    vote: str
    """The vote this commit answers; COMMIT quotes it."""


@dataclass(frozen=True, slots=True)
class PreparedRecord:
    """Make an inert copy durable at the target, together with the vote it gives."""

    plan: TransferPlan
    vote: str
    deferred: tuple[LifecycleCall, ...] = ()


@dataclass(frozen=True, slots=True)
class ActivatedRecord:
    """Make the paglet owned by the target, and remember it until the source has settled the transfer."""

    plan: TransferPlan
    vote: str
