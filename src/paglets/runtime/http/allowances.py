"""The routes for what paglets may use up."""

from __future__ import annotations

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from paglets.runtime.http import bodies, replies
from paglets.runtime.http.answers import Answer, answer
from paglets.runtime.http.documented import AgentId, JsonRequest, documented, node_of


@get(
    "/agents/{agent_id:str}/allowance",
    summary="What a paglet has left of its allowance",
    responses=documented(replies.AllowanceReply),
)
async def show(request: JsonRequest, agent_id: AgentId) -> Answer:
    """Return what it has used, and what is left."""
    balance = node_of(request).allowances.balance(agent_id)
    return answer({"agent_id": agent_id, "allowance": balance.to_wire()})


@post(
    "/agents/{agent_id:str}/allowance",
    status_code=200,
    summary="Change what a paglet has left",
    responses=documented(replies.AllowanceReply),
)
async def grant(request: JsonRequest, agent_id: AgentId, data: JSONBody[bodies.GrantBody]) -> Answer:
    """Grant more, or leave less, and return what it has left then; one that was held may wake again."""
    balance = await node_of(request).allowances.grant(agent_id, data.grant())
    return answer({"agent_id": agent_id, "allowance": balance.to_wire()})


ROUTES: list[HTTPRouteHandler] = [show, grant]
