"""Blobs in S3-compatible object storage, with botocore, the extra `paglets[s3]`.

Every object is written with its checksum in the signed request, so that the server refuses bytes that changed on the
way. What is larger than one part is uploaded in parts, which nobody sees before the last step; parts that a dead
process left are removed by the sweep. Keys begin with an id of the host's own, so that two hosts never share an object.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import botocore.session
from botocore.config import Config

from paglets.artifacts.errors import NotStoredError, WrongContentError
from paglets.artifacts.s3_bodies import FilePart, TimeBudget
from paglets.artifacts.s3_errors import FOREIGN_ERRORS, keep_secrets_out_of_logs, meaning
from paglets.artifacts.s3_location import S3Location
from paglets.core.errors import HostError, PagletError, StorageUnavailableError

__all__ = ["S3Backend"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

PIECE_BYTES: Final = 1024 * 1024
_PART_BYTES: Final = 32 * 1024 * 1024
# Amazon takes ten times as many; some others do not.
_MOST_PARTS: Final = 1000
_AT_ONCE: Final = 4
_STEP_BYTES: Final = 4 * 1024 * 1024
_SHA256_DIGITS: Final = 64


class S3Backend:
    """Keep the blobs of one host below a prefix in a bucket.

    Credentials are found where AWS tools look for them: environment, shared files, container, instance. They are looked
    up with the first request.

    :param store_id: what tells the host's objects from those of others below the same prefix.
    :param connect_timeout: seconds until a connection stands.
    :param read_timeout: seconds without a byte after which a request is given up.
    :param attempts: how often a request is tried before it has failed.
    :param least_rate: bytes per second under which a transfer is given up as well, after `read_timeout`.
    :param part_bytes: size of the parts in which large objects are written; S3 wants 5 MB or more.
    :param step_bytes: size of the parts in which they are read, of which four are in memory for each reader.
    """

    def __init__(
        self,
        location: S3Location,
        store_id: str,
        *,
        connect_timeout: float = 5.0,
        read_timeout: float = 20.0,
        attempts: int = 3,
        least_rate: int = 64 * 1024,
        part_bytes: int = _PART_BYTES,
        step_bytes: int = _STEP_BYTES,
    ) -> None:
        self._place = location
        self._prefix = f"{location.prefix}/{store_id}/" if location.prefix else f"{store_id}/"
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._attempts = attempts
        self._least_rate = least_rate
        self._part_bytes = part_bytes
        self._step_bytes = step_bytes
        self._lock = threading.Lock()
        self._client: Any = None
        self._closed = threading.Event()
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="paglets-s3")
        self._uploads: set[str] = set()
        self._begin_upload = threading.Lock()

    @property
    def location(self) -> str:
        """The address, and the part of it that is this host's."""
        return f"{self._place} ({self._prefix})"

    def put(self, sha256: str, path: Path) -> None:
        """Store a file; see `BlobBackend`."""
        key = self._key(sha256)
        with path.open("rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            if size <= self._part_bytes:
                self._send("store a blob", "put_object", FilePart(stream, 0, size, self._budget(size)), Key=key)
            else:
                self._put_in_parts(key, stream, size)
        if (found := self.size(sha256)) != size:
            raise StorageUnavailableError(f"{self._place} has {found} of {size} bytes of a blob just stored there")

    def read(self, sha256: str, start: int = 0, length: int | None = None) -> Generator[bytes, None, None]:
        """Give a part of a blob; see `BlobBackend`. What is large comes over several connections, 16 MB ahead."""
        if length is None:
            size = self.size(sha256)
            if size is None:
                raise NotStoredError(f"{self._place} has no blob {sha256}")
            length = max(0, size - start)
        end = start + length
        if length <= self._step_bytes:
            yield from self._read_range(sha256, start, end)
            return
        ahead: deque[Future[bytes]] = deque()
        try:
            while ahead or start < end:
                while start < end and len(ahead) < _AT_ONCE:
                    step = min(self._step_bytes, end - start)
                    ahead.append(self._submit(partial(self._read_step, sha256, start, start + step)))
                    start += step
                content = ahead.popleft().result()
                for at in range(0, len(content), PIECE_BYTES):
                    yield content[at : at + PIECE_BYTES]
        finally:
            for future in ahead:
                future.cancel()

    def size(self, sha256: str) -> int | None:
        """Return the size of a blob or None; see `BlobBackend`."""
        key = self._key(sha256)
        try:
            return int(self._ask("look for a blob", "head_object", Key=key)["ContentLength"])
        except NotStoredError:
            # The answer has no body: it may be the bucket that is missing.
            self._ask("look for a blob", "list_objects_v2", Prefix=key, MaxKeys=1)
            return None

    def delete(self, sha256: str) -> None:
        """Remove a blob; see `BlobBackend`."""
        with suppress(NotStoredError):
            self._ask("delete a blob", "delete_object", Key=self._key(sha256))

    def blobs(self) -> Iterator[tuple[str, int]]:
        """Give every blob; see `BlobBackend`."""
        further: dict[str, str] = {}
        while True:
            page = self._ask("list blobs", "list_objects_v2", Prefix=self._prefix, **further)
            for entry in page.get("Contents", ()):
                sha256 = entry["Key"].rpartition("/")[2]
                if entry["Key"] == self._key(sha256) and len(sha256) == _SHA256_DIGITS:
                    yield sha256, int(entry["Size"])
            if not page.get("IsTruncated"):
                return
            further = {"ContinuationToken": page["NextContinuationToken"]}

    def sweep(self) -> int:
        """Remove what broken uploads left; see `BlobBackend`."""
        # No upload begins meanwhile, and nobody else has keys with this prefix: one that is not known here is nobody's.
        with self._begin_upload:
            found: list[dict[str, Any]] = []
            further: dict[str, str] = {}
            while True:
                page = self._ask("list uploads", "list_multipart_uploads", Prefix=self._prefix, **further)
                found += page.get("Uploads", ())
                if not page.get("IsTruncated"):
                    break
                further = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
            left = [entry for entry in found if entry["UploadId"] not in self._uploads]
        for entry in left:
            with suppress(NotStoredError):
                self._ask("end an upload", "abort_multipart_upload", Key=entry["Key"], UploadId=entry["UploadId"])
        return len(left)

    def close(self) -> None:
        """Let go of everything; see `BlobBackend`."""
        self._closed.set()
        with self._lock:
            client, self._client = self._client, None
        self._threads.shutdown(cancel_futures=True)
        if client is not None:
            client.close()

    # uploads and downloads in parts

    def _put_in_parts(self, key: str, stream: BinaryIO, size: int) -> None:
        step = max(self._part_bytes, -(-size // _MOST_PARTS))
        with self._begin_upload:
            upload = str(self._ask("store a blob", "create_multipart_upload", Key=key)["UploadId"])
            self._uploads.add(upload)
        try:
            jobs = [
                partial(self._put_part, key, upload, number, stream, start, min(step, size - start))
                for number, start in enumerate(range(0, size, step), 1)
            ]
            parts = {"Parts": self._at_once(jobs)}
            self._ask("store a blob", "complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload=parts)
        except BaseException:
            try:
                self._ask("end an upload", "abort_multipart_upload", Key=key, UploadId=upload)
            except PagletError as exc:
                logger.info("the parts of a broken upload stay until the next sweep: %s", exc)
            raise
        finally:
            self._uploads.discard(upload)

    def _put_part(
        self, key: str, upload: str, number: int, stream: BinaryIO, start: int, length: int
    ) -> dict[str, Any]:
        body = FilePart(stream, start, length, self._budget(length))
        answer = self._send("store a blob", "upload_part", body, Key=key, UploadId=upload, PartNumber=number)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _read_step(self, sha256: str, start: int, end: int) -> bytes:
        return b"".join(self._read_range(sha256, start, end))

    def _read_range(self, sha256: str, start: int, end: int) -> Generator[bytes, None, None]:
        budget = self._budget(end - start)
        failures = 0
        while start < end:
            try:
                for piece in self._pieces(sha256, start, end, budget):
                    start += len(piece)
                    failures = 0
                    yield piece
            except StorageUnavailableError:
                # What has come is kept; a connection may break, but not again and again without a byte.
                failures += 1
                if failures == self._attempts or budget.exhausted:
                    raise

    def _pieces(self, sha256: str, start: int, end: int, budget: TimeBudget) -> Generator[bytes, None, None]:
        answer = self._ask("read a blob", "get_object", Key=self._key(sha256), Range=f"bytes={start}-{end - 1}")
        left = end - start
        with closing(answer["Body"]) as body:
            if int(answer["ContentLength"]) != left:
                raise WrongContentError(
                    f"{self._place} has {answer['ContentLength']} of the {left} bytes asked for of blob {sha256}"
                )
            while left:
                began = time.monotonic()
                try:
                    # Not `body.read`: that waits for a full piece, however slowly its bytes come.
                    piece: bytes = body._raw_stream.read1(min(left, PIECE_BYTES))
                except FOREIGN_ERRORS as exc:
                    raise meaning(exc, "read a blob", str(self._place)) from exc
                budget.spend(time.monotonic() - began)
                if not piece:
                    raise StorageUnavailableError(f"{self._place} ended a blob {left} bytes early")
                left -= len(piece)
                yield piece

    def _at_once(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        if len(jobs) == 1:
            return [jobs[0]()]
        futures = [self._submit(job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            return [future.result() for future in futures if future.done()]
        finally:
            for future in futures:
                future.cancel()
            wait(futures)

    def _submit(self, job: Callable[[], T]) -> Future[T]:
        self._connected()  # says so when this is closed
        return self._threads.submit(job)

    # requests

    def _send(self, doing: str, operation: str, body: FilePart, **parameters: Any) -> Any:
        try:
            return self._ask(doing, operation, Body=body, **parameters)
        except StorageUnavailableError:
            if body.budget.exhausted:
                raise body.budget.error() from None
            raise

    def _ask(self, doing: str, operation: str, **parameters: Any) -> Any:
        try:
            return getattr(self._connected(), operation)(Bucket=self._place.bucket, **parameters)
        except FOREIGN_ERRORS as exc:
            raise meaning(exc, doing, str(self._place)) from exc

    def _connected(self) -> Any:
        with self._lock:
            self._check_open()
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> Any:
        keep_secrets_out_of_logs()
        session = botocore.session.Session()
        # A request that failed is not tried again while the host stops.
        session.register("before-send.s3", self._check_open)
        region = self._place.region or session.get_config_variable("region") or os.environ.get("AWS_REGION")
        return session.create_client(
            "s3",
            region_name=region or "us-east-1",
            endpoint_url=self._place.endpoint or None,
            config=Config(
                signature_version="s3v4",
                connect_timeout=self._connect_timeout,
                read_timeout=self._read_timeout,
                retries={"mode": "standard", "total_max_attempts": self._attempts},
                max_pool_connections=2 * _AT_ONCE,
                tcp_keepalive=True,
                # Further checksums are not understood everywhere; that of the body is part of the signature.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"payload_signing_enabled": True, "addressing_style": "path" if self._place.endpoint else "auto"},
            ),
        )

    def _key(self, sha256: str) -> str:
        return f"{self._prefix}{sha256[:2]}/{sha256}"

    def _budget(self, size: int) -> TimeBudget:
        return TimeBudget(self._read_timeout + size / self._least_rate, str(self._place), self._closed)

    def _check_open(self, **_about: Any) -> None:
        if self._closed.is_set():
            raise HostError(f"{self._place} is closed, as its host is")
