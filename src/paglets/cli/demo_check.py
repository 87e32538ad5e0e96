"""Count a directory tree a second way, and say whether a survey of it adds up.

The witness walks with `os.walk` and `os.lstat`, the paglets with `os.scandir`. It looks before and after the survey:
what is the same both times must be in the survey exactly like that, and only what really changed meanwhile may differ.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from paglets.examples.survey.models import Counts, SurveyReport

MOST_NAMED: Final = 20

Moment = Literal["before", "after"]
Row = tuple[str, str, int, int]
"""Path, kind, size, and the time of the last change of anything about it."""

_SCHEMA: Final = """
CREATE TABLE before (path TEXT, kind TEXT, bytes INTEGER, changed INTEGER);
CREATE TABLE after (path TEXT, kind TEXT, bytes INTEGER, changed INTEGER);
"""
_COMPARISON: Final = """
CREATE TEMP TABLE steady AS SELECT * FROM before INTERSECT SELECT * FROM after;
CREATE TEMP TABLE shaky AS
    SELECT path, kind FROM (SELECT * FROM before EXCEPT SELECT * FROM steady)
    UNION SELECT path, kind FROM (SELECT * FROM after EXCEPT SELECT * FROM steady);
"""
_KINDS: Final = {"directories": "d", "symlinks": "l", "others": "o", "unreadable": "u"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a comparison."""

    differences: list[str] = field(default_factory=list)
    """What does not add up, in words."""
    changed: list[str] = field(default_factory=list)
    """The first of the paths that changed while the survey was made."""
    changed_count: int = 0

    @property
    def sound(self) -> bool:
        """Whether everything adds up."""
        return not self.differences


class Witness:
    """Remember in a database what a tree held before and after.

    :param skip: absolute paths of directories to leave out.
    """

    def __init__(self, root: bytes, skip: Collection[bytes], database: Path) -> None:
        self._root = root
        self._skip = skip
        self._connection = sqlite3.connect(database)
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def look(self, moment: Moment) -> Counts:
        """Walk the tree and return what is there now."""
        with self._connection:
            self._connection.executemany(
                f"INSERT INTO {moment} VALUES (?, ?, ?, ?)",  # noqa: S608 - one of two names
                rows_of(self._root, self._skip),
            )
        found = {
            kind: (count, size)
            for kind, count, size in self._connection.execute(
                f"SELECT kind, count(*), sum(bytes) FROM {moment} GROUP BY kind"  # noqa: S608 - one of two names
            )
        }
        others = {name: found.get(kind, (0, 0))[0] for name, kind in _KINDS.items()}
        files, size = found.get("f", (0, 0))
        return Counts(files=files, bytes=size, **others)

    def judge(self, result: Path, report: SurveyReport) -> Verdict:
        """Compare a survey with what was seen before and after; to be asked once."""
        self._connection.executescript(_COMPARISON)
        self._connection.execute("ATTACH DATABASE ? AS survey", (str(result),))
        try:
            changed = self._paths("SELECT DISTINCT path FROM shaky WHERE kind NOT IN ('d', 'root') ORDER BY path")
            differences = [
                *self._sums(report),
                *(f"{path} is listed twice" for path in self._paths(_DOUBLED)[:MOST_NAMED]),
                *(f"{path} is missing, or listed with another size" for path in self._paths(_MISSING)[:MOST_NAMED]),
                *(f"{path} is listed like that, but nobody else saw it" for path in self._paths(_STRANGE)[:MOST_NAMED]),
                *self._ranges(report.totals),
            ]
            if not self._paths("SELECT path FROM shaky LIMIT 1"):
                differences += self._largest(report)
            return Verdict(differences, changed[:MOST_NAMED], len(changed))
        finally:
            self._connection.execute("DETACH DATABASE survey")

    def _paths(self, query: str) -> list[str]:
        return [row[0] for row in self._connection.execute(query)]

    def _sums(self, report: SurveyReport) -> Iterator[str]:
        listed = self._connection.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM survey.files").fetchone()
        shares = sum((share.counts for share in report.shares), Counts())
        sums = {
            "the file lists": listed,
            "the shares come to": (shares.files, shares.bytes),
            "the types come to": (sum(t.files for t in report.types), sum(t.bytes for t in report.types)),
        }
        for what, (files, size) in sums.items():
            if (files, size) != (report.totals.files, report.totals.bytes):
                told = f"{report.totals.files} files of {report.totals.bytes} bytes"
                yield f"{what} {files} files of {size} bytes, the report says {told}"

    def _ranges(self, totals: Counts) -> Iterator[str]:
        """Check what is only counted: at least what stayed, at most what was there at any time."""
        for name, kind in _KINDS.items():
            least, most = (
                self._connection.execute(f"SELECT count(*) FROM ({query})", (kind, kind)).fetchone()[0]  # noqa: S608
                for query in (_AT_BOTH_TIMES, _AT_ANY_TIME)
            )
            counted = getattr(totals, name)
            if not least <= counted <= most:
                there = str(least) if least == most else f"{least} to {most}"
                yield f"{counted} {name} were counted where there are {there}"

    def _largest(self, report: SurveyReport) -> Iterator[str]:
        query = "SELECT bytes FROM after WHERE kind = 'f' ORDER BY bytes DESC LIMIT ?"
        sizes = [row[0] for row in self._connection.execute(query, (len(report.largest),))]
        if sizes != [each.bytes for each in report.largest]:
            yield f"the largest files have {sizes} bytes, not what the report says"


_DOUBLED: Final = "SELECT path FROM survey.files GROUP BY path HAVING count(*) > 1"
_MISSING: Final = (
    "SELECT path FROM (SELECT path, bytes FROM steady WHERE kind = 'f' EXCEPT SELECT path, bytes FROM survey.files)"
)
# A file that came and went again between the two looks has left its mark on its directory.
_STRANGE: Final = """
    SELECT path FROM (SELECT path, bytes FROM survey.files EXCEPT SELECT path, bytes FROM steady WHERE kind = 'f')
    WHERE path NOT IN (SELECT path FROM shaky)
      AND rtrim(rtrim(path, replace(path, '/', '')), '/') NOT IN (SELECT path FROM shaky WHERE kind IN ('d', 'root'))
"""
_AT_BOTH_TIMES: Final = "SELECT path FROM before WHERE kind = ? INTERSECT SELECT path FROM after WHERE kind = ?"
_AT_ANY_TIME: Final = "SELECT path FROM before WHERE kind = ? UNION SELECT path FROM after WHERE kind = ?"


def rows_of(root: bytes, skip: Collection[bytes]) -> Iterator[Row]:
    """Yield what is below a directory, and the directory itself under an empty path."""
    failures: list[OSError] = []
    yield ("", "root", 0, os.lstat(root).st_ctime_ns)
    for directory, subdirectories, names in os.walk(root, onerror=failures.append):
        kept = []
        for name in [*subdirectories, *names]:
            path = directory.rstrip(b"/") + b"/" + name
            if path in skip:
                continue
            row = _row(root, path)
            if row is not None:
                yield row
                if row[1] == "d":
                    kept.append(name)
        subdirectories[:] = kept
    for failure in failures:
        if not isinstance(failure, FileNotFoundError):
            yield (_relative(root, os.fsencode(failure.filename)) or ".", "u", 0, 0)


def _row(root: bytes, path: bytes) -> Row | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError:
        return (_relative(root, path), "u", 0, 0)
    if stat.S_ISREG(status.st_mode):
        kind = "f"
    elif stat.S_ISDIR(status.st_mode):
        kind = "d"
    else:
        kind = "l" if stat.S_ISLNK(status.st_mode) else "o"
    return (_relative(root, path), kind, status.st_size if kind == "f" else 0, status.st_ctime_ns)


def _relative(root: bytes, path: bytes) -> str:
    return path[len(root) :].lstrip(b"/").decode("utf-8", "backslashreplace")
