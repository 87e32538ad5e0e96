"""Put a file into its place: what path is meant, whether it can go there, and how it appears whole or not at all.

A file first gets a hidden sibling of its destination, is synced and compared there, and then its name. Where nothing
may be overwritten the name is a second link to the same file: the sibling stays until the caller has written down that
the file is saved, so whoever comes back after a crash can tell a file of his own from one that somebody else has put
there meanwhile.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paglets.artifacts import STREAM_CHUNK_BYTES, file_sha256
from paglets.core.errors import InsufficientStorageError, TransferError
from paglets.persistence.atomic import fsync_directory, make_directories

#: What making a second link to a file ends in where the system, or this pair of places, has none.
_NO_LINKS: Final = frozenset({errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})


# --- which path is meant ----------------------------------------------------------------------------------------------


def planned_path(destination: str, source_name: str) -> str:
    """Return a destination with the file name that it leaves out, without looking at any disk."""
    if destination in ("", "."):
        return source_name
    return f"{destination}{source_name}" if destination.endswith(("/", "\\")) else destination


def resolved_path(destination: str, source_name: str, *, check_existing_dir: bool = True) -> Path:
    """Return the absolute path on this host that a destination stands for.

    A backslash before the name of the source separates on every system: a host that plans does not know which system
    the destination has.

    :param check_existing_dir: an existing directory means a file of the source's name in it.
    """
    planned = planned_path(destination, source_name)
    directory = planned.removesuffix(f"\\{source_name}")
    if directory != planned:
        planned = f"{directory}/{source_name}"
    path = Path(planned).expanduser().absolute()
    return path / source_name if check_existing_dir and path.is_dir() else path


# --- whether a file can go there --------------------------------------------------------------------------------------


def check_place(destination: Path, *, overwrite: bool, scratch: Path, size: int) -> None:
    """Find out, without changing anything, what would keep a file from being saved.

    :param scratch: where the file lies now.
    :raises FileExistsError: there is a file, and it is not to be overwritten.
    :raises IsADirectoryError: there is a directory.
    :raises NotADirectoryError: something on the way to it is no directory.
    :raises PermissionError: its directory cannot be written to.
    :raises InsufficientStorageError: there is no room for it.
    """
    _refuse_existing(destination, overwrite=overwrite)
    _refuse_same(destination, scratch)
    parent = destination.parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise NotADirectoryError(f"destination directory is no directory: {parent}")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"destination directory is not writable: {parent}")
    # On the same file system no second copy is made.
    if parent.stat().st_dev != scratch.stat().st_dev and shutil.disk_usage(parent).free < size:
        raise InsufficientStorageError(f"no room for {size} bytes below {parent}")


def _refuse_existing(destination: Path, *, overwrite: bool) -> None:
    if destination.is_dir():
        raise IsADirectoryError(f"destination is a directory: {destination}")
    if not overwrite and os.path.lexists(destination):
        raise FileExistsError(f"destination already exists: {destination}")


def _refuse_same(destination: Path, source: Path) -> None:
    if destination.exists() and destination.samefile(source):
        raise FileExistsError(f"source and destination are the same file: {destination}")


# --- saving -----------------------------------------------------------------------------------------------------------


def copy_file(source: Path, destination: Path, *, overwrite: bool, sha256: str = "") -> Path:
    """Copy a file and return the absolute path of the copy, which is on disk then; the modification time is kept.

    :param sha256: checksum that the copy must have; empty to compare it with nothing.
    :raises FileExistsError: the destination exists, and is not to be overwritten.
    :raises TransferError: the copy has another checksum.
    """
    target = destination.expanduser().absolute()
    _refuse_existing(target, overwrite=overwrite)
    _refuse_same(target, source)
    make_directories(target.parent)
    part = target.with_name(part_name(secrets.token_hex(16)))
    try:
        _copy_into(part, source, _mode_of(target))
        _check(part, sha256)
        _publish(part, target, overwrite=overwrite)
    finally:
        part.unlink(missing_ok=True)
        fsync_directory(target.parent)
    return target


@dataclass(frozen=True, slots=True)
class Placement:
    """The saving of one file, which is begun again from the same values after a crash.

    :param key: tells this saving from all others.
    :param take: the scratch file may become the saved one; otherwise it stays as it is.
    """

    scratch: Path
    destination: Path
    overwrite: bool
    sha256: str
    key: str
    take: bool

    @property
    def part(self) -> Path:
        """The hidden sibling."""
        return self.destination.with_name(part_name(self.key))

    @property
    def is_published(self) -> bool:
        """Whether an earlier attempt has given the file its name."""
        try:
            return not self.overwrite and self.part.samefile(self.destination)
        except OSError:
            return False

    def save(self) -> None:
        """Have the file in its place, compared and on disk; the hidden sibling may stay until `forget`.

        :raises OSError: it cannot go there; `FileExistsError` where something else is.
        :raises TransferError: what was written there is not what came.
        """
        if self.is_published:
            return
        _refuse_existing(self.destination, overwrite=self.overwrite)
        if not self.take:  # otherwise the two may be links to one file, made by an attempt before a crash
            _refuse_same(self.destination, self.scratch)
        make_directories(self.destination.parent)
        self.part.unlink(missing_ok=True)
        if not (self.take and self._link()):
            _copy_into(self.part, self.scratch, _mode_of(self.destination))
        _check(self.part, self.sha256)
        _publish(self.part, self.destination, overwrite=self.overwrite)
        fsync_directory(self.destination.parent)

    def forget(self) -> None:
        """Remove the hidden sibling. Where nothing was saved, nothing is left then."""
        try:
            self.part.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        fsync_directory(self.destination.parent)

    def _link(self) -> bool:
        mode = _mode_of(self.destination)
        if mode is None:
            self.part.touch(exist_ok=False)  # what new files get here
            mode = self.part.stat().st_mode & 0o7777
            self.part.unlink()
        try:
            os.link(self.scratch, self.part)
        except OSError as exc:
            if exc.errno in _NO_LINKS:
                return False
            raise
        # Windows syncs only what is open for writing, which the mode may forbid from the next line on.
        with self.part.open("r+b" if os.name == "nt" else "rb") as stream:
            os.fsync(stream.fileno())
        self.part.chmod(mode)
        return True


def part_name(key: str) -> str:
    """Return the name of a hidden sibling, the same for the same key."""
    return f".paglets-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}.part"


def _mode_of(path: Path) -> int | None:
    return path.stat().st_mode & 0o7777 if path.is_file() else None


def _copy_into(part: Path, source: Path, mode: int | None) -> None:
    with source.open("rb") as reader, part.open("xb") as writer:
        status = os.fstat(reader.fileno())
        shutil.copyfileobj(reader, writer, STREAM_CHUNK_BYTES)
        writer.flush()
        os.utime(part, ns=(status.st_atime_ns, status.st_mtime_ns))
        if mode is not None:
            part.chmod(mode)
        os.fsync(writer.fileno())


def _check(part: Path, sha256: str) -> None:
    if sha256 and file_sha256(part) != sha256:
        raise TransferError(f"what was written to {part.parent} has another checksum than what arrived; nothing saved")


def _publish(part: Path, destination: Path, *, overwrite: bool) -> None:
    if overwrite:
        part.replace(destination)
        return
    try:
        os.link(part, destination)  # fails where there is something, in one step
    except FileExistsError:
        raise FileExistsError(f"destination already exists: {destination}") from None
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        # A file system without links, FAT for instance: between these two steps somebody may come first.
        _refuse_existing(destination, overwrite=False)
        part.rename(destination)


# --- the original -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Original:
    """A file as it was when it was sent; times are Unix seconds."""

    path: str
    size_bytes: int
    sha256: str
    created_at: float
    modified_at: float

    def remove(self) -> None:
        """Delete the file, if it still is the one that was sent. One that is gone is no error.

        On a disk that both hosts share, the saved file may lie where the original was; it is not that one any more.

        :raises TransferError: it has changed since, and stays.
        :raises OSError: it cannot be read or deleted.
        """
        path = Path(self.path)
        if not os.path.lexists(path):
            return
        status = path.stat()
        now = (status.st_size, birth_of(status), status.st_mtime)
        if now != (self.size_bytes, self.created_at, self.modified_at) or file_sha256(path) != self.sha256:
            raise TransferError(f"{path} has changed since it was sent, and was kept")
        path.unlink()
        fsync_directory(path.parent)


def birth_of(status: os.stat_result) -> float:
    """Return when a file was created, or where the system does not know, when its entry was changed last."""
    return float(getattr(status, "st_birthtime", status.st_ctime))
