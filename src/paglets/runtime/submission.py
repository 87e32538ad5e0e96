"""Deliver messages from any thread: hand them to the host's event loop, and wait for what comes back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

from paglets.core.messages import FutureReply, Message
from paglets.runtime.attachment import Attachment
from paglets.runtime.post import PostOffice
from paglets.runtime.posting import Posting
from paglets.serialization.values import unpack


def deliver(
    loop: asyncio.AbstractEventLoop, post: PostOffice, agent_id: str, posting: Posting, timeout: float | None
) -> Any:
    """Deliver a message and wait at most ``timeout`` seconds for the reply; return that, None for a one-way message.

    :raises TimeoutError: no reply in time; the message may still be handled.
    :raises PagletError: what the delivery or the handler ended in.
    """
    waiter = ReplyWaiter()
    loop.call_soon_threadsafe(post.post, agent_id, posting, waiter.done)
    reply = waiter.wait(timeout)
    if reply is None:
        return None
    try:
        return unpack(reply.view())
    finally:
        reply.close()


def deliver_later(
    loop: asyncio.AbstractEventLoop,
    post: PostOffice,
    agent_id: str,
    message: Message,
    withdraw: Callable[[], bool],
) -> FutureReply:
    """Deliver a message and return at once, with what gets its reply.

    :param withdraw: takes the message back where it still waits, and tells whether it could.
    """
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    # It is on its way already: only where it waits can it be taken back.
    future.set_running_or_notify_cancel()

    def done(reply: Attachment | None, error: Exception | None) -> None:
        if error is not None:
            future.set_exception(error)
            return
        try:
            future.set_result(None if reply is None else unpack(reply.view()))
        except Exception as exc:
            future.set_exception(exc)

    loop.call_soon_threadsafe(post.post, agent_id, Posting.of(message), done)
    return FutureReply(future, withdraw)


class ReplyWaiter:
    """Let one thread wait for one reply; a future of the standard library takes several times as long."""

    __slots__ = ("_error", "_lock", "_reply")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._reply: Attachment | None = None
        self._error: Exception | None = None

    def done(self, reply: Attachment | None, error: Exception | None) -> None:
        """Give the reply or the error; called once, on the loop."""
        self._reply = reply
        self._error = error
        self._lock.release()

    def wait(self, timeout: float | None) -> Attachment | None:
        """Return the reply, or raise the error.

        :raises TimeoutError: neither came within ``timeout`` seconds.
        """
        if not self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            raise TimeoutError(f"no reply within {timeout:g} s")
        error, self._error = self._error, None
        if error is None:
            return self._reply
        try:
            raise error
        finally:
            del error  # it leads to this frame
