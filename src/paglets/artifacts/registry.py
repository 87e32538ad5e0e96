"""Artifacts coming and going: metadata, content and what they count for, in the order that a crash allows."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final, cast

from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.catalogue import Catalogue
from paglets.artifacts.depot import Depot
from paglets.artifacts.depot_reader import DepotReader
from paglets.artifacts.errors import NotStoredError
from paglets.artifacts.quota import Quota
from paglets.artifacts.recovery import recovered
from paglets.artifacts.refs import ArtifactRef, ArtifactWriteResult
from paglets.core.errors import PagletError, TransferError

logger = logging.getLogger(__name__)
_MOST_TEXT_BYTES: Final = 4096


#: How long a content stays on the disk of this host when its path was asked for.
_PATH_SECONDS: Final = 3600


class _GoneError(Exception):
    """Another thread removed the artifact meanwhile."""


class Registry:
    """The artifacts of one directory, their quota, and the contents that they keep. Safe for threads."""

    def __init__(
        self,
        root: Path,
        host_url: str,
        quota: Quota,
        blobs: BlobStore,
        clock: Callable[[], float],
        depot: Depot | None = None,
    ) -> None:
        """Open the directory, which exists, and repair what a crash left.

        :param depot: where contents are kept instead of the disk of this host.
        :raises OSError: it cannot be used.
        """
        self.quota = quota
        self._blobs = blobs
        self._clock = clock
        self._depot = depot
        directory = root / "metadata"
        directory.mkdir(mode=0o700, exist_ok=True)
        self.catalogue = Catalogue(directory, host_url, blobs.scratch, blobs.problems.append)
        for ref, place in recovered(root, self.catalogue, blobs, depot):
            quota.add(ref.sha256, ref.size_bytes, reserved=0)
            self.catalogue.add(ref, place)
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

        :raises TransferError: its metadata cannot be written; nothing stays of it, as after any other error.
        :raises StorageUnavailableError: its content cannot be stored now where contents are kept.
        """
        ref = replace(described, sha256=sha256, size_bytes=size, created_at=self._clock())
        try:
            path = self._blobs.path(sha256)
            if self._depot is not None:
                return self._create_in(self._depot, ref, path, reserved)
            self.catalogue.write_file(ref)
        except BaseException:
            with suppress(TransferError):
                self.catalogue.forget_file(ref.artifact_id)
            self._blobs.drop(sha256, ref.artifact_id, discard=True)
            self.quota.release(reserved)
            raise
        self.quota.add(sha256, size, reserved=reserved)
        return ArtifactWriteResult(self.catalogue.add(ref), path)

    def _create_in(self, depot: Depot, ref: ArtifactRef, path: Path, reserved: int) -> ArtifactWriteResult:
        with depot.storing(ref.sha256, path):
            self.catalogue.write_file(ref, depot.location)
            self.quota.add(ref.sha256, ref.size_bytes, reserved=reserved)
            added = self.catalogue.add(ref, depot.location)
        # From here on it is cache.
        self._blobs.drop(ref.sha256, ref.artifact_id)
        return ArtifactWriteResult(added, path)

    def bring_in(self, ref: ArtifactRef) -> None:
        """Store the content of an artifact that is still on the disk of this host where contents are kept.

        :raises TransferError: it is not here, or its metadata cannot be written.
        :raises StorageUnavailableError: it cannot be stored now.
        """
        depot = self._depot
        if depot is None or self.catalogue.place(ref.artifact_id) == depot.location:
            return
        with suppress(_GoneError):
            with depot.storing(ref.sha256, self._blobs.path(ref.sha256)):
                if not self.catalogue.has(ref.artifact_id):
                    raise _GoneError
                self.catalogue.write_file(ref, depot.location)
                self.catalogue.add(ref, depot.location)
            self._blobs.drop(ref.sha256, ref.artifact_id)

    def bring_in_all(self) -> None:
        """Store what was on the disk of this host before it had another place; go on next time if that fails."""
        for ref in self.catalogue.all():
            try:
                self.bring_in(ref)
            except NotStoredError:
                continue  # elsewhere, or lost; whoever asks for it is told
            except PagletError as error:
                logger.warning("artifact %s stays on the disk for now: %s", ref.artifact_id, error)
                return

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
        depot = self._depot
        if depot is None:
            return self._remove(ref)
        with depot.locked(ref.sha256):
            place = self.catalogue.place(ref.artifact_id)
            removed = self._remove(ref)
            if removed and place == depot.location:
                depot.disown(ref.sha256)
        depot.tidy()
        return removed

    def _remove(self, ref: ArtifactRef) -> bool:
        # The file first: an artifact must not come back with a restart once it was said to be gone.
        self.catalogue.forget_file(ref.artifact_id)
        if self.catalogue.take(ref.artifact_id) is None:
            return False
        self._blobs.drop(ref.sha256, ref.artifact_id, discard=True)
        self.quota.remove(ref.sha256)
        return True

    def open(self, ref: ArtifactRef) -> BinaryIO:
        """Open the content of an artifact, on the disk of this host or where contents are kept.

        :raises NotStoredError: it is neither here nor there.
        """
        with suppress(NotStoredError):
            return self._blobs.open(ref.sha256)
        return cast("BinaryIO", self._reader(ref))

    def path(self, ref: ArtifactRef) -> Path:
        """Return the file with the content of an artifact, which is brought to the disk of this host for an hour.

        :raises NotStoredError: it is neither here nor where contents are kept.
        :raises TransferError: it is not what was stored, or the disk does not take it.
        :raises StorageUnavailableError: it cannot be had now.
        """
        with suppress(NotStoredError):
            return self._blobs.path(ref.sha256)
        with self._reader(ref) as reader:
            self._blobs.hold(f"path of {ref.artifact_id}", [ref.sha256], seconds=_PATH_SECONDS)
            reader.fetch()
        return self._blobs.path(ref.sha256)

    def _reader(self, ref: ArtifactRef) -> DepotReader:
        place = self.catalogue.place(ref.artifact_id)
        if not place:
            raise self.lost(ref)
        if self._depot is None or self._depot.location != place:
            raise NotStoredError(
                f"The content of artifact {ref.artifact_id} is in {place}, and this host was started without that"
            )
        return DepotReader(self._depot.backend, self._blobs, ref.sha256, ref.size_bytes)

    def lost(self, ref: ArtifactRef) -> NotStoredError:
        """Remove the artifacts that have a lost content in common, and return the error that says so."""
        # It may have come back this moment, with another upload.
        same = () if self._blobs.has(ref.sha256) else self.catalogue.all()
        for other in same:
            elsewhere = self.catalogue.place(other.artifact_id)
            if other.sha256 == ref.sha256 and not elsewhere and self.remove(other):
                self._blobs.problems.append(
                    f"artifact {other.artifact_id} ({other.name!r}) is dropped: its content was lost"
                )
        return NotStoredError(f"No artifact {ref.artifact_id} any more: its content was damaged or removed")


def _expired(ref: ArtifactRef, now: float) -> bool:
    return 0 < ref.expires_at <= now
