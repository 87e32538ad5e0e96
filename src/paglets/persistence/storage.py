"""A directory of files with a quota that several paglets, in several processes, share."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from paglets.core.errors import StorageQuotaError
from paglets.persistence.atomic import fsync_directory, is_part_name, make_directories, replacing
from paglets.persistence.filelock import exclusive_lock

__all__ = ["DEFAULT_PERSISTENT_STORAGE_QUOTA_BYTES", "ManagedStorage", "StorageQuotaError", "StorageStatus"]

DEFAULT_PERSISTENT_STORAGE_QUOTA_BYTES: Final = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StorageStatus:
    """How full a storage is, in bytes; without a quota `quota_bytes` and `available_bytes` are None."""

    root: str
    used_bytes: int
    quota_bytes: int | None
    available_bytes: int | None


class ManagedStorage:
    """Files below one directory whose sizes together stay within a quota.

    Paths are relative to the root. Writes are atomic and on disk when they return. Threads and processes may share a
    root; a lock file beside it keeps the check of the quota and the write together.

    :raises ValueError: from every method that takes a path, when it leads outside the root, also through a symbolic
        link, names the root itself or is no valid file name.
    """

    def __init__(self, root: Path | str, *, quota_bytes: int | None = DEFAULT_PERSISTENT_STORAGE_QUOTA_BYTES) -> None:
        """Name the directory, which the first write creates.

        :param quota_bytes: None is unlimited; less than nothing is nothing.
        """
        self.root = Path(root).expanduser().absolute()
        self.quota_bytes = None if quota_bytes is None else max(0, quota_bytes)

    def read_bytes(self, path: Path | str) -> bytes:
        """Return the content of a file.

        :raises FileNotFoundError: there is none.
        """
        return self._resolve(path).read_bytes()

    def write_bytes(self, path: Path | str, data: bytes) -> Path:
        """Replace a file, whose directories are created, and return its absolute path.

        :raises StorageQuotaError: all files together would exceed the quota; the old content stays.
        """
        with self._locked():
            target = self._resolve(path)
            self._check_quota(target, len(data))
            make_directories(target.parent)
            with replacing(target) as stream:
                stream.write(data)
        return target

    def write_text(self, path: Path | str, text: str, *, encoding: str = "utf-8") -> Path:
        """Replace a file by a text; see `write_bytes`."""
        return self.write_bytes(path, text.encode(encoding))

    def delete(self, path: Path | str) -> None:
        """Remove a file, a symbolic link or a directory with all in it; nothing there is no error."""
        if not self.root.is_dir():
            self._resolve(path)
            return
        with self._locked():
            target = self._resolve_parent(path)
            if target.parent.is_dir():
                _remove(target)
                fsync_directory(target.parent)

    def clear(self) -> None:
        """Remove everything; the empty root stays."""
        if not self.root.is_dir():
            return
        with self._locked():
            for child in list(self.root.iterdir()):
                _remove(child)
            fsync_directory(self.root)

    def status(self) -> StorageStatus:
        """Return how full the storage is, between two writes."""
        used = 0
        if self.root.is_dir():
            with self._locked():
                used = sum(size for _, size in _files(self.root))
        available = None if self.quota_bytes is None else max(0, self.quota_bytes - used)
        return StorageStatus(str(self.root), used, self.quota_bytes, available)

    # inside

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Beside the root: the lock is no file of the storage and survives `clear`.
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self.root.with_name(f".{self.root.name}.lock")):
            yield

    def _check_quota(self, target: Path, size: int) -> None:
        if self.quota_bytes is None:
            return
        used = 0
        for path, file_size in _files(self.root, remove_parts=True):
            if path != target:
                used += file_size
        if used + size > self.quota_bytes:
            raise StorageQuotaError(
                f"Storage quota exceeded in {self.root}: {size} bytes for {target.name!r} and {used} bytes "
                f"in other files are more than {self.quota_bytes} bytes"
            )

    def _resolve(self, path: Path | str) -> Path:
        """Return where a path leads, with all symbolic links followed."""
        base, candidate = self._candidate(path)
        return _inside(base, _followed(candidate), path)

    def _resolve_parent(self, path: Path | str) -> Path:
        """Return where a path is, so that a symbolic link at its end means the link itself."""
        base, candidate = self._candidate(path)
        if candidate.name in ("", ".", ".."):
            return _inside(base, _followed(candidate), path)
        return _inside(base, _followed(candidate.parent) / candidate.name, path)

    def _candidate(self, path: Path | str) -> tuple[Path, Path]:
        if "\0" in str(path):
            raise ValueError(f"Storage path has a NUL character: {str(path)!r}")
        base = self.root.resolve()
        return base, base / path


def _followed(path: Path) -> Path:
    try:
        return path.resolve()
    except (RuntimeError, OSError) as error:
        raise ValueError(f"Storage path cannot be followed: {error}") from error


def _inside(base: Path, target: Path, path: Path | str) -> Path:
    if base not in target.parents:
        raise ValueError(f"Storage path must name something below the storage root: {str(path)!r}")
    if any(is_part_name(part) for part in target.relative_to(base).parts):
        raise ValueError(f"Storage path is reserved for unfinished writes: {str(path)!r}")
    return target


def _files(root: Path, *, remove_parts: bool = False) -> Iterator[tuple[Path, int]]:
    """Give all regular files with their sizes; symbolic links are not followed, and vanishing files are no error.

    :param remove_parts: remove what writers left that were killed. Only the holder of the lock may, as no other writes.
    """
    pending = [root.resolve()]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                elif is_part_name(entry.name):
                    if remove_parts:
                        Path(entry.path).unlink()
                elif stat.S_ISREG((status := entry.stat(follow_symlinks=False)).st_mode):
                    yield Path(entry.path), status.st_size


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
