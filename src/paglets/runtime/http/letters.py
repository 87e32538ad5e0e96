"""The routes for messages that do not go their usual way: those that are withdrawn, and those that nobody received."""

from __future__ import annotations

from typing import Annotated

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter, QueryParameter

from paglets.runtime.dead_letters import MAX_LISTED
from paglets.runtime.http import bodies, replies
from paglets.runtime.http.answers import Answer, answer
from paglets.runtime.http.documented import AgentId, JsonRequest, documented, node_of

LetterId = Annotated[int, PathParameter(description="Id of a dead letter.", ge=0, le=2**53)]
MessageId = Annotated[str, PathParameter(description="Id of a message.", max_length=4096)]


@post(
    "/agents/{agent_id:str}/messages/{message_id:str}/cancel",
    status_code=200,
    summary="Withdraw a message",
    responses=documented(replies.CancelledReply),
)
async def cancel(request: JsonRequest, agent_id: AgentId, message_id: MessageId) -> Answer:
    """Take a message back that waits for its handler; one whose handler has begun is not cancelled."""
    return answer({"cancelled": await node_of(request).cancel_message(agent_id, message_id)})


@get("/dead-letters", summary="Messages that could not be delivered", responses=documented(replies.DeadLettersReply))
async def listing(
    request: JsonRequest,
    since: Annotated[int, QueryParameter(ge=0, le=2**53, description="Only letters with a greater id.")] = 0,
    limit: Annotated[int, QueryParameter(ge=0, le=MAX_LISTED, description="At most so many, oldest first.")] = 100,
    agent: Annotated[str | None, QueryParameter(max_length=1024, description="Only letters to this paglet.")] = None,
) -> Answer:
    """Return letters without their messages, oldest first."""
    letters = node_of(request).letters
    found = await letters.listing(since=since, limit=limit, agent_id=agent)
    return answer({"dead_letters": found, "count": await letters.count()})


@get("/dead-letters/{letter_id:int}", summary="One dead letter", responses=documented(replies.DeadLetterReply))
async def letter(request: JsonRequest, letter_id: LetterId) -> Answer:
    """Return it with its message."""
    return answer(await node_of(request).letters.get(letter_id))


@post(
    "/dead-letters/retry",
    status_code=200,
    summary="Deliver dead letters again",
    responses=documented(replies.RetryReply),
)
async def retry_all(request: JsonRequest, data: JSONBody[bodies.LettersBody | None] = None) -> Answer:
    """Deliver all, or those to one paglet, and return what became of each; what is not accepted stays."""
    wanted = data or bodies.LettersBody()
    report = await node_of(request).letters.retry_all(agent_id=wanted.agent_id, limit=wanted.limit)
    return answer(report.to_wire())


@post("/dead-letters/clear", status_code=200, summary="Forget dead letters", responses=documented(replies.ClearedReply))
async def clear_all(request: JsonRequest, data: JSONBody[bodies.LettersBody | None] = None) -> Answer:
    """Forget all, or those to one paglet."""
    agent_id = None if data is None else data.agent_id
    return answer({"cleared": await node_of(request).letters.clear_all(agent_id=agent_id)})


@post(
    "/dead-letters/{letter_id:int}/retry",
    status_code=200,
    summary="Deliver a dead letter again",
    responses=documented(replies.OkReply),
)
async def retry(request: JsonRequest, letter_id: LetterId) -> Answer:
    """Deliver it; it is gone when it was accepted, and stays when this is answered with an error."""
    await node_of(request).letters.retry(letter_id)
    return answer({"ok": True})


@post(
    "/dead-letters/{letter_id:int}/clear",
    status_code=200,
    summary="Forget a dead letter",
    responses=documented(replies.OkReply),
)
async def clear(request: JsonRequest, letter_id: LetterId) -> Answer:
    """Remove it for good."""
    await node_of(request).letters.clear(letter_id)
    return answer({"ok": True})


ROUTES: list[HTTPRouteHandler] = [cancel, listing, letter, retry_all, clear_all, retry, clear]
