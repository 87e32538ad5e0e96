"""The routes of artifacts: files that a host keeps for others, sent and fetched in streams of constant memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine
from functools import partial
from typing import Annotated, Any, BinaryIO, Final, cast

from litestar import HttpMethod, MediaType, Response, delete, get, post, route
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import PathParameter, QueryParameter
from litestar.types import ASGIApp

from paglets.artifacts import ArtifactRef, ArtifactWriteResult
from paglets.artifacts.compression import Decompressor
from paglets.artifacts.depot_reader import DepotReader
from paglets.artifacts.errors import NotStoredError, WrongContentError
from paglets.artifacts.store import ArtifactStore
from paglets.artifacts.upload import ArtifactWriter
from paglets.core.errors import TransferError
from paglets.remote.artifact_requests import SHA256_HEADER
from paglets.remote.requests import encode_json
from paglets.runtime.artifact_desk import served
from paglets.runtime.content_threads import ContentThreads
from paglets.runtime.http import replies
from paglets.runtime.http.answers import Answer, answer, as_paglet_error, encoded
from paglets.runtime.http.documented import ContentOperation, JsonRequest, documented, node_of, served_by
from paglets.runtime.http.errors import ClientGoneError, described
from paglets.runtime.http.guards import HAS_BODY, Receive, Scope, check_coding, send_json
from paglets.runtime.http.passage import Take
from paglets.runtime.http.ranges import Part, UnsatisfiableError, requested_part
from paglets.runtime.http.streams import Headers, content_length, receive_content, send_content

#: Finished uploads that are remembered, for those whose answer got lost.
MOST_FINISHED: Final = 1000
_LARGEST: Final = 2**53
_TEXT: Final = 4096

ArtifactId = Annotated[str, PathParameter(description="Id of an artifact.", max_length=1024)]
UploadKey = Annotated[str, PathParameter(description="Key of an upload, 32 to 64 hex digits.", max_length=1024)]


class FinishedUploads:
    """Remember which artifact an upload became, so that who did not hear of it does not make another.

    Between its last byte and that an upload may have to wait for storage elsewhere, longer than its sender does.
    """

    def __init__(self) -> None:
        self._refs: OrderedDict[str, ArtifactRef] = OrderedDict()
        self._ending: dict[str, tuple[int, asyncio.Task[ArtifactWriteResult]]] = {}

    async def finish(self, key: str, size: int, work: Coroutine[Any, Any, ArtifactWriteResult]) -> ArtifactRef:
        """Make an artifact of an upload that is all here, and remember it if it has a key."""
        if not key:
            return (await work).ref
        key = key.lower()
        ending = asyncio.get_running_loop().create_task(work)
        self._ending[key] = size, ending
        try:
            ref = (await asyncio.shield(ending)).ref
        finally:
            del self._ending[key]
        self._refs[key] = ref
        if len(self._refs) > MOST_FINISHED:
            self._refs.popitem(last=False)
        return ref

    def size(self, key: str) -> int | None:
        """Return how many bytes an upload has that is all here and no artifact yet."""
        found = self._ending.get(key.lower())
        return None if found is None else found[0]

    async def ended(self, key: str, store: ArtifactStore) -> ArtifactRef | None:
        """Return the artifact of an upload, which is waited for if all of it is here; None if there is none.

        :raises PagletError: it could not be stored.
        """
        found = self._ending.get(key.lower())
        return self.get(key, store) if found is None else (await asyncio.shield(found[1])).ref

    def get(self, key: str, store: ArtifactStore) -> ArtifactRef | None:
        """Return the artifact of an upload, if it is still there."""
        ref = self._refs.get(key.lower())
        if ref is None:
            return None
        try:
            return store.ref(ref.artifact_id)
        except NotStoredError:
            return None


# --- up ---------------------------------------------------------------------------------------------------------------


@post(
    "/artifacts",
    status_code=200,
    summary="Store an artifact",
    operation_class=ContentOperation,
    responses=documented(replies.ArtifactReply),
)
async def store_artifact(
    request: JsonRequest,
    owner_agent_id: Annotated[str, QueryParameter(max_length=_TEXT, description="Whose it is.")] = "",
    name: Annotated[str, QueryParameter(max_length=_TEXT, description="What it is called; only stored.")] = "",
    compression: Annotated[str, QueryParameter(max_length=_TEXT, description="A label; only stored.")] = "",
    expires_at: Annotated[float, QueryParameter(ge=0, description="Unix seconds, 0 for never.")] = 0.0,
    sha256: Annotated[str, QueryParameter(max_length=64, description="The checksum it must have, in hex.")] = "",
    size: Annotated[int | None, QueryParameter(ge=0, le=_LARGEST, description="The bytes it must have.")] = None,
    upload: Annotated[
        str, QueryParameter(max_length=64, description="A key of the sender's, 32 to 64 hex digits, to go on by.")
    ] = "",
    offset: Annotated[
        int, QueryParameter(ge=0, le=_LARGEST, description="Where the upload with this key goes on.")
    ] = 0,
) -> Answer:
    """Store the body, of any type and length, as an artifact; it may be compressed for the way.

    What is stored is verified before it can be seen. Where the connection of an upload with a key breaks, what has
    arrived is kept for a while.
    """
    node, finished, scope = node_of(request), served_by(request).finished, cast(Scope, request.scope)

    async def store() -> dict[str, Any]:
        known = await finished.ended(upload, node.artifacts) if upload else None
        if known is not None:
            return {"artifact": known.to_wire()}
        total = announced_size(scope, size, offset)
        begin = partial(
            node.artifacts.begin,
            size_bytes=-1 if total is None else total,
            owner_agent_id=owner_agent_id,
            name=name,
            compression=compression,
            expires_at=expires_at,
            expected_sha256=sha256 or None,
            upload=upload,
            offset=offset,
        )
        writer: ArtifactWriter = await node.content.move(begin)
        most = node.artifacts.max_artifact_bytes or _LARGEST
        await fill(request, writer, node.content, (most if total is None else total) - offset)
        ref = await finished.finish(upload, writer.offset, node.content.with_store(node.artifacts, writer.finish))
        return {"artifact": ref.to_wire()}

    return await taken(request, store())


def announced_size(scope: Scope, size: int | None, offset: int) -> int | None:
    """Return how many bytes there will be in all, None where the request does not say.

    :raises WrongContentError: it says two different numbers.
    """
    length = content_length(scope) if scope[HAS_BODY] else 0
    if length is None or coding_of(scope) != b"identity":
        return size
    if size is not None and size != offset + length:
        raise WrongContentError(f"a body of {length:,} bytes at offset {offset:,} does not end at {size:,} bytes")
    return offset + length


def coding_of(scope: Scope) -> bytes:
    """Return how the body is coded, which the guard has checked."""
    headers = dict(scope["headers"])
    return check_coding(headers, (headers.get(b"content-encoding", b"").strip().lower().decode("latin-1"),))


async def fill(request: JsonRequest, writer: Any, threads: ContentThreads, most: int) -> None:
    """Write the body of a request; what breaks off is kept where it may be resumed, what is wrong is removed.

    :param writer: with the methods of `paglets.artifacts.writer.BlobWriter`.
    :param most: bytes that a compressed body may stand for.
    """
    scope, receive = cast(Scope, request.scope), cast(Receive, request.receive)
    try:
        if coding_of(scope) == b"identity":
            await receive_content(scope, receive, partial(writer.write, held=True), threads)
        else:
            frame = await threads.look(Decompressor, most)
            await receive_content(scope, receive, partial(restore, frame, writer.write), threads)
            frame.finish()
    except (TransferError, ValueError):
        await threads.look(writer.abort)
        raise
    except BaseException:
        await threads.look(writer.keep)
        raise


def restore(frame: Decompressor, take: Take, piece: bytes | memoryview) -> None:
    """Have taken what a piece of a compressed body stands for."""
    for plain in frame.feed(piece):
        take(plain)


async def taken(request: JsonRequest, work: Coroutine[Any, Any, dict[str, Any]]) -> Answer:
    """Answer a request whose body is content. After a failure the connection ends, because the rest may still come."""
    try:
        return answer(await work)
    except ClientGoneError:
        return encoded(b"{}")  # that nobody receives
    except Exception as exc:
        status, wire = described(as_paglet_error(request, exc))
        return Response(
            encode_json(wire), media_type=MediaType.JSON, status_code=status, headers={"connection": "close"}
        )


@get(
    "/artifacts/uploads/{key:str}",
    summary="How much of an upload has arrived",
    responses=documented(replies.OffsetReply),
)
async def upload_offset(request: JsonRequest, key: UploadKey) -> Answer:
    """Return where the upload with this key goes on."""
    node = node_of(request)
    known = served_by(request).finished.get(key, node.artifacts)
    if known is not None:
        return answer({"offset": known.size_bytes})
    if (size := served_by(request).finished.size(key)) is not None:
        return answer({"offset": size})
    return answer({"offset": await node.content.look(node.artifacts.upload_offset, key)})


@delete(
    "/artifacts/uploads/{key:str}",
    status_code=200,
    summary="Give up an upload",
    responses=documented(replies.OkReply),
)
async def forget_upload(request: JsonRequest, key: UploadKey) -> Answer:
    """Remove what has arrived of the upload with this key."""
    node = node_of(request)
    await node.content.look(node.artifacts.forget_upload, key)
    return answer({"ok": True})


# --- down -------------------------------------------------------------------------------------------------------------


@get("/artifacts", summary="The artifacts of this host", responses=documented(replies.ArtifactsReply))
async def listing(
    request: JsonRequest,
    owner_agent_id: Annotated[
        str | None, QueryParameter(max_length=_TEXT, description="Only those of this owner.")
    ] = None,
) -> Answer:
    """Return what is known of each, by id."""
    node = node_of(request)
    refs = await node.content.look(node.artifacts.list, owner_agent_id=owner_agent_id)
    return answer({"artifacts": [ref.to_wire() for ref in refs]})


@get(
    "/artifacts/{artifact_id:str}/metadata",
    summary="What is known of an artifact",
    responses=documented(replies.ArtifactReply),
)
async def metadata(request: JsonRequest, artifact_id: ArtifactId) -> Answer:
    """Return its reference."""
    node = node_of(request)
    ref = await node.content.look(served, node.artifacts, artifact_id)
    return answer({"artifact": ref.to_wire()})


@delete(
    "/artifacts/{artifact_id:str}",
    status_code=200,
    summary="Delete an artifact",
    responses=documented(replies.OkReply),
)
async def delete_artifact(request: JsonRequest, artifact_id: ArtifactId) -> Answer:
    """Delete it; one that is not there is no error."""
    node = node_of(request)
    await node.content.with_store(node.artifacts, node.artifacts.delete, artifact_id)
    return answer({"ok": True})


def _content_answers() -> dict[int, ResponseSpec]:
    specs = documented(replies.OkReply)
    for status, text in ((200, "The whole content."), (206, "The part that was asked for.")):
        specs[status] = ResponseSpec(
            bytes, description=text, media_type="application/octet-stream", generate_examples=False
        )
    specs[416] = ResponseSpec(
        replies.ErrorReply, description="the range begins behind the end", generate_examples=False
    )
    return specs


@route(
    "/artifacts/{artifact_id:str}",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    summary="The content of an artifact",
    responses=_content_answers(),
)
async def content(request: JsonRequest, artifact_id: ArtifactId) -> ASGIApp:
    """Return it, or the part that the Range header asks for, with its checksum as ETag; HEAD returns only the head."""
    return await content_answer(request, artifact_id)


async def content_answer(request: JsonRequest, artifact_id: str) -> ASGIApp:
    """Return the application that answers with an artifact.

    :raises NotStoredError: there is none, or it has expired.
    """
    node = node_of(request)
    stream: BinaryIO = await node.content.look(node.artifacts.open_reader, artifact_id)
    try:
        ref = node.artifacts.ref(artifact_id)
        etag = f'"{ref.sha256}"'
        known = request.headers.get("if-range")
        asked = request.headers.get("range") if known in (None, etag) else None
        headers: Headers = [
            (b"content-type", b"application/octet-stream"),
            (b"accept-ranges", b"bytes"),
            (b"etag", etag.encode()),
            (SHA256_HEADER.encode(), ref.sha256.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        try:
            part = requested_part(asked, ref.size_bytes)
        except UnsatisfiableError:
            stream.close()
            return _unsatisfiable(ref, headers)
        if isinstance(stream, DepotReader) and request.method != HttpMethod.HEAD:
            start, end = part or (0, ref.size_bytes)
            await node.content.reach(stream.begin, start, end)
        return ContentAnswer(node.content, stream, ref.size_bytes, part, headers)
    except BaseException:
        stream.close()
        raise


def _unsatisfiable(ref: ArtifactRef, headers: Headers) -> ASGIApp:
    text = f"artifact {ref.artifact_id} has {ref.size_bytes:,} bytes; the range begins behind them"
    body = encode_json({"error_type": TransferError.__name__, "error": text})
    extra = [*headers[1:], (b"content-range", b"bytes */%d" % ref.size_bytes)]

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send_json(send, 416, body, extra=extra)

    return application


class ContentAnswer:
    """Answer with an open file, and close it."""

    def __init__(
        self, threads: ContentThreads, stream: BinaryIO, size: int, part: Part | None, headers: Headers
    ) -> None:
        self._threads = threads
        self._stream = stream
        self._size = size
        self._part = part
        self._headers = headers

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send what was asked for."""
        start, end = self._part or (0, self._size)
        headers = [*self._headers, (b"content-length", b"%d" % (end - start))]
        if self._part is not None:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, self._size)))
        status = 200 if self._part is None else 206
        try:
            if scope["method"] == "HEAD":
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": b""})
            else:
                await send_content(
                    scope, send, self._stream, self._threads, status=status, headers=headers, start=start, end=end
                )
        finally:
            self._stream.close()


ROUTES: list[HTTPRouteHandler] = [
    store_artifact,
    listing,
    upload_offset,
    forget_upload,
    metadata,
    content,
    delete_artifact,
]
