"""Short ways to say what happens to a machine, for tests that read Given/When/Then."""

from __future__ import annotations

from dataclasses import replace

from paglets.protocol.transfer import (
    CoordinatorState,
    ParticipantState,
    TransferKind,
    TransferPlan,
    coordinator,
    participant,
)
from paglets.protocol.transfer.actions import CoordinatorAction, ParticipantAction
from paglets.protocol.transfer.events import (
    Admitted,
    Checked,
    Cleaned,
    CommitReceived,
    CoordinatorEvent,
    FilesMaterialised,
    FilesStaged,
    HandlerIdle,
    HookDone,
    JournalWritten,
    ParticipantEvent,
    Prepared,
    PrepareReceived,
    ProcessStarted,
    SnapshotTaken,
)

PLAN = TransferPlan("t1", TransferKind.DISPATCH, "p", 4, "S", "T", attempts=2, retry_interval=0.5)
CLONE = replace(PLAN, kind=TransferKind.CLONE, agent_id="p2", epoch=0, origin_id="p")
LOCAL = replace(PLAN, kind=TransferKind.LOCAL, target="S")
RETRACT = replace(PLAN, kind=TransferKind.RETRACT)

TO_STAGED: tuple[CoordinatorEvent, ...] = (
    Checked(),
    HandlerIdle(),
    HookDone(),
    Cleaned(),
    SnapshotTaken(),
    FilesStaged(),
)
TO_COMMITTED: tuple[CoordinatorEvent, ...] = (*TO_STAGED, Prepared("v1"), JournalWritten())
CLONE_TO_COMMITTED: tuple[CoordinatorEvent, ...] = (*TO_COMMITTED[:3], *TO_COMMITTED[4:])


def prepare(
    plan: TransferPlan = PLAN, attempt: int = 1, vote: str = "v1", *, recovering: bool = False
) -> PrepareReceived:
    return PrepareReceived(plan, attempt, vote, recovering)


def to_prepared(plan: TransferPlan = PLAN) -> tuple[ParticipantEvent, ...]:
    process: tuple[ParticipantEvent, ...] = (ProcessStarted(), HookDone()) if plan.activate else ()
    return prepare(plan), Admitted(), FilesMaterialised(), *process, JournalWritten()


def to_active(plan: TransferPlan = PLAN) -> tuple[ParticipantEvent, ...]:
    return *to_prepared(plan), CommitReceived("v1"), JournalWritten()


def source(*happened: CoordinatorEvent, plan: TransferPlan = PLAN) -> CoordinatorState:
    """Give a source to which all that has happened."""
    state, _ = coordinator.start(plan)
    for event in happened:
        state, _ = coordinator.step(state, event)
    return state


def source_actions(*happened: CoordinatorEvent, plan: TransferPlan = PLAN) -> list[CoordinatorAction]:
    """Give everything a source asks for on the way."""
    state, actions = coordinator.start(plan)
    asked = list(actions)
    for event in happened:
        state, actions = coordinator.step(state, event)
        asked += actions
    return asked


def target(*happened: ParticipantEvent) -> ParticipantState:
    """Give a target to which all that has happened."""
    state = ParticipantState()
    for event in happened:
        state, _ = participant.step(state, event)
    return state


def target_actions(*happened: ParticipantEvent) -> list[ParticipantAction]:
    """Give everything a target asks for on the way."""
    state = ParticipantState()
    asked: list[ParticipantAction] = []
    for event in happened:
        state, actions = participant.step(state, event)
        asked += actions
    return asked
