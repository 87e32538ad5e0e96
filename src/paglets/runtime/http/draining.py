"""The routes that empty a host."""

from __future__ import annotations

from paglets.runtime.http import bodies, replies
from paglets.runtime.http.answers import answer
from paglets.runtime.http.documented import node_of
from paglets.runtime.http.routing import Answer, Request, Route, get, post


@get("/admin/drain", summary="How far a drain is", reply=replies.DrainReply)
async def progress(request: Request) -> Answer:
    """Return whether this host drains, and what became of its paglets so far."""
    return answer(node_of(request).drain.status())


@post("/admin/drain", summary="Empty this host", reply=replies.DrainReply)
async def begin(request: Request, data: bodies.DrainBody | None = None) -> Answer:
    """Begin to move every paglet to other hosts or to put it to sleep, and take nothing new in; returns at once."""
    wanted = data or bodies.DrainBody()
    return answer(node_of(request).drain.begin(wanted.to, wanted.timeout))


@post("/admin/undrain", summary="Take paglets in again", reply=replies.DrainReply)
async def undo(request: Request) -> Answer:
    """End a drain, also one that is under way; what has moved stays where it is."""
    return answer(await node_of(request).drain.undo())


ROUTES: list[Route] = [progress, begin, undo]
