"""Say what a transfer needs of durable storage, and in which order.

`paglets.runtime.transfer_log` does it on the journal without blocking its event loop; the simulators of the tests do it
in memory, and say themselves what a crash keeps.
"""

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
