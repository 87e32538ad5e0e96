"""The routes by which a host that moves a paglet here brings the large files of it ahead."""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec
from litestar import post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter, QueryParameter

from paglets.artifacts.blobs import BlobStore, BlobWriter
from paglets.core.errors import SerializationError
from paglets.runtime import faults
from paglets.runtime.http import replies
from paglets.runtime.http.answers import Answer, answer
from paglets.runtime.http.artifacts import announced_size, fill, taken
from paglets.runtime.http.documented import ContentOperation, JsonRequest, documented, node_of
from paglets.runtime.http.guards import Scope

MOST_BLOBS = 4096
_LARGEST = 2**53
_LONGEST_SECONDS = 86_400.0
#: How long a blob is held that came without a question before it.
HOLD_SECONDS = 600.0

Holder = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
# A pair, as far as a schema can say so.
Item = Annotated[list[str | int], msgspec.Meta(min_length=2, max_length=2, description="Checksum and size of a blob.")]


class MissingBody(msgspec.Struct, kw_only=True):
    """Which blobs are going to be needed, and for how long they are to be kept."""

    holder: Holder
    seconds: Annotated[float, msgspec.Meta(ge=0, le=_LONGEST_SECONDS)]
    blobs: Annotated[list[Item], msgspec.Meta(max_length=MOST_BLOBS)]


@post(
    "/blobs/missing",
    status_code=200,
    summary="Which blobs this host lacks",
    responses=documented(replies.MissingReply),
)
async def missing(request: JsonRequest, data: JSONBody[MissingBody]) -> Answer:
    """Keep those that are here for the holder, and return the others, each with how many bytes of it have arrived."""
    node = node_of(request)
    wanted = [checksum_of(item) for item in data.blobs]
    return answer({"missing": await node.content.look(_missing, node.blobs, data.holder, wanted, data.seconds)})


def checksum_of(item: list[str | int]) -> str:
    """Return the checksum of a blob that is named with its size.

    :raises SerializationError: it is not.
    """
    match item:
        case [str(sha256), int(size)] if size >= 0:
            return sha256
    raise SerializationError("blobs: expected pairs of a checksum and a number of bytes")


def _missing(blobs: BlobStore, holder: str, wanted: list[str], seconds: float) -> list[list[Any]]:
    return [[sha256, blobs.received(sha256)] for sha256 in blobs.hold(holder, wanted, seconds=seconds)]


@put(
    "/blobs/{sha256:str}",
    status_code=200,
    summary="Bring a blob",
    operation_class=ContentOperation,
    responses=documented(replies.OkReply),
)
async def bring(
    request: JsonRequest,
    sha256: Annotated[str, PathParameter(description="Its checksum, 64 hex digits.", max_length=1024)],
    holder: Annotated[str, QueryParameter(min_length=1, max_length=256, description="Whom it is kept for.")],
    size: Annotated[int, QueryParameter(ge=0, le=_LARGEST, description="Its bytes in all.")],
    offset: Annotated[int, QueryParameter(ge=0, le=_LARGEST, description="Bytes of it that are here already.")] = 0,
) -> Answer:
    """Store the body, of any type, as a blob or as the rest of one; it may be compressed for the way.

    It is verified and on disk when the answer comes. What has arrived of one that breaks off is kept for a while.
    """
    node, scope = node_of(request), cast(Scope, request.scope)

    async def store() -> dict[str, Any]:
        node.kernel.config.policy.check_file(sha256, size)
        if not await node.content.look(node.blobs.hold, holder, [sha256], seconds=HOLD_SECONDS):
            return {"ok": True}
        writer: BlobWriter = await node.content.move(
            node.blobs.receive,
            sha256=sha256,
            size=announced_size(scope, size, offset),
            key=sha256,
            offset=offset,
            durable=True,
            take_over=True,
        )
        await fill(request, writer, node.content, size - offset)
        if faults.ARMED:
            faults.reached("target.blob-received")
        await node.content.move(writer.commit, durable=True)
        if faults.ARMED:
            faults.reached("target.blob-stored")
        return {"ok": True}

    return await taken(request, store())


ROUTES: list[HTTPRouteHandler] = [missing, bring]
