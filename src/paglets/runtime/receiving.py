"""Receive the parts of a movement: the state blob, the luggage and the registered files, checked as they come in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from paglets.artifacts import PagletFileRef
from paglets.core.errors import SerializationError, TransferError
from paglets.persistence.envelope import PagletEnvelope
from paglets.protocol.transfer.model import TransferPlan
from paglets.runtime.attachment import EMPTY, AttachmentWriter
from paglets.runtime.files import FileDesk
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


class FileSink:
    """Write a registered file to disk as it arrives, and check it."""

    def __init__(self, path: Path, ref: PagletFileRef) -> None:
        self._path = path
        self._ref = ref
        self._digest = hashlib.sha256()
        self._stream: BinaryIO | None = None

    def write(self, piece: memoryview) -> None:
        """Take the next bytes."""
        if self._stream is None:
            # Not earlier: a manifest may list more files than there are descriptors.
            self._stream = self._path.open("xb", buffering=0)
        self._digest.update(piece)
        self._stream.write(piece)

    def finish(self) -> None:
        """Close the file and compare its checksum with the announced one.

        :raises TransferError: they differ.
        """
        if self._stream is None:
            self._path.touch(mode=0o600, exist_ok=False)
        self.close()
        if self._digest.hexdigest() != self._ref.sha256:
            raise TransferError(f"registered file {self._ref.name!r} arrived with a different checksum")

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


@dataclass(slots=True)
class Incoming:
    """What a PREPARE carries, as received."""

    plan: TransferPlan
    attempt: int
    recovering: bool
    envelope: PagletEnvelope
    state: StateSink
    luggage: StateSink
    files: list[Path]
    file_sinks: list[FileSink]
    spool: str = ""
    """Name of the directory the files are in, empty when there are none."""
    by: Caller | None = None
    """Who brought it over the network."""

    def discard(self, desk: FileDesk) -> None:
        """Remove what was received."""
        for sink in self.file_sinks:
            sink.close()
        self.state.attachment.close()
        self.luggage.attachment.close()
        if self.spool:
            desk.drop_incoming(self.spool)


def hops_of(envelope: PagletEnvelope) -> int:
    """Return how many moves its source says that a paglet has behind it, this one included."""
    hops = envelope.metadata.get("hops", 0)
    return hops if type(hops) is int and 0 <= hops < 1 << 53 else 1 << 53


def manifest_of(envelope: PagletEnvelope) -> list[dict[str, Any]]:
    """Return the registered files that an envelope lists.

    :raises SerializationError: the list is malformed.
    """
    manifest = envelope.metadata.get("registered_files", [])
    if not isinstance(manifest, list) or not all(isinstance(item, dict) and "file" in item for item in manifest):
        raise SerializationError("malformed list of registered files")
    return manifest
