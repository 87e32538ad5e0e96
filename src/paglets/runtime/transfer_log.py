"""What of the moves of one host is on disk: each method is one unit of work of the journal.

What has to be on disk before what is said in :mod:`paglets.protocol.transfer.journal`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paglets.artifacts import PagletFileRef
from paglets.core.allowance import NOTHING_USED, AllowanceBalance
from paglets.core.context import same_url
from paglets.core.error_wire import error_to_wire
from paglets.core.errors import HostError, PagletError
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.core.runtime_values import Durability
from paglets.persistence.envelope import DECLARED_STATE, PagletEnvelope
from paglets.persistence.rows import DepartedRow, OutboxRow, StateRef, Status, StoredRecord, TransferRow
from paglets.persistence.tables import handled, ledger, paglets, places, queued, reminders, transfers
from paglets.protocol.delivery.window import Outcome
from paglets.protocol.transfer.model import (
    ActivatedRecord,
    CommitRecord,
    LifecycleCall,
    PreparedRecord,
    TransferKind,
    TransferPlan,
)
from paglets.runtime.agents import AgentEntry
from paglets.runtime.luggage import Luggage
from paglets.runtime.own_url import OwnUrl
from paglets.runtime.transfer_wire import plan_from_wire, plan_to_wire
from paglets.runtime.units import Aftermath, files_of, handled_row, keep_queued, tell_home
from paglets.runtime.vault import Vault
from paglets.serialization.values import pack, unpack

#: What is stored of a message that was handled and whose reply is not held any more.
LOST = Outcome(None, pack(error_to_wire(HostError("this message was handled; its reply is not held any more"))))


@dataclass(slots=True)
class Cargo:
    """Everything of an arriving paglet that the inert copy consists of."""

    envelope: PagletEnvelope
    luggage: Luggage
    state: StateRef
    files: dict[str, PagletFileRef] = field(default_factory=dict)
    balance: AllowanceBalance = NOTHING_USED
    """What it has left of its allowance here: what it carried, and no more than this host lets it have."""
    holder: str = ""
    """The name of the key that brought it."""


@dataclass(slots=True)
class StoredCommit:
    """A commit record with what a second sending needs."""

    record: CommitRecord
    header: dict[str, Any]
    luggage: bytes
    state: StateRef | None
    files: dict[str, PagletFileRef]
    home: str
    marks: dict[str, str] = field(default_factory=dict)
    """Of each registered file as it was sent; of none where an earlier version wrote the record."""


@dataclass(slots=True)
class StoredTransfers:
    """What a starting host finds of its moves."""

    commits: list[StoredCommit] = field(default_factory=list)
    prepared: list[tuple[PreparedRecord, Cargo]] = field(default_factory=list)
    activated: list[ActivatedRecord] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """Ids of those that cannot be read, with the reason."""


class TransferLog:
    """Write and read the records of one host's moves; on its loop unless a method says that it blocks."""

    def __init__(self, vault: Vault, address: OwnUrl) -> None:
        self._vault = vault
        self._journal = vault.journal
        self._address = address

    # --- the source ---------------------------------------------------------------------------------------------------

    async def record_commit(
        self,
        record: CommitRecord,
        entry: AgentEntry,
        *,
        header: dict[str, Any],
        luggage: bytes,
        travelling: list[str],
        state: StateRef | None,
        aftermath: Aftermath,
        target_name: str,
        size_bytes: int,
        seconds: float,
        marks: Mapping[str, str],
        before: AllowanceBalance,
    ) -> list[OutboxRow]:
        """Hand a paglet over; return what its last handler left to be sent.

        :param before: what the paglet had left of its allowance.
        :param marks: of each registered file as it was sent, so that none is removed that was changed since.
        """
        plan = record.plan
        home = self._address.of(entry.home)
        row = TransferRow(
            plan.transfer_id,
            "commit",
            pack(
                {
                    "plan": plan_to_wire(plan),
                    "vote": record.vote,
                    "header": header,
                    "files": [ref.to_wire() for ref in entry.files.values()],
                    "marks": dict(marks),
                    "home": home,
                }
            ),
            luggage,
            state,
        )
        leaves = plan.leaves_source and plan.kind is not TransferKind.LOCAL
        departed = DepartedRow(entry.agent_id, plan.epoch, plan.target, home, time.time())
        entry_row = self._vault.ledger.departed(
            entry.agent_id,
            entry.class_name,
            plan.departed_epoch,
            target=plan.target,
            target_name=target_name,
            cause=plan.kind.value,
            transfer_id=plan.transfer_id,
            size_bytes=size_bytes,
            seconds=seconds,
        )
        here = self._address()

        def unit(connection: sqlite3.Connection) -> list[OutboxRow]:
            transfers.put(connection, row)
            rows = aftermath.write(connection, entry)
            if plan.leaves_source:
                paglets.set_status(connection, entry.agent_id, entry.epoch, Status.DEPARTING)
            elif plan.kept is not None and plan.kept != before:
                # With the record: a clone is there and paid for, or neither.
                paglets.set_balance(connection, entry.agent_id, entry.epoch, plan.kept)
            if leaves:
                queued.dequeue_many(connection, entry.agent_id, travelling)
                places.departed_put(connection, departed)
                if same_url(home, here):
                    # Later hosts tell it the same; it need not wait for that.
                    tell_home(connection, entry.agent_id, here, here, plan.epoch, plan.target)
                ledger.add(connection, entry_row)
            return rows

        return await self._journal.write(unit)

    async def erase_commit(
        self, plan: TransferPlan, entry: AgentEntry, luggage: bytes, before: AllowanceBalance
    ) -> None:
        """Make sure that a commit whose writing failed is not on disk, and the paglet is as before.

        :param before: what it had left of its allowance.
        """
        carried = Luggage.unpack(luggage, plan.agent_id).mailbox if entry.durability is Durability.MESSAGE else []

        def unit(connection: sqlite3.Connection) -> None:
            if not transfers.remove(connection, plan.transfer_id, "commit"):
                return
            if not plan.leaves_source:
                paglets.set_balance(connection, entry.agent_id, entry.epoch, before)
            else:
                paglets.set_status(connection, entry.agent_id, entry.epoch, Status.ACTIVE, handed_over=True)
                known = places.departed_get(connection, entry.agent_id)
                if known is not None and known.epoch == plan.epoch:
                    places.departed_remove(connection, entry.agent_id)
                keep_queued(connection, entry.agent_id, carried)

        await self._journal.write(unit)

    async def forget_commit(self, plan: TransferPlan) -> None:
        """Remove a commit record, and what was kept for a second sending; the forwarder stays."""

        def unit(connection: sqlite3.Connection) -> None:
            transfers.remove(connection, plan.transfer_id, "commit")
            if plan.leaves_source:
                paglets.remove(connection, plan.agent_id, epoch=plan.departed_epoch, status=Status.DEPARTING)

        await self._journal.write(unit)

    # --- the target ---------------------------------------------------------------------------------------------------

    async def record_prepared(self, record: PreparedRecord, cargo: Cargo) -> None:
        """Keep an inert copy."""
        plan = record.plan
        row = TransferRow(
            plan.transfer_id,
            "prepared",
            pack(
                {
                    "plan": plan_to_wire(plan),
                    "vote": record.vote,
                    "deferred": [[call.operation, call.argument] for call in record.deferred],
                    "envelope": cargo.envelope.to_wire(),
                    "balance": cargo.balance.to_wire(),
                    "holder": cargo.holder,
                    "files": [ref.to_wire() for ref in cargo.files.values()],
                }
            ),
            cargo.luggage.pack(),
            cargo.state,
        )
        await self._journal.write(lambda connection: transfers.put(connection, row))

    async def discard_prepared(self, transfer_id: str) -> None:
        """Remove an inert copy."""
        await self._journal.write(lambda connection: transfers.remove(connection, transfer_id, "prepared"))

    async def record_activated(
        self, record: ActivatedRecord, cargo: Cargo, *, durability: Durability | None, cold: bool, seconds: float
    ) -> None:
        """Make this host the owner.

        :param durability: what the class says, None where no process has been started.
        :param cold: no process of it runs: everything has to be in rows, since it is brought back from those.
        """
        plan, envelope, luggage = record.plan, cargo.envelope, cargo.luggage
        here = self._address()
        home = here if plan.kind is TransferKind.CLONE else self._address.of(luggage.home) or here
        request = DeactivationRequest()
        if not plan.activate:
            request = DeactivationRequest(
                reason=f"{envelope.kind.value}-arrival", source="transfer", metadata={"arrival_mode": "inactive"}
            )
        declared = {DECLARED_STATE: True} if envelope.metadata.get(DECLARED_STATE) else {}
        stored = StoredRecord(
            agent_id=plan.agent_id,
            agent_class_name=envelope.agent_class_name,
            state_class_name=envelope.state_class_name,
            state_blob=b"",
            policy=DeactivationPolicy(),
            request=request,
            deactivated_at=time.time(),
            metadata={"registered_files": [ref.to_wire() for ref in cargo.files.values()]} | declared,
            status=Status.ACTIVE if plan.activate else Status.INACTIVE,
            epoch=plan.epoch,
            home=home,
            durability=durability or luggage.durability,
            balance=cargo.balance,
            holder=cargo.holder,
        )
        if plan.activate and stored.durability is Durability.NONE:
            stored.status = Status.INACTIVE  # a row only until it runs
        keeps_row = cold or not plan.activate or stored.durability is not Durability.NONE
        keeps_mail = cold or not plan.activate or stored.durability is Durability.MESSAGE
        activated = TransferRow(
            plan.transfer_id, "activated", pack({"plan": plan_to_wire(plan), "vote": record.vote}), b"", None
        )
        book = self._vault.ledger
        size = cargo.state.nbytes + sum(ref.size_bytes for ref in cargo.files.values())
        if plan.kind is TransferKind.CLONE:
            entry_row = book.cloned(
                plan.agent_id,
                envelope.agent_class_name,
                plan.epoch,
                origin_id=plan.origin_id,
                source=plan.source,
                source_name=envelope.source_host_name,
                transfer_id=plan.transfer_id,
                size_bytes=size,
                seconds=seconds,
            )
        else:
            entry_row = book.arrived(
                plan.agent_id,
                envelope.agent_class_name,
                plan.epoch,
                source=plan.source,
                source_name=envelope.source_host_name,
                cause=plan.kind.value,
                transfer_id=plan.transfer_id,
                size_bytes=size,
                seconds=seconds,
            )

        def unit(connection: sqlite3.Connection) -> None:
            transfers.remove(connection, plan.transfer_id, "prepared")
            transfers.put(connection, activated)
            if keeps_row:
                paglets.put(connection, stored, cargo.state)
            if plan.kind is not TransferKind.LOCAL:
                if keeps_mail:
                    keep_queued(connection, plan.agent_id, luggage.mailbox)
                    rows = [handled_row(message_id, outcome or LOST) for message_id, outcome in luggage.window]
                    handled.replace(connection, plan.agent_id, rows)
                reminders.replace(connection, plan.agent_id, luggage.reminders)
                places.departed_remove(connection, plan.agent_id)
                if not same_url(home, plan.source):  # which has known since its commit
                    tell_home(connection, plan.agent_id, home, here, plan.epoch, here)
            ledger.add(connection, entry_row)

        await self._journal.write(unit)

    async def forget_activated(self, transfer_id: str) -> None:
        """Remove the memory of a transfer."""
        await self._journal.write(lambda connection: transfers.remove(connection, transfer_id, "activated"))

    # --- after a restart ----------------------------------------------------------------------------------------------

    def load(self) -> StoredTransfers:
        """Read everything; blocking."""
        found = StoredTransfers()
        for row in self._journal.read(transfers.load):
            try:
                self._sort(found, row)
            except (PagletError, TypeError, ValueError, KeyError) as exc:
                found.unreadable.append(f"{row.transfer_id}: {exc}")
        return found

    def _sort(self, found: StoredTransfers, row: TransferRow) -> None:
        wire = unpack(row.record)
        plan, vote = plan_from_wire(wire["plan"]), str(wire["vote"])
        match row.role:
            case "commit":
                files = files_of({"registered_files": wire["files"]})
                record = CommitRecord(plan, vote)
                marks = {str(name): str(mark) for name, mark in wire.get("marks", {}).items()}
                commit = StoredCommit(record, wire["header"], row.luggage, row.state, files, str(wire["home"]), marks)
                found.commits.append(commit)
            case "prepared":
                if row.state is None:
                    raise HostError("an inert copy without state")
                cargo = Cargo(
                    PagletEnvelope.from_wire(wire["envelope"]),
                    Luggage.unpack(row.luggage, plan.agent_id),
                    row.state,
                    files_of({"registered_files": wire["files"]}),
                    AllowanceBalance.from_wire(wire.get("balance")),
                    str(wire.get("holder", "")),
                )
                deferred = tuple(LifecycleCall(str(name), str(argument)) for name, argument in wire["deferred"])
                found.prepared.append((PreparedRecord(plan, vote, deferred), cargo))
            case "activated":
                found.activated.append(ActivatedRecord(plan, vote))
