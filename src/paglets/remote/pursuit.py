"""Decide whom to ask next when a request did not reach its paglet; no input or output happens here.

A `Pursuit` is a generator: it yields what to do (`Ask` a place, `Locate` the paglet there, `Pause`), is sent what came
of it, and returns the place and its answer, or raises what the caller is to be told. `follow` and `follow_async` drive
it. What it makes of a failure:

- no connection (`NotConnectedError`): the next place; when all were tried, all again after a pause;
- the connection broke, and the request may have arrived (`ConnectionLostError`): the same request again, as a further
  attempt, so that the host that has it answers with what it answered then;
- the host does not know the paglet (`InvalidAgentError`): where it says the paglet went, and the other places. A
  handler may have raised the same error, so the host is asked first whether the paglet is there;
- anything else is the answer.

How long it goes on: to the end of the caller's time when the paglet was found before or the request may have arrived,
since its host may come back; else for `HASTY_SECONDS`, since then the URL is most likely wrong. A caller who knows
somebody else to ask says how long it is patient instead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from paglets.core.chance import CHANCE
from paglets.core.errors import (
    ConnectionLostError,
    HostUnreachableError,
    InvalidAgentError,
    PagletError,
    RemoteTimeoutError,
)
from paglets.remote.routes import RouteTable
from paglets.remote.whereabouts import Whereabouts

__all__ = [
    "ASTRAY",
    "Ask",
    "Found",
    "Locate",
    "NotConnectedError",
    "Patience",
    "Pause",
    "Pursuit",
    "connecting_seconds",
    "first_connecting",
    "follow",
    "follow_async",
]

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 2.0
HASTY_SECONDS: Final = 0.5
"""How long a paglet that was never found before is looked for."""
CONNECT_SECONDS: Final = 2.0
"""How long a connection may take to be made while there are other places to ask."""
LOCATE_SECONDS: Final = 2.0
MOST_STRANGERS: Final = 16
"""How many hosts may say that they do not know the paglet before that is believed."""
_LAST_SECONDS: Final = 0.02

ASTRAY: Final = (HostUnreachableError, ConnectionLostError, InvalidAgentError)
"""The failures that a pursuit can do something about."""


class NotConnectedError(HostUnreachableError):
    """No connection to the host that is asked could be made; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a caller who knows somebody else to ask waits for hosts that cannot be reached."""

    unsent: float = math.inf
    """Seconds, while nobody has had the request."""
    lost: float = math.inf
    """Seconds, once it may have arrived: it is repeated where it went, and nowhere else."""


ENDLESS: Final = Patience()


@dataclass(frozen=True, slots=True)
class Ask:
    """Send the request there."""

    place: str
    attempt: int
    seconds: float
    """How long the caller still waits."""
    connecting: float | None
    """How long there may be no connection, None for all of that."""


@dataclass(frozen=True, slots=True)
class Locate:
    """Ask that host where the paglet is."""

    place: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait before everyone is asked again."""

    seconds: float
    unsent: bool
    """Whether no host can have accepted the request so far."""


Step: TypeAlias = Ask | Locate | Pause
Found: TypeAlias = tuple[str, dict[str, Any]]
"""The place that answered, and its answer."""


def connecting_seconds(seconds: float) -> float:
    """Return how long a connection to one of several places may take."""
    return min(CONNECT_SECONDS, seconds / 3)


def first_connecting(seconds: float, *, others: bool, patience: Patience | None) -> float | None:
    """Return how long the first connection may take, None for all of the caller's time.

    :param others: whether there are other places to ask.
    """
    bound = connecting_seconds(seconds) if others else None
    if patience is None or patience.unsent >= seconds:
        return bound
    return patience.unsent if bound is None else min(bound, patience.unsent)


class Pursuit:
    """Look for one paglet on behalf of one request.

    :param end: when the caller stops waiting, by `clock`.
    :param repeatable: the request may be sent again when it may have arrived.
    :param passed_on: a host that does not have the paglet passes the request on, so that its own failure to reach
        another one is no answer.
    :param lasting: ask everyone again while there is time, not only once, also where it was never sent.
    :param patience: how long hosts that cannot be reached are asked again; None for all of the caller's time.
    """

    def __init__(
        self,
        routes: RouteTable,
        agent_id: str,
        host_url: str,
        *,
        end: float,
        repeatable: bool,
        passed_on: bool = False,
        lasting: bool = False,
        patience: Patience | None = None,
        attempt: int = 1,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = CHANCE.random,
    ) -> None:
        self._routes = routes
        self._agent_id = agent_id
        self._end = end
        self._repeatable = repeatable
        self._passed_on = passed_on
        self._lasting = lasting
        self._attempt = attempt
        self._clock = clock
        self._jitter = jitter
        self._places = dict.fromkeys(routes.places(agent_id, host_url))
        self._patient = routes.find(agent_id, host_url) is not None
        now = clock()
        patience = patience or ENDLESS
        self._unsent_end = min(end, now + patience.unsent)
        self._lost_end = min(end, now + patience.lost)
        self._hasty_end = min(self._unsent_end, now + HASTY_SECONDS)
        self._tried: set[str] = set()
        # Places that do not know the paglet, with the newest epoch that was known when they said so.
        self._strangers: dict[str, int] = {}
        self._epoch = 0
        self._pointed_to = ""
        """Where it is by the newest that a stranger said."""
        self._unreached: dict[str, NotConnectedError] = {}
        self._sent = False
        self._uncertain = False
        self._unknown: InvalidAgentError | None = None
        self._pause = FIRST_PAUSE_SECONDS

    def steps(self, place: str, failure: PagletError) -> Generator[Step, Any, Found]:
        """Go on from the failure of the first place that was asked."""
        outcome: Any = failure
        while isinstance(outcome, PagletError):
            yield from self._judge(place, outcome)
            if self._next() is None:
                yield self._rest(outcome)
                self._tried.clear()
            place = self._next() or place
            left = self._end - self._clock()
            if left <= 0:
                raise self._given_up(outcome)
            outcome = yield Ask(place, self._attempt, left, self._connecting(left))
        self._routes.unblock(place)
        return place, outcome

    def _connecting(self, left: float) -> float | None:
        """Return how long the next connection may take, None for all of the time that is left."""
        others = len(self._places) - len(self._strangers) > 1
        bound = connecting_seconds(left) if others else None
        patient_end = self._lost_end if self._uncertain else self._unsent_end
        if patient_end >= self._end:
            return bound
        # A host that has gone with its machine refuses nothing: it is silent.
        patient = max(patient_end - self._clock(), _LAST_SECONDS)
        return patient if bound is None else min(bound, patient)

    def _judge(self, place: str, failure: PagletError) -> Generator[Step, Any, None]:
        match failure:
            case InvalidAgentError():
                yield from self._seek(place, failure)
            case NotConnectedError():
                self._routes.block(place)
                self._tried.add(place)
                self._unreached[place] = failure
            case HostUnreachableError() if self._passed_on:
                self._tried.add(place)
            case ConnectionLostError() if self._repeatable:
                self._attempt += 1
                self._sent = self._uncertain = self._patient = True
                # The same place first, but not at once.
                self._places = dict.fromkeys((place, *self._places))
                self._tried.update(self._places)
            case _:
                raise failure

    def _seek(self, place: str, failure: InvalidAgentError) -> Generator[Step, Any, None]:
        """Find out where a host that does not know the paglet saw it last."""
        self._unknown = self._unknown or failure
        if len(self._strangers) >= MOST_STRANGERS or self._end <= self._clock():
            raise failure
        said = yield Locate(place, min(LOCATE_SECONDS, self._end - self._clock()))
        self._strangers[place] = self._epoch
        if isinstance(said, InvalidAgentError):
            return
        # It knows more than nothing: a handler there may have raised this error.
        self._sent = True
        self._attempt += 1
        whereabouts = Whereabouts() if isinstance(said, PagletError) else Whereabouts.of(said)
        if whereabouts.here or whereabouts.ended:
            raise failure
        if whereabouts.url and whereabouts.epoch >= self._epoch:
            self._pointed_to = whereabouts.url
        self._strangers[place] = self._epoch = max(self._epoch, whereabouts.epoch)
        hints = [url for url in (whereabouts.url, whereabouts.home) if url]
        self._places = dict.fromkeys((*hints, *self._places))
        if self._strangers.get(whereabouts.url, whereabouts.epoch) < whereabouts.epoch:
            del self._strangers[whereabouts.url]

    def _next(self) -> str | None:
        left = dict.fromkeys(
            place for place in self._places if place not in self._tried and place not in self._strangers
        )
        # The place to which a lost request went keeps its turn: there it is known.
        ordered = list(left) if self._uncertain else self._routes.sorted(left)
        return ordered[0] if ordered else None

    def _rest(self, failure: PagletError) -> Pause:
        """Return the pause before the next round; raise what the caller is told where there is none."""
        if all(place in self._strangers for place in self._places):
            if self._uncertain:
                raise ConnectionLostError(f"the answer of paglet {self._agent_id} was lost, and it is gone: {failure}")
            raise self._unknown or failure
        patient = self._patient and self._unknown is None
        patient_end = self._lost_end if self._uncertain else self._unsent_end
        left = (patient_end if patient else self._hasty_end) - self._clock()
        seconds = self._pause * (1.0 + self._jitter()) / 2
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        once = not (self._lasting or self._uncertain)
        if once or left < (_LAST_SECONDS if patient else seconds):
            raise self._given_up(failure)
        return Pause(min(seconds, left / 2) if patient else seconds, not self._sent)

    def _given_up(self, failure: PagletError) -> PagletError:
        if not self._uncertain:
            unreached = self._unreached.get(self._pointed_to)
            if unreached is not None and not self._passed_on:
                # A host that does not have it any more says where it went: it has not ended for being out of reach.
                return unreached
            return self._unknown or failure
        if self._lost_end < self._end:
            lost = ConnectionLostError(f"lost the host of paglet {self._agent_id} while an answer was due: {failure}")
            lost.__cause__ = failure
            return lost
        error = RemoteTimeoutError(f"paglet {self._agent_id} did not answer in time, and may still: {failure}")
        error.__cause__ = failure
        return error


def follow(
    steps: Generator[Step, Any, Found],
    *,
    ask: Callable[[Ask], Any],
    locate: Callable[[Locate], Any],
    pause: Callable[[Pause], None],
) -> Found:
    """Do what a pursuit says, from a thread; its errors and those of `pause` pass."""
    outcome: Any = None
    while True:
        try:
            step = steps.send(outcome)
        except StopIteration as found:
            place, answer = found.value
            return place, answer
        outcome = None
        try:
            match step:
                case Ask():
                    outcome = ask(step)
                case Locate():
                    outcome = locate(step)
        except PagletError as exc:
            outcome = exc
        if isinstance(step, Pause):
            pause(step)


async def follow_async(
    steps: Generator[Step, Any, Found],
    *,
    ask: Callable[[Ask], Awaitable[Any]],
    locate: Callable[[Locate], Awaitable[Any]],
    pause: Callable[[Pause], Awaitable[None]],
) -> Found:
    """Do what a pursuit says, from a coroutine."""
    outcome: Any = None
    while True:
        try:
            step = steps.send(outcome)
        except StopIteration as found:
            place, answer = found.value
            return place, answer
        outcome = None
        try:
            match step:
                case Ask():
                    outcome = await ask(step)
                case Locate():
                    outcome = await locate(step)
        except PagletError as exc:
            outcome = exc
        if isinstance(step, Pause):
            await pause(step)
