"""The routes for what paglets may use up."""

from __future__ import annotations

from paglets.runtime.http import bodies, replies
from paglets.runtime.http.answers import answer
from paglets.runtime.http.documented import AgentId, node_of
from paglets.runtime.http.routing import Answer, Request, Route, get, post


@get(
    "/agents/{agent_id}/allowance",
    summary="What a paglet has left of its allowance",
    reply=replies.AllowanceReply,
)
async def show(request: Request, agent_id: AgentId) -> Answer:
    """Return what it has used, and what is left."""
    balance = node_of(request).allowances.balance(agent_id)
    return answer({"agent_id": agent_id, "allowance": balance.to_wire()})


@post(
    "/agents/{agent_id}/allowance",
    summary="Change what a paglet has left",
    reply=replies.AllowanceReply,
)
async def grant(request: Request, agent_id: AgentId, data: bodies.GrantBody) -> Answer:
    """Grant more, or leave less, and return what it has left then; one that was held may wake again."""
    balance = await node_of(request).allowances.grant(agent_id, data.grant())
    return answer({"agent_id": agent_id, "allowance": balance.to_wire()})


ROUTES: list[Route] = [show, grant]
