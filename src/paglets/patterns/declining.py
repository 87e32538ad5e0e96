"""What becomes of a message that is about none of the operations of a class: a hook may answer or decline it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import Any

from paglets.core.agent import NOT_HANDLED, Paglet
from paglets.core.handlers import dispatch_message, handlers_of
from paglets.core.messages import Message


def other_answer(paglet: Paglet[Any], message: Message, answer: Any) -> Any:
    """Return what a hook has answered, or where it has declined, what a method with `@handler` answers.

    :param answer: of the hook, plain or `async def`; None declines.
    :return: `NOT_HANDLED` where nobody answers; a coroutine for any of that where something has to be awaited.
    """
    if inspect.isawaitable(answer):
        return _other_answer_later(paglet, message, answer)
    if answer is not None:
        return answer
    if message.kind in handlers_of(type(paglet)):
        return dispatch_message(paglet, message)
    return NOT_HANDLED


async def _other_answer_later(paglet: Paglet[Any], message: Message, answer: Awaitable[Any]) -> Any:
    found = other_answer(paglet, message, await answer)
    return await found if inspect.isawaitable(found) else found
