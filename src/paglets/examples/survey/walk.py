"""Find what is in a directory tree, in pieces that several hosts can do at the same time.

Nothing here knows of paglets.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from paglets.examples.survey.models import Counts, Unit

BATCH_ROWS = 2000
UNITS_PER_SHARE = 32
#: How many directories are listed at most to find that many units.
PLANNING_LISTINGS = 256
#: A directory with more entries is cut into parts, so that a plan stays small and every share gets its part.
MOST_ENTRIES = 1000
NO_TYPE = "(none)"

FileRow = tuple[str, str, int]
"""Path, type and size."""


@dataclass(slots=True)
class Batch:
    """What a part of a walk found."""

    files: list[FileRow]
    unreadable: list[tuple[str, str]]
    """Path and reason."""
    counts: Counts


def plan_shares(root: bytes, shares: int, *, skip: Collection[bytes] = ()) -> list[list[Unit]]:
    """Cut a tree into pieces that cover every entry exactly once, and deal them out.

    Directories are opened level by level, in order of their names, until there are enough below them. An opened one
    becomes a piece of its own, without what is below. Neighbours, which are often alike, go to different shares.
    """
    wanted = UNITS_PER_SHARE * shares
    planned: list[Unit] = []
    waiting = deque([b""])
    listings = 0
    while waiting and len(planned) + len(waiting) < wanted and listings < PLANNING_LISTINGS:
        path = waiting.popleft()
        below = _directories(root, path, skip)
        listings += 1
        if below is None:
            planned += [Unit(path, deep=True, part=part, parts=shares) for part in range(shares)]
        else:
            planned.append(Unit(path, deep=False))
            waiting.extend(below)
    planned += [Unit(path, deep=True) for path in waiting]
    return [planned[number::shares] for number in range(shares)]


def walk(
    root: bytes, units: Iterable[Unit], *, skip: Collection[bytes] = (), batch_rows: int = BATCH_ROWS
) -> Iterator[Batch]:
    """Walk units and yield what is found in batches of about `batch_rows` files.

    Symbolic links are counted and never followed. What cannot be read is counted and named; what disappears between
    being listed and being looked at was never there.
    """
    found = _Counter()
    for unit in units:
        pending = [unit.path]
        while pending:
            directory = pending.pop()
            prefix = shown(directory) + "/" if directory else ""
            # Of a directory in parts the first stands for the directory itself.
            first = directory != unit.path or unit.part == 0
            try:
                with os.scandir(_below(root, directory)) as entries:
                    for entry in entries:
                        if directory == unit.path and not unit.takes(entry.name):
                            continue
                        kind = found.look_at(entry, prefix)
                        if kind is _DIRECTORY and unit.deep and entry.path not in skip:
                            pending.append(_below(directory, entry.name))
                        if len(found.files) >= batch_rows:
                            yield found.cut()
            except FileNotFoundError:
                continue
            except OSError as exc:
                if first:
                    found.unreadable.append((shown(directory) or ".", exc.strerror or type(exc).__name__))
            found.directories += first and bool(directory)
    yield found.cut()


_DIRECTORY = object()


class _Counter:
    """Counts in plain attributes: this is the inner loop."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.files: list[FileRow] = []
        self.unreadable: list[tuple[str, str]] = []
        self.bytes = self.directories = self.symlinks = self.others = 0

    def look_at(self, entry: os.DirEntry[bytes], prefix: str) -> object | None:
        """Count one entry; a directory is counted when it is its turn to be listed."""
        try:
            if entry.is_dir(follow_symlinks=False):
                return _DIRECTORY
            if entry.is_file(follow_symlinks=False):
                size = entry.stat(follow_symlinks=False).st_size
                name = shown(entry.name)
                self.files.append((prefix + name, type_of(name), size))
                self.bytes += size
            elif entry.is_symlink():
                self.symlinks += 1
            else:
                self.others += 1
        except FileNotFoundError:
            return None
        except OSError as exc:
            self.unreadable.append((prefix + shown(entry.name), exc.strerror or type(exc).__name__))
        return None

    def cut(self) -> Batch:
        """Return what was found since the last cut."""
        counts = Counts(
            files=len(self.files),
            bytes=self.bytes,
            directories=self.directories,
            symlinks=self.symlinks,
            others=self.others,
            unreadable=len(self.unreadable),
        )
        batch = Batch(self.files, self.unreadable, counts)
        self._start()
        return batch


def shown(name: bytes) -> str:
    """Return a name as text; bytes that are no UTF-8 are written as escapes."""
    return name.decode("utf-8", "backslashreplace")


def type_of(name: str) -> str:
    """Return the type of a file by its name: the extension in lower case."""
    stem, _, extension = name.rpartition(".")
    # A name that only begins with dots has no extension.
    return f".{extension.lower()}" if extension and stem.strip(".") else NO_TYPE


def _below(directory: bytes, name: bytes) -> bytes:
    if not directory or not name:
        return directory or name
    return directory.rstrip(b"/") + b"/" + name


def _directories(root: bytes, path: bytes, skip: Collection[bytes]) -> list[bytes] | None:
    """Return what is to be walked below a directory, or None if it has very many entries."""
    found = []
    try:
        with os.scandir(_below(root, path)) as entries:
            for number, entry in enumerate(entries):
                if number >= MOST_ENTRIES:
                    return None
                if entry.is_dir(follow_symlinks=False) and entry.path not in skip:
                    found.append(_below(path, entry.name))
    except OSError:
        return []  # whoever walks it meets the same error, and reports it
    return sorted(found)
