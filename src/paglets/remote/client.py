"""Talk to hosts over HTTP from any thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import quote, urlparse

from paglets.artifacts import ArtifactRef
from paglets.core.errors import (
    ConnectionLostError,
    PagletError,
    RemoteHostError,
    RemoteTimeoutError,
    TransferError,
)
from paglets.persistence.atomic import make_directories, replacing
from paglets.remote import requests
from paglets.remote.connections import (
    BodyTooLargeError,
    ConnectionPool,
    ConnectTimeoutError,
    Deadline,
    NotSentError,
    Origin,
    PoolOptions,
    ProtocolError,
    Request,
    Response,
)
from paglets.remote.content import ContentSink, ContentSource, local_path, open_source
from paglets.remote.following import Following
from paglets.remote.pursuit import NotConnectedError
from paglets.remote.whereabouts import learn_creation

if TYPE_CHECKING:
    import ssl
    from types import TracebackType
    from typing import Self

__all__ = ["HostClient", "split_url", "urlparse"]

_PORTS: Final = {"http": 80, "https": 443}
_PATH_CHARACTERS: Final = "/%:@!$&'()*+,;=~?"
# What reading and writing a connection can raise.
_FAILURES: Final = (OSError, UnicodeError, ProtocolError, BodyTooLargeError)


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
    """

    def __init__(
        self,
        timeout: float = requests.DEFAULT_TIMEOUT_SECONDS,
        *,
        api_key: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        max_response_bytes: int = requests.DEFAULT_MAX_RESPONSE_BYTES,
        pool: PoolOptions | None = None,
    ) -> None:
        super().__init__()
        self.timeout = timeout
        self.api_key = api_key
        self.max_response_bytes = max_response_bytes
        self.connections = ConnectionPool(pool, ssl_context=ssl_context)

    def close(self) -> None:
        """Close the idle connections; a later call works, on a connection of its own."""
        self.connections.close()

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
    ) -> ArtifactRef:
        """Stream a file to a host and return the reference to what it stored.

        The content is verified on both sides: the checksum of the bytes sent must be that of the bytes stored.

        :param name: name of the artifact, the file name by default.
        :param compression: label that is only stored.
        :param expires_at: Unix seconds, 0 for never.
        :param expected_sha256: what the host must find; computed from the file by default.
        :param timeout: seconds that the host may stall, the client's by default.
        :raises TransferError: there is no such file, it changed meanwhile, or something else was stored.
        """
        source = local_path(path)
        with open_source(source) as stream:
            content = ContentSource(stream, source, hashing=not expected_sha256)
            url = requests.upload_url(
                host_url,
                owner_agent_id=owner_agent_id,
                name=source.name if name is None else name,
                compression=compression,
                expires_at=expires_at,
                size=content.size,
                expected_sha256=expected_sha256,
            )
            reply = self._call("POST", url, content, "application/octet-stream", timeout, length=content.size)
        ref = requests.artifact_from_reply(reply, host_url, url)
        try:
            requests.check_upload(ref, size=content.size, sha256=expected_sha256 or content.sha256)
        except TransferError:
            self._delete_quietly(ref)
            raise
        return ref

    def download_artifact(
        self,
        artifact: ArtifactRef | str,
        target: str | Path,
        artifact_id: str | None = None,
        *,
        move: bool = False,
        timeout: float | None = None,
    ) -> ArtifactRef:
        """Stream an artifact into a file and return its reference.

        The file appears complete, verified and on disk, or not at all; its directory is created.

        :param artifact: the reference, or the URL of the host together with `artifact_id`.
        :param move: delete the artifact from its host afterwards.
        :param timeout: seconds that the host may stall, the client's by default.
        :raises ValueError: a URL was given without `artifact_id`.
        :raises TransferError: size or checksum are not those of the artifact.
        """
        ref = requests.locate_artifact(artifact, artifact_id, "download_artifact")
        if not ref.sha256:
            ref = self.artifact_metadata(ref.host_url, ref.artifact_id, timeout=timeout)
        destination = local_path(target)
        make_directories(destination.parent)
        with replacing(destination) as stream:
            self._download(ref, stream, timeout)
        if move:
            self.delete_artifact(ref, timeout=timeout)
        return ref

    def artifact_metadata(self, host_url: str, artifact_id: str, *, timeout: float | None = None) -> ArtifactRef:
        """Return what a host knows about an artifact.

        :raises PagletError: the host has no such artifact.
        """
        url = requests.artifact_url(host_url, artifact_id, "metadata")
        return requests.artifact_from_reply(self.get_json(url, timeout=timeout), host_url, url)

    def list_artifacts(
        self, host_url: str, *, owner_agent_id: str | None = None, timeout: float | None = None
    ) -> list[ArtifactRef]:
        """Return the artifacts of a host, or those of one owner."""
        url = requests.list_url(host_url, owner_agent_id)
        return requests.artifacts_from_reply(self.get_json(url, timeout=timeout), host_url, url)

    def delete_artifact(
        self, artifact: ArtifactRef | str, artifact_id: str | None = None, *, timeout: float | None = None
    ) -> None:
        """Delete an artifact; one that is gone already is no error.

        :param artifact: the reference, or the URL of the host together with `artifact_id`.
        :raises ValueError: a URL was given without `artifact_id`.
        """
        ref = requests.locate_artifact(artifact, artifact_id, "delete_artifact")
        self._call("DELETE", requests.artifact_url(ref.host_url, ref.artifact_id), b"", "", timeout)

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
        deadline = Deadline(self.timeout if timeout is None else timeout, whole=not streamed, connecting=connecting)
        if isinstance(body, bytes) and method != "GET":
            length = len(body)
        request = _request(method, url, body, content_type, api_key, length)
        try:
            response = self.connections.exchange(request, deadline)
            try:
                status, data = response.status, response.read(self.max_response_bytes)
            finally:
                response.close()
        except _FAILURES as exc:
            raise _failure(exc, url, deadline.seconds) from exc
        return requests.decode_reply(status, data, url, has_key=bool(api_key))

    def _download(self, ref: ArtifactRef, stream: BinaryIO, timeout: float | None) -> None:
        url = requests.artifact_url(ref.host_url, ref.artifact_id)
        deadline = Deadline(self.timeout if timeout is None else timeout, whole=False)
        request = _request("GET", url, b"", "", self.api_key, None)
        try:
            response = self.connections.exchange(request, deadline)
        except _FAILURES as exc:
            raise _failure(exc, url, deadline.seconds) from exc
        try:
            if response.status != 200:
                data = b"".join(_received(response, url, deadline, limit=self.max_response_bytes))
                requests.decode_reply(response.status, data, url, has_key=bool(self.api_key))
                raise RemoteHostError(f"{url} answered HTTP {response.status} instead of the artifact")
            with ContentSink(ref, stream) as sink:
                for piece in _received(response, url, deadline):
                    sink.write(piece)
            sink.check(response.headers.get(requests.SHA256_HEADER))
        finally:
            response.close()

    def _delete_quietly(self, ref: ArtifactRef) -> None:
        try:
            self.delete_artifact(ref)
        except PagletError:
            # The caller is about to hear the reason for deleting it, which matters more.
            return


def _received(response: Response, url: str, deadline: Deadline, *, limit: int | None = None) -> Iterator[bytes]:
    """Yield the body of a response with its failures translated, those of the consumer left alone."""
    pieces = iter((response.read(limit),)) if limit is not None else response.pieces()
    while True:
        try:
            piece = next(pieces, None)
        except _FAILURES as exc:
            raise _failure(exc, url, deadline.seconds) from exc
        if piece is None:
            return
        yield piece


def _failure(exc: Exception, url: str, seconds: float) -> RemoteHostError:
    match exc:
        case ConnectTimeoutError():
            return RemoteTimeoutError(f"Could not reach {url}: no connection within {seconds:g} s")
        case TimeoutError():
            return RemoteTimeoutError(f"No answer from {url} within {seconds:g} s")
        case BodyTooLargeError() | ProtocolError():
            return RemoteHostError(f"Could not read the answer of {url}: {exc}")
        case NotSentError():
            return NotConnectedError(f"Could not reach {url}: {exc}")
        case _:
            return ConnectionLostError(f"Lost the connection to {url}: {str(exc) or type(exc).__name__}")


@lru_cache(maxsize=1024)
def split_url(url: str) -> tuple[Origin, str, str]:
    """Return server, Host header and request target of a URL; raise `ValueError` if it names no HTTP resource."""
    parts = urlparse(url)
    port = _PORTS.get(parts.scheme)
    if port is None:
        raise ValueError("only http and https URLs can be called")
    if not parts.hostname or parts.username is not None:
        raise ValueError("the URL must name a host, and no user")
    authority = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    target = quote(f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/", safe=_PATH_CHARACTERS)
    if not authority.isprintable() or " " in authority:
        raise ValueError("the URL holds characters that a host name cannot have")
    return Origin(parts.scheme, parts.hostname, parts.port or port), authority, target


def _request(
    method: str,
    url: str,
    body: bytes | Iterable[bytes | memoryview],
    content_type: str,
    api_key: str | None,
    length: int | None,
) -> Request:
    try:
        origin, authority, target = split_url(url)
    except ValueError as exc:
        raise RemoteHostError(f"Could not reach {url}: {exc}") from exc
    lines = [
        f"{method} {target} HTTP/1.1\r\nHost: {authority}\r\nAccept: application/json\r\nAccept-Encoding: identity\r\n"
    ]
    if api_key:
        lines.append(f"Authorization: Bearer {requests.checked_key(api_key)}\r\n")
    if content_type:
        lines.append(f"Content-Type: {content_type}\r\n")
    chunked = length is None and not isinstance(body, bytes)
    if chunked:
        lines.append("Transfer-Encoding: chunked\r\n")
    elif length is not None:
        lines.append(f"Content-Length: {length}\r\n")
    lines.append("\r\n")
    return Request(method, origin, "".join(lines).encode("ascii"), body, chunked)
