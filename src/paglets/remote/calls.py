"""Call a handler of a paglet elsewhere as if it were a method here, checked by the type checker.

Nothing is sent here: a call becomes a message, and a reply becomes a value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paglets.core.handlers import HandlerSpec, handler_spec
from paglets.core.messages import Message
from paglets.serialization.binding import decode_reply, encode_call

__all__ = ["CallOptions", "PendingCall", "prepare_call"]


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a message or call is delivered."""

    activate_if_inactive: bool = True
    """Wake an inactive paglet, if its policy lets messages wake it."""
    no_delay: bool = False
    """Fail with `PagletInactiveError` instead of storing the message for a paglet that stays inactive. A call whose
    reply is waited for does so in any case, since nobody would get that."""
    timeout: float | None = None
    """Seconds to wait for the reply; None takes the client's."""


@dataclass(frozen=True, slots=True)
class PendingCall:
    """Hold a call that is ready to be sent, and know how to read its reply."""

    message: Message
    spec: HandlerSpec

    def result(self, reply: Any, agent_id: str) -> Any:
        """Return what the handler returned.

        A handler that moved its own paglet never returned: the reply is the new location then, and the result of a
        handler that returns nothing is None all the same.

        :raises SerializationError: the reply does not have the type that the handler declares.
        """
        if self.spec.reply_hint is type(None) and _is_location(reply, agent_id):
            return None
        return decode_reply(self.spec, reply)


def prepare_call(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> PendingCall:
    """Turn a call of a handler, named as `Counter.increment`, into a message.

    :raises TypeError: the method is no handler, or does not take these arguments.
    :raises SerializationError: an argument does not have its declared type.
    """
    spec = handler_spec(method)
    return PendingCall(encode_call(spec, args, kwargs), spec)


def _is_location(reply: Any, agent_id: str) -> bool:
    return isinstance(reply, dict) and reply.keys() == {"host_url", "agent_id"} and reply["agent_id"] == agent_id
