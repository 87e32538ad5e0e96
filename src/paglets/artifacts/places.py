"""Blobs outside the store: lent to work directories, remembered there, and taken back."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import stat as modes
import time
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

from paglets.artifacts.errors import FileChangedError, NoRoomError, NotStoredError, io_error
from paglets.artifacts.known import Memory, Stamp
from paglets.artifacts.opening import PLAIN
from paglets.artifacts.placing import claimed, copy_content, open_for_writing, part_beside
from paglets.artifacts.shelf import Shelf, open_plain
from paglets.artifacts.writer import WRITEBACK_BYTES
from paglets.core.errors import TransferError
from paglets.persistence.atomic import fsync_directory

_MINUTE_NS: Final = 60 * 10**9
_ATTEMPTS: Final = 3
_LATEST_TIME: Final = 2.0**34
_COPY_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | PLAIN


class Places:
    """Where contents are outside the shelf, and how they get there and back. Shares the shelf's lock."""

    def __init__(
        self,
        shelf: Shelf,
        scratch: Callable[[], Path],
        make_room: Callable[[int], int],
        report: Callable[[str], None],
    ) -> None:
        self._shelf = shelf
        self._scratch = scratch
        self._make_room = make_room
        self._report = report
        self._lock = shelf.lock
        self._memory = Memory()

    # reading

    def find(self, sha256: str) -> tuple[Path, int] | None:
        """Return where a content is, on the shelf or elsewhere, and its length; None if it is not here."""
        for _ in range(_ATTEMPTS):
            if (entry := self._shelf.usable(sha256)) is not None:
                return self._shelf.file(sha256), entry.size
            with self._lock:
                if self._shelf.ledger.get(sha256) is None:
                    for path in self._memory.places(sha256):
                        if (known := self._memory.get(path)) is not None:
                            return path, known.stamp.size
                    return None
            # It was taken back in between.
        return None

    def open(self, sha256: str) -> tuple[FileIO, Stamp]:
        """Open a content, on the shelf or elsewhere; its bytes are right while the file keeps the stamp.

        :raises NotStoredError: it is not here.
        """
        for _ in range(_ATTEMPTS):
            if (stream := self._shelf.open(sha256)) is not None:
                return stream, Stamp.of(os.fstat(stream.fileno()))
            with self._lock:
                if self._shelf.ledger.get(sha256) is None:
                    if (placed := self._open_place(sha256)) is not None:
                        return placed
                    break
        raise NotStoredError(f"No content with checksum {sha256} is here")

    def _open_place(self, sha256: str) -> tuple[FileIO, Stamp] | None:
        for path in self._memory.places(sha256):
            with suppress(OSError):
                stream = open_plain(path)
                stamp = Stamp.of(os.fstat(stream.fileno()))
                known = self._memory.get(path)
                if known is not None and known.stamp == stamp:
                    return stream, stamp
                stream.close()
        return None

    # memory

    def remember(self, path: Path, sha256: str, stat: os.stat_result, read_at_ns: int | None) -> None:
        """Take note of what a file contains; see `BlobStore.remember`."""
        stamp = Stamp.of(stat)
        aged = stamp.modified_ns < time.time_ns() - _MINUTE_NS
        settled = aged if read_at_ns is None else stamp.settled(read_at_ns)
        with self._lock:
            if settled and modes.S_ISREG(stat.st_mode):
                self._memory.remember(path, sha256, stamp)
            else:
                self._memory.forget(path)

    def below(self, directory: Path) -> list[tuple[Path, str]]:
        """Return the remembered files below a directory, with their checksums."""
        with self._lock:
            return self._memory.below(directory)

    def known(self, path: Path) -> tuple[str, Stamp] | None:
        """Return the checksum of a file that did not change since it was remembered, and its stamp."""
        with self._lock:
            found = self._memory.get(path)
        return None if found is None else (found.sha256, found.stamp)

    def identify(self, path: Path) -> tuple[str, os.stat_result]:
        """Return the checksum of a file and its state; see `BlobStore.identify`."""
        with open_plain(path) as stream:
            before = os.fstat(stream.fileno())
            if not modes.S_ISREG(before.st_mode):
                raise NotStoredError(f"Not a file: {path}")
            known = self.known(path)
            if known is not None and known[1] == Stamp.of(before):
                return known[0], before
            # What a process changes through a mapping need not show in the stamp, as long as the page is dirty.
            writers = open_for_writing(stream.fileno())
            if writers is None:
                with suppress(OSError):
                    os.fsync(stream.fileno())
            began = time.time_ns()
            found = hashlib.file_digest(stream, "sha256").hexdigest()
            if Stamp.of(os.fstat(stream.fileno())) != Stamp.of(before):
                raise FileChangedError(f"{path} changed while it was read; try again when nobody writes to it")
        if not writers:
            self.remember(path, found, before, began)
        return found, before

    # putting

    def put(self, sha256: str, target: Path, modified_at: float, mode: int, holder: str, *, durable: bool) -> None:
        """Put a content at a path that nothing is at; see `BlobStore.put_at`."""
        if not (math.isfinite(modified_at) and abs(modified_at) < _LATEST_TIME):
            raise TransferError(f"{modified_at} is no time of modification; give Unix seconds")
        try:
            if not self._move_out(sha256, target, modified_at, mode, holder, durable):
                self._copy_out(sha256, target, modified_at, mode, durable)
            if durable:
                fsync_directory(target.parent)
        except FileExistsError:
            raise TransferError(f"Something is at {target} already; it is not overwritten") from None
        except OSError as error:
            raise io_error(f"Content {sha256} cannot be put at {target}", target.parent, error) from error

    def _move_out(self, sha256: str, target: Path, modified_at: float, mode: int, holder: str, durable: bool) -> bool:
        entry = self._shelf.usable(sha256)
        if entry is None or self._shelf.ledger.wanted_beside(sha256, holder):
            return False
        if durable:
            try:
                self._shelf.make_durable(entry)
            except NotStoredError:
                return False
        with self._lock:
            if not self._shelf.intact(entry) or self._shelf.ledger.wanted_beside(sha256, holder):
                return False
            source = self._shelf.file(sha256)
            synced = entry.durable
            try:
                with claimed(target):
                    given = _dress(source, modified_at, mode)
                    source.replace(target)
            except OSError as error:
                self._shelf.touched(entry)
                if error.errno == errno.EXDEV:
                    return False
                raise
            self._shelf.ledger.remove(sha256)
            self._settle_at(target, sha256, given, durable=synced)
        return True

    def _copy_out(self, sha256: str, target: Path, modified_at: float, mode: int, durable: bool) -> None:
        for _ in range(_ATTEMPTS):
            part = part_beside(target)
            try:
                if self._copy(sha256, part, durable=durable):
                    given = _dress(part, modified_at, mode)
                    with self._lock:
                        with claimed(target):
                            part.replace(target)
                        self._settle_at(target, sha256, given, durable=durable)
                    return
            finally:
                part.unlink(missing_ok=True)
        raise NotStoredError(f"Content {sha256} is only where it changes all the time; send it again")

    def copy_in(self, sha256: str, owner: str) -> None:
        """Copy a content that is elsewhere onto the shelf, for an artifact.

        :raises NotStoredError: it is not here, or no longer.
        """
        part = self._scratch()
        try:
            for _ in range(_ATTEMPTS):
                if self._copy(sha256, part, durable=False):
                    self._shelf.accept(part, sha256, synced=False, owner=owner)
                    return
        except OSError as error:
            raise io_error(f"Content {sha256} cannot be copied", part.parent, error) from error
        finally:
            part.unlink(missing_ok=True)
        raise NotStoredError(f"Content {sha256} is only where it changes all the time; send it again")

    def _copy(self, sha256: str, part: Path, *, durable: bool) -> bool:
        """Copy a content into a new file; return whether it was still that content at the end."""
        while True:
            stream, stamp = self.open(sha256)
            with stream:
                part.unlink(missing_ok=True)
                descriptor = os.open(part, _COPY_FLAGS, 0o600)
                try:
                    copy_content(stream.fileno(), descriptor, stamp.size)
                    if durable:
                        os.fsync(descriptor)
                    # A blob may be put somewhere and written to there while it is open here.
                    return Stamp.of(os.fstat(stream.fileno())) == stamp
                except OSError as error:
                    if isinstance(io_error("", part, error), NoRoomError) and self._make_room(
                        max(stamp.size, WRITEBACK_BYTES)
                    ):
                        continue
                    if Stamp.of(os.fstat(stream.fileno())) != stamp:
                        return False
                    raise
                finally:
                    os.close(descriptor)

    def _settle_at(self, path: Path, sha256: str, given_ns: int, *, durable: bool) -> None:
        stamp = Stamp.of(path.lstat())
        # A time with all its digits is none that the kernel's clock shows, so a change brings another one.
        if stamp.modified_ns == given_ns or stamp.settled(time.time_ns()):
            self._memory.remember(path, sha256, stamp, durable=durable)

    # taking back

    def take(self, path: Path, sha256: str) -> bool:
        """Take a file back onto the shelf; see `BlobStore.take`."""
        hidden = self._scratch()
        with self._lock:
            known = self._memory.get(path)
            if known is None or known.sha256 != sha256:
                return False
            try:
                path.rename(hidden)
            except OSError:  # another file system, most likely
                return False
            self._memory.forget(path)
        try:
            # Only now can nobody open it any more.
            if _untouched(hidden, known.stamp):
                self._shelf.accept(hidden, sha256, synced=known.durable)
                return True
        except OSError as error:
            self._report(f"{path} cannot be taken back as blob {sha256}: {error}")
        with suppress(OSError), claimed(path):
            hidden.replace(path)
        return False


def _dress(path: Path, modified_at: float, mode: int) -> int:
    """Set permissions and time of modification; return that in nanoseconds if it is now, else 0."""
    path.chmod(mode & 0o777)
    if modified_at:
        os.utime(path, (modified_at, modified_at))
        return 0
    now = time.time_ns()
    os.utime(path, ns=(now, now))
    return now


def _untouched(path: Path, stamp: Stamp) -> bool:
    """Return whether a file that was just renamed is what it was, and nobody can change it."""
    with open_plain(path) as stream:
        stat = os.fstat(stream.fileno())
        # The rename itself changes the fifth value, the time of the last change of the inode.
        return Stamp.of(stat)[:4] == stamp[:4] and stat.st_nlink == 1 and not open_for_writing(stream.fileno())
