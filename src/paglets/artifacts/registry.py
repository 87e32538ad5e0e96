"""Artifacts coming and going: metadata, content and what they count for, in the order that a crash allows."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.catalogue import Catalogue
from paglets.artifacts.errors import NotStoredError
from paglets.artifacts.quota import Quota
from paglets.artifacts.recovery import recovered
from paglets.artifacts.refs import ArtifactRef, ArtifactWriteResult
from paglets.core.errors import TransferError

_MOST_TEXT_BYTES: Final = 4096


class Registry:
    """The artifacts of one directory, their quota, and the contents that they keep. Safe for threads."""

    def __init__(self, root: Path, host_url: str, quota: Quota, blobs: BlobStore, clock: Callable[[], float]) -> None:
        """Open the directory, which exists, and repair what a crash left.

        :raises OSError: it cannot be used.
        """
        self.quota = quota
        self._blobs = blobs
        self._clock = clock
        directory = root / "metadata"
        directory.mkdir(mode=0o700, exist_ok=True)
        self.catalogue = Catalogue(directory, host_url, blobs.scratch, blobs.problems.append)
        for ref in recovered(root, self.catalogue, blobs):
            quota.add(ref.sha256, ref.size_bytes, reserved=0)
            self.catalogue.add(ref)
        quota.relieve = lambda: self.remove_expired(self._clock())

    def described(self, owner_agent_id: str, name: str, compression: str, expires_at: float) -> ArtifactRef:
        """Return the reference of a new artifact, without its content.

        :raises TransferError: a value is malformed.
        """
        for what, text in (("owner", owner_agent_id), ("name", name), ("compression", compression)):
            if len(text.encode(errors="surrogatepass")) > _MOST_TEXT_BYTES:
                raise TransferError(f"the {what} of an artifact is longer than {_MOST_TEXT_BYTES:,} bytes")
        if not (math.isfinite(expires_at) and expires_at >= 0):
            raise TransferError(f"{expires_at} is no time of expiry; give Unix seconds, or 0 for never")
        return ArtifactRef(
            host_url="",
            artifact_id=secrets.token_hex(16),
            name=name,
            compression=compression,
            expires_at=expires_at,
            owner_agent_id=owner_agent_id,
        )

    def create(self, described: ArtifactRef, sha256: str, size: int, reserved: int) -> ArtifactWriteResult:
        """Make an artifact of a blob that is kept for it already, and give back what was reserved.

        :raises TransferError: its metadata cannot be written; nothing stays of it.
        """
        ref = replace(described, sha256=sha256, size_bytes=size, created_at=self._clock())
        try:
            path = self._blobs.path(sha256)
            self.catalogue.write_file(ref)
        except BaseException:
            with suppress(TransferError):
                self.catalogue.forget_file(ref.artifact_id)
            self._blobs.drop(sha256, ref.artifact_id, discard=True)
            self.quota.release(reserved)
            raise
        self.quota.add(sha256, size, reserved=reserved)
        return ArtifactWriteResult(self.catalogue.add(ref), path)

    def served(self, artifact_id: str) -> ArtifactRef:
        """Return the reference of an artifact whose content may be given away.

        :raises NotStoredError: there is none, or it has expired.
        :raises TransferError: the id is malformed.
        """
        ref = self.catalogue.get(artifact_id)
        if _expired(ref, self._clock()):
            raise NotStoredError(f"No artifact {artifact_id} any more: it has expired")
        return ref

    def remove_expired(self, now: float) -> int:
        """Remove what has expired at that time, and return how many artifacts these were."""
        return sum(self.remove(ref) for ref in self.catalogue.all() if _expired(ref, now))

    def remove(self, ref: ArtifactRef) -> bool:
        """Remove an artifact; return False if another thread did.

        :raises TransferError: the disk refuses.
        """
        # The file first: an artifact must not come back with a restart once it was said to be gone.
        self.catalogue.forget_file(ref.artifact_id)
        if self.catalogue.take(ref.artifact_id) is None:
            return False
        self._blobs.drop(ref.sha256, ref.artifact_id, discard=True)
        self.quota.remove(ref.sha256)
        return True

    def lost(self, ref: ArtifactRef) -> NotStoredError:
        """Remove the artifacts that have a lost content in common, and return the error that says so."""
        # It may have come back this moment, with another upload.
        same = () if self._blobs.has(ref.sha256) else self.catalogue.all()
        for other in same:
            if other.sha256 == ref.sha256 and self.remove(other):
                self._blobs.problems.append(
                    f"artifact {other.artifact_id} ({other.name!r}) is dropped: its content was lost"
                )
        return NotStoredError(f"No artifact {ref.artifact_id} any more: its content was damaged or removed")


def _expired(ref: ArtifactRef, now: float) -> bool:
    return 0 < ref.expires_at <= now
