"""The ledger of a host: what became of every paglet that was here, in rows that outlive the paglet and the process.

A row is written in the unit of work that makes it true, so the ledger never tells of a move that did not happen, nor
keeps quiet about one that did. `Ledger` makes the rows; whoever has the unit of work adds them::

    row = ledger.departed(agent_id, class_name, epoch, target=url, cause="dispatch")
    await journal.write(lambda connection: tables.ledger.add(connection, row))

The rows of one host are a piece of a paglet's journey. Those where it came and went name the other host, so the pieces
can be put together by asking from host to host (:mod:`paglets.remote.journey`). A row has the epoch in which it
happened: a departure that of the stay which ended, the arrival on the other side the next one. Epochs grow along the
journey whatever the clocks of the hosts say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final

from paglets.persistence.journal import Journal
from paglets.persistence.rows import DepartedRow, LedgerRow
from paglets.persistence.tables import ledger, places

MAX_ENTRIES: Final = 1000
"""Entries of one paglet that are read; the newest ones."""
_MAX_CAUSE: Final = 500


class LedgerEvent(StrEnum):
    """What can happen to a paglet on a host."""

    CREATED = "created"
    CLONED = "cloned"
    """It began here as a copy; the peer is the host of the original."""
    ARRIVED = "arrived"
    """The peer is the host that it came from."""
    DEPARTED = "departed"
    """The peer is the host that it went to, and has it in the next epoch."""
    SLEPT = "slept"
    WOKE = "woke"
    RECOVERED = "recovered"
    """It was started again from what is on disk, after its process or the host ended without notice."""
    CRASHED = "crashed"
    ENDED = "ended"


class Ledger:
    """Make the rows of one host's ledger, and read them back.

    Making a row does no input or output. Reading blocks for the time of a database query.

    :param journal: where the rows are.
    :param host_name: the host's name.
    :param address: returns the host's present base URL.
    :param clock: returns Unix seconds.
    """

    def __init__(
        self,
        journal: Journal,
        host_name: str,
        address: Callable[[], str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._host_name = host_name
        self._address = address
        self._clock = clock

    # --- making rows --------------------------------------------------------------------------------------------------

    def created(self, agent_id: str, class_name: str, epoch: int, *, size_bytes: int = 0) -> LedgerRow:
        """Return the row for a paglet that began here.

        :param size_bytes: of its state.
        """
        return self._row(LedgerEvent.CREATED, agent_id, class_name, epoch, size_bytes=size_bytes)

    def cloned(
        self,
        agent_id: str,
        class_name: str,
        epoch: int,
        *,
        origin_id: str,
        source: str = "",
        source_name: str = "",
        transfer_id: str = "",
        size_bytes: int = 0,
        seconds: float = 0.0,
    ) -> LedgerRow:
        """Return the row for a copy that began here; it is written by the host of the copy.

        :param agent_id: of the copy.
        :param origin_id: of the original.
        :param source: URL of the host of the original.
        :param size_bytes: of state and files.
        """
        return self._row(
            LedgerEvent.CLONED,
            agent_id,
            class_name,
            epoch,
            peer=source,
            peer_name=source_name,
            cause=f"clone of {origin_id}",
            transfer_id=transfer_id,
            size_bytes=size_bytes,
            seconds=seconds,
        )

    def arrived(
        self,
        agent_id: str,
        class_name: str,
        epoch: int,
        *,
        source: str,
        source_name: str = "",
        cause: str = "dispatch",
        transfer_id: str = "",
        size_bytes: int = 0,
        seconds: float = 0.0,
    ) -> LedgerRow:
        """Return the row for a paglet that lives here from now on.

        :param epoch: of the stay that begins.
        :param source: URL of the host that it came from.
        :param cause: the kind of the move.
        :param size_bytes: of state and files.
        :param seconds: how long the move took, as seen here.
        """
        return self._row(
            LedgerEvent.ARRIVED,
            agent_id,
            class_name,
            epoch,
            peer=source,
            peer_name=source_name,
            cause=cause,
            transfer_id=transfer_id,
            size_bytes=size_bytes,
            seconds=seconds,
        )

    def departed(
        self,
        agent_id: str,
        class_name: str,
        epoch: int,
        *,
        target: str,
        target_name: str = "",
        cause: str = "dispatch",
        transfer_id: str = "",
        size_bytes: int = 0,
        seconds: float = 0.0,
    ) -> LedgerRow:
        """Return the row for a paglet that was handed over.

        :param epoch: of the stay that ends, one less than that at the target.
        :param target: URL of the host that has it now.
        :param cause: the kind of the move.
        :param size_bytes: of state and files.
        :param seconds: from the request to the hand-over.
        """
        return self._row(
            LedgerEvent.DEPARTED,
            agent_id,
            class_name,
            epoch,
            peer=target,
            peer_name=target_name,
            cause=cause,
            transfer_id=transfer_id,
            size_bytes=size_bytes,
            seconds=seconds,
        )

    def slept(self, agent_id: str, class_name: str, epoch: int, *, reason: str = "", size_bytes: int = 0) -> LedgerRow:
        """Return the row for a paglet that was put to sleep.

        :param reason: of the request.
        :param size_bytes: of its state.
        """
        return self._row(LedgerEvent.SLEPT, agent_id, class_name, epoch, cause=reason, size_bytes=size_bytes)

    def woke(self, agent_id: str, class_name: str, epoch: int, *, cause: str = "", seconds: float = 0.0) -> LedgerRow:
        """Return the row for a paglet that woke up.

        :param cause: what woke it.
        :param seconds: how long that took.
        """
        return self._row(LedgerEvent.WOKE, agent_id, class_name, epoch, cause=cause, seconds=seconds)

    def recovered(self, agent_id: str, class_name: str, epoch: int, *, cause: str = "") -> LedgerRow:
        """Return the row for a paglet that was started again from what is on disk.

        :param cause: what had ended it.
        """
        return self._row(LedgerEvent.RECOVERED, agent_id, class_name, epoch, cause=cause)

    def crashed(self, agent_id: str, class_name: str, epoch: int, *, error: str) -> LedgerRow:
        """Return the row for a paglet whose process ended by itself.

        :param error: what is known of why.
        """
        return self._row(LedgerEvent.CRASHED, agent_id, class_name, epoch, cause=error)

    def ended(self, agent_id: str, class_name: str, epoch: int, *, cause: str = "dispose") -> LedgerRow:
        """Return the row for a paglet that exists no more."""
        return self._row(LedgerEvent.ENDED, agent_id, class_name, epoch, cause=cause)

    def _row(
        self,
        event: LedgerEvent,
        agent_id: str,
        class_name: str,
        epoch: int,
        *,
        peer: str = "",
        peer_name: str = "",
        cause: str = "",
        transfer_id: str = "",
        size_bytes: int = 0,
        seconds: float = 0.0,
    ) -> LedgerRow:
        return LedgerRow(
            sequence=0,  # given by the table
            at=self._clock(),
            agent_id=agent_id,
            class_name=class_name,
            event=event.value,
            epoch=epoch,
            peer=peer.rstrip("/"),
            peer_name=peer_name,
            cause=_shortened(cause),
            size_bytes=size_bytes,
            seconds=seconds,
            transfer_id=transfer_id,
        )

    # --- reading ------------------------------------------------------------------------------------------------------

    def journey(self, agent_id: str) -> dict[str, Any]:
        """Return this host's piece of a paglet's journey as plain values; blocking.

        `entries` are in the order in which they were written. `previous` is the host of the last arrival, `next` the
        host that has the paglet if it left for good; each is `{"host_url", "name", "epoch"}` or None, with the epoch
        that the paglet has on that host.
        """
        rows, forwarder = self._journal.read(lambda connection: _read(connection, agent_id))
        return {
            "agent_id": agent_id,
            "entries": [self._described(row) for row in rows],
            "previous": _previous(rows),
            "next": self._next(rows, forwarder),
        }

    def _described(self, row: LedgerRow) -> dict[str, Any]:
        return {
            "at": row.at,
            "event": row.event,
            "epoch": row.epoch,
            "host": self._host_name,
            "host_url": self._address(),
            "peer": row.peer,
            "peer_name": row.peer_name,
            "cause": row.cause,
            "size_bytes": row.size_bytes,
            "seconds": row.seconds,
            "transfer_id": row.transfer_id,
            "class_name": row.class_name,
        }

    def _next(self, rows: Sequence[LedgerRow], forwarder: DepartedRow | None) -> dict[str, Any] | None:
        last = rows[-1] if rows else None
        if last is not None and last.event == LedgerEvent.DEPARTED:
            return _link(last.peer, last.peer_name, last.epoch + 1)
        # The forwarder says it too, and is kept where the ledger was trimmed.
        if forwarder is None or (last is not None and last.epoch >= forwarder.epoch):
            return None
        return _link(forwarder.target, "", forwarder.epoch)


def _read(connection: Any, agent_id: str) -> tuple[list[LedgerRow], DepartedRow | None]:
    return ledger.of(connection, agent_id, MAX_ENTRIES), places.departed_get(connection, agent_id)


def _previous(rows: Sequence[LedgerRow]) -> dict[str, Any] | None:
    for row in reversed(rows):
        if row.event == LedgerEvent.ARRIVED:
            return _link(row.peer, row.peer_name, row.epoch - 1)
    return None


def _link(host_url: str, name: str, epoch: int) -> dict[str, Any] | None:
    return {"host_url": host_url, "name": name, "epoch": epoch} if host_url else None


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_CAUSE else f"{text[: _MAX_CAUSE - 1]}…"
