"""The routes for messages that do not go their usual way: those that are withdrawn, and those that nobody received."""

from __future__ import annotations

from typing import Annotated

import msgspec

from paglets.runtime.dead_letters import MAX_LISTED
from paglets.runtime.http import bodies, replies
from paglets.runtime.http.answers import answer
from paglets.runtime.http.documented import AgentId, node_of
from paglets.runtime.http.routing import Answer, Request, Route, get, post

LetterId = Annotated[int, msgspec.Meta(description="Id of a dead letter.", ge=0, le=2**53)]
MessageId = Annotated[str, msgspec.Meta(description="Id of a message.", max_length=4096)]


@post(
    "/agents/{agent_id}/messages/{message_id}/cancel",
    summary="Withdraw a message",
    reply=replies.CancelledReply,
)
async def cancel(request: Request, agent_id: AgentId, message_id: MessageId) -> Answer:
    """Take a message back that waits for its handler; one whose handler has begun is not cancelled."""
    return answer({"cancelled": await node_of(request).cancel_message(agent_id, message_id)})


@get("/dead-letters", summary="Messages that could not be delivered", reply=replies.DeadLettersReply)
async def listing(
    request: Request,
    since: Annotated[int, msgspec.Meta(ge=0, le=2**53, description="Only letters with a greater id.")] = 0,
    limit: Annotated[int, msgspec.Meta(ge=0, le=MAX_LISTED, description="At most so many, oldest first.")] = 100,
    agent: Annotated[str, msgspec.Meta(max_length=1024, description="Only letters to this paglet.")] | None = None,
) -> Answer:
    """Return letters without their messages, oldest first."""
    letters = node_of(request).letters
    found = await letters.listing(since=since, limit=limit, agent_id=agent)
    return answer({"dead_letters": found, "count": await letters.count()})


@get("/dead-letters/{letter_id:int}", summary="One dead letter", reply=replies.DeadLetterReply)
async def letter(request: Request, letter_id: LetterId) -> Answer:
    """Return it with its message."""
    return answer(await node_of(request).letters.get(letter_id))


@post(
    "/dead-letters/retry",
    summary="Deliver dead letters again",
    reply=replies.RetryReply,
)
async def retry_all(request: Request, data: bodies.LettersBody | None = None) -> Answer:
    """Deliver all, or those to one paglet, and return what became of each; what is not accepted stays."""
    wanted = data or bodies.LettersBody()
    report = await node_of(request).letters.retry_all(agent_id=wanted.agent_id, limit=wanted.limit)
    return answer(report.to_wire())


@post("/dead-letters/clear", summary="Forget dead letters", reply=replies.ClearedReply)
async def clear_all(request: Request, data: bodies.LettersBody | None = None) -> Answer:
    """Forget all, or those to one paglet."""
    agent_id = None if data is None else data.agent_id
    return answer({"cleared": await node_of(request).letters.clear_all(agent_id=agent_id)})


@post(
    "/dead-letters/{letter_id:int}/retry",
    summary="Deliver a dead letter again",
    reply=replies.OkReply,
)
async def retry(request: Request, letter_id: LetterId) -> Answer:
    """Deliver it; it is gone when it was accepted, and stays when this is answered with an error."""
    await node_of(request).letters.retry(letter_id)
    return answer({"ok": True})


@post(
    "/dead-letters/{letter_id:int}/clear",
    summary="Forget a dead letter",
    reply=replies.OkReply,
)
async def clear(request: Request, letter_id: LetterId) -> Answer:
    """Remove it for good."""
    await node_of(request).letters.clear(letter_id)
    return answer({"ok": True})


ROUTES: list[Route] = [cancel, listing, letter, retry_all, clear_all, retry, clear]
