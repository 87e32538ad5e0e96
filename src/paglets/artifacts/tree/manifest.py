"""The description of a directory: every entry in order, how contents are gathered into blobs, and their checksums."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Final

import msgspec

from paglets.artifacts.tree.links import check_links
from paglets.core.errors import TransferError
from paglets.persistence.directory import is_device_name

FORMAT: Final = "paglets-tree-1"
MAX_ENTRIES: Final = 1_000_000
MAX_DEPTH: Final = 256
MAX_NAME_BYTES: Final = 255
MAX_PATH_BYTES: Final = 4095
MAX_MANIFEST_BYTES: Final = 256 * 1024 * 1024
#: Files of at most this size are gathered into packs.
SMALL_FILE_BYTES: Final = 4 * 1024 * 1024
PACK_BYTES: Final = 64 * 1024 * 1024
_MODE_BITS: Final = 0o777
_MAX_SIZE: Final = 1 << 60
_MAX_TIME: Final = 1 << 62
_SHA256_BYTES: Final = 32


class Kind(IntEnum):
    """What an entry is."""

    DIRECTORY = 0
    FILE = 1
    LINK = 2


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One directory, file or symbolic link below the root of a tree."""

    path: bytes
    """Relative, components separated by ``/``, in the encoding of file names: not every name is text."""
    kind: Kind
    mode: int
    """Permission bits alone; setuid, setgid and sticky do not travel."""
    mtime_ns: int
    size: int = 0
    """Bytes of a file."""
    target: bytes = b""
    """What a link says."""

    @property
    def text(self) -> str:
        """The path for people."""
        return self.path.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one blob of a tree holds: a large file, or small ones one after the other."""

    members: Sequence[int]
    """Indices of the entries, in order."""
    size: int

    @property
    def is_large_file(self) -> bool:
        """Whether it is the content of one file that has a blob of its own."""
        return len(self.members) == 1 and self.size > SMALL_FILE_BYTES


class _Wire(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    format: Annotated[str, msgspec.Meta(max_length=32)]
    mode: int
    mtime_ns: int
    entries: Annotated[list[Entry], msgspec.Meta(max_length=MAX_ENTRIES)]
    blobs: Annotated[list[bytes], msgspec.Meta(max_length=MAX_ENTRIES)]


_DECODER: Final = msgspec.msgpack.Decoder(_Wire)


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory without its contents; whatever made it, :meth:`check` has seen it."""

    mode: int
    """Permission bits of the directory itself."""
    mtime_ns: int
    entries: Sequence[Entry]
    """Every directory before what is in it, and what is in one by name."""
    chunks: Sequence[Chunk]
    digests: Sequence[str]
    """The SHA-256 of each chunk, in lower-case hex."""

    @property
    def content_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(chunk.size for chunk in self.chunks)

    def to_bytes(self) -> bytes:
        """Return the manifest; equal trees have equal ones.

        :raises TransferError: it would be larger than a receiver takes.
        """
        digests = [bytes.fromhex(digest) for digest in self.digests]
        packed = msgspec.msgpack.encode(_Wire(FORMAT, self.mode, self.mtime_ns, list(self.entries), digests))
        if len(packed) > MAX_MANIFEST_BYTES:
            raise TransferError(f"the list of a directory may have {MAX_MANIFEST_BYTES} bytes, not {len(packed)}")
        return packed

    @classmethod
    def from_bytes(cls, packed: bytes | memoryview) -> Tree:
        """Read a manifest from whoever sent it.

        :raises TransferError: it is malformed, out of bounds, or names anything outside of its directory.
        """
        if len(packed) > MAX_MANIFEST_BYTES:
            raise TransferError(f"the list of a directory may have {MAX_MANIFEST_BYTES} bytes, not {len(packed)}")
        try:
            wire = _DECODER.decode(packed)
        except (msgspec.MsgspecError, ValueError) as exc:
            raise TransferError(f"malformed list of a directory: {exc}") from None
        if wire.format != FORMAT:
            raise TransferError(f"the list of a directory is in the unknown format {wire.format!r}")
        check(wire.entries, mode=wire.mode, mtime_ns=wire.mtime_ns)
        chunks = layout(wire.entries)
        if len(wire.blobs) != len(chunks) or any(len(digest) != _SHA256_BYTES for digest in wire.blobs):
            raise TransferError("malformed list of a directory: its checksums do not fit its files")
        return cls(wire.mode, wire.mtime_ns, wire.entries, chunks, [digest.hex() for digest in wire.blobs])

    def sha256(self) -> str:
        """Return the checksum of the whole directory in lower-case hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def layout(entries: Iterable[Entry]) -> list[Chunk]:
    """Return how the contents of files are gathered into blobs; it follows from their sizes and order alone."""
    members: list[list[int]] = []
    sizes: list[int] = []
    pack = -1
    for index, entry in enumerate(entries):
        if not entry.size:
            continue
        if entry.size > SMALL_FILE_BYTES:
            members.append([index])
            sizes.append(entry.size)
        elif pack >= 0 and sizes[pack] + entry.size <= PACK_BYTES:
            members[pack].append(index)
            sizes[pack] += entry.size
        else:
            pack = len(members)
            members.append([index])
            sizes.append(entry.size)
    return [Chunk(list_, size) for list_, size in zip(members, sizes, strict=True)]


def check(entries: Sequence[Entry], *, mode: int, mtime_ns: int) -> None:
    """Make sure that entries describe a directory and nothing outside of it.

    :raises TransferError: they do not; the text names the entry.
    """
    if len(entries) > MAX_ENTRIES:
        raise TransferError(f"a directory may have {MAX_ENTRIES} entries, not {len(entries)}")
    if not _is_mode(mode) or not _is_time(mtime_ns):
        raise TransferError("a directory has a mode or a time that no directory has")
    _check_order(entries)
    total = 0
    links: dict[bytes, bytes] = {}
    for entry in entries:
        _check_values(entry)
        total += entry.size
        if entry.kind is Kind.LINK:
            links[entry.path] = entry.target
    if total >= _MAX_SIZE:
        raise TransferError("the files of a directory are larger than any disk")
    check_links(links)


def _check_order(entries: Sequence[Entry]) -> None:
    """Check the paths: each is directly below a directory listed before it, after its siblings.

    So none is absolute, leaves the tree, lies below a file or link, or is there twice.
    """
    above: list[bytes] = [b""]
    """The directory that is being listed, and those above it, each ending with a slash but the root."""
    last: list[bytes] = [b""]
    """For each of them the name listed last."""
    for entry in entries:
        path = entry.path
        if len(path) > MAX_PATH_BYTES:
            raise TransferError(f"a path of a directory may have {MAX_PATH_BYTES} bytes, not {len(path)}")
        head, slash, name = path.rpartition(b"/")
        prefix = head + slash
        while above[-1] != prefix:
            above.pop()
            last.pop()
            if not above:
                raise TransferError(f"{entry.text!r} is in no directory that is listed before it")
        check_name(name)
        if name <= last[-1]:
            raise TransferError(f"{entry.text!r} is listed twice, or not in order")
        if len(above) > MAX_DEPTH:
            raise TransferError(f"{entry.text!r} lies more than {MAX_DEPTH} directories deep")
        last[-1] = name
        if entry.kind is Kind.DIRECTORY:
            above.append(path + b"/")
            last.append(b"")


def check_name(name: bytes) -> None:
    """Make sure that a name is one component of a path on this system.

    :raises TransferError: it is not.
    """
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > MAX_NAME_BYTES:
        raise TransferError(f"{name.decode(errors='replace')!r} is no name of a file")
    if os.name == "nt":
        text = name.decode(errors="replace")
        if any(character in text for character in '\\:*?"<>|\ufffd') or is_device_name(text) or text[-1] in ". ":
            raise TransferError(f"{text!r} cannot be the name of a file on this system")


def _check_values(entry: Entry) -> None:
    file, link = entry.kind is Kind.FILE, entry.kind is Kind.LINK
    if not _is_mode(entry.mode) or not _is_time(entry.mtime_ns):
        raise TransferError(f"{entry.text!r} has a mode or a time that no file has")
    if not 0 <= entry.size < _MAX_SIZE or (entry.size and not file) or (entry.target and not link):
        raise TransferError(f"{entry.text!r} has a size or a target that does not belong to it")


def _is_mode(mode: int) -> bool:
    return 0 <= mode <= _MODE_BITS


def _is_time(time_ns: int) -> bool:
    return -_MAX_TIME < time_ns < _MAX_TIME
