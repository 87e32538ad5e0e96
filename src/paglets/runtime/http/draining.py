"""The routes that empty a host."""

from __future__ import annotations

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from paglets.runtime.http import bodies, replies
from paglets.runtime.http.answers import Answer, answer
from paglets.runtime.http.documented import JsonRequest, documented, node_of


@get("/admin/drain", summary="How far a drain is", responses=documented(replies.DrainReply))
async def progress(request: JsonRequest) -> Answer:
    """Return whether this host drains, and what became of its paglets so far."""
    return answer(node_of(request).drain.status())


@post("/admin/drain", status_code=200, summary="Empty this host", responses=documented(replies.DrainReply))
async def begin(request: JsonRequest, data: JSONBody[bodies.DrainBody | None] = None) -> Answer:
    """Begin to move every paglet to other hosts or to put it to sleep, and take nothing new in; returns at once."""
    wanted = data or bodies.DrainBody()
    return answer(node_of(request).drain.begin(wanted.to, wanted.timeout))


@post("/admin/undrain", status_code=200, summary="Take paglets in again", responses=documented(replies.DrainReply))
async def undo(request: JsonRequest) -> Answer:
    """End a drain, also one that is under way; what has moved stays where it is."""
    return answer(await node_of(request).drain.undo())


ROUTES: list[HTTPRouteHandler] = [progress, begin, undo]
