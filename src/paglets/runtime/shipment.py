"""The registered files of a paglet that leaves, as contents: small ones in memory, large ones where they lie.

Small contents travel inside PREPARE. Large ones are brought to the target before, one by one, where it lacks them.
Everything here blocks on the disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

from paglets.artifacts import KIND_DIRECTORY, Content, PagletFileRef, read_content
from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.errors import FileChangedError, NotStoredError
from paglets.artifacts.known import Stamp
from paglets.artifacts.shelf import open_plain
from paglets.artifacts.tree import KnownDigest, Survey, scan
from paglets.core.errors import TransferError
from paglets.remote.movement import BufferPart, Part

#: A content of at most this size may travel inside PREPARE.
SMALL_BYTES: Final = 4 * 1024 * 1024
#: All of them together; what is beyond travels like large ones.
SMALL_BYTES_TOGETHER: Final = 16 * 1024 * 1024
#: How long contents are held for a transfer, counted from the last word about it.
HOLD_SECONDS: Final = 900.0
#: Files and contents of one paglet; directories are few contents, however many files they have.
MAX_CONTENTS: Final = 100_000
#: How often a content that changes meanwhile is begun again, in all.
MOST_CHANGES: Final = 3

# What a slow disk at the target may need beside what a ticket allows, so that a large directory is not taken for a
# stall. One that dies is noticed at once all the same, since its connections break.
SLOW_BYTES_PER_SECOND: Final = 100 * 1024 * 1024
_SLOW_FILES_PER_SECOND: Final = 200
_LONGEST_ALLOWANCE_SECONDS: Final = 1800.0


class Large(Protocol):
    """A large content that is to be brought to the target."""

    @property
    def name(self) -> str:
        """Which registered file it belongs to."""

    @property
    def sha256(self) -> str:
        """Its checksum in lower-case hex."""

    @property
    def size(self) -> int:
        """Its bytes."""

    def file(self, store: BlobStore, holder: str) -> Path:
        """Return a file with exactly this content.

        :raises FileChangedError: what it is made of is not as it was.
        """

    def ensure_unchanged(self) -> None:
        """Look whether what it is made of is as it was.

        :raises FileChangedError: it is not.
        """


@dataclass(frozen=True, slots=True)
class LargeFile:
    """The content of one large file."""

    name: str
    path: Path
    sha256: str
    size: int
    stamp: Stamp

    def file(self, store: BlobStore, holder: str) -> Path:
        """Return the file itself."""
        del store, holder
        self.ensure_unchanged()
        return self.path

    def ensure_unchanged(self) -> None:
        """Compare the file with what it was."""
        if _stamp(self.path) != self.stamp:
            raise FileChangedError(f"{self.path} changed while it was sent")


@dataclass(frozen=True, slots=True)
class LargePack:
    """Small files of a directory, one after the other; they become a file in the store when somebody wants them."""

    name: str
    survey: Survey
    number: int
    sha256: str
    size: int

    def file(self, store: BlobStore, holder: str) -> Path:
        """Write the pack into the store, where it stays as long as it is held."""
        if store.hold(holder, [self.sha256], seconds=HOLD_SECONDS):
            receive_into(store, self.survey.pieces(self.number), self.sha256, self.size)
        return store.path(self.sha256)

    def ensure_unchanged(self) -> None:
        """Compare every file of the pack with what it was."""
        for index in self.survey.chunks[self.number].members:
            self.survey.ensure_same(index)


@dataclass(frozen=True, slots=True)
class LargeList:
    """The list of a directory with a great many files."""

    name: str
    content: bytes
    sha256: str

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.content)

    def file(self, store: BlobStore, holder: str) -> Path:
        """Write the list into the store, where it stays as long as it is held."""
        if store.hold(holder, [self.sha256], seconds=HOLD_SECONDS):
            receive_into(store, iter([self.content]), self.sha256, self.size)
        return store.path(self.sha256)

    def ensure_unchanged(self) -> None:
        """Do nothing: bytes in memory do not change."""


@dataclass(slots=True)
class Shipment:
    """What of files goes with one paglet."""

    manifest: list[dict[str, Any]] = field(default_factory=list)
    """One item for each registered file, for the envelope."""
    small: dict[str, bytes] = field(default_factory=dict)
    """Contents by their checksum, which travel inside PREPARE."""
    large: dict[str, Large] = field(default_factory=dict)
    """Contents by their checksum, which are brought before."""
    marks: dict[str, str] = field(default_factory=dict)
    """By registered name, what is different for a file or directory in which anything was changed since."""
    nbytes: int = 0
    """Of all files together."""
    entries: int = 0
    """Files and directories that the target makes."""

    @property
    def count(self) -> int:
        """How many files and directories are registered."""
        return len(self.manifest)

    @property
    def large_bytes(self) -> int:
        """Bytes of the large contents together."""
        return sum(large.size for large in self.large.values())

    @property
    def parts(self) -> list[Part]:
        """What follows the luggage in PREPARE."""
        return [BufferPart(memoryview(content)) for content in self.small.values()]

    @property
    def allowance(self) -> float:
        """Seconds that the target may take for its disk beyond the ticket's time."""
        seconds = self.nbytes / SLOW_BYTES_PER_SECOND + self.entries / _SLOW_FILES_PER_SECOND
        return min(seconds, _LONGEST_ALLOWANCE_SECONDS)

    def to_wire(self) -> dict[str, Any]:
        """Return what PREPARE says of the contents."""
        return {
            "small": [[sha256, len(content)] for sha256, content in self.small.items()],
            "large": [[large.sha256, large.size] for large in self.large.values()],
        }


def ship(refs: Iterable[PagletFileRef], store: BlobStore) -> Shipment:
    """Read what is registered as it is now. What changes meanwhile is read again, a few times.

    :raises TransferError: a file is missing, cannot be read, or changes all the time.
    """
    refs = list(refs)
    for attempt in range(1, MOST_CHANGES + 1):
        try:
            return _Loader(store).load(refs)
        except FileChangedError as exc:
            if attempt == MOST_CHANGES:
                raise TransferError(str(exc)) from exc
    raise AssertionError


def look(refs: Iterable[PagletFileRef]) -> Shipment:
    """Make sure that what is registered is there, and read nothing of it: it stays where it is.

    :raises TransferError: a file is missing.
    """
    shipment = Shipment()
    for ref in refs:
        path = Path(ref.current_path)
        if not (path.is_dir() if ref.kind == KIND_DIRECTORY else path.is_file()):
            raise _missing(ref)
        shipment.manifest.append(_item(ref))
        shipment.nbytes += ref.size_bytes
    return shipment


def content_of(path: Path, store: BlobStore) -> Content:
    """Return what a file or directory holds, and have the checksums of large files remembered.

    :raises TransferError: it cannot be read, or has something in it that cannot travel.
    """
    if path.is_dir():
        tree = scan(path).tree(_known_in(store))
        return Content(tree.content_bytes, tree.sha256())
    if path.stat().st_size <= SMALL_BYTES:
        return read_content(path)
    sha256, status = store.identify(path)
    return Content(status.st_size, sha256)


def mark_of(path: Path, kind: str) -> str:
    """Return what is different for a file or directory in which anything was changed.

    :raises FileNotFoundError: there is nothing at the path.
    :raises TransferError: it cannot be looked at.
    """
    status = path.stat()
    if kind == KIND_DIRECTORY and path.is_dir():
        return scan(path).fingerprint()
    return _file_mark(Stamp.of(status))


def receive_into(store: BlobStore, pieces: Iterator[bytes], sha256: str, size: int) -> None:
    """Make bytes of this host a content of its store. They need not be on disk: they are made of what is."""
    with store.receive(sha256=sha256, size=size, durable=False) as writer:
        for piece in pieces:
            writer.write(piece)
        writer.commit(durable=False)


class _Loader:
    """Put one shipment together."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._shipment = Shipment()
        self._small_bytes = 0

    def load(self, refs: Iterable[PagletFileRef]) -> Shipment:
        for ref in refs:
            try:
                fresh = self._add(ref)
            except FileNotFoundError:
                raise _missing(ref) from None
            except FileChangedError as exc:
                raise FileChangedError(f"registered file {ref.name!r} changes while it is sent: {exc}") from exc
            except (OSError, NotStoredError) as exc:
                raise TransferError(f"registered file {ref.name!r} cannot be read: {exc}") from exc
            self._shipment.manifest.append(_item(fresh))
            self._shipment.nbytes += fresh.size_bytes
            if max(len(self._shipment.manifest), len(self._shipment.small) + len(self._shipment.large)) > MAX_CONTENTS:
                raise TransferError(
                    f"a paglet travels with at most {MAX_CONTENTS:,} files; small ones in a directory count as few"
                )
        return self._shipment

    def _add(self, ref: PagletFileRef) -> PagletFileRef:
        path = Path(ref.current_path).resolve(strict=True)
        if ref.kind == KIND_DIRECTORY and path.is_dir():
            return self._add_directory(ref, path)
        if ref.kind == KIND_DIRECTORY or not path.is_file():
            raise FileNotFoundError(path)
        self._shipment.entries += 1
        with open_plain(path) as stream:
            stamp = Stamp.of(os.fstat(stream.fileno()))
            if self._fits(stamp.size):
                content = stream.read(stamp.size + 1)
                if len(content) != stamp.size or Stamp.of(os.fstat(stream.fileno())) != stamp:
                    raise FileChangedError(f"{path} changed while it was read")
                self._shipment.marks[ref.name] = _file_mark(stamp)
                return replace(ref, size_bytes=stamp.size, sha256=self._add_small(content))
        sha256, status = self._store.identify(path)
        self._add_large(LargeFile(ref.name, path, sha256, status.st_size, Stamp.of(status)))
        self._shipment.marks[ref.name] = _file_mark(Stamp.of(status))
        return replace(ref, size_bytes=status.st_size, sha256=sha256)

    def _add_directory(self, ref: PagletFileRef, path: Path) -> PagletFileRef:
        survey = scan(path)
        tree = survey.tree(_known_in(self._store))
        listed = tree.to_bytes()
        if self._fits(len(listed)):
            sha256 = self._add_small(listed)
        else:
            sha256 = hashlib.sha256(listed).hexdigest()
            self._add_large(LargeList(ref.name, listed, sha256))
        for number, (chunk, digest) in enumerate(zip(tree.chunks, tree.digests, strict=True)):
            if chunk.is_large_file:
                index = chunk.members[0]
                self._add_large(LargeFile(ref.name, survey.path_of(index), digest, chunk.size, survey.stamps[index]))
            elif not self._fits(chunk.size):
                self._add_large(LargePack(ref.name, survey, number, digest, chunk.size))
            elif self._add_small(b"".join(survey.pieces(number))) != digest:
                raise FileChangedError(f"{path} changed while it was read")
        self._shipment.marks[ref.name] = survey.fingerprint()
        self._shipment.entries += len(survey.entries)
        return replace(ref, size_bytes=tree.content_bytes, sha256=sha256)

    def _fits(self, size: int) -> bool:
        """Tell whether a content of that size may travel inside PREPARE, beside what does already."""
        return size <= SMALL_BYTES and self._small_bytes + size <= SMALL_BYTES_TOGETHER

    def _add_small(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in self._shipment.small:
            self._shipment.small[sha256] = content
            self._small_bytes += len(content)
        return sha256

    def _add_large(self, large: Large) -> None:
        self._shipment.large.setdefault(large.sha256, large)


def _missing(ref: PagletFileRef) -> TransferError:
    return TransferError(f"registered file {ref.name!r} is missing: {ref.current_path}")


def _item(ref: PagletFileRef) -> dict[str, Any]:
    return {"file": ref.to_wire(), "transfer_mode": ref.mode, "source_path": ref.current_path}


def _known_in(store: BlobStore) -> KnownDigest:
    def known(path: Path, stamp: Stamp) -> str:
        sha256, status = store.identify(path)
        if Stamp.of(status) != stamp:
            raise FileChangedError(f"{path} changed while it was read")
        return sha256

    return known


def _file_mark(stamp: Stamp) -> str:
    return ":".join(map(str, stamp))


def _stamp(path: Path) -> Stamp | None:
    try:
        return Stamp.of(path.lstat())
    except OSError:
        return None
