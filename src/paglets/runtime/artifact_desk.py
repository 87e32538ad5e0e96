"""Artifacts for the paglets of a host: those of the host itself are reached directly, others through its client."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from paglets.artifacts import ArtifactRef
from paglets.artifacts.depot_reader import DepotReader
from paglets.artifacts.errors import NotStoredError
from paglets.artifacts.store import ArtifactStore
from paglets.core.errors import TransferError
from paglets.remote.aio import AsyncHostClient
from paglets.runtime.content_threads import ContentThreads

Arguments = dict[str, Any]


class ArtifactDesk:
    """Do what a paglet asks of artifacts anywhere.

    :param client: reaches other hosts.
    :param is_own: tells which URLs are those of this host.
    """

    def __init__(
        self, store: ArtifactStore, threads: ContentThreads, client: AsyncHostClient, is_own: Callable[[str], bool]
    ) -> None:
        self._store = store
        self._threads = threads
        self._client = client
        self._is_here = is_own

    async def upload(self, arguments: Arguments) -> Arguments:
        """Store a file and return the reference."""
        url, path, timeout = arguments.pop("host_url"), arguments.pop("path"), arguments.pop("timeout")
        compress = arguments.pop("compress")
        if self._is_here(url):
            result = await self._threads.with_store(
                self._store, partial(self._store.create_from_path, path, **arguments)
            )
            return result.ref.to_wire()
        ref = await self._client.upload_artifact(url, path, timeout=timeout, compress=compress, **arguments)
        return ref.to_wire()

    async def download(self, arguments: Arguments) -> Arguments:
        """Fetch an artifact into a file and return its reference."""
        ref, target, move = ArtifactRef.from_wire(arguments["artifact"]), arguments["target"], arguments["move"]
        if self._is_here(ref.host_url):
            found = await self._threads.with_store(self._store, export, self._store, ref, Path(target))
            if move:
                await self._threads.with_store(self._store, self._store.delete, ref.artifact_id)
            return found.to_wire()
        timeout = arguments["timeout"]
        return (await self._client.download_artifact(ref, target, move=move, timeout=timeout)).to_wire()

    async def read(self, arguments: Arguments) -> bytes:
        """Return a part of an artifact."""
        ref = ArtifactRef.from_wire(arguments["artifact"])
        start, length = arguments["start"], arguments["length"]
        if self._is_here(ref.host_url):
            read = self._threads.reach if self._store.remote else self._threads.look
            return await read(read_part, self._store, ref.artifact_id, start, length, self._client.max_response_bytes)
        return await self._client.read_artifact(ref, start=start, length=length, timeout=arguments["timeout"])

    async def delete(self, arguments: Arguments) -> None:
        """Delete an artifact; one that is gone is no error."""
        ref = ArtifactRef.from_wire(arguments["artifact"])
        if self._is_here(ref.host_url):
            await self._threads.with_store(self._store, self._store.delete, ref.artifact_id)
        else:
            await self._client.delete_artifact(ref, timeout=arguments["timeout"])


def export(store: ArtifactStore, ref: ArtifactRef, target: Path) -> ArtifactRef:
    """Write an artifact of a store to a file, which appears complete and verified or not at all.

    :raises TransferError: there is none, it is not what the reference says, or the file cannot be written.
    """
    return store.export_to_path(ref.artifact_id, target, expected_sha256=ref.sha256 or None)


def served(store: ArtifactStore, artifact_id: str) -> ArtifactRef:
    """Return the reference of an artifact that may be had.

    :raises NotStoredError: there is none, or it has expired.
    """
    ref = store.ref(artifact_id)
    if 0 < ref.expires_at <= time.time():
        raise NotStoredError(f"No artifact {artifact_id} any more: it has expired")
    return ref


def read_part(store: ArtifactStore, artifact_id: str, start: int, length: int | None, most: int) -> bytes:
    """Return a part of an artifact of a store, less where it ends earlier.

    :param most: bytes that may be read into memory.
    :raises TransferError: it is more than that, or there is no such artifact.
    """
    if start < 0 or (length is not None and length < 0):
        raise ValueError("start and length of a part must not be negative")
    with store.open_reader(artifact_id) as stream:
        left = max(0, store.ref(artifact_id).size_bytes - start)
        count = left if length is None else min(left, length)
        if count > most:
            raise TransferError(f"{count} bytes are more than the {most} that are read into memory; download the file")
        if isinstance(stream, DepotReader):
            stream.begin(start, start + count)
        stream.seek(start)
        pieces = []
        while count and (piece := stream.read(count)):
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)
