"""The routes of managed services: how they are, and leases on them."""

from __future__ import annotations

from typing import Annotated

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter

from paglets.runtime.http import bodies, replies
from paglets.runtime.http.answers import Answer, answer
from paglets.runtime.http.documented import JsonRequest, documented, node_of

LeaseId = Annotated[str, PathParameter(description="Id of a lease.", max_length=256)]


@get("/services/resident", summary="The managed services of this host", responses=documented(replies.ResidentsReply))
async def residents(request: JsonRequest) -> Answer:
    """Return how each managed service is, whether it runs or not."""
    return answer({"services": node_of(request).residents.overview()})


@post("/services/leases", status_code=200, summary="Lease a managed service", responses=documented(replies.LeaseReply))
async def acquire(request: JsonRequest, data: JSONBody[bodies.LeaseBody]) -> Answer:
    """Have a managed service of this host up, and keep it so for ``ttl`` seconds."""
    return answer(await node_of(request).leases.give(data.agent_id, data.service_name, data.ttl))


@post(
    "/services/leases/{lease_id:str}/release",
    status_code=200,
    summary="Give a lease back",
    responses=documented(replies.ReleasedReply),
)
async def release(request: JsonRequest, lease_id: LeaseId) -> Answer:
    """Let a managed service sleep again; an unknown lease is no error."""
    return answer({"released": node_of(request).leases.release(lease_id)})


ROUTES: list[HTTPRouteHandler] = [residents, acquire, release]
