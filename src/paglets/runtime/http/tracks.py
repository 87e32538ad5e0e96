"""The routes by which a paglet is found: where it was, where it is, and what its home host is told."""

from __future__ import annotations

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from paglets.runtime.http import bodies, replies
from paglets.runtime.http.answers import Answer, answer
from paglets.runtime.http.documented import AgentId, JsonRequest, documented, node_of


@get(
    "/agents/{agent_id:str}/journey",
    summary="What became of a paglet on this host",
    responses=documented(replies.JourneyReply),
)
async def journey(request: JsonRequest, agent_id: AgentId) -> Answer:
    """Return the entries of this host's ledger, oldest first, and the hosts before and after it; none of a stranger."""
    node = node_of(request)
    return answer(await node.kernel.on_disk(node.ledger.journey, agent_id))


@get(
    "/agents/{agent_id:str}/location",
    summary="Where a paglet is, as far as this host knows",
    responses=documented(replies.WhereaboutsReply),
)
async def location(request: JsonRequest, agent_id: AgentId) -> Answer:
    """Return its host and its home; the host is null when this host does not know, or the paglet ended."""
    return answer(await node_of(request).locate(agent_id))


@post(
    "/homes/{agent_id:str}",
    status_code=200,
    summary="Tell where a paglet is that was created here",
    responses=documented(replies.OkReply),
)
async def hear_of(request: JsonRequest, agent_id: AgentId, data: JSONBody[bodies.NewsBody]) -> Answer:
    """Note it, unless something newer is known; null as host means that it ended."""
    await node_of(request).hear_of(agent_id, data.epoch, data.host_url)
    return answer({"ok": True})


ROUTES: list[HTTPRouteHandler] = [journey, location, hear_of]
