"""The artifacts of one host: named, owned and expiring references to content in its store of blobs."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

from paglets.artifacts.backends import BlobBackend
from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.bodies import body_length, body_pieces
from paglets.artifacts.depot import Depot
from paglets.artifacts.errors import NotStoredError, TooLargeError, WrongContentError, io_error
from paglets.artifacts.hashing import Digest
from paglets.artifacts.parts import checked_sha256
from paglets.artifacts.quota import Quota
from paglets.artifacts.refs import (
    DEFAULT_ARTIFACT_MAX_BYTES,
    DEFAULT_ARTIFACT_SPOOL_TTL_SECONDS,
    DEFAULT_ARTIFACT_STORAGE_QUOTA_BYTES,
    ArtifactRef,
    ArtifactWriteResult,
)
from paglets.artifacts.registry import Registry
from paglets.artifacts.streams import STREAM_CHUNK_BYTES, existing_file, replacing_target
from paglets.artifacts.upload import ArtifactWriter, Uploads

#: Checked and synced by each clean-up, of what had not reached the disk for sure.
_SETTLE_BYTES: Final = 256 * 1024 * 1024
_SETTLE_BLOBS: Final = 500


class ArtifactStore:
    """Artifacts below one directory. Safe for threads; its methods block on the disk.

    An artifact that was acknowledged survives the end of the process. After a loss of power, one whose bytes had not
    reached the disk is gone, never wrong. One live store per directory.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        host_url: str,
        max_artifact_bytes: int | None = DEFAULT_ARTIFACT_MAX_BYTES,
        quota_bytes: int | None = DEFAULT_ARTIFACT_STORAGE_QUOTA_BYTES,
        spool_ttl_seconds: float = DEFAULT_ARTIFACT_SPOOL_TTL_SECONDS,
        blobs: BlobStore | None = None,
        backend: BlobBackend | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the store of a directory, which is created, and repair what a crash left.

        :param host_url: the address that references name.
        :param max_artifact_bytes: the most bytes of one artifact; None and 0 are unlimited.
        :param quota_bytes: the most bytes of all contents and of what is being received; None is unlimited.
        :param spool_ttl_seconds: how long a broken upload waits for its sender, at least 1.
        :param blobs: the store of blobs of the same directory, if there is one already.
        :param backend: where contents are kept; the directory is then the cache. Closed with this store.
        :param clock: Unix seconds.
        :raises TransferError: the directory cannot be used.
        """
        self.root = Path(root).expanduser().absolute()
        self.max_artifact_bytes = max(0, max_artifact_bytes or 0)
        self.quota_bytes = None if quota_bytes is None else max(0, quota_bytes)
        self.spool_ttl_seconds = max(1.0, spool_ttl_seconds)
        self.blobs = BlobStore(self.root, clock=clock) if blobs is None else blobs
        self.problems = self.blobs.problems
        """What was found damaged and dropped, here and in the store of blobs; the oldest are forgotten."""
        self._clock = clock
        self._quota = Quota(self.quota_bytes)
        self._uploads = Uploads(self._quota, self.blobs)
        self._depot = None if backend is None else Depot(backend)
        try:
            self._registry = Registry(self.root, host_url.rstrip("/"), self._quota, self.blobs, clock, self._depot)
            self._uploads.restore()
        except OSError as error:
            raise io_error("The store of artifacts cannot be opened", self.root, error) from error
        self._catalogue = self._registry.catalogue

    @property
    def remote(self) -> bool:
        """Return whether contents are kept on another machine, so that creating and deleting wait for the network."""
        return self._depot is not None

    @property
    def host_url(self) -> str:
        """Return the address that references name, without a slash at the end."""
        return self._catalogue.host_url

    @property
    def used_bytes(self) -> int:
        """Return what counts against the quota: contents, each once, and what is reserved for uploads."""
        return self._quota.used_bytes

    def set_host_url(self, host_url: str) -> None:
        """Have all references name this address from now on."""
        self._catalogue.set_host_url(host_url.rstrip("/"))

    # creating

    def begin(
        self,
        *,
        size_bytes: int = -1,
        owner_agent_id: str = "",
        name: str = "",
        compression: str = "",
        expires_at: float = 0.0,
        expected_sha256: str | None = None,
        upload: str = "",
        offset: int = 0,
    ) -> ArtifactWriter:
        """Begin to receive an artifact, or go on where an earlier connection broke.

        :param size_bytes: the length, which is reserved; less than nothing is not known.
        :param expires_at: Unix seconds; 0 is never.
        :param expected_sha256: the checksum, in hex of either case.
        :param upload: 32 to 64 hex digits of the sender's make the upload resumable. Another connection of the same
            upload is ended.
        :param offset: where the sender goes on; `upload_offset` tells.
        :raises TooLargeError: the length is above the maximum.
        :raises NoRoomError: the quota or the disk does not have the room.
        :raises UploadConflictError: the upload is at another offset, or was begun with another content.
        :raises TransferError: a value is malformed.
        """
        size = max(-1, size_bytes)
        self._check_size(size)
        ref = self._registry.described(owner_agent_id, name, compression, expires_at)
        return self._uploads.begin(
            checked_sha256(expected_sha256) if expected_sha256 else "",
            size,
            self.max_artifact_bytes or None,
            upload.lower(),
            offset,
            ref.artifact_id,
            lambda blob, reserved: self._registry.create(ref, blob.sha256, blob.size, reserved),
        )

    def create_from_path(
        self,
        source: str | Path,
        *,
        owner_agent_id: str = "",
        name: str | None = None,
        compression: str = "",
        expires_at: float = 0.0,
        expected_sha256: str | None = None,
    ) -> ArtifactWriteResult:
        """Make an artifact of a file.

        :param name: None takes the file name.
        :raises TransferError: the source is no file, is too large, has another checksum, or there is no room.
        """
        origin = existing_file(source)
        try:
            with origin.open("rb", buffering=0) as stream:
                return self.create_from_stream(
                    stream,
                    # What the system makes up while it is read, as below /proc, has no size.
                    size_bytes=origin.stat().st_size or -1,
                    owner_agent_id=owner_agent_id,
                    name=origin.name if name is None else name,
                    compression=compression,
                    expires_at=expires_at,
                    expected_sha256=expected_sha256,
                )
        except OSError as error:
            raise io_error(f"{origin} cannot be read", origin, error) from error

    def create_from_stream(
        self,
        source: Any,
        *,
        size_bytes: int = -1,
        owner_agent_id: str = "",
        name: str = "",
        compression: str = "",
        expires_at: float = 0.0,
        expected_sha256: str | None = None,
    ) -> ArtifactWriteResult:
        """Make an artifact of all that a stream gives. An error of the stream is passed on; nothing stays of it.

        :raises TransferError: it is too large, has another length or checksum, or there is no room.
        """
        writer = self.begin(
            size_bytes=size_bytes,
            owner_agent_id=owner_agent_id,
            name=name,
            compression=compression,
            expires_at=expires_at,
            expected_sha256=expected_sha256,
        )
        return _filled(writer, _pieces(source))

    def create_from_http_request(
        self,
        headers: Any,
        source: Any,
        *,
        owner_agent_id: str = "",
        name: str = "",
        compression: str = "",
        expires_at: float = 0.0,
        expected_sha256: str | None = None,
    ) -> ArtifactWriteResult:
        """Make an artifact of the body of a request, of which nothing more is read.

        :param headers: of the request; they have the Content-Length, or say that the body is chunked.
        :param source: the connection as a file, at the beginning of the body.
        :raises TransferError: the body is malformed or ends early, is too large, has another checksum, or there is no
            room.
        """
        length = body_length(headers)
        writer = self.begin(
            size_bytes=length,
            owner_agent_id=owner_agent_id,
            name=name,
            compression=compression,
            expires_at=expires_at,
            expected_sha256=expected_sha256,
        )
        return _filled(writer, body_pieces(source, length))

    def from_blob(
        self,
        sha256: str,
        size: int,
        *,
        owner_agent_id: str = "",
        name: str = "",
        compression: str = "",
        expires_at: float = 0.0,
    ) -> ArtifactWriteResult:
        """Make an artifact of a content that is here already.

        :raises NotStoredError: it is not.
        :raises WrongContentError: it has another length.
        :raises TransferError: it is too large, or there is no room.
        """
        sha256 = checked_sha256(sha256)
        self._check_size(size)
        if (there := self.blobs.size(sha256)) != size:
            raise WrongContentError(f"content {sha256} has {there:,} bytes, not {size:,}")
        ref = self._registry.described(owner_agent_id, name, compression, expires_at)
        reserved = 0 if self._quota.has(sha256) else size
        self._quota.reserve(reserved)
        try:
            self.blobs.keep(sha256, ref.artifact_id)
        except BaseException:
            self._quota.release(reserved)
            raise
        return self._registry.create(ref, sha256, size, reserved)

    def upload_offset(self, upload: str) -> int:
        """Return how many bytes of an upload are here; 0 when nothing is known of it.

        :raises TransferError: the key is malformed.
        """
        return self.blobs.received(upload)

    def forget_upload(self, upload: str) -> None:
        """Give up an upload with what has arrived of it, and its room in the quota; one not known is no error.

        :raises UploadConflictError: its connection is ending at this very moment.
        :raises TransferError: the key is malformed.
        """
        self._uploads.forget(upload)

    # what is here

    def ref(self, artifact_id: str) -> ArtifactRef:
        """Return the reference of an artifact, also of one that has expired and is not removed yet.

        :raises NotStoredError: there is none.
        :raises TransferError: the id is malformed.
        """
        return self._catalogue.get(artifact_id)

    def list(self, *, owner_agent_id: str | None = None) -> builtins.list[ArtifactRef]:
        """Return all references, by id, also of those that have expired and are not removed yet.

        :param owner_agent_id: only those of this owner.
        """
        refs = self._catalogue.all()
        if owner_agent_id is None:
            return refs
        return [ref for ref in refs if ref.owner_agent_id == owner_agent_id]

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open the content of an artifact, unbuffered and seekable, at its beginning.

        It stays readable when the artifact is deleted meanwhile.

        What comes from a backend has no file descriptor, and its reads raise `NotStoredError`, `WrongContentError` and
        `StorageUnavailableError`.

        :raises NotStoredError: there is none, it has expired, or its content was lost.
        :raises TransferError: the id is malformed.
        """
        return self._registry.open(self._registry.served(artifact_id))

    def blob_path(self, artifact_id: str) -> Path:
        """Return the file with the content of an artifact; nobody may write to it. It is fetched, where need be.

        :raises NotStoredError: there is none, it has expired, or its content was lost.
        :raises TransferError: the id is malformed.
        """
        return self._registry.path(self._registry.served(artifact_id))

    def export_to_path(
        self, artifact_id: str, target: str | Path, *, expected_sha256: str | None = None
    ) -> ArtifactRef:
        """Write the content of an artifact to a file, durably, and return the reference.

        The file, whose directories are created, is the old one or the complete new one at any time.

        :param expected_sha256: the checksum that it must have, in hex of either case.
        :raises NotStoredError: there is no artifact, it has expired, or its content was lost.
        :raises WrongContentError: it has another checksum.
        :raises TransferError: the id is malformed, the target is anything but a regular file, or it cannot be written.
        """
        ref = self._registry.served(artifact_id)
        if expected_sha256 and checked_sha256(expected_sha256) != ref.sha256:
            raise WrongContentError(f"artifact {artifact_id} has checksum {ref.sha256}, not {expected_sha256}")
        destination = Path(target).expanduser().absolute()
        with self.open_reader(artifact_id) as source:
            what = f"Artifact {artifact_id} cannot be written"
            try:
                with replacing_target(destination, what) as stream, Digest(ref.size_bytes) as digest:
                    while piece := source.read(STREAM_CHUNK_BYTES):
                        digest.update(piece)
                        stream.write(piece)
                    digest.close()
                    if stream.tell() != ref.size_bytes or digest.hexdigest() != ref.sha256:
                        raise WrongContentError(f"artifact {artifact_id} changed while it was read")
            except OSError as error:
                raise io_error(what, destination, error) from error
        return ref

    # removing

    def delete(self, artifact_id: str) -> None:
        """Remove an artifact, and its content where nobody else wants that; nothing there is no error.

        :raises TransferError: the id is malformed, or the disk refuses.
        """
        with suppress(NotStoredError):
            self._registry.remove(self._catalogue.get(artifact_id))

    def delete_owner(self, owner_agent_id: str) -> None:
        """Remove all artifacts of one owner.

        :raises TransferError: the disk refuses.
        """
        for ref in self.list(owner_agent_id=owner_agent_id):
            self._registry.remove(ref)

    def cleanup_temporary(self, *, now: float | None = None) -> None:
        """Remove expired artifacts and uploads that nobody resumed, and see to what is not on disk for sure.

        :param now: Unix seconds; None asks the clock.
        """
        now = self._clock() if now is None else now
        self._registry.remove_expired(now)
        self.blobs.sweep(now=now, part_seconds=self.spool_ttl_seconds)
        self._uploads.tidy()
        if self._depot is not None:
            self._depot.sweep()
            self._registry.bring_in_all()
        lost = set(self.blobs.settle(most_bytes=_SETTLE_BYTES, most=_SETTLE_BLOBS))
        for ref in self.list() if lost else ():
            if ref.sha256 in lost:
                self._registry.lost(ref)

    def close(self) -> None:
        """Let go of the backend, if there is one; what needs it fails from now on."""
        if self._depot is not None:
            self._depot.close()

    # inside

    def _check_size(self, size: int) -> None:
        if self.max_artifact_bytes and size > self.max_artifact_bytes:
            raise TooLargeError(
                f"Artifact of {size:,} bytes is larger than the maximum of {self.max_artifact_bytes:,} bytes"
            )


def _filled(writer: ArtifactWriter, pieces: Iterable[bytes]) -> ArtifactWriteResult:
    with writer:
        for piece in pieces:
            writer.write(piece)
        return writer.finish()


def _pieces(source: Any) -> Iterator[bytes]:
    while piece := source.read(STREAM_CHUNK_BYTES):
        yield piece
