"""Artifacts on their way into the store, and the room that is reserved for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Self

from paglets.artifacts.blobs import Blob, BlobStore, BlobWriter
from paglets.artifacts.errors import UploadConflictError
from paglets.artifacts.quota import Quota
from paglets.artifacts.refs import ArtifactWriteResult

#: What is reserved at a time for a body of unknown length.
STEP_BYTES: Final = 8 * 1024 * 1024
_LABEL: Final = "artifact"


class Reservation:
    """The bytes that are reserved for one upload. Safe for threads: an upload that goes on elsewhere takes it over."""

    def __init__(self, quota: Quota, count: int, most: int | None) -> None:
        """Own bytes that are reserved already.

        :param count: how many these are.
        :param most: how many the upload may have at most.
        """
        self._quota = quota
        self._most = most
        self._lock = threading.Lock()
        self._count = count
        self._over = False

    def cover(self, needed: int, *, ahead: int = 0) -> None:
        """Have at least so many bytes reserved. More than an upload may have is left to its writer to refuse.

        :param ahead: reserve so much more than that where the quota has it.
        :raises NoRoomError: the quota does not have the room.
        :raises UploadConflictError: another upload has taken the reservation over.
        """
        if self._most is not None and needed > self._most:
            return
        bare, ample = needed, needed + ahead if self._most is None else min(needed + ahead, self._most)
        with self._lock:
            if self._over:
                raise UploadConflictError("this upload is continued by another connection")
            if bare <= self._count:
                return
            if self._quota.try_reserve(ample - self._count):
                self._count = ample
            else:
                self._quota.reserve(bare - self._count)
                self._count = bare

    def hand_over(self) -> int:
        """End, and return how many bytes are reserved, which are the caller's now; none the second time."""
        with self._lock:
            self._over = True
            count, self._count = self._count, 0
            return count


class ArtifactWriter:
    """Receive one artifact. Its methods block on the disk; any thread may call them, one at a time does.

    Use it as a context: what is not finished at the end is removed, or kept where the upload may be resumed.
    """

    def __init__(
        self,
        writer: BlobWriter,
        reservation: Reservation,
        artifact_id: str,
        finished: Callable[[Blob, int], ArtifactWriteResult],
        ended: Callable[[ArtifactWriter], None],
    ) -> None:
        """Take over a writer and what is reserved for it; see `ArtifactStore.begin`.

        :param finished: makes the artifact of a blob that is kept for it and what was reserved.
        :param ended: hears that the writer has ended, in whatever way.
        """
        self.key = writer.key
        self.reservation = reservation
        self._ahead = STEP_BYTES if writer.announced.size < 0 else 0
        self._artifact_id = artifact_id
        self._writer = writer
        self._finished = finished
        self._ended = ended

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.keep()

    @property
    def offset(self) -> int:
        """Return how many bytes were received up to now, with those of earlier connections."""
        return self._writer.offset

    def write(self, data: bytes | bytearray | memoryview, *, held: bool = False) -> int:
        """Take the next bytes and return how many they were.

        :param held: they stay as they are until `PIECES_HELD` more pieces were written; others are copied.
        :raises TransferError: there are more than announced or accepted, the quota or the disk takes no more, or the
            upload has ended. Unless another connection continues it, all that was received is removed.
        """
        try:
            self.reservation.cover(self.offset + memoryview(data).nbytes, ahead=self._ahead)
            return self._writer.write(data, held=held)
        except BaseException:
            self.abort()
            raise

    def finish(self) -> ArtifactWriteResult:
        """Make it an artifact, now that all of it is here.

        :raises TransferError: its length or checksum is not the announced one, or the disk does not take it. A short
            content that may be resumed stays; everything else is removed.
        """
        try:
            blob = self._writer.commit(durable=False, owner=self._artifact_id)
            return self._finished(blob, self.reservation.hand_over())
        finally:
            self._ended(self)

    def keep(self) -> None:
        """End, and leave what is here for an upload that goes on; without a key nothing stays."""
        self._writer.keep()
        self._ended(self)

    def abort(self) -> None:
        """End, and remove what is here."""
        self._writer.abort()
        self._ended(self)


class Uploads:
    """The uploads under way and the broken ones, each with its room in the quota. Safe for threads."""

    def __init__(self, quota: Quota, blobs: BlobStore) -> None:
        self._quota = quota
        self._blobs = blobs
        self._lock = threading.Lock()
        self._live: dict[str, ArtifactWriter] = {}
        self._kept: dict[str, int] = {}
        """Bytes reserved for broken uploads, by key."""

    def restore(self) -> None:
        """Reserve the room of what an earlier process received in part."""
        for part in self._blobs.waiting():
            if part.announced.label == _LABEL:
                self._kept[part.key] = part.received
                self._quota.restore(part.received)

    def begin(
        self,
        sha256: str,
        size: int,
        most: int | None,
        key: str,
        offset: int,
        artifact_id: str,
        finished: Callable[[Blob, int], ArtifactWriteResult],
    ) -> ArtifactWriter:
        """Return the writer of an upload; see `ArtifactStore.begin`."""
        with self._lock:
            before = self._live.pop(key, None)
            count = self._kept.pop(key, 0)
        if before is not None:
            count += before.reservation.hand_over()
        reservation = Reservation(self._quota, count, most)
        try:
            reservation.cover(max(size, offset))
            writer = self._blobs.receive(
                sha256=sha256,
                size=size,
                limit=most,
                key=key,
                offset=offset,
                label=_LABEL,
                durable=False,
                take_over=True,
            )
        except BaseException:
            self._settle(key, reservation)
            raise
        upload = ArtifactWriter(writer, reservation, artifact_id, finished, self._ended)
        if key:
            with self._lock:
                self._live[key] = upload
        return upload

    def forget(self, key: str) -> None:
        """Give up an upload, broken or under way; what is no upload of an artifact is left alone.

        :raises TransferError: the key is malformed.
        """
        if self._blobs.received(key) and self._received(key):
            self._blobs.forget(key)
            self.tidy()

    def tidy(self) -> None:
        """Give back the room of broken uploads that are gone."""
        waiting = {part.key for part in self._blobs.waiting()}
        with self._lock:
            gone = [self._kept.pop(key) for key in list(self._kept) if key not in waiting]
        self._quota.release(sum(gone))

    def _ended(self, upload: ArtifactWriter) -> None:
        with self._lock:
            if self._live.get(upload.key) is upload:
                del self._live[upload.key]
        self._settle(upload.key, upload.reservation)

    def _settle(self, key: str, reservation: Reservation) -> None:
        """Give back what an upload that ended does not need: all but the bytes that are kept for resuming."""
        with self._lock:
            count = reservation.hand_over()
            kept = 0
            if key and key not in self._live:
                count += self._kept.pop(key, 0)
                kept = self._received(key)
                if kept:
                    self._kept[key] = kept
            self._quota.release(count - kept)

    def _received(self, key: str) -> int:
        # A malformed key is what the upload failed for, and that of another user of the store is none of ours.
        part = self._blobs.part(key)
        return part.received if part is not None and part.announced.label == _LABEL else 0
