"""Name what can happen to a transfer: results of actions, messages of the other side, timers, interruptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .model import LifecycleCall, Outcome, Refusal, TransferPlan

# -- both sides ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HookDone:
    """`RunHook` returned."""


@dataclass(frozen=True, slots=True)
class StepFailed:
    """The action in flight failed (every action but the journal's and the network's reports failure so)."""

    error: str
    cause: BaseException | None = None
    """The exception to show to the caller, where there is one."""


@dataclass(frozen=True, slots=True)
class JournalWritten:
    """The journal action in flight is on disk."""


@dataclass(frozen=True, slots=True)
class JournalFailed:
    """The journal action in flight failed; whether it is on disk is not known."""

    error: str


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The time asked for by the last `ScheduleRetry` is over. Ignored where nothing waits for it."""


# -- the source ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checked:
    """`CheckTarget`: the target can be reached and has what the ticket requires."""


@dataclass(frozen=True, slots=True)
class HandlerIdle:
    """`AwaitHandler`: no handler runs any more."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """`CleanupResources`: every resource was released."""


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """`Snapshot`: state and mailbox contents are held by the shell."""


@dataclass(frozen=True, slots=True)
class FilesStaged:
    """`StageFiles`: the manifest is complete."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The target voted yes. May arrive late and more than once."""

    vote: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The target voted no."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class PrepareFailed:
    """No vote came: not reachable, timed out, connection lost. The target may or may not have the copy."""

    error: str
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class CommitAcked:
    """The target owns the paglet and has it on disk."""


@dataclass(frozen=True, slots=True)
class CommitUnknown:
    """The target has no copy for the vote that COMMIT quoted."""


@dataclass(frozen=True, slots=True)
class CommitFailed:
    """No acknowledgement came."""

    error: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Somebody wants the transfer called off (shutdown of the host). Has no effect once the commit is being written."""

    reason: str


# -- the target ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PrepareReceived:
    """PREPARE came in."""

    plan: TransferPlan
    attempt: int
    fresh_vote: str
    """A new random token; it becomes the vote if this very PREPARE opens the transfer, else it is dropped."""
    recovering: bool = False
    """The source has committed already and vouches for it; see the package's docstring."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """`CheckAdmission`: class, versions, quota, policy and epoch are in order."""


@dataclass(frozen=True, slots=True)
class NotAdmitted:
    """`CheckAdmission`: not here."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class FilesMaterialised:
    """`MaterialiseFiles`: the files are in place, verified."""


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """`StartProcess`: the process holds the state and has run no hook."""


@dataclass(frozen=True, slots=True)
class CommitReceived:
    """COMMIT came in."""

    vote: str


@dataclass(frozen=True, slots=True)
class AbortReceived:
    """ABORT came in."""


@dataclass(frozen=True, slots=True)
class OutcomeReceived:
    """The source answered `QueryOutcome`, or an operator decided for a source that is gone for ever."""

    outcome: Outcome
    vote: str
    """The vote the question carried; an answer to an older question is ignored."""


@dataclass(frozen=True, slots=True)
class QueryFailed:
    """The source could not be asked."""

    error: str


@dataclass(frozen=True, slots=True)
class SettledReceived:
    """The source has the acknowledgement and will never send COMMIT again."""

    vote: str


@dataclass(frozen=True, slots=True)
class CallRequested:
    """The arriving paglet called a lifecycle operation on itself before the transfer was decided."""

    call: LifecycleCall


CoordinatorEvent: TypeAlias = (
    HookDone
    | StepFailed
    | JournalWritten
    | JournalFailed
    | RetryDue
    | Checked
    | HandlerIdle
    | Cleaned
    | SnapshotTaken
    | FilesStaged
    | Prepared
    | Refused
    | PrepareFailed
    | CommitAcked
    | CommitUnknown
    | CommitFailed
    | Cancel
)

ParticipantEvent: TypeAlias = (
    HookDone
    | StepFailed
    | JournalWritten
    | JournalFailed
    | RetryDue
    | PrepareReceived
    | Admitted
    | NotAdmitted
    | FilesMaterialised
    | ProcessStarted
    | CommitReceived
    | AbortReceived
    | OutcomeReceived
    | QueryFailed
    | SettledReceived
    | CallRequested
)
