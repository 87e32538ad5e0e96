"""The artifacts and blobs of hosts for `async` code.

Content goes through threads of the client, at most 16 at a time: reading, hashing and sending files blocks on the disk
anyway, and at the speed of a disk an event loop would have no time for anything else.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from paglets.artifacts import ArtifactRef
from paglets.remote import artifact_requests
from paglets.remote.connections import ConnectionPool
from paglets.remote.content import Progress, local_path
from paglets.remote.content_calls import Terms
from paglets.remote.downloads import Downloads
from paglets.remote.fabric import Fabric
from paglets.remote.sockets import Stop
from paglets.remote.uploads import Compress, Upload, Uploads

if TYPE_CHECKING:
    import ssl

__all__ = ["AsyncArtifacts"]

_MOST_TRANSFERS: Final = 16

T = TypeVar("T")


class AsyncArtifacts:
    """What a client does with artifacts and blobs; see the methods of the same names of `HostClient`."""

    timeout: float
    api_key: str | None
    max_response_bytes: int
    ssl_context: ssl.SSLContext | None

    def __init__(self) -> None:
        super().__init__()
        self._threads: ThreadPoolExecutor | None = None
        self._content: Fabric | None = None
        self._content_fabric: Fabric | None = None
        self._stops: set[Stop] = set()

    @abstractmethod
    async def get_json(self, url: str, *, timeout: float | None = None) -> Any:
        """Get a URL and return the decoded JSON."""

    @abstractmethod
    async def post_json(self, url: str, payload: dict[str, Any], *, timeout: float | None = None) -> Any:
        """Post a dict as JSON and return the decoded answer."""

    # --- artifacts -------------------------------------------------------------------------------------------------

    async def upload_artifact(
        self,
        host_url: str,
        path: str | Path,
        *,
        owner_agent_id: str = "",
        name: str | None = None,
        compression: str = "",
        expires_at: float = 0.0,
        expected_sha256: str | None = None,
        timeout: float | None = None,
        progress: Progress | None = None,
        compress: Compress = "auto",
    ) -> ArtifactRef:
        """Stream a file to a host and return the reference to what it stored; see `HostClient.upload_artifact`."""
        source = local_path(path)
        upload = Upload(
            host_url=host_url,
            path=source,
            name=source.name if name is None else name,
            owner_agent_id=owner_agent_id,
            compression=compression,
            expires_at=expires_at,
            expected_sha256=expected_sha256,
            compress=compress,
        )
        return await self._transfer(lambda terms: self._uploads().upload(upload, terms), timeout, progress)

    async def download_artifact(
        self,
        artifact: ArtifactRef | str,
        target: str | Path,
        artifact_id: str | None = None,
        *,
        move: bool = False,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> ArtifactRef:
        """Stream an artifact into a file and return its reference; see `HostClient.download_artifact`."""
        ref = artifact_requests.locate_artifact(artifact, artifact_id, "download_artifact")
        if not ref.sha256:
            ref = await self.artifact_metadata(ref.host_url, ref.artifact_id, timeout=timeout)
        destination = local_path(target)
        await self._transfer(
            lambda terms: self._downloads().download(ref, destination, terms, durable=move), timeout, progress
        )
        if move:
            await self.delete_artifact(ref, timeout=timeout)
        return ref

    async def read_artifact(
        self,
        artifact: ArtifactRef | str,
        artifact_id: str | None = None,
        *,
        start: int = 0,
        length: int | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """Return a part of an artifact; see `HostClient.read_artifact`."""
        ref = artifact_requests.locate_artifact(artifact, artifact_id, "read_artifact")
        return await self._transfer(lambda terms: self._downloads().read(ref, start, length, terms), timeout, None)

    async def artifact_metadata(self, host_url: str, artifact_id: str, *, timeout: float | None = None) -> ArtifactRef:
        """Return what a host knows about an artifact; see `HostClient.artifact_metadata`."""
        url = artifact_requests.artifact_url(host_url, artifact_id, "metadata")
        return artifact_requests.artifact_from_reply(await self.get_json(url, timeout=timeout), host_url, url)

    async def list_artifacts(
        self, host_url: str, *, owner_agent_id: str | None = None, timeout: float | None = None
    ) -> list[ArtifactRef]:
        """Return the artifacts of a host, or those of one owner."""
        url = artifact_requests.list_url(host_url, owner_agent_id)
        return artifact_requests.artifacts_from_reply(await self.get_json(url, timeout=timeout), host_url, url)

    async def delete_artifact(
        self, artifact: ArtifactRef | str, artifact_id: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Delete an artifact; one that is gone already is no error; see `HostClient.delete_artifact`."""
        ref = artifact_requests.locate_artifact(artifact, artifact_id, "delete_artifact")
        url = artifact_requests.artifact_url(ref.host_url, ref.artifact_id)
        await self._delete(url, timeout)

    @abstractmethod
    async def _delete(self, url: str, timeout: float | None) -> None:
        """Delete what is at a URL."""

    # --- blobs -----------------------------------------------------------------------------------------------------

    async def missing_blobs(
        self,
        host_url: str,
        holder: str,
        blobs: Sequence[tuple[str, int]],
        *,
        seconds: float,
        timeout: float | None = None,
    ) -> list[tuple[str, int]]:
        """Return which blobs a host lacks, each with how much of it has arrived; it keeps the others for a while.

        :param holder: name under which they are kept.
        :param blobs: checksum and size of each, at most 4,096.
        :param seconds: how long the host keeps them for the holder.
        :raises PagletError: what the host answered.
        """
        url = f"{host_url.rstrip('/')}/blobs/missing"
        payload = {"holder": holder, "seconds": seconds, "blobs": [list(blob) for blob in blobs]}
        return artifact_requests.missing_from_reply(await self.post_json(url, payload, timeout=timeout), url)

    async def put_blob(
        self,
        host_url: str,
        sha256: str,
        source: Path,
        size: int,
        *,
        offset: int = 0,
        holder: str,
        compress: Compress = "auto",
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send a blob to a host, which has it on disk and keeps it for the holder when this returns.

        A connection that breaks is not retried here: what has arrived is known to `missing_blobs`.

        :param source: a file with exactly this content.
        :param offset: how much of it the host has already.
        :param timeout: seconds that the host may stall, the client's by default.
        :raises TransferError: the file is not the blob, or changed meanwhile.
        :raises PagletError: what the host answered, or what became of the connection.
        """

        def put(terms: Terms) -> None:
            self._uploads().put_blob(
                host_url, sha256, source, size, offset=offset, holder=holder, compress=compress, terms=terms
            )

        await self._transfer(put, timeout, progress)

    # --- threads ---------------------------------------------------------------------------------------------------

    def _uploads(self) -> Uploads:
        return Uploads(self._connections(), self.max_response_bytes)

    def _downloads(self) -> Downloads:
        return Downloads(self._connections(), self.max_response_bytes)

    def _connections(self) -> Fabric:
        if self._content is None:
            self._content = self._content_fabric or ConnectionPool(ssl_context=self.ssl_context)
        return self._content

    async def _transfer(self, work: Callable[[Terms], T], timeout: float | None, progress: Progress | None) -> T:
        """Do something on a thread; when the caller is cancelled, call it off and see it end."""
        loop = asyncio.get_running_loop()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_MOST_TRANSFERS, "paglets-content")
        self._connections()  # made here, where one thread does it
        stop = Stop()

        def tell(done: int, total: int) -> None:
            if progress is not None:
                loop.call_soon_threadsafe(progress, done, total)

        seconds = self.timeout if timeout is None else timeout
        terms = Terms(seconds, self.api_key, None if progress is None else tell, stop)
        self._stops.add(stop)
        running = self._threads.submit(work, terms)
        try:
            return await asyncio.shield(outcome := asyncio.wrap_future(running, loop=loop))
        except asyncio.CancelledError:
            stop.now()
            if not running.cancel():
                await asyncio.wait((outcome,))
                outcome.exception()  # nobody is left who could be told
            raise
        finally:
            self._stops.discard(stop)

    def _end_transfers(self) -> None:
        """Call off what is under way and close the connections of content."""
        for stop in self._stops:
            stop.now()
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False, cancel_futures=True)
        content, self._content = self._content, None
        if content is not None:
            content.close()
