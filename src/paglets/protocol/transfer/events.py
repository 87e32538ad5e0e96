"""Name what can happen to a transfer: results of actions, messages of the other side, timers, interruptions."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from .model import LifecycleCall, Outcome, Refusal, TransferPlan

# -- both sides ------------------------------------------------------------------------------------------------------


class HookDone(msgspec.Struct, frozen=True):
    """`RunHook` returned."""


class StepFailed(msgspec.Struct, frozen=True):
    """The action in flight failed (every action but the journal's and the network's reports failure so)."""

    error: str
    cause: BaseException | None = None
    """The exception to show to the caller, where there is one."""


class JournalWritten(msgspec.Struct, frozen=True):
    """The journal action in flight is on disk."""


class JournalFailed(msgspec.Struct, frozen=True):
    """The journal action in flight failed; whether it is on disk is not known."""

    error: str


class RetryDue(msgspec.Struct, frozen=True):
    """The time asked for by the last `ScheduleRetry` is over. Ignored where nothing waits for it."""


# -- the source ------------------------------------------------------------------------------------------------------


class Checked(msgspec.Struct, frozen=True):
    """`CheckTarget`: the target can be reached and has what the ticket requires."""


class HandlerIdle(msgspec.Struct, frozen=True):
    """`AwaitHandler`: no handler runs any more."""


class Cleaned(msgspec.Struct, frozen=True):
    """`CleanupResources`: every resource was released."""


class SnapshotTaken(msgspec.Struct, frozen=True):
    """`Snapshot`: state and mailbox contents are held by the shell."""


class FilesStaged(msgspec.Struct, frozen=True):
    """`StageFiles`: the manifest is complete."""


class Prepared(msgspec.Struct, frozen=True):
    """The target voted yes. May arrive late and more than once."""

    vote: str


class Refused(msgspec.Struct, frozen=True):
    """The target voted no."""

    refusal: Refusal


class PrepareFailed(msgspec.Struct, frozen=True):
    """No vote came: not reachable, timed out, connection lost. The target may or may not have the copy."""

    error: str
    retryable: bool = True


class CommitAcked(msgspec.Struct, frozen=True):
    """The target owns the paglet and has it on disk."""


class CommitUnknown(msgspec.Struct, frozen=True):
    """The target has no copy for the vote that COMMIT quoted."""


class CommitFailed(msgspec.Struct, frozen=True):
    """No acknowledgement came."""

    error: str


class Cancel(msgspec.Struct, frozen=True):
    """Somebody wants the transfer called off (shutdown of the host). Has no effect once the commit is being written."""

    reason: str


# -- the target ------------------------------------------------------------------------------------------------------


class PrepareReceived(msgspec.Struct, frozen=True):
    """PREPARE came in."""

    plan: TransferPlan
    attempt: int
    fresh_vote: str
    """A new random token; it becomes the vote if this very PREPARE opens the transfer, else it is dropped."""
    recovering: bool = False
    """The source has committed already and vouches for it; see the package's docstring."""


class Admitted(msgspec.Struct, frozen=True):
    """`CheckAdmission`: class, versions, quota, policy and epoch are in order."""


class NotAdmitted(msgspec.Struct, frozen=True):
    """`CheckAdmission`: not here."""

    refusal: Refusal


class FilesMaterialised(msgspec.Struct, frozen=True):
    """`MaterialiseFiles`: the files are in place, verified."""


class ProcessStarted(msgspec.Struct, frozen=True):
    """`StartProcess`: the process holds the state and has run no hook."""


class CommitReceived(msgspec.Struct, frozen=True):
    """COMMIT came in."""

    vote: str


class AbortReceived(msgspec.Struct, frozen=True):
    """ABORT came in."""


class OutcomeReceived(msgspec.Struct, frozen=True):
    """The source answered `QueryOutcome`, or an operator decided for a source that is gone for ever."""

    outcome: Outcome
    vote: str
    """The vote the question carried; an answer to an older question is ignored."""


class QueryFailed(msgspec.Struct, frozen=True):
    """The source could not be asked."""

    error: str


class SettledReceived(msgspec.Struct, frozen=True):
    """The source has the acknowledgement and will never send COMMIT again."""

    vote: str


class CallRequested(msgspec.Struct, frozen=True):
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
