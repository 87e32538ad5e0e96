from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paglets.persistence import schema
from paglets.persistence.journal import Journal


@pytest.fixture
def journal_path(tmp_path: Path) -> Path:
    return tmp_path / "host" / "journal.db"


@pytest.fixture
def journal(journal_path: Path) -> Iterator[Journal]:
    with Journal(journal_path) as opened:
        yield opened


@pytest.fixture
def c() -> Iterator[sqlite3.Connection]:
    """Give the tables in memory, each statement a transaction of its own."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema._migrate(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        yield connection
