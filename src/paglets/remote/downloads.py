"""Fetch the content of artifacts, over connections that may break in the middle.

This is synchronous; the asynchronous client runs it on threads. After a break a download goes on with a range of the
very same content, which its checksum names.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

from paglets.artifacts import ArtifactRef
from paglets.artifacts.hashing import PIECES_HELD
from paglets.artifacts.streams import replacing_target
from paglets.core.errors import RemoteHostError, TransferError
from paglets.remote import artifact_requests
from paglets.remote.connections import BodyTooLargeError
from paglets.remote.content import PIECE_BYTES, ContentSink
from paglets.remote.content_calls import BROKEN, Breaks, ContentCalls, Terms
from paglets.remote.exchanges import FAILURES, failure
from paglets.remote.fabric import Answer

__all__ = ["Downloads"]

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


class Downloads(ContentCalls):
    """Receive the content of artifacts."""

    def download(self, ref: ArtifactRef, target: Path, terms: Terms, *, durable: bool) -> None:
        """Write an artifact of known size and checksum to a file, which appears complete and verified or not at all.

        :param durable: have it on disk before returning.
        :raises TransferError: size or checksum are not those of the artifact, the target is anything but a regular
            file, or it cannot be written.
        """
        url = artifact_requests.artifact_url(ref.host_url, ref.artifact_id)
        with replacing_target(target, f"Artifact {ref.artifact_id} cannot be written", durable=durable) as stream:
            with ContentSink(ref, stream, target) as sink:
                announced = self._fetch_all(url, ref, sink, terms)
            sink.check(announced)

    def _fetch_all(self, url: str, ref: ArtifactRef, sink: ContentSink, terms: Terms) -> str | None:
        breaks = Breaks(terms)
        while True:
            try:
                return self._fetch(url, ref, sink, terms)
            except BROKEN as exc:
                if not sink.size:
                    raise
                breaks.survive(exc, sink.size)

    def _fetch(self, url: str, ref: ArtifactRef, sink: ContentSink, terms: Terms) -> str | None:
        """Receive what a sink lacks of an artifact; return the checksum that the host announced."""
        headers = {}
        if sink.size:
            headers = {"Range": f"bytes={sink.size}-", "If-Range": f'"{ref.sha256}"'}
        response = self.answer(url, headers, terms)
        try:
            if response.status == 200:
                # From the beginning, because the host knows no ranges, or has other content, which will show.
                sink.restart()
            elif _range_of(response, url)[0] != sink.size:
                raise RemoteHostError(f"{url} answered with another range than the one that was asked for")
            self._receive(response, url, sink, ref.size_bytes, terms)
            return response.headers.get(artifact_requests.SHA256_HEADER)
        finally:
            self.close(response, terms)

    def _receive(self, response: Answer, url: str, sink: ContentSink, total: int, terms: Terms) -> None:
        pieces = response.lent_pieces(PIECE_BYTES, PIECES_HELD)
        while True:
            try:
                piece = next(pieces, None)
            except FAILURES as exc:
                raise failure(exc, url, terms.seconds) from exc
            if piece is None:
                return
            sink.write(piece)
            if terms.progress is not None:
                terms.progress(sink.size, total)

    def read(self, ref: ArtifactRef, start: int, length: int | None, terms: Terms) -> bytes:
        """Return a part of an artifact, less where it ends earlier.

        :param length: in bytes, None for the rest.
        :raises TransferError: it is more than may be read into memory.
        """
        if start < 0 or (length is not None and length < 0):
            raise ValueError("start and length of a part must not be negative")
        if length == 0:
            return b""
        most = self.max_response_bytes
        if length is not None and length > most:
            raise TransferError(f"{length} bytes are more than the {most} that are read into memory; download the file")
        url = artifact_requests.artifact_url(ref.host_url, ref.artifact_id)
        last = "" if length is None else str(start + length - 1)
        response = self.answer(url, {"Range": f"bytes={start}-{last}"}, terms, good=(200, 206, 416))
        try:
            if response.status == 416:
                return b""
            skipped = 0
            if response.status == 206:
                found, end, _ = _range_of(response, url)
                if found != start or (length is not None and end - start >= length):
                    raise RemoteHostError(f"{url} answered with another range than the one that was asked for")
            else:
                skipped = start
            try:
                data = response.read(most)
            except BodyTooLargeError as exc:
                raise TransferError(f"{url}: {exc} that are read into memory; download the file") from exc
            except FAILURES as exc:
                raise failure(exc, url, terms.seconds) from exc
            if ref.sha256 and len(data) == ref.size_bytes and hashlib.sha256(data).hexdigest() != ref.sha256.lower():
                raise TransferError(f"artifact {ref.artifact_id}: received content with another checksum")
            return data[skipped : None if length is None else skipped + length]
        finally:
            self.close(response, terms)


def _range_of(response: Answer, url: str) -> tuple[int, int, int]:
    """Return first byte, last byte and size of the whole that a partial answer names."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if match is None:
        raise RemoteHostError(f"{url} answered with a range that it does not name")
    return int(match[1]), int(match[2]), int(match[3])
