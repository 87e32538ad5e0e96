"""Messages to paglets, and the replies a caller collects later."""

from __future__ import annotations

import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

from paglets.core.errors import MessageCancelledError
from paglets.core.wire import WirePayload
from paglets.core.wire_fields import WireFields

SYNCHRONOUS = 0
FUTURE = 1
ONEWAY = 2

MIN_PRIORITY = 1
NORMAL_PRIORITY = 5
MAX_PRIORITY = 10
REENTRANT_PRIORITY = 4294967295
SYSTEM_PRIORITY = REENTRANT_PRIORITY - 1
REQUEST_PRIORITY = SYSTEM_PRIORITY - 1
UNQUEUED_PRIORITY = 0

CLONE = "_clone"
DISPATCH = "_dispatch"
DISPOSE = "_dispose"
DEACTIVATE = "_deactivate"
REVERT = "_revert"
STREAM_PULL = "_stream"
"""Answered by the paglet's process beside the mailbox: pulls at the streams of its coroutines."""


def _fresh_id() -> str:
    return uuid.uuid4().hex


@dataclass(slots=True)
class Message:
    """What one paglet, or a program outside, says to another paglet.

    `kind` selects what the receiver does, `args` and `arg` are its input. A higher `priority` is handled earlier.
    `timestamp` is Unix seconds. `message_type` describes how the message was sent and decides nothing.
    """

    kind: str
    args: WirePayload = field(default_factory=dict)
    arg: Any = None
    sender: str | None = None
    reply_to: str | None = None
    priority: int = NORMAL_PRIORITY
    message_type: int = SYNCHRONOUS
    timestamp: float = field(default_factory=time.time)
    message_id: str = field(default_factory=_fresh_id)

    def get_arg(self, name: str | None = None, default: Any = None) -> Any:
        """Return the named argument or the default; without a name return `arg`."""
        return self.arg if name is None else self.args.get(name, default)

    def set_arg(self, name: str, value: Any) -> Message:
        """Set a named argument and return this message."""
        self.args[name] = value
        return self

    def same_kind(self, kind: str | Message) -> bool:
        """Tell whether this message is of that kind, or of the kind of that message."""
        return self.kind == (kind.kind if isinstance(kind, Message) else kind)

    def increase_priority(self) -> None:
        """Raise the priority by one, up to `MAX_PRIORITY`."""
        if self.priority < MAX_PRIORITY:
            self.priority += 1

    def decrease_priority(self) -> None:
        """Lower the priority by one, down to `MIN_PRIORITY`."""
        if self.priority > MIN_PRIORITY:
            self.priority -= 1

    def to_wire(self) -> WirePayload:
        """Return the message as plain values; the values inside `args` and `arg` are not copied."""
        return {
            "kind": self.kind,
            "args": dict(self.args),
            "arg": self.arg,
            "sender": self.sender,
            "reply_to": self.reply_to,
            "priority": self.priority,
            "message_type": self.message_type,
            "timestamp": self.timestamp,
            "message_id": self.message_id,
        }

    @classmethod
    def from_wire(cls, payload: WirePayload) -> Message:
        """Restore a message; all but `kind` may be missing.

        :raises SerializationError: `kind` is missing or a field has the wrong type.
        """
        fields = WireFields(payload, "message")
        timestamp = fields.number_or_none("timestamp")
        return cls(
            kind=fields.text("kind"),
            args=fields.mapping_or_empty("args"),
            arg=fields.get("arg"),
            sender=fields.text_or_none("sender"),
            reply_to=fields.text_or_none("reply_to"),
            priority=fields.integer_or("priority", NORMAL_PRIORITY),
            message_type=fields.integer_or("message_type", SYNCHRONOUS),
            timestamp=time.time() if timestamp is None else timestamp,
            message_id=fields.text_or_none("message_id") or _fresh_id(),
        )


class ReplyTimeoutError(TimeoutError):
    """The caller stopped waiting; the call goes on and its reply may still come."""


class FutureReply:
    """The reply to a message that was sent without waiting.

    :param future: completes with the reply, or with the exception the call ended in.
    :param withdraw: withdraws the message where it waits for its handler, and tells whether it did.
    """

    def __init__(self, future: Future[Any], withdraw: Callable[[], bool] | None = None) -> None:
        self._future = future
        self._withdraw = withdraw

    def cancel(self) -> bool:
        """Withdraw the message unless its handler has begun, and tell whether it is withdrawn.

        The reply ends in `MessageCancelledError` then. False also where it could not be found out: the host of the
        paglet was asked in vain. Takes a few seconds at most.
        """
        if self._future.cancel():
            return True
        if self._future.done() or self._withdraw is None:
            return False
        return self._withdraw()

    def added_to(self, reply_set: ReplySet) -> None:
        """Tell the set when this reply completes, at once if it already has."""
        self._future.add_done_callback(lambda _future: reply_set.done(self))

    def is_available(self) -> bool:
        """Tell whether the call ended, with a value or an exception."""
        return self._future.done()

    def wait_for_reply(self, timeout: float | None = None) -> bool:
        """Wait for the value and tell whether it is there.

        :param timeout: seconds, None waits for ever.
        :return: False when the time passed first.
        :raises MessageCancelledError: the message was withdrawn.
        :raises Exception: what the call ended in, if it failed.
        """
        if not self._ended(timeout):
            return False
        self._outcome()
        return True

    def get_reply(self, timeout: float | None = None) -> Any:
        """Wait for the value and return it.

        :param timeout: seconds, None waits for ever.
        :raises ReplyTimeoutError: a `TimeoutError`; the time passed first. One of any other class came from the call.
        :raises MessageCancelledError: the message was withdrawn.
        :raises Exception: what the call ended in, if it failed.
        """
        if not self._ended(timeout):
            raise ReplyTimeoutError(f"no reply within {timeout} s")
        return self._outcome()

    def get_boolean_reply(self, timeout: float | None = None) -> bool:
        """Return `get_reply` as a bool."""
        return bool(self.get_reply(timeout))

    def get_int_reply(self, timeout: float | None = None) -> int:
        """Return `get_reply` as an int."""
        return int(self.get_reply(timeout))

    def get_float_reply(self, timeout: float | None = None) -> float:
        """Return `get_reply` as a float."""
        return float(self.get_reply(timeout))

    def get_string_reply(self, timeout: float | None = None) -> str:
        """Return `get_reply` as a str."""
        return str(self.get_reply(timeout))

    def _outcome(self) -> Any:
        if self._future.cancelled():
            raise MessageCancelledError("the message was withdrawn before it was sent")
        return self._future.result()

    def _ended(self, timeout: float | None) -> bool:
        # Future.exception() hands over what the call raised, so a TimeoutError out of it can only mean this wait.
        try:
            self._future.exception(timeout)
        except TimeoutError:
            return self._future.done()
        except CancelledError:
            return True
        return True


class ReplySet:
    """Replies in the order in which they complete.

    All methods may be called from any thread. A reply is counted once, however often it is added or reported done.

    :param replies: what to wait for; more can be added at any time.
    """

    def __init__(self, replies: Iterable[FutureReply] | None = None) -> None:
        self._changed = threading.Condition()
        self._pending: set[FutureReply] = set()
        self._available: deque[FutureReply] = deque()
        # Weak, so that a set that lives long does not keep the replies it has handed out.
        self._counted: weakref.WeakSet[FutureReply] = weakref.WeakSet()
        for reply in replies or ():
            self.add_future_reply(reply)

    def add_future_reply(self, reply: FutureReply) -> None:
        """Add a reply, complete or not."""
        with self._changed:
            if reply in self._counted:
                return
            self._counted.add(reply)
            self._pending.add(reply)
        # Outside the lock: a complete reply calls done() from here.
        reply.added_to(self)

    def done(self, reply: FutureReply) -> None:
        """Count a reply as available."""
        with self._changed:
            if reply in self._pending:
                self._pending.remove(reply)
            elif reply in self._counted:
                return
            self._counted.add(reply)
            self._available.append(reply)
            self._changed.notify_all()

    def are_all_available(self) -> bool:
        """Tell whether nothing is pending; true for an empty set."""
        with self._changed:
            return not self._pending

    def count_available(self) -> int:
        """Return how many replies are complete and not yet taken."""
        with self._changed:
            return len(self._available)

    def count_unavailable(self) -> int:
        """Return how many replies are pending."""
        with self._changed:
            return len(self._pending)

    def is_any_available(self) -> bool:
        """Tell whether a reply can be taken without waiting."""
        with self._changed:
            return bool(self._available)

    def has_more_future_replies(self) -> bool:
        """Tell whether a reply is pending or can be taken."""
        with self._changed:
            return bool(self._pending or self._available)

    def wait_for_all_replies(self, timeout: float | None = None) -> bool:
        """Wait until nothing is pending; takes no reply.

        :param timeout: seconds, None waits for ever.
        :return: False when the time passed first.
        """
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending, timeout)

    def wait_for_next_future_reply(self, timeout: float | None = None) -> bool:
        """Wait until a reply can be taken.

        :param timeout: seconds, None waits for ever.
        :return: False when the time passed first, or when there is nothing to wait for.
        """
        with self._changed:
            return self._await_next(timeout)

    def get_next_future_reply(self, timeout: float | None = None) -> FutureReply | None:
        """Wait for the reply that completed first and take it.

        :param timeout: seconds, None waits for ever.
        :return: None when the time passed first, or when there is nothing to wait for.
        """
        with self._changed:
            return self._available.popleft() if self._await_next(timeout) else None

    def __iter__(self) -> Iterator[FutureReply]:
        """Take every reply as it completes, until none is left."""
        while (reply := self.get_next_future_reply()) is not None:
            yield reply

    def _await_next(self, timeout: float | None) -> bool:
        self._changed.wait_for(lambda: self._available or not self._pending, timeout)
        return bool(self._available)
