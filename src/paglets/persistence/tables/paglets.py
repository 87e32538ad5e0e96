"""The paglets owned by this host, with their last durable state."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Collection
from typing import Any

from paglets.core.allowance import NOTHING_USED, AllowanceBalance
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.core.runtime_values import Durability
from paglets.persistence.directory import validate_agent_id
from paglets.persistence.migrations import policy_flags, policy_of
from paglets.persistence.rows import RecordSummary, StateRef, Status, StoredRecord, kept_text
from paglets.serialization.values import pack, unpack

_PUT = """
    INSERT INTO paglets (agent_id, status, epoch, home, durability, agent_class_name, state_class_name,
                         policy_flags, activate_at, since, error, request, metadata, balance, holder)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (agent_id) DO UPDATE SET
        status = excluded.status, epoch = excluded.epoch, home = excluded.home, durability = excluded.durability,
        agent_class_name = excluded.agent_class_name, state_class_name = excluded.state_class_name,
        policy_flags = excluded.policy_flags, activate_at = excluded.activate_at, since = excluded.since,
        error = excluded.error, request = excluded.request, metadata = excluded.metadata,
        balance = excluded.balance, holder = excluded.holder
"""
_PUT_STATE = """
    INSERT INTO states (id, crc, size, file, inline) SELECT id, ?, ?, ?, ? FROM paglets WHERE agent_id = ?
    ON CONFLICT (id) DO UPDATE SET
        crc = excluded.crc, size = excluded.size, file = excluded.file, inline = excluded.inline
"""
_GET = """
    SELECT agent_id, status, epoch, home, durability, agent_class_name, state_class_name, policy_flags, activate_at,
           since, error, request, metadata, balance, holder, crc, size, file, inline
    FROM paglets JOIN states USING (id) WHERE agent_id = ?
"""
_SUMMARIES = """
    SELECT paglets.agent_id, agent_class_name, state_class_name, since, status, epoch, policy_flags, activate_at,
           coalesce(queue_sizes.count, 0), balance, holder
    FROM paglets LEFT JOIN queue_sizes ON queue_sizes.agent_id = paglets.agent_id
    ORDER BY since, paglets.agent_id
"""
_UPDATE_STATE = """
    UPDATE states SET crc = ?, size = ?, file = ?, inline = ?
    WHERE id = (SELECT id FROM paglets WHERE agent_id = ? AND epoch = ? AND status = ?)
"""
_SET_STATUS = """
    UPDATE paglets SET
        status = :status, since = coalesce(:at, since), error = coalesce(:error, error),
        request = coalesce(:request, request), policy_flags = coalesce(:flags, policy_flags),
        activate_at = CASE WHEN :flags IS NULL THEN activate_at ELSE :activate_at END
    WHERE agent_id = :agent AND epoch = :epoch AND (status <> :departing OR :handed_over)
"""
_STATUSES = {int(status): status for status in Status}
_ACTIVE = int(Status.ACTIVE)


def put(c: sqlite3.Connection, record: StoredRecord, ref: StateRef) -> None:
    """Store a paglet in place of an earlier row of the same id; its state is the one that `ref` names.

    :raises HostError: the id is invalid.
    :raises SerializationError: the metadata are no wire values.
    """
    agent_id = validate_agent_id(record.agent_id)
    c.execute(
        _PUT,
        (
            agent_id,
            int(record.status),
            record.epoch,
            record.home,
            None if record.durability is None else record.durability.value,
            record.agent_class_name,
            record.state_class_name,
            policy_flags(record.policy),
            record.policy.activate_at,
            record.deactivated_at,
            kept_text(record.error),
            pack(record.request.to_wire()),
            pack(record.metadata),
            packed_balance(record.balance),
            record.holder,
        ),
    )
    c.execute(_PUT_STATE, (ref.crc, ref.nbytes, ref.file, ref.inline, agent_id))


def get(c: sqlite3.Connection, agent_id: str) -> tuple[StoredRecord, StateRef] | None:
    """Return a paglet, its `state_blob` empty, and where its state is; None when it is not here."""
    row = c.execute(_GET, (agent_id,)).fetchone()
    if row is None:
        return None
    (
        agent_id, status, epoch, home, durability, agent_class, state_class, flags, activate_at,
        since, error, request, metadata, balance, holder, crc, size, file, inline,
    ) = row  # fmt: skip
    record = StoredRecord(
        agent_id=agent_id,
        agent_class_name=agent_class,
        state_class_name=state_class,
        state_blob=b"",
        policy=policy_of(flags, activate_at),
        request=DeactivationRequest.from_wire(unpack(request)),
        deactivated_at=since,
        metadata=unpack(metadata),
        status=Status(status),
        epoch=epoch,
        home=home,
        durability=None if durability is None else Durability(durability),
        error=error,
        balance=_balance_of(balance),
        holder=holder,
    )
    return record, StateRef(inline, file, crc, size)


def durability(c: sqlite3.Connection, agent_id: str) -> Durability | None:
    """Return what a paglet that is here says of its durability; None where that, or the paglet, is not known."""
    row = c.execute("SELECT durability FROM paglets WHERE agent_id = ?", (agent_id,)).fetchone()
    return None if row is None or row[0] is None else Durability(row[0])


def summaries(c: sqlite3.Connection, statuses: Collection[Status] | None = None) -> list[RecordSummary]:
    """Return the paglets, or those with one of the statuses, in the order in which they came to their status."""
    wanted = _STATUSES if statuses is None else {int(status) for status in statuses}
    # Nearly all have one of eight policies, so nearly all can share one; nobody changes the policy of a summary.
    usual = {flags: policy_of(flags, None) for flags in range(8)}
    rows = c.execute(_SUMMARIES)
    collecting = gc.isenabled()
    gc.disable()  # nothing made here is garbage, and looking for it takes as long as making it
    try:
        return [
            RecordSummary(
                agent_id,
                agent_class,
                state_class,
                since,
                _STATUSES[status],
                epoch,
                usual[flags] if activate_at is None else policy_of(flags, activate_at),
                count,
                NOTHING_USED if balance is None else _balance_of(balance),
                holder,
            )
            for (
                agent_id,
                agent_class,
                state_class,
                since,
                status,
                epoch,
                flags,
                activate_at,
                count,
                balance,
                holder,
            ) in rows
            if status in wanted
        ]
    finally:
        if collecting:
            gc.enable()


def count(c: sqlite3.Connection, status: Status) -> int:
    """Count the paglets of a status."""
    found: tuple[int] = c.execute("SELECT count(*) FROM paglets WHERE status = ?", (int(status),)).fetchone()
    return found[0]


def update_state(c: sqlite3.Connection, agent_id: str, epoch: int, ref: StateRef) -> bool:
    """Replace the state of a paglet; return False when it is not active here in this epoch any more."""
    parameters = (ref.crc, ref.nbytes, ref.file, ref.inline, agent_id, epoch, _ACTIVE)
    return c.execute(_UPDATE_STATE, parameters).rowcount > 0


def update_metadata(c: sqlite3.Connection, agent_id: str, epoch: int, metadata: dict[str, Any]) -> bool:
    """Replace the metadata of a paglet; return False when it is not here in this epoch.

    :raises SerializationError: the metadata are no wire values.
    """
    parameters = (pack(metadata), agent_id, epoch)
    return c.execute("UPDATE paglets SET metadata = ? WHERE agent_id = ? AND epoch = ?", parameters).rowcount > 0


def set_balance(c: sqlite3.Connection, agent_id: str, epoch: int, balance: AllowanceBalance) -> bool:
    """Replace what a paglet has left of its allowance; return False when it is not here in this epoch."""
    parameters = (packed_balance(balance), agent_id, epoch)
    return c.execute("UPDATE paglets SET balance = ? WHERE agent_id = ? AND epoch = ?", parameters).rowcount > 0


def set_status(
    c: sqlite3.Connection,
    agent_id: str,
    epoch: int,
    status: Status,
    *,
    at: float | None = None,
    policy: DeactivationPolicy | None = None,
    request: DeactivationRequest | None = None,
    error: str | None = None,
    handed_over: bool = False,
) -> bool:
    """Change the status of a paglet and what else is given; return False when it is not here in this epoch.

    :param handed_over: change it even if the paglet was handed over, which then did not happen; otherwise such a row
        stays as it is, and False is returned.
    """
    parameters = {
        "handed_over": handed_over,
        "departing": int(Status.DEPARTING),
        "agent": agent_id,
        "epoch": epoch,
        "status": int(status),
        "at": at,
        "error": None if error is None else kept_text(error),
        "request": None if request is None else pack(request.to_wire()),
        "flags": None if policy is None else policy_flags(policy),
        "activate_at": None if policy is None else policy.activate_at,
    }
    return c.execute(_SET_STATUS, parameters).rowcount > 0


def remove(c: sqlite3.Connection, agent_id: str, *, epoch: int | None = None, status: Status | None = None) -> bool:
    """Remove a paglet with the messages it handled and its reminders; queued messages stay.

    With `epoch` or `status` only if it has them. Return whether it was removed.
    """
    parameters = {"agent": agent_id, "epoch": epoch, "status": None if status is None else int(status)}
    removed = c.execute(
        """
        DELETE FROM paglets WHERE agent_id = :agent
            AND (:epoch IS NULL OR epoch = :epoch) AND (:status IS NULL OR status = :status)
        """,
        parameters,
    ).rowcount
    if removed:
        c.execute("DELETE FROM handled WHERE agent_id = ?", (agent_id,))
        c.execute("DELETE FROM reminders WHERE agent_id = ?", (agent_id,))
    return removed > 0


def packed_balance(balance: AllowanceBalance) -> bytes | None:
    """Return a balance as it is stored, None where nothing is limited and nothing was used."""
    return None if balance == NOTHING_USED else pack(balance.to_wire())


def _balance_of(packed: bytes | None) -> AllowanceBalance:
    return NOTHING_USED if packed is None else AllowanceBalance.from_wire(unpack(packed))


def state_files(c: sqlite3.Connection) -> list[str]:
    """Return the names of all files that a row of a paglet or of a transfer names."""
    rows = c.execute("SELECT file FROM states WHERE file <> '' UNION SELECT file FROM transfers WHERE file <> ''")
    return [name for (name,) in rows]
