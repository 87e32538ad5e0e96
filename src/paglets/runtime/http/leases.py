"""The routes of managed services: how they are, and leases on them."""

from __future__ import annotations

from typing import Annotated

import msgspec

from paglets.runtime.http import bodies, replies
from paglets.runtime.http.answers import answer
from paglets.runtime.http.documented import node_of
from paglets.runtime.http.routing import Answer, Request, Route, get, post

LeaseId = Annotated[str, msgspec.Meta(description="Id of a lease.", max_length=256)]


@get("/services/resident", summary="The managed services of this host", reply=replies.ResidentsReply)
async def residents(request: Request) -> Answer:
    """Return how each managed service is, whether it runs or not."""
    return answer({"services": node_of(request).residents.overview()})


@post("/services/leases", summary="Lease a managed service", reply=replies.LeaseReply)
async def acquire(request: Request, data: bodies.LeaseBody) -> Answer:
    """Have a managed service of this host up, and keep it so for ``ttl`` seconds."""
    return answer(await node_of(request).leases.give(data.agent_id, data.service_name, data.ttl))


@post(
    "/services/leases/{lease_id}/release",
    summary="Give a lease back",
    reply=replies.ReleasedReply,
)
async def release(request: Request, lease_id: LeaseId) -> Answer:
    """Let a managed service sleep again; an unknown lease is no error."""
    return answer({"released": node_of(request).leases.release(lease_id)})


ROUTES: list[Route] = [residents, acquire, release]
