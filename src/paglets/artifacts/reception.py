"""Receiving content: one writer per upload, broken ones resumed, and room on the disk for all of them."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from paglets.artifacts.errors import NoRoomError, UploadConflictError, io_error
from paglets.artifacts.hashing import Digest
from paglets.artifacts.opening import PLAIN
from paglets.artifacts.parts import Announced, Part, Parts
from paglets.artifacts.shelf import Shelf
from paglets.artifacts.writer import Blob, BlobWriter, hash_part

_OPEN_FLAGS: Final = os.O_RDWR | os.O_CREAT | PLAIN


class Reception:
    """The writers of one store. Safe for threads; each writer is used by one of them at a time."""

    def __init__(self, parts: Parts, shelf: Shelf, cache_bytes: int, report: Callable[[str], None]) -> None:
        self._parts = parts
        self._shelf = shelf
        self._cache_bytes = cache_bytes
        self._report = report
        self._lock = threading.Lock()
        self._writers: dict[str, BlobWriter | None] = {}
        """By key; None while the key is prepared or removed."""
        self._busy: set[Path] = set()
        """Parts that are being written."""

    def begin(
        self, announced: Announced, key: str, offset: int, limit: int | None, *, durable: bool, take_over: bool
    ) -> BlobWriter:
        """Return the writer for a content; see `BlobStore.receive`."""
        try:
            self._ensure_room(announced.size - offset)
            if key:
                return self._resume(self._parts.checked(key), announced, offset, limit, durable, take_over)
            if offset:
                raise UploadConflictError("only an upload with a key can go on at an offset")
            return self._open("", announced, 0, limit, durable)
        except OSError as error:
            raise io_error("Content cannot be received", self._parts.directory, error) from error

    def waiting(self) -> list[Part]:
        """Return what nobody writes at the moment and may be resumed."""
        with self._lock:
            busy = set(self._writers)
        return self._parts.waiting(busy)

    def forget(self, key: str) -> None:
        """Give up a resumable content; a writer that is at it ends."""
        key = self._parts.checked(key)
        self._claim(key, take_over=True)
        try:
            self._parts.remove(key)
        finally:
            self._unclaim(key)

    def sweep(self, before: float) -> int:
        """Give up what got its last byte before that Unix time, and return how many there were."""
        removed = 0
        for part in self.waiting():
            if part.modified_at > before:
                continue
            with suppress(UploadConflictError):  # it is resumed at this very moment
                self._claim(part.key, take_over=False)
                try:
                    self._parts.remove(part.key)
                finally:
                    self._unclaim(part.key)
                removed += 1
        for path in self._parts.strays(before):
            with self._lock:
                busy = path in self._busy
            if not busy:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def make_room(self, count: int) -> int:
        """Free about that many bytes of the disk from the cache, and return how many it were."""
        return self._shelf.evict(max(0, self._shelf.ledger.cached_bytes - count))[1]

    # for writers

    def accept(self, writer: BlobWriter, sha256: str, *, durable: bool, owner: str) -> Blob:
        """Make the part of a writer a blob."""
        entry = self._shelf.accept(writer.path, sha256, synced=durable, owner=owner)
        self._shelf.evict(self._cache_bytes, keep=sha256)
        return Blob(sha256, entry.size, entry.durable)

    def ended(self, writer: BlobWriter, *, remove: bool) -> None:
        """Know that a writer has ended."""
        try:
            if remove and writer.key:
                self._parts.remove(writer.key)
            elif remove:
                writer.path.unlink(missing_ok=True)
        except OSError as error:
            self._report(f"{writer.path} could not be removed: {error}")
        finally:
            with self._lock:
                self._busy.discard(writer.path)
                if writer.key and self._writers.get(writer.key) is writer:
                    del self._writers[writer.key]

    # inside

    def _resume(
        self, key: str, announced: Announced, offset: int, limit: int | None, durable: bool, take_over: bool
    ) -> BlobWriter:
        self._claim(key, take_over=take_over)
        try:
            there = self._parts.received(key)
            if there != offset:
                raise UploadConflictError(f"upload {key} goes on at byte {there:,}, not {offset:,}")
            self._parts.announce(key, announced)
            writer = self._open(key, announced, offset, limit, durable)
        except BaseException:
            self._unclaim(key)
            raise
        with self._lock:
            self._writers[key] = writer
        return writer

    def _open(self, key: str, announced: Announced, offset: int, limit: int | None, early: bool) -> BlobWriter:
        path = self._parts.path(key) if key else self._parts.fresh()
        with self._lock:
            self._busy.add(path)
        digest = Digest(announced.size)
        descriptor = -1
        try:
            descriptor = os.open(path, _OPEN_FLAGS, 0o600)
            hash_part(descriptor, offset, digest)
        except BaseException:
            with self._lock:
                self._busy.discard(path)
            digest.close()
            if descriptor >= 0:
                os.close(descriptor)
            raise
        return BlobWriter(self, path, descriptor, digest, announced, key=key, offset=offset, limit=limit, early=early)

    def _claim(self, key: str, *, take_over: bool) -> None:
        """Own a key until it is unclaimed or has a writer."""
        with self._lock:
            writer = self._writers.get(key)
            if key in self._writers and (writer is None or not take_over):
                raise UploadConflictError(f"upload {key} is being received by another connection; try again later")
            self._writers[key] = None
        if writer is not None:
            writer.supersede()

    def _unclaim(self, key: str) -> None:
        with self._lock:
            del self._writers[key]

    def _ensure_room(self, count: int) -> None:
        """Fail before the first byte where it is known that the last one will not fit."""
        if count <= 0:
            return
        free = shutil.disk_usage(self._parts.directory).free
        if free < count:
            free += self.make_room(count - free)
        if free < count:
            raise NoRoomError(
                f"The disk of {self._parts.directory} has room for {free:,} of {count:,} bytes; free some space"
            )
