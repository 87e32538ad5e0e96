"""Move paglets between hosts without losing or doubling one: two-phase commit with presumed abort, as pure functions.

Nothing here does I/O, reads a clock or starts a thread. A machine is a frozen state and a function `step(state,
event) -> (state, actions)`; the shell performs the actions and feeds back what came of them:

    state, actions = coordinator.start(plan)            # or coordinator.restore(commit_record) after a restart
    inbox = asyncio.Queue()                             # others put in Cancel, late votes, RetryDue
    while True:
        for action in actions:
            event = await perform(plan, action)         # None where the action's docstring says "Reports none"
            if event is not None:
                inbox.put_nowait(event)
        if state.terminal:
            break
        state, actions = coordinator.step(state, await inbox.get())

`participant` is driven in the same way from `ParticipantState()` with `PrepareReceived`, `CommitReceived`, ... as
they come in. `ReplyPrepared`, `ReplyRefused`, `AckCommit` answer every request of the transfer that waits at that
moment, and are dropped where none does. `coordinator.outcome(state_or_none, vote)` answers a target's question at any
moment without a step. Both sides keep machines by transfer id. Two answers need no machine: a vote for a transfer the
source does not know is answered with ABORT, a COMMIT for one the target does not know is handled by a fresh
`ParticipantState()`. **A host answers nothing before it has read its journal**: "no record" must mean that there is
none.

What else the shell has to see to: a paglet is the subject of one transfer at a time, until that has answered its
caller; transfer ids and votes are random and never used twice; what a source does after the acknowledgement concerns
`plan.departed_epoch` only, since the paglet may be back by then; the events of one transfer are taken one by one.

The source (C: `Cancel`, or a failed step)::

    PREFLIGHT -> QUIESCING -> HOOK -> CLEANUP -> SNAPSHOT -> STAGING -> PREPARING <-> PREPARE_WAIT
        |            |         |    (clone: no cleanup)         |            | vote      | no vote, refused, C
        +------------+---------+--------------C-----------------+            v           v
        |                                                               COMMITTING    ABORTED
        v                                               write failed |      | written
     ABORTED <--- erased --- IN_DOUBT <-> IN_DOUBT_WAIT <------------+      v     == the hand-over, no way back ==
                                                                     COMMIT_SENDING <-> COMMIT_WAIT
                                                  vote ^  | "unknown"       | acknowledged
                                      RECOVERING ------+  |                 v
                                      <-> RECOVER_WAIT <--+    [CLONED_HOOK] -> RELEASING <-> RELEASE_WAIT -> FINISHED

The target::

    ABSENT -> CHECKING -> FILES -> STARTING -> HOOK -> STORING -> PREPARED -> ACTIVATING <-> ACTIVATE_WAIT
       |         |          |  (inactive: straight     ^ |           |             |
       |         +----------+-- to STORING) -----------+ |           |             v
       |  ABORT  | refused, failed                       |   ABORT   |           ACTIVE -> FORGOTTEN
       v         v                                       v           v
    ABORTED   REFUSED (a later attempt may reopen)    REFUSED     ABORTED (tombstone)

Invariants, and why they hold
-----------------------------

*One owner.* The source owns a paglet until its commit record is on disk, and from then on never; the target owns it
from the moment `record_activated` is on disk, and this is written only on COMMIT, or on the answer `committed`, for
the very vote it holds. Both exist only after the commit record. So there are never two owners; between the two writes
there is none that runs, and the commit record says who will be. The process at the source is fenced before the record
is written, because from that instant a question may be answered with `committed`.

*No loss.* The commit record is written only on a vote, a vote is sent only when the inert copy is on disk, and the
inert copy is removed only on the word of the source, which says `aborted` only without a commit record. The record
goes only after an acknowledgement, which is sent only after `record_activated`. The snapshot at the source goes last
of all.

*No doubling by repetition.* Every PREPARE that opens a transfer makes a new random vote, and COMMIT quotes the one it
answers. A PREPARE that a network delivers long after everybody forgot the transfer makes an inert copy with a vote
nobody has committed: a late COMMIT does not fit it, and the source, asked, has no record, so it goes. Correctness
thus does not hang on how long tombstones are kept; they save the useless start (and a second run of the arrival
hook). A bounded number of them is enough.

*Nobody is stuck.* Up to PREPARE the source counts attempts. After the commit it repeats until acknowledged. A target
that voted asks until answered. No timeout decides anything after a vote: a source that is gone for ever leaves its
targets waiting, as any two-phase commit does, until an operator injects the decision as `OutcomeReceived`.

*Presumed abort.* Abort is never written. A source without commit record has aborted, whether it decided so, crashed,
or never heard of the transfer. Hence an ambiguous PREPARE (sent, no answer) can be given up at once: the paglet
resumes, a target that did prepare is told, or asks. A commit write that failed is the one thing that may not be
presumed about: it may be on disk all the same, so the record is first erased for certain (`EraseCommit`), and until
then neither side runs.

*"Unknown" after the commit.* A target that answers COMMIT with "unknown" voted and lost its disk. The source is then
the owner of last resort: it still has the snapshot, so it reports the fault, sends PREPARE again under the same id
and epoch with `recovering`, which reopens even a tombstone, and commits the new vote; this loop never aborts. A
refusal `stale` in it means that the epoch has lived at the target, which only this commit can have caused: that
counts as the acknowledgement.

*The target remembers until told.* After activation it keeps a record, so that a repeated COMMIT is acknowledged even
when the paglet has long left or ended; without it, "unknown" would bring a finished paglet back. It is dropped on
`SettledReceived`, or when the source, asked, has no commit record any more.

*Nothing is spent twice, and nothing is gained.* What the transfer costs of an allowance is worked out before it begins
(`charging`) and is part of the plan. It comes into force with the commit record and the activation record, which are
each written once in effect; an aborted transfer leaves the paglet what it had.

*Actions are not overtaken.* `Cancel` and ABORT during an action take effect when that action has reported. The shell
may hasten it (kill the process, cancel the request), which then reports a failure.

Why the copy is stored after the arrival hook rather than before: a vote then means that the hook succeeded, there is
one forced write instead of two, a restarted target never has to run the hook again after the point of no return, and
the calls the hook made on its own paglet are kept in the record. A target that dies before the write has promised
nothing.

Sources: J. Gray, L. Lamport, "Consensus on Transaction Commit", ACM TODS 31(1), 2006 (the two-phase commit state
machines); C. Mohan, B. Lindsay, R. Obermarck, "Transaction Management in the R* Distributed Database Management
System", ACM TODS 11(4), 1986 (presumed abort: what must be forced to disk, and who may forget what and when).
"""

from . import actions, coordinator, events, participant
from .charging import Charge, charge
from .coordinator import CoordinatorPhase, CoordinatorState
from .journal import JournalContents, TransferJournal
from .model import (
    ActivatedRecord,
    CommitRecord,
    Hook,
    LifecycleCall,
    Outcome,
    PreparedRecord,
    Refusal,
    RefusalReason,
    Stage,
    TransferKind,
    TransferPlan,
    TransferProtocolError,
)
from .participant import ParticipantPhase, ParticipantState, judge_epoch

__all__ = [
    "ActivatedRecord",
    "Charge",
    "CommitRecord",
    "CoordinatorPhase",
    "CoordinatorState",
    "Hook",
    "JournalContents",
    "LifecycleCall",
    "Outcome",
    "ParticipantPhase",
    "ParticipantState",
    "PreparedRecord",
    "Refusal",
    "RefusalReason",
    "Stage",
    "TransferJournal",
    "TransferKind",
    "TransferPlan",
    "TransferProtocolError",
    "actions",
    "charge",
    "coordinator",
    "events",
    "judge_epoch",
    "participant",
]
