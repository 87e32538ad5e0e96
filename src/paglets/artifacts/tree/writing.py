"""Put a directory in place: complete and on disk, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from paglets.artifacts.opening import PLAIN
from paglets.artifacts.sparse import SparseFile
from paglets.artifacts.tree.manifest import Chunk, Entry, Kind, Tree
from paglets.artifacts.tree.reading import Survey
from paglets.artifacts.tree.removal import remove_tree
from paglets.core.errors import TransferError
from paglets.persistence.atomic import fsync_directory
from paglets.persistence.syncing import can_sync_file_system, sync_file_system

#: From so many files on, one sync of the file system takes less time than one for each file.
_MANY_FILES: Final = 32
_CREATE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAIN

Contents: TypeAlias = Callable[[int], Iterator[bytes]]
Placer: TypeAlias = Callable[[int, Path], bool]


def unpack(tree: Tree, contents: Contents, target: Path, *, place: Placer | None = None) -> None:
    """Create a directory as a tree describes it, under a name that nothing has.

    It is made beside its place, synced, and renamed. Nothing in it follows a link: there is none until everything else
    is there.

    :param tree: checked, as everything is that :meth:`Tree.from_bytes` returns.
    :param contents: gives the bytes of a chunk, in pieces; they have been verified.
    :param place: puts a chunk that is one large file to a path and returns True; False where `contents` is to be asked.
    :raises TransferError: a chunk has another length, two names are one on this disk, or the disk refuses.
    """
    with _building(target, tree.entries) as building:
        placed: list[Entry] = []
        for number, chunk in enumerate(tree.chunks):
            if place is not None and chunk.is_large_file:
                entry = tree.entries[chunk.members[0]]
                if place(number, building.path_of(entry)):
                    placed.append(entry)
                    continue
            _write_chunk(building, tree.entries, chunk, contents(number))
        for entry in placed:
            # Not earlier: who places a content may take it from where it has placed it before.
            with _opened(building.path_of(entry), os.O_RDWR) as descriptor:
                building.seal(descriptor, building.path_of(entry), entry)
        building.finish(tree.entries, mode=tree.mode, mtime_ns=tree.mtime_ns)


def duplicate(survey: Survey, copy: Callable[[Path, Path], object], target: Path) -> None:
    """Create a copy of a directory on the same host, as :func:`unpack` does.

    :param copy: copies one file to a path that nothing has; it need not be synced.
    :raises FileChangedError: something in the directory is not as it was.
    :raises TransferError: it cannot be read, or the disk refuses.
    """
    with _building(target, survey.entries) as building:
        for index, entry in enumerate(survey.entries):
            if entry.kind is Kind.FILE and entry.size:
                survey.ensure_same(index)
                path = building.path_of(entry)
                copy(survey.path_of(index), path)
                survey.ensure_same(index)
                with _opened(path, os.O_RDWR) as descriptor:
                    building.seal(descriptor, path, entry)
        building.finish(survey.entries, mode=survey.mode, mtime_ns=survey.mtime_ns)


class _Building:
    """A directory that is being made under a name of its own.

    :param sync_each: whether each file is synced by itself, or all together in the end.
    """

    def __init__(self, path: Path, *, sync_each: bool) -> None:
        self.path = path
        self._sync_each = sync_each

    def path_of(self, entry: Entry) -> Path:
        """Return where an entry is made."""
        return self.path / os.fsdecode(entry.path)

    @contextmanager
    def created(self, entry: Entry) -> Iterator[int]:
        """Give a descriptor of a new, empty file, and seal it."""
        path = self.path_of(entry)
        with _opened(path, _CREATE_FLAGS) as descriptor:
            yield descriptor
            self.seal(descriptor, path, entry)

    def seal(self, descriptor: int, path: Path, entry: Entry) -> None:
        """Give a file what else it has beside its content."""
        times = (entry.mtime_ns, entry.mtime_ns)
        if os.utime in os.supports_fd:
            os.utime(descriptor, ns=times)
            os.fchmod(descriptor, entry.mode)
        else:
            os.utime(path, ns=times)
            path.chmod(entry.mode)
        if self._sync_each:
            os.fsync(descriptor)

    def finish(self, entries: Sequence[Entry], *, mode: int, mtime_ns: int) -> None:
        """Add what has no content, links last; give directories their times; have everything on disk."""
        for entry in entries:
            if entry.kind is Kind.FILE and not entry.size:
                with self.created(entry):
                    pass
        for entry in entries:
            if entry.kind is Kind.LINK:
                path = self.path_of(entry)
                path.symlink_to(os.fsdecode(entry.target))
                if os.utime in os.supports_follow_symlinks:
                    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
        for entry in reversed(entries):
            if entry.kind is Kind.DIRECTORY:
                self._finish_directory(self.path_of(entry), entry.mode, entry.mtime_ns)
        self._finish_directory(self.path, mode, mtime_ns)
        if not self._sync_each:
            sync_file_system(self.path.parent)

    def _finish_directory(self, path: Path, mode: int, mtime_ns: int) -> None:
        if self._sync_each:
            fsync_directory(path)  # before it may become unreadable
        os.utime(path, ns=(mtime_ns, mtime_ns))
        path.chmod(mode)


@contextmanager
def _building(target: Path, entries: Sequence[Entry]) -> Iterator[_Building]:
    """Give the directories of a tree, which get the name of ``target`` when the block ends without an error."""
    files = sum(entry.kind is Kind.FILE for entry in entries)
    path = target.with_name(f".paglets-{secrets.token_hex(8)}.part")
    try:
        path.mkdir(mode=0o700)
        building = _Building(path, sync_each=files < _MANY_FILES or not can_sync_file_system())
        for entry in entries:
            if entry.kind is Kind.DIRECTORY:
                building.path_of(entry).mkdir(mode=0o700)
        yield building
        path.rename(target)
        fsync_directory(target.parent)
    except FileExistsError as exc:
        remove_tree(path)
        raise TransferError(f"two names of a directory are one on this disk: {exc.filename!r}") from exc
    except OSError as exc:
        remove_tree(path)
        raise TransferError(f"directory {target.name!r} cannot be written: {exc}") from exc
    except BaseException:
        remove_tree(path)
        raise


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_chunk(building: _Building, entries: Sequence[Entry], chunk: Chunk, pieces: Iterator[bytes]) -> None:
    """Write the files of one chunk, and hold its bytes against their sizes."""
    rest = memoryview(b"")
    for index in chunk.members:
        entry = entries[index]
        left = entry.size
        with building.created(entry) as descriptor:
            file = SparseFile(descriptor)
            while left:
                if not rest:
                    piece = next(pieces, b"")
                    rest = memoryview(piece)
                    if not rest:
                        raise TransferError(f"the contents of a directory end before {entry.text!r} does")
                file.write(rest[:left])
                taken = min(left, len(rest))
                left, rest = left - taken, rest[taken:]
            file.finish()
    if rest or any(pieces):
        raise TransferError("the contents of a directory are longer than its files")
