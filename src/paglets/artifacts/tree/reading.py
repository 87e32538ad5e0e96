"""Look at a directory, and read its files in the order in which they travel."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from paglets.artifacts.errors import FileChangedError
from paglets.artifacts.known import Stamp
from paglets.artifacts.opening import READ_PLAIN
from paglets.artifacts.tree.links import check_links
from paglets.artifacts.tree.manifest import (
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_PATH_BYTES,
    Chunk,
    Entry,
    Kind,
    Tree,
    check_name,
    layout,
)
from paglets.core.errors import TransferError

#: Bytes read and handed on at once.
PIECE_BYTES: Final = 1024 * 1024
_DIRECTORY_FLAGS: Final = READ_PLAIN | getattr(os, "O_DIRECTORY", 0)
#: Where a directory can be opened and everything in it reached by its descriptor, nobody can lead a walk elsewhere.
_BY_DESCRIPTOR: Final = os.open in os.supports_dir_fd and os.scandir in os.supports_fd

KnownDigest: TypeAlias = Callable[[Path, Stamp], "str | None"]


@dataclass(frozen=True, slots=True)
class Survey:
    """A directory as it was when it was looked at; its files are read later, and only if they are still the same."""

    root: Path
    mode: int
    mtime_ns: int
    entries: list[Entry]
    stamps: dict[int, Stamp]
    """By the index of a file."""
    chunks: list[Chunk]

    def path_of(self, index: int) -> Path:
        """Return where an entry is."""
        return self.root / os.fsdecode(self.entries[index].path)

    def fingerprint(self) -> str:
        """Return what is different for a directory in which anything was changed, in lower-case hex."""
        digest = hashlib.sha256(f"{self.mode} {self.mtime_ns}".encode())
        for index, entry in enumerate(self.entries):
            digest.update(repr((entry.path, entry.kind, entry.mode, entry.mtime_ns, entry.target)).encode())
            digest.update(repr(tuple(self.stamps.get(index, ()))).encode())
        return digest.hexdigest()

    def tree(self, known: KnownDigest | None = None) -> Tree:
        """Read every file and return the description of the directory.

        :param known: returns the checksum of a large file where that is known, so that it need not be read.
        :raises FileChangedError: a file is not as it was.
        :raises TransferError: one cannot be read.
        """
        digests = []
        for number, chunk in enumerate(self.chunks):
            digest = None
            if known is not None and chunk.is_large_file:
                index = chunk.members[0]
                digest = known(self.path_of(index), self.stamps[index])
            digests.append(digest or self._hash(number))
        return Tree(self.mode, self.mtime_ns, self.entries, self.chunks, digests)

    def pieces(self, number: int, offset: int = 0) -> Iterator[bytes]:
        """Give the bytes of a chunk, in pieces of at most about a megabyte.

        :param offset: bytes at its beginning that are left out.
        :raises FileChangedError: a file is not as it was.
        :raises TransferError: one cannot be read.
        """
        gathered = bytearray()
        with closing(_Opener(self.root)) as opener:
            for index in self.chunks[number].members:
                size = self.entries[index].size
                if offset >= size:
                    offset -= size
                    continue
                for piece in self._read(opener, index, offset):
                    if not gathered and len(piece) == PIECE_BYTES:
                        yield piece
                        continue
                    gathered += piece
                    if len(gathered) >= PIECE_BYTES:
                        yield bytes(gathered)
                        gathered.clear()
                offset = 0
        if gathered:
            yield bytes(gathered)

    def ensure_same(self, index: int) -> None:
        """Compare a file with what it was, without reading it.

        :raises FileChangedError: it has been changed, replaced or removed.
        """
        path = self.path_of(index)
        try:
            _ensure_same(self.stamps[index], path.lstat(), path)
        except FileNotFoundError:
            raise FileChangedError(f"file {path} was removed while it was read") from None

    def _hash(self, number: int) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces(number):
            digest.update(piece)
        return digest.hexdigest()

    def _read(self, opener: _Opener, index: int, offset: int) -> Iterator[bytes]:
        entry, stamp = self.entries[index], self.stamps[index]
        path = self.path_of(index)
        try:
            descriptor = opener.open(entry.path)
        except FileNotFoundError:
            raise FileChangedError(f"file {path} was removed while it was read") from None
        except OSError as exc:
            raise TransferError(f"file {path} cannot be read: {exc.strerror}") from exc
        try:
            # The very file that was seen: no other one reached by a path that leads elsewhere meanwhile.
            _ensure_same(stamp, os.fstat(descriptor), path)
            left = entry.size - offset
            if offset:
                os.lseek(descriptor, offset, os.SEEK_SET)
            while left:
                piece = os.read(descriptor, min(left, PIECE_BYTES))
                if not piece:
                    break
                left -= len(piece)
                yield piece
            _ensure_same(stamp, os.fstat(descriptor), path)
        except OSError as exc:
            raise TransferError(f"file {path} cannot be read: {exc.strerror}") from exc
        finally:
            os.close(descriptor)


def scan(root: Path | str) -> Survey:
    """Look at a directory and everything in it, and read nothing.

    :raises FileChangedError: it changes meanwhile.
    :raises TransferError: it is no directory, cannot be read, is too large, or has something in it that does not
        travel: a link that leads out of it, a socket, a pipe or a device.
    """
    path = Path(root)
    if not path.is_dir():
        raise TransferError(f"Not a directory: {path}")
    walk = _Walk(path)
    try:
        status = walk.run()
    except FileNotFoundError:
        raise FileChangedError(f"something in directory {path} was removed while it was read") from None
    except OSError as exc:
        raise TransferError(f"directory {path} cannot be read: {exc}") from exc
    check_links({entry.path: entry.target for entry in walk.entries if entry.kind is Kind.LINK})
    return Survey(path, _mode(status), status.st_mtime_ns, walk.entries, walk.stamps, layout(walk.entries))


class _Walk:
    """Go through a directory in the order of a manifest."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.entries: list[Entry] = []
        self.stamps: dict[int, Stamp] = {}

    def run(self) -> os.stat_result:
        """Collect everything and return the status of the root."""
        if not _BY_DESCRIPTOR:
            status = self._root.stat()
            self._list(None, b"", 1)
            return status
        # The root may be reached by a link, what is in it may not.
        descriptor = os.open(self._root, _DIRECTORY_FLAGS & ~getattr(os, "O_NOFOLLOW", 0))
        try:
            self._list(descriptor, b"", 1)
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def _list(self, descriptor: int | None, prefix: bytes, depth: int) -> None:
        """Add what is in one directory.

        :param descriptor: of the directory; None where it is reached by its path.
        :param prefix: its path in the tree with a slash at the end, empty for the root.
        """
        place = self._path(prefix) if descriptor is None else descriptor
        with os.scandir(place) as found:
            listed = sorted((os.fsencode(entry.name), entry) for entry in found)
        for name, entry in listed:
            check_name(name)
            path = prefix + name
            if len(path) > MAX_PATH_BYTES or depth > MAX_DEPTH:
                raise TransferError(f"{self._path(path)} lies too deep in its directory to travel")
            if self._add(path, entry.stat(follow_symlinks=False), name, descriptor):
                self._descend(name, path + b"/", descriptor, depth + 1)

    def _descend(self, name: bytes, prefix: bytes, parent: int | None, depth: int) -> None:
        if parent is None:
            self._list(None, prefix, depth)
            return
        descriptor = os.open(name, _DIRECTORY_FLAGS, dir_fd=parent)
        try:
            self._list(descriptor, prefix, depth)
        finally:
            os.close(descriptor)

    def _add(self, path: bytes, status: os.stat_result, name: bytes, parent: int | None) -> bool:
        """Add one entry and return whether it is a directory."""
        if len(self.entries) >= MAX_ENTRIES:
            raise TransferError(f"directory {self._root} has more than the {MAX_ENTRIES} entries that can travel")
        kind, size, target = Kind.DIRECTORY, 0, b""
        if stat.S_ISREG(status.st_mode):
            kind, size = Kind.FILE, status.st_size
            self.stamps[len(self.entries)] = Stamp.of(status)
        elif stat.S_ISLNK(status.st_mode):
            kind = Kind.LINK
            target = os.fsencode(self._path(path).readlink() if parent is None else os.readlink(name, dir_fd=parent))
        elif not stat.S_ISDIR(status.st_mode):
            raise TransferError(f"{self._path(path)} is a {_what(status)}, which cannot travel")
        self.entries.append(Entry(path, kind, _mode(status), status.st_mtime_ns, size, target))
        return kind is Kind.DIRECTORY

    def _path(self, path: bytes) -> Path:
        return self._root / os.fsdecode(path)


class _Opener:
    """Open files below a directory that is looked up once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._descriptor: int | None = None
        if _BY_DESCRIPTOR:
            try:
                self._descriptor = os.open(root, _DIRECTORY_FLAGS & ~getattr(os, "O_NOFOLLOW", 0))
            except FileNotFoundError:
                raise FileChangedError(f"directory {root} was removed while it was read") from None
            except OSError as exc:
                raise TransferError(f"directory {root} cannot be read: {exc.strerror}") from exc

    def open(self, path: bytes) -> int:
        """Return a descriptor of a file, owned by the caller."""
        if self._descriptor is None:
            return os.open(self._root / os.fsdecode(path), READ_PLAIN)
        return os.open(path, READ_PLAIN, dir_fd=self._descriptor)

    def close(self) -> None:
        """Let the directory go."""
        if self._descriptor is not None:
            os.close(self._descriptor)


def _ensure_same(stamp: Stamp, status: os.stat_result, path: Path) -> None:
    if Stamp.of(status) != stamp:
        raise FileChangedError(f"file {path} was changed while it was read")


def _mode(status: os.stat_result) -> int:
    return stat.S_IMODE(status.st_mode) & 0o777


def _what(status: os.stat_result) -> str:
    for test, what in ((stat.S_ISSOCK, "socket"), (stat.S_ISFIFO, "pipe")):
        if test(status.st_mode):
            return what
    return "device"
