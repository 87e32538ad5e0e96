"""Say what a transfer needs of durable storage, and hold it in memory where nothing durable is plugged in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from .model import ActivatedRecord, CommitRecord, PreparedRecord


@dataclass(frozen=True, slots=True)
class JournalContents:
    """Carry what a host finds in its journal when it starts, before it answers any request."""

    commits: tuple[CommitRecord, ...] = ()
    """Each one re-enters `coordinator.restore`."""
    prepared: tuple[PreparedRecord, ...] = ()
    """Each one re-enters `participant.restore`."""
    activated: tuple[ActivatedRecord, ...] = ()
    """Each one re-enters `participant.restore`, only to answer and to be forgotten: the paglet is revived like any."""
    departed: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Paglet id -> (epoch it left with, where to): what `judge_epoch` calls departed, and the forwarders."""


class TransferJournal(Protocol):
    """Keep the durable half of every transfer of one host.

    A method returns when its change is on disk, whole or not at all (one transaction), and raises `OSError` where that
    is not certain. All are idempotent. What has to be on disk before what:

    - `record_prepared` before the vote is sent;
    - `record_commit` before the first COMMIT is sent, before the outcome is called committed, and before the process
      at the source is ended;
    - `record_activated` before the acknowledgement is sent and before the paglet runs;
    - `forget_commit` only after the acknowledgement, and before the target is told that the transfer is settled;
    - `forget_activated` only after the source said that it is settled, or has no commit record.
    """

    def record_commit(self, record: CommitRecord) -> None:
        """Hand the paglet over: write the record and, unless it is a clone, mark the paglet departed, as one change.

        What is durable of the paglet here stays until `forget_commit`: a target that lost everything gets it again.
        """
        ...

    def erase_commit(self, transfer_id: str) -> None:
        """Make sure that a `record_commit` which raised left nothing behind."""
        ...

    def forget_commit(self, transfer_id: str) -> None:
        """Remove the commit record and what was kept for a second sending; the departed mark stays as the forwarder."""
        ...

    def record_prepared(self, record: PreparedRecord) -> None:
        """Keep the inert copy: envelope with the state as the arrival hook left it, mailbox contents, files, vote."""
        ...

    def discard_prepared(self, transfer_id: str) -> None:
        """Remove an inert copy; unknown ids are fine."""
        ...

    def record_activated(self, record: ActivatedRecord) -> None:
        """Turn the inert copy into a paglet owned here: no longer inert, no longer departed, in one transaction."""
        ...

    def forget_activated(self, transfer_id: str) -> None:
        """Remove the memory of the transfer, not the paglet."""
        ...

    def departed(self, agent_id: str) -> tuple[int, str] | None:
        """Return the epoch with which a paglet left and where to, None where it never did or is back."""
        ...

    def load(self) -> JournalContents:
        """Read everything."""
        ...


class MemoryJournal:
    """Keep the records in this process's memory: **nothing survives the end of the process**.

    It is as good as a durable journal for a simulator, which says itself what a crash keeps. Under a real host it keeps
    moves safe against lost, late and repeated messages and against the death of paglet processes, but not against the
    death of the host.
    """

    def __init__(self) -> None:
        self._commits: dict[str, CommitRecord] = {}
        self._prepared: dict[str, PreparedRecord] = {}
        self._activated: dict[str, ActivatedRecord] = {}
        self._departed: dict[str, tuple[int, str]] = {}

    def record_commit(self, record: CommitRecord) -> None:
        plan = record.plan
        self._commits[plan.transfer_id] = record
        if plan.leaves_source and plan.source != plan.target:
            self._departed[plan.agent_id] = (plan.epoch, plan.target)

    def erase_commit(self, transfer_id: str) -> None:
        record = self._commits.pop(transfer_id, None)
        if record is not None and self._departed.get(record.plan.agent_id, (-1, ""))[0] == record.plan.epoch:
            del self._departed[record.plan.agent_id]

    def forget_commit(self, transfer_id: str) -> None:
        self._commits.pop(transfer_id, None)

    def record_prepared(self, record: PreparedRecord) -> None:
        self._prepared[record.plan.transfer_id] = record

    def discard_prepared(self, transfer_id: str) -> None:
        self._prepared.pop(transfer_id, None)

    def record_activated(self, record: ActivatedRecord) -> None:
        transfer_id = record.plan.transfer_id
        self._prepared.pop(transfer_id, None)
        self._activated[transfer_id] = record
        self._departed.pop(record.plan.agent_id, None)

    def forget_activated(self, transfer_id: str) -> None:
        self._activated.pop(transfer_id, None)

    def departed(self, agent_id: str) -> tuple[int, str] | None:
        return self._departed.get(agent_id)

    def load(self) -> JournalContents:
        return JournalContents(
            tuple(self._commits.values()),
            tuple(self._prepared.values()),
            tuple(self._activated.values()),
            dict(self._departed),
        )

    def forget_departed(self, agent_id: str) -> None:
        """Drop a forwarder whose paglet is known to be gone for good, or found by other means."""
        self._departed.pop(agent_id, None)
