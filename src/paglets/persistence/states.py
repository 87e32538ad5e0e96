"""Large states of paglets as files beside the journal, so that a row stays small and a replaced state costs one unlink.

A file has a fresh name, is complete and synced before a row can name it, and is never changed. So a crash leaves at
most files that no row names, which `sweep` removes when the journal is opened.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from paglets.core.errors import HostError, InsufficientStorageError
from paglets.persistence.atomic import fsync_directory, make_directories
from paglets.persistence.rows import StateRef

#: A state up to this size lies in its row; writing it twice, to the log and to the table, is cheaper than a file.
INLINE_BYTES: Final = 1024 * 1024

_NAME = re.compile(r"[0-9a-f]{32}\.state", re.ASCII)
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


class StateStore:
    """The files of one journal. Safe to use from several threads, except for `sweep`."""

    def __init__(self, directory: Path) -> None:
        """Name the directory, which the first large state creates."""
        self.directory = directory

    def keep(self, blob: bytes | memoryview) -> StateRef:
        """Make a state ready to be named by a row: as it is, or as a file that is on disk when this returns.

        :raises InsufficientStorageError: the disk does not take it; nothing is left of it.
        :raises HostError: it cannot be written for another reason.
        """
        size = memoryview(blob).nbytes
        checksum = zlib.crc32(blob)
        if size <= INLINE_BYTES:
            return StateRef(bytes(blob), "", checksum, size)
        name = f"{secrets.token_hex(16)}.state"
        path = self.directory / name
        try:
            make_directories(self.directory)
            self._write(path, blob)
        except OSError as error:
            kind = InsufficientStorageError if error.errno in _NO_ROOM else HostError
            raise kind(f"A state of {size} bytes cannot be stored as {path}: {error.strerror}") from error
        return StateRef(None, name, checksum, size)

    def load(self, ref: StateRef) -> bytes:
        """Return a state.

        :raises HostError: it is damaged or missing; the text names its file.
        """
        if ref.inline is not None:
            blob, place = ref.inline, "in the journal"
        else:
            path = self._path(ref.file)
            place = f"in {path}"
            try:
                blob = path.read_bytes()
            except OSError as error:
                raise HostError(f"The stored state {place} cannot be read: {error.strerror}") from error
        if len(blob) != ref.nbytes or zlib.crc32(blob) != ref.crc:
            raise HostError(
                f"The stored state {place} is damaged: it is not what was written (checksum or size differs)"
            )
        return blob

    def drop(self, name: str) -> None:
        """Remove the file of a state; nothing there is no error.

        :raises HostError: the name is none of a state.
        """
        path = self._path(name)
        with suppress(FileNotFoundError):
            path.unlink()

    def sweep(self, named: Iterable[str]) -> int:
        """Remove the files that are not among these names, and return how many there were.

        Only while nobody keeps states: one that is not named yet would go.
        """
        wanted = set(named)
        try:
            found = [entry.name for entry in os.scandir(self.directory) if _NAME.fullmatch(entry.name)]
        except FileNotFoundError:
            return 0
        unnamed = [name for name in found if name not in wanted]
        for name in unnamed:
            self.drop(name)
        return len(unnamed)

    # inside

    def _path(self, name: str) -> Path:
        if _NAME.fullmatch(name) is None:
            raise HostError(f"No name of a stored state: {name!r}")
        return self.directory / name

    def _write(self, path: Path, blob: bytes | memoryview) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as stream:
                rest = memoryview(blob).cast("B")
                while rest:
                    rest = rest[stream.write(rest) :]
                os.fsync(stream.fileno())
            fsync_directory(self.directory)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
