"""Send files to hosts, over connections that may break in the middle.

This is synchronous; the asynchronous client runs it on threads. An upload above 64 MB carries a key of its own, under
which the host keeps what has arrived, so that it goes on there after a break.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from paglets.artifacts import ArtifactRef
from paglets.artifacts.compression import encodings, sample_of, worth_compressing
from paglets.core.errors import HostUnreachableError, PagletError, RemoteHostError, TransferError
from paglets.remote import artifact_requests
from paglets.remote.content import CompressedBody, ContentSource, FileBody, changed, open_source
from paglets.remote.content_calls import BROKEN, Breaks, ContentCalls, Terms
from paglets.remote.lan import is_loopback

__all__ = ["RESUMABLE_BYTES", "Compress", "Upload", "Uploads"]

RESUMABLE_BYTES: Final = 64 * 1024 * 1024
"""Uploads above this size are resumed after a break."""

Compress = Literal["auto", "always", "never"]
"""Whether content is compressed for the way: where it pays, whenever the host can, or not at all."""

# Bodies up to this size leave with their head, and may be sent again on another connection.
_SMALL_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What is to be stored on a host."""

    host_url: str
    path: Path
    name: str
    owner_agent_id: str = ""
    compression: str = ""
    expires_at: float = 0.0
    expected_sha256: str | None = None
    compress: Compress = "auto"


class Uploads(ContentCalls):
    """Send the content of artifacts and blobs."""

    def upload(self, upload: Upload, terms: Terms) -> ArtifactRef:
        """Send a file and return the reference to what the host stored: the same bytes.

        :raises TransferError: there is no such file, it changed meanwhile, or something else was stored.
        """
        with (
            open_source(upload.path) as stream,
            ContentSource(stream, upload.path, hashing=not upload.expected_sha256) as content,
        ):
            url, reply = self._send(upload, content, terms)
            ref = artifact_requests.artifact_from_reply(reply, upload.host_url, url)
            try:
                content.check_unchanged()
                artifact_requests.check_upload(ref, size=content.size, sha256=upload.expected_sha256 or content.sha256)
            except TransferError:
                self.discard(artifact_requests.artifact_url(ref.host_url, ref.artifact_id), terms)
                raise
        return ref

    def _send(self, upload: Upload, content: ContentSource, terms: Terms) -> tuple[str, object]:
        compressed = self._compresses(upload.host_url, upload.compress, content, terms)
        key = secrets.token_hex(16) if content.size > RESUMABLE_BYTES else ""
        breaks = Breaks(terms)
        offset = 0
        try:
            while True:
                url = self._upload_url(upload, content, key, offset)
                try:
                    return url, self._send_part("POST", url, content, offset, terms, compressed=compressed)
                except BROKEN as exc:
                    # One that was never reached is not waited for.
                    if not key or (isinstance(exc, HostUnreachableError) and not breaks.count):
                        raise
                    offset = self._arrived(upload.host_url, key, exc, breaks, terms)
        except BaseException:
            if key:
                self.discard(artifact_requests.upload_part_url(upload.host_url, key), terms)
            raise

    def _arrived(self, host_url: str, key: str, error: RemoteHostError, breaks: Breaks, terms: Terms) -> int:
        """Return how much of an upload has arrived, as soon as the host can be asked again."""
        cause = error
        url = artifact_requests.upload_part_url(host_url, key)
        while True:
            breaks.survive(cause, breaks.furthest)
            try:
                reply = self.call("GET", url, b"", terms)
            except BROKEN as exc:
                cause = exc
            except PagletError as exc:
                # Another kind of host, which keeps nothing of what breaks off.
                raise error from exc
            else:
                offset = artifact_requests.offset_of(reply, url)
                breaks.advance(offset)
                return offset

    def _compresses(self, host_url: str, compress: Compress, content: ContentSource, terms: Terms) -> bool:
        """Tell whether a file is to be compressed for the way."""
        if compress == "never" or not encodings():
            return False
        # Within one machine nothing is slower than a compressor.
        if compress == "auto" and (
            is_loopback(host_url) or not worth_compressing(sample_of(content.path, content.size))
        ):
            return False
        health = self.call("GET", f"{host_url.rstrip('/')}/health", b"", terms)
        return "zstd" in artifact_requests.encodings_of(health)

    def _upload_url(self, upload: Upload, content: ContentSource, key: str, offset: int) -> str:
        return artifact_requests.upload_url(
            upload.host_url,
            owner_agent_id=upload.owner_agent_id,
            name=upload.name,
            compression=upload.compression,
            expires_at=upload.expires_at,
            size=content.size,
            expected_sha256=upload.expected_sha256,
            upload=key,
            offset=offset,
        )

    def put_blob(
        self,
        host_url: str,
        sha256: str,
        source: Path,
        size: int,
        *,
        offset: int,
        holder: str,
        compress: Compress,
        terms: Terms,
    ) -> None:
        """Send a blob, from an offset on, to a host that keeps it for a holder.

        :raises TransferError: the file is not the blob.
        """
        with open_source(source) as stream, ContentSource(stream, source, hashing=False) as content:
            if content.size != size:
                raise TransferError(f"{source} has {content.size} bytes instead of the {size} of blob {sha256}")
            url = artifact_requests.blob_url(host_url, sha256, holder=holder, size=size, offset=offset)
            compressed = self._compresses(host_url, compress, content, terms)
            self._send_part("PUT", url, content, offset, terms, compressed=compressed)
            content.check_unchanged()

    def _send_part(
        self, method: str, url: str, content: ContentSource, offset: int, terms: Terms, *, compressed: bool
    ) -> object:
        """Send a file from an offset on and return the answer."""
        stream, path, count = content.stream, content.path, content.size - offset
        if compressed:
            zstd = CompressedBody(stream, path, offset, count, terms.progress)
            return self.call(method, url, zstd, terms, headers={"Content-Encoding": "zstd"})
        if count > _SMALL_BYTES:
            return self.call(method, url, FileBody(stream, path, offset, count, terms.progress), terms, count)
        stream.seek(offset)
        data = stream.read(count)
        if len(data) != count:
            raise changed(path)
        reply = self.call(method, url, data, terms, count)
        if terms.progress is not None:
            terms.progress(content.size, content.size)
        return reply
