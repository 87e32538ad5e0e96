"""Talk to hosts over HTTP from any thread."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from paglets.artifacts import ArtifactRef
from paglets.remote import artifact_requests, requests
from paglets.remote.connections import ConnectionPool, Deadline, PoolOptions
from paglets.remote.content import Progress, local_path
from paglets.remote.content_calls import Terms
from paglets.remote.downloads import Downloads
from paglets.remote.exchanges import call, request_of, split_url
from paglets.remote.fabric import Fabric
from paglets.remote.following import Following
from paglets.remote.uploads import Compress, Upload, Uploads
from paglets.remote.whereabouts import learn_creation

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self

__all__ = ["HostClient", "split_url", "urlparse"]


class HostClient(Following):
    """Call hosts. One client serves any number of hosts and threads and keeps connections open between calls.

    Errors of a host are raised as the classes of `paglets.core.errors` that it named. `RemoteHostError` also stands for
    a host that cannot be understood, and its subclasses say more: `HostUnreachableError`, the request was never sent;
    `ConnectionLostError` and `RemoteTimeoutError`, it may be carried out all the same. Only http and https URLs are
    called, redirects are not followed.

    A paglet is followed where it goes: `deliver`, `operate` and `agent_info` begin where it was found last, and go on
    as `paglets.remote.pursuit` describes. `routes` holds what is known; it may be looked at and told more.

    :param timeout: seconds for a whole call. For streams of unknown length, that is artifacts and moves, it bounds
        how long the host may stall.
    :param api_key: sent as bearer token with every request; may be assigned later, like `timeout`.
    :param ssl_context: how to verify https hosts; the system's trust store by default.
    :param max_response_bytes: largest JSON answer to accept.
    :param pool: bounds of the connections kept open.
    :param fabric: carries the requests; HTTP over `connections` by default.
    """

    def __init__(
        self,
        timeout: float = requests.DEFAULT_TIMEOUT_SECONDS,
        *,
        api_key: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        max_response_bytes: int = requests.DEFAULT_MAX_RESPONSE_BYTES,
        pool: PoolOptions | None = None,
        fabric: Fabric | None = None,
    ) -> None:
        super().__init__()
        self.timeout = timeout
        self.api_key = api_key
        self.max_response_bytes = max_response_bytes
        self.connections = ConnectionPool(pool, ssl_context=ssl_context)
        self._fabric = fabric

    @property
    def fabric(self) -> Fabric:
        """What carries the requests."""
        return self.connections if self._fabric is None else self._fabric

    def close(self) -> None:
        """Close the idle connections; a later call works, on a connection of its own."""
        self.fabric.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- JSON ---------------------------------------------------------------------------------------------------------

    def get_json(self, url: str, *, timeout: float | None = None) -> Any:
        """Get a URL and return the decoded JSON, None for an empty body.

        :param timeout: seconds for the whole call, the client's by default.
        :raises PagletError: what the host answered, or `RemoteHostError`.
        """
        return self._call("GET", url, b"", "", timeout)

    def post_json(self, url: str, payload: dict[str, Any], *, timeout: float | None = None) -> Any:
        """Post a dict as JSON and return the decoded answer, None for an empty body.

        :param timeout: seconds for the whole call, the client's by default.
        :raises SerializationError: JSON cannot express the payload.
        :raises PagletError: what the host answered, or `RemoteHostError`.
        """
        reply = self._call("POST", url, requests.encode_json(payload), "application/json", timeout)
        learn_creation(self.routes, url, reply)
        return reply

    def post_pickle(self, url: str, payload: dict[str, Any], *, timeout: float | None = None) -> Any:
        """Post a dict in the movement encoding, streamed, and return the decoded JSON answer.

        The encoding carries data only; the name is that of an older one. Large binary values are not copied as a whole.

        :param payload: a list of `paglets.remote.movement` parts under `parts` follows the dict, read while it is sent.
        :param timeout: seconds that the host may stall, the client's by default.
        :raises SerializationError: the payload holds a value that the encoding does not know.
        :raises PagletError: what the host answered, or `RemoteHostError`.
        """
        content_type, pieces = requests.movement_body(payload)
        reply = self._call("POST", url, pieces, content_type, timeout)
        learn_creation(self.routes, url, reply)
        return reply

    # --- artifacts ----------------------------------------------------------------------------------------------------

    def upload_artifact(
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
        """Stream a file to a host and return the reference to what it stored.

        The content is verified on both sides: the checksum of the bytes sent must be that of the bytes stored. Above
        64 MB it goes on where it was when the connection breaks, a limited number of times.

        :param name: name of the artifact, the file name by default.
        :param compression: label that is only stored.
        :param expires_at: Unix seconds, 0 for never.
        :param expected_sha256: what the host must find; computed from the file by default.
        :param timeout: seconds that the host may stall, the client's by default.
        :param progress: called with the bytes that were sent and those there are.
        :param compress: whether to compress for the way: ``auto`` does it where it pays and the host can, ``always``
            wherever the host can, ``never`` not at all. What is stored is the same.
        :raises TransferError: there is no such file, it changed meanwhile, or something else was stored.
        """
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
        return Uploads(self.fabric, self.max_response_bytes).upload(upload, self._terms(timeout, progress))

    def download_artifact(
        self,
        artifact: ArtifactRef | str,
        target: str | Path,
        artifact_id: str | None = None,
        *,
        move: bool = False,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> ArtifactRef:
        """Stream an artifact into a file and return its reference.

        The file appears complete and verified, or not at all; its directory is created. When the connection breaks,
        it goes on where it was, a limited number of times.

        :param artifact: the reference, or the URL of the host together with `artifact_id`.
        :param move: delete the artifact from its host, once the file is safely on disk.
        :param timeout: seconds that the host may stall, the client's by default.
        :param progress: called with the bytes that were received and those there are.
        :raises ValueError: a URL was given without `artifact_id`.
        :raises TransferError: size or checksum are not those of the artifact, or the target cannot be written, or is
            anything but a regular file: a directory, a device or a pipe is not replaced.
        """
        ref = artifact_requests.locate_artifact(artifact, artifact_id, "download_artifact")
        if not ref.sha256:
            ref = self.artifact_metadata(ref.host_url, ref.artifact_id, timeout=timeout)
        downloads = Downloads(self.fabric, self.max_response_bytes)
        downloads.download(ref, local_path(target), self._terms(timeout, progress), durable=move)
        if move:
            self.delete_artifact(ref, timeout=timeout)
        return ref

    def read_artifact(
        self,
        artifact: ArtifactRef | str,
        artifact_id: str | None = None,
        *,
        start: int = 0,
        length: int | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """Return a part of an artifact, less where it ends earlier, nothing behind its end.

        A part cannot be verified; a whole artifact is, where the reference has its checksum.

        :param artifact: the reference, or the URL of the host together with `artifact_id`.
        :param start: first byte.
        :param length: bytes, at most `max_response_bytes`; None for the rest.
        :raises ValueError: `start` or `length` is negative, or a URL was given without `artifact_id`.
        :raises TransferError: it is more than is read into memory, or not what it should be.
        """
        ref = artifact_requests.locate_artifact(artifact, artifact_id, "read_artifact")
        downloads = Downloads(self.fabric, self.max_response_bytes)
        return downloads.read(ref, start, length, self._terms(timeout, None))

    def artifact_metadata(self, host_url: str, artifact_id: str, *, timeout: float | None = None) -> ArtifactRef:
        """Return what a host knows about an artifact.

        :raises PagletError: the host has no such artifact.
        """
        url = artifact_requests.artifact_url(host_url, artifact_id, "metadata")
        return artifact_requests.artifact_from_reply(self.get_json(url, timeout=timeout), host_url, url)

    def list_artifacts(
        self, host_url: str, *, owner_agent_id: str | None = None, timeout: float | None = None
    ) -> list[ArtifactRef]:
        """Return the artifacts of a host, or those of one owner."""
        url = artifact_requests.list_url(host_url, owner_agent_id)
        return artifact_requests.artifacts_from_reply(self.get_json(url, timeout=timeout), host_url, url)

    def delete_artifact(
        self, artifact: ArtifactRef | str, artifact_id: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Delete an artifact; one that is gone already is no error.

        :param artifact: the reference, or the URL of the host together with `artifact_id`.
        :raises ValueError: a URL was given without `artifact_id`.
        """
        ref = artifact_requests.locate_artifact(artifact, artifact_id, "delete_artifact")
        self._call("DELETE", artifact_requests.artifact_url(ref.host_url, ref.artifact_id), b"", "", timeout)

    def _terms(self, timeout: float | None, progress: Progress | None) -> Terms:
        return Terms(self.timeout if timeout is None else timeout, self.api_key, progress)

    # --- transport ----------------------------------------------------------------------------------------------------

    def _call(
        self,
        method: str,
        url: str,
        body: bytes | Iterable[bytes | memoryview],
        content_type: str,
        timeout: float | None,
        *,
        length: int | None = None,
        connecting: float | None = None,
    ) -> Any:
        api_key = self.api_key
        streamed = not isinstance(body, bytes)
        seconds = self.timeout if timeout is None else timeout
        fields, seconds = ({}, seconds) if streamed else requests.relay_terms(url, seconds)
        deadline = Deadline(seconds, whole=not streamed, connecting=connecting)
        if isinstance(body, bytes) and method != "GET":
            length = len(body)
        request = request_of(method, url, body, content_type, api_key, length, fields)
        return call(
            self.fabric,
            request,
            url,
            deadline,
            max_response_bytes=self.max_response_bytes,
            has_key=bool(api_key),
        )
