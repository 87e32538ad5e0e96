"""The file a survey paglet carries: a SQLite database with a row per file found."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from paglets.examples.survey.models import Counts, FileSize, ShareReport, SurveyReport, TypeTotal
from paglets.examples.survey.walk import Batch

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS files (path TEXT NOT NULL, type TEXT NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS unreadable (path TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS shares (
    host TEXT PRIMARY KEY, files INTEGER, bytes INTEGER, directories INTEGER, symlinks INTEGER, others INTEGER,
    unreadable INTEGER, seconds REAL
);
CREATE TABLE IF NOT EXISTS visits (host TEXT NOT NULL, at REAL NOT NULL, files INTEGER, sound INTEGER);
"""


class SurveyFile:
    """One result file; use it in a `with` statement, which writes everything at its end."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        # Scratch: a paglet that dies halfway walks again. So nothing waits for the disk.
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("PRAGMA journal_mode = MEMORY")
        self._connection.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._connection.commit()
        self._connection.close()

    def add(self, batch: Batch) -> None:
        """Add what a walk found."""
        self._connection.executemany("INSERT INTO files VALUES (?, ?, ?)", batch.files)
        self._connection.executemany("INSERT INTO unreadable VALUES (?, ?)", batch.unreadable)

    def finish(self, report: ShareReport) -> None:
        """Add what a share came to in the end."""
        counts = report.counts
        self._connection.execute(
            "INSERT INTO shares VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                report.host,
                counts.files,
                counts.bytes,
                counts.directories,
                counts.symlinks,
                counts.others,
                counts.unreadable,
                report.seconds,
            ),
        )

    def merge(self, other: Path) -> None:
        """Add everything that another result file holds."""
        self._connection.execute("ATTACH DATABASE ? AS other", (str(other),))
        with self._connection:
            for table in ("files", "unreadable", "shares"):
                self._connection.execute(f"INSERT INTO {table} SELECT * FROM other.{table}")  # noqa: S608 - fixed names
        self._connection.execute("DETACH DATABASE other")

    def sign(self, host: str) -> None:
        """Note a visit: where, when, how many files the result has there, and whether it arrived sound."""
        sound = self._connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
        files = self._connection.execute("SELECT count(*) FROM files").fetchone()[0]
        self._connection.execute("INSERT INTO visits VALUES (?, ?, ?, ?)", (host, time.time(), files, sound))

    def report(self, largest: int) -> SurveyReport:
        """Return what there is to tell, with so many of the largest files."""
        ask = self._connection.execute
        shares = [
            ShareReport(host, Counts(*counts), seconds)
            for host, *counts, seconds in ask("SELECT * FROM shares ORDER BY rowid")
        ]
        return SurveyReport(
            totals=sum((share.counts for share in shares), Counts()),
            shares=shares,
            largest=[
                FileSize(path, size)
                for path, size in ask("SELECT path, bytes FROM files ORDER BY bytes DESC, path LIMIT ?", (largest,))
            ],
            types=[
                TypeTotal(*row)
                for row in ask("SELECT type, count(*), sum(bytes) FROM files GROUP BY type ORDER BY 3 DESC, 1")
            ],
            unreadable=[
                f"{path}: {reason}"
                for path, reason in ask("SELECT path, reason FROM unreadable ORDER BY path LIMIT 100")
            ],
        )
