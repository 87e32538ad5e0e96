"""Decide what a host does with one message, from what it knows of the receiver.

`route` is a pure function. The common case is decided by the first comparison; a host may take it itself and call
`route` for everything else::

    if type(knowledge) is Live and terms is FIRST_ATTEMPT and not (message_id in in_flight or message_id in window):
        ...                                                    # DELIVER

The first attempt is looked up too: its request may sit in a slow host's buffer while the sender, whose connection
broke, repeats it over another one, and then be read after the repetition was handled.
"""

from __future__ import annotations

from collections.abc import Container
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec

from paglets.core.errors import (
    CallCycleError,
    HostError,
    InvalidAgentError,
    PagletCrashedError,
    PagletError,
    PagletInactiveError,
    RemoteHostError,
)
from paglets.core.terms import FIRST_ATTEMPT, MAX_CHAIN, MAX_HOPS, DeliveryTerms

from .window import DedupWindow, Outcome

AMBIGUOUS_SECONDS: Final = 60.0
"""How long after a window was lost with its process a repeated message is refused."""

# -- what a host knows of a paglet -----------------------------------------------------------------------------------


class Live(msgspec.Struct, frozen=True):
    """It is here, active or about to be: its mailbox takes messages."""

    remembers: bool = False
    """Whether it is `MESSAGE`: its window is on disk and never lost."""


class Departing(msgspec.Struct, frozen=True):
    """It is here, but its luggage is packed and the transfer is not decided yet."""


class Arriving(msgspec.Struct, frozen=True):
    """An inert copy is here, and the transfer is not decided yet."""


class Asleep(msgspec.Struct, frozen=True):
    """It is here, inactive."""

    activate_on_message: bool = True
    queue_messages: bool = True
    remembers: bool = False
    """As for `Live`."""


class Crashed(msgspec.Struct, frozen=True):
    """It is here and its process died for good (one that is going to be restarted is `Live`, its mailbox paused)."""

    error: str = ""
    remembers: bool = False
    """As for `Live`."""


class Departed(msgspec.Struct, frozen=True):
    """It left: this is the forwarder."""

    epoch: int
    """With which it arrives at the target."""
    target: str
    """The URL it went to."""
    home: str = ""
    """The URL of the host that created it; empty where that is not known, or this host."""


class Elsewhere(msgspec.Struct, frozen=True):
    """It was created here, and a later host said where it is."""

    epoch: int
    url: str


class Ended(msgspec.Struct, frozen=True):
    """It is known to have ended."""


class Unknown(msgspec.Struct, frozen=True):
    """This host has never heard of it, or has forgotten it."""


UNKNOWN: Final = Unknown()
Knowledge: TypeAlias = Live | Departing | Arriving | Asleep | Crashed | Departed | Elsewhere | Ended | Unknown


def newest(departed: Departed | None, elsewhere: Elsewhere | None) -> Departed | Elsewhere | Unknown:
    """Choose between a host's own forwarder and what it was told as the home: the higher epoch is nearer the truth.

    Where they are equal, it was told later than the paglet left, by the host to which it went: of its present address.
    """
    if departed is None:
        return UNKNOWN if elsewhere is None else elsewhere
    if elsewhere is None or elsewhere.epoch < departed.epoch:
        return departed
    return elsewhere


# -- what it does with the message -----------------------------------------------------------------------------------


class Deliver(msgspec.Struct, frozen=True):
    """Put it into the mailbox (and, where it is to be durable, into `queued` before it is acknowledged)."""


class Join(msgspec.Struct, frozen=True):
    """It waits or runs here already: a synchronous sender waits for the same reply, a one-way one is acknowledged as
    soon as the message is accepted."""


class Repeat(msgspec.Struct, frozen=True):
    """It was handled: give the recorded outcome."""

    outcome: Outcome | None
    """None where only the id is remembered: answer `lost_reply_error` to a synchronous sender."""


class Wake(msgspec.Struct, frozen=True):
    """Activate the paglet and route again."""


class Queue(msgspec.Struct, frozen=True):
    """Store it for the time when the paglet wakes."""


class Hold(msgspec.Struct, frozen=True):
    """Keep it unacknowledged until the transfer under way is decided, then route again."""


class Forward(msgspec.Struct, frozen=True):
    """Send it on with `hops` + 1; `Forwarding` says what to make of the answer."""

    url: str
    epoch: int
    """With which the paglet arrived there."""
    home: str = ""
    """Whom to ask where that fails; empty where there is nobody to ask."""


class RefuseReason(StrEnum):
    """Say why a message is not taken."""

    UNKNOWN = "unknown"
    ENDED = "ended"
    CYCLE = "cycle"
    DEPTH = "depth"
    INACTIVE = "inactive"
    CRASHED = "crashed"
    AMBIGUOUS = "ambiguous"
    HOPS = "hops"


class Refuse(msgspec.Struct, frozen=True):
    """Answer at once with an error; nothing was accepted."""

    reason: RefuseReason
    chain: tuple[str, ...] = ()
    """For `CYCLE` and `DEPTH`: who waits for whom, the eldest first."""
    text: str = ""
    """For `CRASHED`: of what it died."""


DELIVER: Final = Deliver()
JOIN: Final = Join()
WAKE: Final = Wake()
QUEUE: Final = Queue()
HOLD: Final = Hold()
_REFUSE_UNKNOWN: Final = Refuse(RefuseReason.UNKNOWN)
_REFUSE_ENDED: Final = Refuse(RefuseReason.ENDED)
_REFUSE_INACTIVE: Final = Refuse(RefuseReason.INACTIVE)
_REFUSE_AMBIGUOUS: Final = Refuse(RefuseReason.AMBIGUOUS)
_REFUSE_HOPS: Final = Refuse(RefuseReason.HOPS)

Decision: TypeAlias = Deliver | Join | Repeat | Wake | Queue | Hold | Forward | Refuse


def route(
    agent_id: str,
    knowledge: Knowledge,
    terms: DeliveryTerms,
    message_id: str,
    *,
    window: DedupWindow | None = None,
    in_flight: Container[str] = (),
    window_lost_for: float | None = None,
    activate_if_inactive: bool = True,
    no_delay: bool = False,
) -> Decision:
    """Decide what to do with a message.

    :param knowledge: what this host knows of the paglet
    :param window: the outcomes that the paglet's host remembers, None where there are none
    :param in_flight: the ids that wait in its mailbox or on disk, or run
    :param window_lost_for: seconds since a process of the paglet died with its window, None where that never happened;
        it has to travel with the paglet, or a move would make a repeated message look new
    """
    if type(knowledge) is Live:
        if terms is FIRST_ATTEMPT and message_id not in in_flight and (window is None or message_id not in window):
            return DELIVER
        known = _known(knowledge.remembers, terms, message_id, window, in_flight, window_lost_for)
        if known is not None:
            return known
        return _cycle(agent_id, terms) or DELIVER
    match knowledge:
        case Departing() | Arriving():
            return _cycle(agent_id, terms) or HOLD
        case Asleep(activate_on_message, queue_messages, remembers):
            known = _known(remembers, terms, message_id, window, in_flight, window_lost_for)
            if known is not None:
                return known
            if activate_if_inactive and activate_on_message:
                return _depth(terms) or WAKE
            return _REFUSE_INACTIVE if no_delay or not queue_messages else QUEUE
        case Crashed(error, remembers):
            known = _known(remembers, terms, message_id, window, in_flight, window_lost_for)
            return known if known is not None else Refuse(RefuseReason.CRASHED, text=error)
        case Departed(epoch, target, home):
            return _forward(terms, Forward(target, epoch, home))
        case Elsewhere(epoch, url):
            return _forward(terms, Forward(url, epoch))
        case Ended():
            return _REFUSE_ENDED
        case _:
            return _REFUSE_UNKNOWN


def _known(
    remembers: bool,
    terms: DeliveryTerms,
    message_id: str,
    window: DedupWindow | None,
    in_flight: Container[str],
    window_lost_for: float | None,
) -> Decision | None:
    if window is not None and window.seen(message_id):
        return Repeat(window.outcome(message_id))
    if message_id in in_flight:
        return JOIN
    if remembers or terms.attempt == 1 or window_lost_for is None or window_lost_for >= AMBIGUOUS_SECONDS:
        return None
    return _REFUSE_AMBIGUOUS


def _cycle(agent_id: str, terms: DeliveryTerms) -> Refuse | None:
    if agent_id in terms.chain:
        return Refuse(RefuseReason.CYCLE, terms.chain)
    return _depth(terms)


def _depth(terms: DeliveryTerms) -> Refuse | None:
    return Refuse(RefuseReason.DEPTH, terms.chain) if len(terms.chain) > MAX_CHAIN else None


def _forward(terms: DeliveryTerms, forward: Forward) -> Forward | Refuse:
    return _REFUSE_HOPS if terms.hops >= MAX_HOPS else forward


# -- what the sender is told -----------------------------------------------------------------------------------------


def refusal_error(agent_id: str, host: str, refusal: Refuse) -> PagletError:
    """Return the exception that stands for a refusal.

    :param host: the name of the host that refuses
    """
    match refusal.reason:
        case RefuseReason.UNKNOWN:
            return InvalidAgentError(f"no paglet {agent_id} on {host}")
        case RefuseReason.ENDED:
            return InvalidAgentError(f"paglet {agent_id} has ended")
        case RefuseReason.CYCLE:
            waiting = " -> ".join((*refusal.chain, agent_id))
            return CallCycleError(f"paglet {agent_id} waits for the handler that calls it: {waiting}")
        case RefuseReason.DEPTH:
            return CallCycleError(f"{len(refusal.chain)} handlers wait for each other; at most {MAX_CHAIN} may")
        case RefuseReason.INACTIVE:
            return PagletInactiveError(f"paglet {agent_id} is inactive, and this message may neither wake it nor wait")
        case RefuseReason.CRASHED:
            return PagletCrashedError(f"paglet {agent_id} crashed: {refusal.text or 'its process ended'}")
        case RefuseReason.AMBIGUOUS:
            return HostError(
                f"the process of paglet {agent_id} died lately, and whether it had handled this repeated message is "
                f"not known; send a new message if it may be handled twice, or repeat this one in a minute"
            )
        case RefuseReason.HOPS:
            return RemoteHostError(f"paglet {agent_id} was not found within {MAX_HOPS} hops; ask its home host")


def lost_reply_error(agent_id: str) -> PagletError:
    """Return the exception for a repeated message whose outcome is remembered no more."""
    return HostError(f"paglet {agent_id} has handled this message; its reply is not held any more")
