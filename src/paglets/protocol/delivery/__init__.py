"""Bring every message to its paglet once, wherever that is: remembered outcomes, routing, forwarding. Pure.

A message is somewhere on this way (the parts that this package decides are in capitals)::

    sender --attempt n--> a host --ROUTE--+-> mailbox -> handler -> REMEMBERED -> reply
                            ^             |      ^ JOIN: it is already there, or runs: wait for its reply as well
                            |             |      | WAKE, QUEUE: the paglet sleeps
                            |             |      + HOLD: a transfer is not decided yet; route again when it is
                            |             +-> REPEAT: it was handled; give the recorded reply
                            |             +-> REFUSE: unknown, cycle, inactive, crashed, ambiguous, too many hops
                            +-------------+-> FORWARD --> FORWARDING (below) --> another host's ROUTE

One forwarding, at the host that has only a forwarder, or at a client with a stale route::

                 +-- the connection broke after the request was sent: the same again, attempt + 1, a few times --+
                 v                                                                                               |
    start --> SENDING --answered--> DONE (the reply; where the paglet is now)                                   |
                 |  `----------------------------------------------------------------------------------------->-+
                 |  unreachable, unknown there
                 v
           ASKING the home --elsewhere, with a newer epoch or another address--> SENDING there
                 |  `--- it is here (at the home) ----------> SENDING there
                 v
              FAILED: gone (final: dead letter, InvalidAgentError)
                      nobody knows it (final)
                      unreachable, or known to have been at a place that does not answer (try later)

Why nothing is lost, doubled or overtaken
-----------------------------------------

*Once.* A message is acknowledged to its sender when it is on disk with its receiver (one-way), or when its outcome is
(`MESSAGE`, synchronous). A sender that does not know repeats it with `attempt` + 1, under the same id. The receiver's
host looks the id up in the paglet's window of handled messages, which is on disk with the state for `MESSAGE` and
travels with the paglet. So whichever host the repetition reaches in the end has either the message, or its outcome.
`attempt` never goes back: once anybody on the way is uncertain, everybody behind looks into the window.

*In order.* A sender whose message was acknowledged may send the next one by another way and must not overtake itself.
Hence an accepted message is always where the owner of the paglet is: in its mailbox or in its luggage, never behind a
forwarder. This is what `Hold` is for. While a departing paglet's luggage is packed but its transfer undecided, nothing
is accepted here (it would have to follow the luggage), and nothing is accepted at the target (it may never own the
paglet): messages wait unacknowledged and are routed again when it is decided.

*No loop.* Every forwarder carries the epoch with which the paglet arrives at the place it points to. Epochs grow with
each move, so along a chain of forwarders they grow, and a host follows the home's word only where it is newer than
what it knows, or names another address for the same stay: of a host that has moved. `hops` bounds what a lying host
can do.

*Ambiguity is named.* `CHECKPOINT` and `NONE` lose the window with the process. For a minute after that a repeated
message is refused, because it may have been handled by the process that died. After that minute its senders have given
up, and it is taken for a new one. An outbox does not give up, so it has to take this refusal as final: a dead letter.

What the shell has to see to
----------------------------

Each of these was a way to lose, double or reorder a message; `tests/protocol/simulate_system.py` finds them.

- Window and queue are read before a mailbox takes anything, when a paglet wakes, too. Until then: `Hold`.
- A message that is being written for a sleeper (`Queue`) while another one wakes it belongs to the process from the
  moment its unit is on disk, and to the luggage: nothing departs or sleeps before every unit about it is settled.
- The snapshot of a departing paglet is taken when its handler has ended *and* what it did is on disk. Deliveries are
  held back from before that moment until the transfer is decided.
- The window travels, sleeps and wakes with the paglet, and so does when it was last lost.
- A message that was answered "queued" is accepted, synchronous or not: it travels, and is never dropped silently.
- A unit that failed may be on disk all the same. What a handler did is looked up in the window that is read again;
  whether a message was accepted, in the queue. The repair of such a unit must not be repeated after a later unit about
  the same paglet.
- A paglet whose arrival is being written (or written again) is `Arriving`, whatever its row says: nobody wakes it.

Sources: P. Helland, "Life beyond Distributed Transactions", CIDR 2007; R. Fowler, "The Complexity of Using Forwarding
Addresses for Decentralized Object Finding", PODC 1986 (forwarders that are compressed by the answers); A. Birrell,
B. Nelson, "Implementing Remote Procedure Calls", ACM TOCS 2(1), 1984 (repeat under the same id, and at-most-once).
"""

from .forwarding import (
    AskHome,
    Fail,
    FailReason,
    Finish,
    ForwardAction,
    Forwarding,
    Send,
)
from .routing import (
    DELIVER,
    HOLD,
    JOIN,
    QUEUE,
    UNKNOWN,
    WAKE,
    Arriving,
    Asleep,
    Crashed,
    Decision,
    Deliver,
    Departed,
    Departing,
    Elsewhere,
    Ended,
    Forward,
    Hold,
    Join,
    Knowledge,
    Live,
    Queue,
    Refuse,
    RefuseReason,
    Repeat,
    Unknown,
    Wake,
    lost_reply_error,
    newest,
    refusal_error,
    route,
)
from .shelf import WindowShelf
from .window import HANDLED, DedupWindow, Outcome, Remembered, WindowStatistics

__all__ = [
    "DELIVER",
    "HANDLED",
    "HOLD",
    "JOIN",
    "QUEUE",
    "UNKNOWN",
    "WAKE",
    "Arriving",
    "AskHome",
    "Asleep",
    "Crashed",
    "Decision",
    "DedupWindow",
    "Deliver",
    "Departed",
    "Departing",
    "Elsewhere",
    "Ended",
    "Fail",
    "FailReason",
    "Finish",
    "Forward",
    "ForwardAction",
    "Forwarding",
    "Hold",
    "Join",
    "Knowledge",
    "Live",
    "Outcome",
    "Queue",
    "Refuse",
    "RefuseReason",
    "Remembered",
    "Repeat",
    "Send",
    "Unknown",
    "Wake",
    "WindowShelf",
    "WindowStatistics",
    "lost_reply_error",
    "newest",
    "refusal_error",
    "route",
]
