"""The routes by which a paglet is found: where it was, where it is, and what its home host is told."""

from __future__ import annotations

from paglets.runtime.http import bodies, replies
from paglets.runtime.http.answers import answer
from paglets.runtime.http.documented import AgentId, node_of
from paglets.runtime.http.routing import Answer, Request, Route, get, post


@get(
    "/agents/{agent_id}/journey",
    summary="What became of a paglet on this host",
    reply=replies.JourneyReply,
)
async def journey(request: Request, agent_id: AgentId) -> Answer:
    """Return the entries of this host's ledger, oldest first, and the hosts before and after it; none of a stranger."""
    node = node_of(request)
    return answer(await node.kernel.on_disk(node.ledger.journey, agent_id))


@get(
    "/agents/{agent_id}/location",
    summary="Where a paglet is, as far as this host knows",
    reply=replies.WhereaboutsReply,
)
async def location(request: Request, agent_id: AgentId) -> Answer:
    """Return its host and its home; the host is null when this host does not know, or the paglet ended."""
    return answer(await node_of(request).locate(agent_id))


@post(
    "/homes/{agent_id}",
    summary="Tell where a paglet is that was created here",
    reply=replies.OkReply,
)
async def hear_of(request: Request, agent_id: AgentId, data: bodies.NewsBody) -> Answer:
    """Note it, unless something newer is known; null as host means that it ended."""
    await node_of(request).hear_of(agent_id, data.epoch, data.host_url)
    return answer({"ok": True})


ROUTES: list[Route] = [journey, location, hear_of]
