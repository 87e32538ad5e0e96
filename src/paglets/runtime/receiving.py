"""Receive the parts of a movement: the state blob, the luggage and small contents of files, bounded as they come in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from paglets.artifacts import KIND_FILE, PagletFileRef
from paglets.artifacts.parts import is_sha256
from paglets.core.errors import SerializationError, TransferError
from paglets.persistence.envelope import PagletEnvelope
from paglets.protocol.transfer.model import TransferPlan
from paglets.runtime.attachment import EMPTY, AttachmentWriter
from paglets.runtime.shipment import MAX_CONTENTS, SMALL_BYTES, SMALL_BYTES_TOGETHER
from paglets.security.caller import Caller

MAX_STATE_BYTES = 4 * 1024 * 1024 * 1024


class StateSink:
    """Collect a state blob, or the luggage, as it arrives."""

    in_memory = True

    def __init__(self, max_bytes: int = MAX_STATE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._writer = AttachmentWriter()
        self.attachment = EMPTY

    def write(self, piece: memoryview) -> None:
        """Take the next bytes.

        :raises TransferError: they are too many.
        """
        if self._writer.nbytes + len(piece) > self._max_bytes:
            raise TransferError(f"a state or luggage of more than {self._max_bytes} bytes is refused")
        self._writer.write(piece)

    def finish(self) -> None:
        """Hold the blob; a large one in a memory file."""
        self.attachment = self._writer.finish()


class SmallSink:
    """Collect a small content as it arrives; who uses it compares its checksum."""

    in_memory = True

    def __init__(self, size: int) -> None:
        self._size = size
        self._pieces: list[bytes] = []
        self.content = b""
        """All of it, when it is complete."""

    def write(self, piece: memoryview) -> None:
        """Take the next bytes.

        :raises SerializationError: they are more than announced.
        """
        self._size -= len(piece)
        if self._size < 0:
            raise SerializationError("a content of a movement is longer than announced")
        self._pieces.append(bytes(piece))

    def finish(self) -> None:
        """Put the content together.

        :raises SerializationError: it is shorter than announced.
        """
        if self._size:
            raise SerializationError("a content of a movement is shorter than announced")
        self.content = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()


@dataclass(slots=True)
class Load:
    """The contents of the files that come with a paglet, by their checksum."""

    small: dict[str, SmallSink] = field(default_factory=dict)
    """Those inside PREPARE, in order."""
    large: dict[str, int] = field(default_factory=dict)
    """Those brought before, with their sizes."""

    def __bool__(self) -> bool:
        """Tell whether any content came; a clone within one host has its files copied from where they lie instead."""
        return bool(self.small or self.large)

    @property
    def small_bytes(self) -> int:
        """Bytes inside PREPARE."""
        return sum(len(sink.content) for sink in self.small.values())

    def verify(self) -> None:
        """Compare what came inside PREPARE with its checksums.

        :raises TransferError: something differs.
        """
        for sha256, sink in self.small.items():
            if hashlib.sha256(sink.content).hexdigest() != sha256:
                raise TransferError("a registered file arrived with a different checksum")

    @classmethod
    def from_wire(cls, wire: Any, refs: Sequence[PagletFileRef]) -> Load:
        """Read what PREPARE says of contents, and hold it against the files that it lists.

        :raises SerializationError: it is malformed, out of bounds, or lacks the content of a file.
        """
        small, large = _contents(wire, "small"), _contents(wire, "large")
        if small.keys() & large.keys() or len(small) + len(large) > MAX_CONTENTS:
            raise SerializationError(f"a movement has at most {MAX_CONTENTS} contents, each of them once")
        if max(small.values(), default=0) > SMALL_BYTES or sum(small.values()) > SMALL_BYTES_TOGETHER:
            raise SerializationError(
                f"a movement carries contents of at most {SMALL_BYTES} bytes, {SMALL_BYTES_TOGETHER} together"
            )
        for ref in refs:
            size = small.get(ref.sha256, large.get(ref.sha256))
            if size is None or (ref.kind == KIND_FILE and size != ref.size_bytes):
                raise SerializationError(f"registered file {ref.name!r} comes without its content")
        return cls({sha256: SmallSink(size) for sha256, size in small.items()}, large)


def _contents(wire: Any, name: str) -> dict[str, int]:
    """Return checksums and sizes.

    :raises SerializationError: they are malformed.
    """
    listed = wire.get(name, []) if isinstance(wire, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_CONTENTS:
        raise SerializationError("malformed list of contents")
    found: dict[str, int] = {}
    for item in listed:
        match item:
            case [str(sha256), size] if is_sha256(sha256) and type(size) is int and 0 <= size < 1 << 60:
                found[sha256] = size
            case _:
                raise SerializationError("malformed list of contents")
    if len(found) != len(listed):
        raise SerializationError("a content is listed twice")
    return found


@dataclass(slots=True)
class Incoming:
    """What a PREPARE carries, as received."""

    plan: TransferPlan
    attempt: int
    recovering: bool
    envelope: PagletEnvelope
    state: StateSink
    luggage: StateSink
    refs: list[PagletFileRef] = field(default_factory=list)
    """The registered files."""
    load: Load = field(default_factory=Load)
    """Their contents."""
    by: Caller | None = None
    """Who brought it over the network."""

    @property
    def holder(self) -> str:
        """For whom contents in the store are held."""
        return holder_of(self.plan)

    def discard(self) -> None:
        """Let go of what was received."""
        self.state.attachment.close()
        self.luggage.attachment.close()


def holder_of(plan: TransferPlan) -> str:
    """Return under which name contents are held for a transfer, at both hosts."""
    return f"transfer:{plan.transfer_id}"


def manifest_of(envelope: PagletEnvelope) -> list[dict[str, Any]]:
    """Return the registered files that an envelope lists.

    :raises SerializationError: the list is malformed.
    """
    manifest = envelope.metadata.get("registered_files", [])
    if not isinstance(manifest, list) or not all(isinstance(item, dict) and "file" in item for item in manifest):
        raise SerializationError("malformed list of registered files")
    return manifest
