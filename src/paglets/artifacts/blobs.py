"""The blobs of one host: content by its checksum, received, kept, lent to work directories and taken back."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from paglets.artifacts.errors import NotStoredError, io_error
from paglets.artifacts.parts import Announced, Part, Parts, checked_sha256
from paglets.artifacts.places import Places
from paglets.artifacts.reception import Reception
from paglets.artifacts.shelf import Shelf
from paglets.artifacts.writer import Blob, BlobWriter

__all__ = ["DEFAULT_CACHE_BYTES", "Blob", "BlobStore", "BlobWriter", "Part", "Swept"]

DEFAULT_CACHE_BYTES: Final = 2 * 1024**3
_MOST_PROBLEMS: Final = 1000


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed."""

    parts: int
    """Broken receptions that nobody resumed."""
    holds: int
    """Transfers whose time was over."""
    blobs: int
    """Blobs that nobody wants and that were more than the cache may hold."""
    freed_bytes: int


class BlobStore:
    """Verified content below one directory, addressed by its SHA-256. Safe for threads; its methods block on the disk.

    A blob is kept by artifacts, held by transfers, or *cache*, which goes when there is too much of it or the disk is
    full. It may be put into a work directory, and counts as present there as long as nobody writes to it.
    """

    def __init__(
        self, root: Path, *, cache_bytes: int = DEFAULT_CACHE_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        """Open the store of a directory, which is created with `blobs/` and `tmp/`, and repair what a crash left.

        :param cache_bytes: how much of what nobody wants may stay.
        :param clock: Unix seconds.
        :raises TransferError: the directory cannot be used.
        """
        self.root = Path(root)
        self.problems: deque[str] = deque(maxlen=_MOST_PROBLEMS)
        """What was found damaged and dropped, or is in the way, in the order of finding; the oldest are forgotten."""
        self._cache_bytes = max(0, cache_bytes)
        self._clock = clock
        self._parts = Parts(self.root / "tmp")
        self._shelf = Shelf(self.root / "blobs", self._parts.scratch, self.problems.append)
        self._lock = self._shelf.lock
        self._ledger = self._shelf.ledger
        self._reception = Reception(self._parts, self._shelf, self._cache_bytes, self.problems.append)
        self._places = Places(self._shelf, self._parts.scratch, self._reception.make_room, self.problems.append)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for directory in (self._shelf.directory, self._parts.directory):
                directory.mkdir(mode=0o700, exist_ok=True)
            self._parts.scan()
            self._shelf.scan()
        except OSError as error:
            raise io_error("The store of blobs cannot be opened", self.root, error) from error

    @property
    def cache_bytes(self) -> int:
        """Return how many bytes of what nobody wants may stay."""
        return self._cache_bytes

    @property
    def used_bytes(self) -> int:
        """Return the bytes of all blobs in the directory."""
        return self._ledger.used_bytes

    @property
    def cached_bytes(self) -> int:
        """Return the bytes of the blobs that neither an artifact nor a transfer wants."""
        return self._ledger.cached_bytes

    @property
    def held_bytes(self) -> int:
        """Return the bytes of the blobs that an artifact or a transfer wants."""
        with self._lock:
            return self._ledger.used_bytes - self._ledger.cached_bytes

    # what is here

    def has(self, sha256: str) -> bool:
        """Return whether a content is here, in the store or where it was put."""
        return self._places.find(checked_sha256(sha256)) is not None

    def size(self, sha256: str) -> int:
        """Return the length of a content.

        :raises NotStoredError: it is not here.
        """
        return self._found(sha256)[1]

    def path(self, sha256: str) -> Path:
        """Return where the bytes of a content are at this moment; do not write there.

        :raises NotStoredError: they are not here.
        """
        return self._found(sha256)[0]

    def open(self, sha256: str) -> BinaryIO:
        """Open a content for reading, unbuffered. It stays readable when the blob goes meanwhile.

        What nobody keeps or holds may be put into a work directory and written to while it is read: check what was
        read.

        :raises NotStoredError: it is not here.
        """
        return self._places.open(checked_sha256(sha256))[0]

    # receiving

    def receive(
        self,
        *,
        sha256: str = "",
        size: int = -1,
        limit: int | None = None,
        key: str = "",
        offset: int = 0,
        label: str = "",
        durable: bool = True,
        take_over: bool = False,
    ) -> BlobWriter:
        """Begin to receive a content, or go on where an earlier connection broke.

        :param sha256: the checksum to expect, if it is known.
        :param size: the bytes to expect; less than nothing is not known.
        :param limit: the most bytes to accept.
        :param key: 32 to 64 hex digits make it resumable: what has arrived stays when the writer is kept. A restart of
            the host keeps it only with a checksum to expect.
        :param offset: where the sender goes on; this much must be here.
        :param label: whose content it is; only the same user goes on with a key.
        :param durable: whether it is going to be committed so; the disk then begins early.
        :param take_over: end another writer of the key instead of being refused.
        :raises UploadConflictError: the key is in use, or was begun with another content or as far as another offset.
        :raises NoRoomError: the disk does not have the room.
        :raises TransferError: the key or the checksum is malformed, or the disk fails.
        """
        announced = Announced(checked_sha256(sha256) if sha256 else "", max(-1, size), label)
        return self._reception.begin(announced, key, offset, limit, durable=durable, take_over=take_over)

    def received(self, key: str) -> int:
        """Return how many bytes of a resumable content are here; 0 when nothing is known of it.

        :raises TransferError: the key is malformed.
        """
        return self._parts.received(key)

    def part(self, key: str) -> Part | None:
        """Return what is known of a resumable content; None when nothing is."""
        return self._parts.part(key)

    def waiting(self) -> list[Part]:
        """Return what was received in part, is written by nobody now, and may be resumed."""
        return self._reception.waiting()

    def forget(self, key: str) -> None:
        """Give up a resumable content; a writer that is at it ends.

        :raises UploadConflictError: its writer is ending at this very moment.
        :raises TransferError: the key is malformed.
        """
        self._reception.forget(key)

    # who wants what

    def hold(self, holder: str, wanted: Iterable[str], *, seconds: float) -> list[str]:
        """Hold contents for a transfer, and return those that are not here, in the given order.

        They are held from their arrival on. What lies in a work directory only counts as here, but may be written to.

        :param seconds: how long from now all that the holder holds is held, at least.
        :raises NoRoomError: too many transfers hold something, or this one too much.
        """
        hashes = list(dict.fromkeys(map(checked_sha256, wanted)))
        with self._lock:
            self._ledger.hold(holder, hashes, self._clock() + seconds)
        return [sha256 for sha256 in hashes if not self.has(sha256)]

    def release(self, holder: str) -> None:
        """Hold nothing for a transfer any more."""
        with self._lock:
            self._ledger.release(holder)
        self._shelf.evict(self._cache_bytes)

    def keep(self, sha256: str, owner: str) -> None:
        """Keep a content for an artifact, in the store itself.

        :raises NotStoredError: it is not here.
        :raises NoRoomError: it lies elsewhere, and the disk does not take a copy.
        """
        sha256 = checked_sha256(sha256)
        entry = self._shelf.usable(sha256)
        with self._lock:
            if entry is not None and self._shelf.intact(entry):
                self._ledger.own(sha256, owner)
                return
        self._places.copy_in(sha256, owner)

    def drop(self, sha256: str, owner: str, *, discard: bool = False) -> None:
        """Keep a content for an artifact no longer.

        :param discard: remove it if nobody else wants it, instead of leaving it in the cache.
        """
        with self._lock:
            self._ledger.disown(sha256, owner)
        if discard:
            self._shelf.discard(sha256)
        self._shelf.evict(self._cache_bytes)

    def claim(self, sha256: str, owner: str) -> int:
        """Keep a content for an artifact of an earlier process, without a look at its bytes; return its length.

        Nothing may be evicted before all artifacts have claimed theirs, so do this right after opening the store.

        :raises NotStoredError: it is not in the store.
        """
        with self._lock:
            entry = self._ledger.get(checked_sha256(sha256))
            if entry is None:
                raise NotStoredError(f"No content with checksum {sha256} is here")
            self._ledger.own(sha256, owner)
            return entry.size

    def doubt(self, sha256: str) -> None:
        """Have a blob hashed before it is used again."""
        with self._lock:
            if (entry := self._ledger.get(sha256)) is not None:
                entry.verified = False

    def adopt(self, path: Path, owner: str) -> Blob:
        """Make a file that nobody writes to a blob, by a rename, and keep it for an artifact.

        :raises TransferError: it cannot be read or moved.
        """
        try:
            sha256, stat = self._places.identify(path)
            entry = self._shelf.accept(path, sha256, synced=False, owner=owner)
        except OSError as error:
            raise io_error(f"{path} cannot be made a blob", path, error) from error
        return Blob(sha256, stat.st_size, entry.durable)

    def scratch(self) -> Path:
        """Return a fresh path below the store, for a file that is renamed soon; the next start removes what is left."""
        return self._parts.scratch()

    # places

    def put_at(
        self,
        sha256: str,
        target: Path,
        *,
        modified_at: float = 0.0,
        mode: int = 0o600,
        holder: str = "",
        durable: bool = True,
    ) -> None:
        """Put a content at a path that nothing is at, by moving the blob where nobody else wants it, else by a copy.

        :param modified_at: time of modification to give it, in Unix seconds; 0 is now.
        :param mode: permissions to give it.
        :param holder: the transfer that puts it; others that hold the blob make it stay.
        :param durable: return only when content and name are on disk; otherwise the caller syncs file and directory.
        :raises NotStoredError: it is not here.
        :raises NoRoomError: the disk does not take the copy.
        :raises TransferError: something is at the path already, or the disk fails.
        """
        self._places.put(checked_sha256(sha256), target, modified_at, mode, holder, durable=durable)

    def take(self, path: Path, sha256: str) -> bool:
        """Take a file that is no longer needed at its path into the store, by a rename.

        That is done only if the content of the file is remembered and nobody has changed it, or can: a file that is
        open for writing somewhere, or has a second name, stays.

        :return: whether the file is gone and the store has its bytes; otherwise it was left alone.
        """
        taken = self._places.take(path, checked_sha256(sha256))
        if taken:
            self._shelf.evict(self._cache_bytes, keep=sha256)
        return taken

    def take_below(self, directory: Path) -> int:
        """Take what is remembered of a directory that is no longer needed, as `take` does; return how many files."""
        return sum(self.take(path, sha256) for path, sha256 in self._places.below(directory))

    def remember(self, path: Path, sha256: str, stat: os.stat_result, *, read_at: float | None = None) -> None:
        """Take note of what a file contains, until it changes. `identify` does this, and more safely.

        :param stat: of the file, from before its content was read and the same after it.
        :param read_at: Unix seconds when the reading began. A file that was modified just before may have been modified
            once more without a trace, and is not remembered; without this, one modified in the last minute is not.
        """
        self._places.remember(path, checked_sha256(sha256), stat, None if read_at is None else int(read_at * 1e9))

    def known(self, path: Path) -> str | None:
        """Return the checksum of a file that did not change since it was remembered or put."""
        found = self._places.known(path)
        return None if found is None else found[0]

    def identify(self, path: Path) -> tuple[str, os.stat_result]:
        """Return the checksum of a file, which is computed once as long as it does not change, and its state.

        :raises NotStoredError: there is no regular file; a symbolic link is none.
        :raises FileChangedError: it changes while it is read.
        :raises TransferError: it cannot be read.
        """
        try:
            return self._places.identify(path)
        except FileNotFoundError:
            raise NotStoredError(f"Not a file: {path}") from None
        except OSError as error:
            raise io_error(f"{path} cannot be read", path, error) from error

    # room

    def sweep(self, *, now: float | None = None, part_seconds: float) -> Swept:
        """Remove what has outlived its time: broken receptions, holds, and cache beyond its bound.

        :param now: Unix seconds; None asks the clock.
        :param part_seconds: how long a broken reception waits for its sender after its last byte.
        """
        now = self._clock() if now is None else now
        parts = self._reception.sweep(now - part_seconds)
        with self._lock:
            holds = self._ledger.expire(now)
        blobs, freed = self._shelf.evict(self._cache_bytes)
        return Swept(parts, holds, blobs, freed)

    def make_room(self, count: int) -> int:
        """Free about that many bytes of the disk from the cache, and return how many it were."""
        return self._reception.make_room(count)

    def settle(self, *, most_bytes: int, most: int) -> list[str]:
        """Check and sync blobs of artifacts that are not on disk for sure.

        :param most_bytes: stop when so many bytes are done.
        :param most: look at so many blobs at most.
        :return: the checksums of those that are damaged, and dropped.
        """
        return self._shelf.settle(most_bytes, most)

    def _found(self, sha256: str) -> tuple[Path, int]:
        if (found := self._places.find(checked_sha256(sha256))) is None:
            raise NotStoredError(f"No content with checksum {sha256} is here")
        return found
