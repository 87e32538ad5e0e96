"""What a host that does not run tells of the paglets that are stored in its directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paglets.persistence.journal import read_only
from paglets.persistence.rows import Status
from paglets.persistence.tables import paglets as rows
from paglets.runtime.assembly import JOURNAL_NAME


def stored_count(directory: Path) -> int:
    """Return how many inactive paglets there are, 0 where nothing is stored."""
    with read_only(directory / JOURNAL_NAME) as connection:
        return 0 if connection is None else rows.count(connection, Status.INACTIVE)


def stored_summaries(directory: Path, name: str, address: str) -> list[dict[str, Any]]:
    """Return the summaries of the inactive paglets, as the host of this name and address shows them."""
    with read_only(directory / JOURNAL_NAME) as connection:
        if connection is None:
            return []
        return [
            {
                "agent_id": summary.agent_id,
                "class_name": summary.agent_class_name,
                "state_class_name": summary.state_class_name,
                "host": name,
                "address": address,
                "active": False,
                "deactivated_at": summary.deactivated_at,
            }
            for summary in rows.summaries(connection, (Status.INACTIVE,))
        ]
