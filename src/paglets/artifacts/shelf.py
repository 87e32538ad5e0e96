"""The directory of blobs: verified bytes, each content once, none of them ever written to again."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

from paglets.artifacts.errors import NotStoredError
from paglets.artifacts.known import Stamp
from paglets.artifacts.ledger import Entry, Ledger
from paglets.artifacts.opening import READ_PLAIN
from paglets.artifacts.parts import is_sha256
from paglets.persistence.atomic import fsync_directory

#: The permissions of a blob say whether it was synced, which has to survive a restart like the blob itself.
SYNCED_MODE: Final = 0o400
UNSYNCED_MODE: Final = 0o600
_ATTEMPTS: Final = 3


class Shelf:
    """The files of blobs and the ledger of who wants them, in agreement under one lock.

    Nothing below the directory is believed without its checksum being known: a file that somebody touched, or that was
    not synced in an earlier run, is hashed before it is used, and dropped if it is wrong.
    """

    def __init__(self, directory: Path, scratch: Callable[[], Path], report: Callable[[str], None]) -> None:
        """Name the directory, which exists.

        :param scratch: gives a fresh path on the same file system, which the next start removes.
        :param report: takes note of a problem.
        """
        self.directory = directory
        self.ledger = Ledger()
        self.lock = threading.RLock()
        self._scratch = scratch
        self._report = report

    def scan(self) -> None:
        """Find out which blobs are there. Names that are none of a blob are left alone."""
        found: list[tuple[float, Entry]] = []
        for shelf in list(os.scandir(self.directory)):
            if len(shelf.name) != 2 or not shelf.is_dir(follow_symlinks=False):
                continue
            for file in os.scandir(shelf.path):
                if not (is_sha256(file.name) and file.name.startswith(shelf.name)):
                    self._report(f"{file.path} is no blob and is ignored")
                elif not file.is_file(follow_symlinks=False):
                    self._report(f"{file.path} is no regular file and is ignored")
                else:
                    stat = file.stat(follow_symlinks=False)
                    synced = stat.st_mode & 0o777 == SYNCED_MODE and stat.st_nlink == 1
                    entry = Entry(file.name, Stamp.of(stat), durable=synced, verified=synced)
                    found.append((stat.st_ctime, entry))
        with self.lock:
            # The time of the last change of the inode is about that of the last use: it is renamed in and out.
            for _, entry in sorted(found, key=lambda item: item[0]):
                self.ledger.add(entry)

    def file(self, sha256: str) -> Path:
        """Return where a blob is, or would be."""
        return self.directory / sha256[:2] / sha256

    def usable(self, sha256: str) -> Entry | None:
        """Return a blob whose bytes are right at this moment; None if there is none."""
        for _ in range(_ATTEMPTS):
            with self.lock:
                entry = self.ledger.get(sha256)
                if entry is None:
                    return None
                stamp = _stamp(self.file(sha256))
                if stamp is None:
                    self.lose(entry, "its file was removed")
                    return None
                if entry.verified and stamp == entry.stamp:
                    self.ledger.touch(sha256)
                    return entry
            checked = self._checked(sha256)
            with self.lock:
                if self.ledger.get(sha256) is not entry:
                    continue
                if checked is None or checked.size != entry.size:
                    self.lose(entry, "its bytes are not those of its checksum")
                    return None
                entry.durable = entry.durable and checked == entry.stamp
                entry.verified = True
                self.ledger.restamp(entry, checked)
        raise NotStoredError(f"the blob {sha256} changes all the time")

    def intact(self, entry: Entry) -> bool:
        """Return whether a blob is still here and its file is as it was when its bytes were right; needs the lock."""
        if self.ledger.get(entry.sha256) is not entry or not entry.verified:
            return False
        return _stamp(self.file(entry.sha256)) == entry.stamp

    def touched(self, entry: Entry) -> None:
        """Take note that permissions and times of an intact blob were changed, which unmarks it; needs the lock."""
        entry.durable = False
        if (stamp := _stamp(self.file(entry.sha256))) is not None and stamp.size == entry.size:
            self.ledger.restamp(entry, stamp)

    def open(self, sha256: str) -> FileIO | None:
        """Open a blob for reading; None if there is none."""
        for _ in range(_ATTEMPTS):
            if (entry := self.usable(sha256)) is None:
                return None
            with suppress(FileNotFoundError):
                stream = open_plain(self.file(sha256))
                if Stamp.of(os.fstat(stream.fileno())) == entry.stamp:
                    return stream
                stream.close()
        return None

    def accept(self, part: Path, sha256: str, *, synced: bool, owner: str = "") -> Entry:
        """Make a verified file a blob, or remove it if that blob is here.

        :param synced: its bytes are on disk; then its name is too when this returns.
        :param owner: an artifact that keeps it from now on.
        :raises OSError: the disk does not take it.
        """
        target = self.file(sha256)
        _mark(part, synced=synced)
        with self.lock:
            entry = self.ledger.get(sha256)
            if entry is not None and entry.verified and _stamp(target) == entry.stamp:
                part.unlink()
                fresh = False
            else:
                self._make_directory(target.parent)
                part.replace(target)
                entry = Entry(sha256, Stamp.of(target.lstat()), durable=False, verified=True)
                self.ledger.add(entry)
                fresh = True
            if owner:
                self.ledger.own(sha256, owner)
        try:
            if synced and fresh:
                fsync_directory(target.parent)
                entry.durable = True
            elif synced:
                self.make_durable(entry)
        except BaseException:
            with self.lock:
                self.ledger.disown(sha256, owner)
            raise
        return entry

    def make_durable(self, entry: Entry) -> None:
        """Bring a blob to disk; nothing to do for one that is there.

        :raises NotStoredError: it has gone meanwhile.
        :raises OSError: the disk does not take it.
        """
        if entry.durable:
            return
        path = self.file(entry.sha256)
        try:
            with open_plain(path) as stream:
                os.fsync(stream.fileno())
                synced = Stamp.of(os.fstat(stream.fileno()))
        except FileNotFoundError:
            raise NotStoredError(f"the blob {entry.sha256} has gone") from None
        with self.lock:
            # Another thread may have done the same, which changes no more than the permissions.
            if not self.intact(entry) or synced[:4] != entry.stamp[:4]:
                raise NotStoredError(f"the blob {entry.sha256} has gone")
            _mark(path, synced=True)
            self.ledger.restamp(entry, Stamp.of(path.lstat()))
        fsync_directory(path.parent)
        entry.durable = True

    def remove(self, entry: Entry) -> Path:
        """Take a blob out, and return where its file is now, to be unlinked without the lock."""
        self.ledger.remove(entry.sha256)
        hidden = self._scratch()
        with suppress(FileNotFoundError):
            self.file(entry.sha256).replace(hidden)
        return hidden

    def lose(self, entry: Entry, why: str) -> None:
        """Drop a blob that is not what it should be."""
        self._report(f"blob {entry.sha256} of {entry.size:,} bytes is dropped: {why}")
        self.remove(entry).unlink(missing_ok=True)

    def discard(self, sha256: str) -> None:
        """Remove a blob that nobody wants."""
        with self.lock:
            entry = self.ledger.get(sha256)
            if entry is None or not self.ledger.idle(sha256):
                return
            doomed = self.remove(entry)
        doomed.unlink(missing_ok=True)

    def settle(self, most_bytes: int, most: int) -> list[str]:
        """Check and sync blobs of artifacts, up to that many; return those that are damaged, and dropped."""
        lost = []
        with self.lock:
            pending = self.ledger.unsynced()
        for entry in pending[:most]:
            # A blob above the bound has its turn too, as the first of a round.
            if most_bytes <= 0:
                break
            most_bytes -= entry.size
            if self.usable(entry.sha256) is None:
                lost.append(entry.sha256)
                continue
            try:
                self.make_durable(entry)
            except (OSError, NotStoredError) as error:
                self._report(f"blob {entry.sha256} could not be synced: {error}")
        return lost

    def evict(self, bound: int, keep: str = "") -> tuple[int, int]:
        """Remove what nobody wants, least recently used first, until that is no more than the bound.

        :param keep: a blob that stays.
        :return: how many blobs went, and their bytes.
        """
        doomed: list[Path] = []
        count = 0
        with self.lock:
            if keep:
                self.ledger.touch(keep)
            while self.ledger.cached_bytes > bound and (entry := self.ledger.coldest()) is not None:
                if entry.sha256 == keep:
                    break
                count += entry.size
                doomed.append(self.remove(entry))
        for path in doomed:
            path.unlink(missing_ok=True)
        return len(doomed), count

    def _make_directory(self, path: Path) -> None:
        if not path.is_dir():
            path.mkdir(mode=0o700)
            fsync_directory(path.parent)

    def _checked(self, sha256: str) -> Stamp | None:
        """Return the stamp of a blob's file if it has the right bytes, and had them all the time."""
        try:
            with open_plain(self.file(sha256)) as stream:
                before = Stamp.of(os.fstat(stream.fileno()))
                found = hashlib.file_digest(stream, "sha256").hexdigest()
                after = Stamp.of(os.fstat(stream.fileno()))
        except OSError:
            return None
        return after if before == after and found == sha256 else None


def open_plain(path: Path) -> FileIO:
    """Open a file for reading, unbuffered; do not follow a symbolic link, and do not wait for a pipe.

    :raises OSError: it cannot be opened.
    """
    return open(os.open(path, READ_PLAIN), "rb", buffering=0)  # noqa: PTH123 - a descriptor, no path


def _stamp(path: Path) -> Stamp | None:
    try:
        return Stamp.of(path.lstat())
    except OSError:
        return None


def _mark(path: Path, *, synced: bool) -> None:
    # Windows cannot rename or remove what is read-only; there, what an earlier run left is always hashed again.
    if os.name != "nt":
        path.chmod(SYNCED_MODE if synced else UNSYNCED_MODE)
