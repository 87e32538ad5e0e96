"""A journal of transfers for simulated hosts."""

from __future__ import annotations

from paglets.protocol.transfer import ActivatedRecord, CommitRecord, JournalContents, PreparedRecord


class MemoryJournal:
    """Keep the records of one simulated host; the simulator says what a crash keeps."""

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
