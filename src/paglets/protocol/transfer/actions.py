"""Name what a transfer asks its shell to do.

Each docstring says which events report the result; *none* means that the shell performs it, logs a failure, and reports
nothing. In a tuple of actions only the last one reports, so that "perform in order, feed back what comes" is enough.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from .model import (
    ActivatedRecord,
    CommitRecord,
    Hook,
    LifecycleCall,
    PreparedRecord,
    Refusal,
    Stage,
    TransferPlan,
)

# -- both sides ------------------------------------------------------------------------------------------------------


class RunHook(msgspec.Struct, frozen=True):
    """Run a lifecycle hook in the paglet's process. Reports `HookDone` or `StepFailed`."""

    hook: Hook


class ScheduleRetry(msgspec.Struct, frozen=True):
    """Set this machine's only timer, replacing an earlier one. Reports `RetryDue` later; do not wait for it in line."""

    after: float
    """Seconds; the shell may add jitter."""


class ReportFault(msgspec.Struct, frozen=True):
    """Tell the operator (log, event) about something that should not be possible. Reports none."""

    text: str


class ForgetTransfer(msgspec.Struct, frozen=True):
    """Remove this side's durable record of the transfer, not what it says about ownership.

    Reports `JournalWritten` or `JournalFailed` at the source, none at the target.
    """


# -- the source ------------------------------------------------------------------------------------------------------


class CheckTarget(msgspec.Struct, frozen=True):
    """Ask the target for its health and compare with the ticket. Reports `Checked` or `StepFailed`."""


class StopDeliveries(msgspec.Struct, frozen=True):
    """Pause the mailbox: messages queue, nothing new starts. Reports none."""


class AwaitHandler(msgspec.Struct, frozen=True):
    """Wait until the running handler ends. Reports `HandlerIdle` or `StepFailed` (took too long, process died)."""


class CleanupResources(msgspec.Struct, frozen=True):
    """Release the paglet's resources. Reports `Cleaned` or `StepFailed`."""

    reason: str


class Snapshot(msgspec.Struct, frozen=True):
    """Take state and mailbox contents into the shell's hands, and keep them until `Release` or `ResumePaglet`.

    Reports `SnapshotTaken` or `StepFailed`.
    """


class StageFiles(msgspec.Struct, frozen=True):
    """Build the manifest of registered files and learn which blobs the target lacks.

    Reports `FilesStaged` or `StepFailed`.
    """


class SendPrepare(msgspec.Struct, frozen=True):
    """Send PREPARE with envelope, mailbox contents and manifest. Reports `Prepared`, `Refused`, `PrepareFailed`, or
    `CommitAcked` where the target answers that the transfer is long active."""

    attempt: int
    """Counts from 1 and never repeats within a transfer."""
    recovering: bool = False
    """The commit is durable here; the target has to take the paglet, tombstone or not."""


class JournalCommit(msgspec.Struct, frozen=True):
    """Write the commit record: the hand-over. Reports `JournalWritten` or `JournalFailed`."""

    record: CommitRecord


class EraseCommit(msgspec.Struct, frozen=True):
    """Make sure no commit record is on disk after a write that failed. Reports `JournalWritten` or `JournalFailed`."""


class Fence(msgspec.Struct, frozen=True):
    """Cut the departing paglet's process off: from now on the host refuses every call of it, until `ResumePaglet`.

    Its `run` thread may still turn; only the call that asked for this move is still answered. Concerns the process of
    `plan.departed_epoch`. Reports none.
    """


class SendCommit(msgspec.Struct, frozen=True):
    """Send COMMIT. Reports `CommitAcked`, `CommitUnknown` or `CommitFailed`."""

    vote: str


class SendAbort(msgspec.Struct, frozen=True):
    """Send ABORT once, without waiting for an answer; blobs staged there are dropped by it. Reports none."""


class ResumePaglet(msgspec.Struct, frozen=True):
    """Give the snapshot's mailbox contents back, lift a `Fence`, and resume deliveries. Reports none.

    Where the process died meanwhile the shell treats that as the crash it is.
    """


class Reply(msgspec.Struct, frozen=True):
    """Answer the caller of the operation; once per transfer, and never after the source restarted. Reports none."""

    ok: bool
    stage: Stage | None = None
    """How far it came, where not ok."""
    error: str = ""
    attempts: int = 0
    """How often PREPARE was sent."""
    refusal: Refusal | None = None
    """The target's no, where that is the reason."""
    cause: BaseException | None = None


class ReportAttemptFailed(msgspec.Struct, frozen=True):
    """Emit the `transfer-failed` event of one attempt. Reports none."""

    stage: Stage
    attempt: int
    attempts: int
    error: str


class LeaveForwarder(msgspec.Struct, frozen=True):
    """Send what queued meanwhile, and all later messages, to the target. Reports none.

    For a local move the queue goes to the successor and no forwarder is left. Where the acknowledgement took long the
    paglet may be back here with a higher epoch: then there is nothing to do.
    """

    target: str


class Release(msgspec.Struct, frozen=True):
    """End the departed process and drop the snapshot and the paglet's registrations. Idempotent. Reports none.

    All of it concerns `plan.departed_epoch`, never a process or files of the same paglet that came back meanwhile.
    """

    stop_process: bool
    """False for a clone: the original goes on; only the snapshot is dropped."""
    delete_files: bool
    """Whether move-mode files and the work directory go too; False where they belong to the successor on this host."""


class SendSettled(msgspec.Struct, frozen=True):
    """Tell the target once that it may forget the transfer. Reports none."""

    vote: str


# -- the target ------------------------------------------------------------------------------------------------------


class CheckAdmission(msgspec.Struct, frozen=True):
    """Check class, versions, quota, policy and `judge_epoch`. Reports `Admitted` or `NotAdmitted`.

    On `BUSY` the shell asks for the outcome of the older transfer first and judges again, as long as the request lasts.
    """

    plan: TransferPlan


class MaterialiseFiles(msgspec.Struct, frozen=True):
    """Put files and work directory in place. Reports `FilesMaterialised` or `StepFailed`."""


class StartProcess(msgspec.Struct, frozen=True):
    """Start the process with the arrived state. Reports `ProcessStarted` or `StepFailed`."""


class StoreInert(msgspec.Struct, frozen=True):
    """Make the copy durable: the state as the arrival hook left it, mailbox contents, manifest, and the record.

    Reports `JournalWritten` or `JournalFailed`.
    """

    record: PreparedRecord


class ReplyPrepared(msgspec.Struct, frozen=True):
    """Answer every waiting PREPARE of this transfer with the vote. Reports none."""

    vote: str


class ReplyRefused(msgspec.Struct, frozen=True):
    """Answer every waiting PREPARE of this transfer with a no. Reports none."""

    refusal: Refusal


class JournalActivate(msgspec.Struct, frozen=True):
    """Make this host the owner. Reports `JournalWritten` or `JournalFailed`."""

    record: ActivatedRecord


class ReleaseMailbox(msgspec.Struct, frozen=True):
    """Load the mailbox contents that came along, ahead of anything that queued here. Reports none."""


class Activate(msgspec.Struct, frozen=True):
    """Let the paglet live: perform `deferred` in order, then `run()` unless one of them took it away. Reports none."""

    cold: bool
    """There is no process (the host restarted): bring it back from the inert copy like any durable paglet."""
    deferred: tuple[LifecycleCall, ...] = ()


class StoreInactive(msgspec.Struct, frozen=True):
    """Keep the paglet inactive; its mailbox contents become its queued messages. Reports none."""


class AckCommit(msgspec.Struct, frozen=True):
    """Answer every waiting request of this transfer: the paglet is owned here. Reports none."""


class RefuseCommit(msgspec.Struct, frozen=True):
    """Answer COMMIT: no copy with that vote is here. Reports none."""

    vote: str


class Discard(msgspec.Struct, frozen=True):
    """Kill the inert process, remove the inert copy, its files and its durable record. Idempotent. Reports none.

    Blobs that were sent ahead stay for another attempt; `DropStaged` removes them.
    """

    delete_files: bool
    """False for a local move: the files are the source's."""


class DropStaged(msgspec.Struct, frozen=True):
    """Remove the blobs that were sent ahead under this transfer id. Idempotent. Reports none."""


class QueryOutcome(msgspec.Struct, frozen=True):
    """Ask the source what became of the transfer. Reports `OutcomeReceived` or `QueryFailed`."""

    vote: str


class RefuseCall(msgspec.Struct, frozen=True):
    """Fail a lifecycle call of the arriving paglet: too many wait already. Reports none."""

    call: LifecycleCall


CoordinatorAction: TypeAlias = (
    RunHook
    | ScheduleRetry
    | ReportFault
    | ForgetTransfer
    | CheckTarget
    | StopDeliveries
    | AwaitHandler
    | CleanupResources
    | Snapshot
    | StageFiles
    | SendPrepare
    | JournalCommit
    | EraseCommit
    | Fence
    | SendCommit
    | SendAbort
    | ResumePaglet
    | Reply
    | ReportAttemptFailed
    | LeaveForwarder
    | Release
    | SendSettled
)

ParticipantAction: TypeAlias = (
    RunHook
    | ScheduleRetry
    | ReportFault
    | ForgetTransfer
    | CheckAdmission
    | MaterialiseFiles
    | StartProcess
    | StoreInert
    | ReplyPrepared
    | ReplyRefused
    | JournalActivate
    | ReleaseMailbox
    | Activate
    | StoreInactive
    | AckCommit
    | RefuseCommit
    | Discard
    | DropStaged
    | QueryOutcome
    | RefuseCall
)
