"""Follow a paglet that has left: what to make of every answer, until the message has arrived or cannot.

Pure and frozen: each event makes a new `Forwarding` and says the one thing to do next. The same steps serve a host
with a forwarder and a client with a stale route. See the package's docstring for the picture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeAlias

from paglets.core.context import same_url

from .routing import Departed, Elsewhere, Ended, Forward, Knowledge, Unknown

MOST_REPEATS: Final = 3
"""How often one place is asked again after a connection to it broke with the answer outstanding."""
MOST_PLACES: Final = 16
"""How many places are tried before the message is given up for now; each was named with a higher epoch, or is another
address of the host before."""


class FailReason(StrEnum):
    """Say why a message did not arrive."""

    GONE = "gone"
    """The paglet has ended."""
    UNKNOWN = "unknown"
    """Nobody who was asked knows it, and there is nobody else to ask."""
    UNREACHABLE = "unreachable"
    """The place where it is, or was last heard of, does not answer, or has not told its home yet."""
    UNCERTAIN = "uncertain"
    """It may have arrived: the connection broke with the answer outstanding, and nobody could be asked again."""
    LOST_WAY = "lost-way"
    """It moves faster than the message, or somebody lies about epochs."""

    @property
    def final(self) -> bool:
        """Tell whether trying later is pointless: dead letter, `InvalidAgentError`."""
        return self in (FailReason.GONE, FailReason.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Send:
    """Send the message there, with this attempt; report `answered`, `unreachable`, `broken`, `unknown` or `gone`."""

    url: str
    attempt: int


@dataclass(frozen=True, slots=True)
class AskHome:
    """Ask the home host where the paglet is; report `home_says` or `home_unreachable`."""

    url: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Pass the answer on, with the place it came from."""

    location: str


@dataclass(frozen=True, slots=True)
class Fail:
    """Give up."""

    reason: FailReason
    uncertain: bool
    """Whether the message may have arrived all the same: a repetition needs a higher attempt."""


ForwardAction: TypeAlias = Send | AskHome | Finish | Fail


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Hold what is known while one message looks for its receiver."""

    url: str
    """The place that is tried now."""
    epoch: int
    """With which the paglet arrived there, as far as is known."""
    home: str = ""
    attempt: int = 1
    """What the message says now; grows whenever it becomes uncertain whether it arrived."""
    repeats: int = 0
    """How often this place was asked again."""
    places: int = 1
    uncertain: bool = False
    ended: bool = False
    silent: bool = False
    """Whether the place that is tried now did not answer (otherwise it does not know the paglet)."""

    @classmethod
    def start(cls, forward: Forward, attempt: int = 1) -> tuple[Forwarding, Send]:
        """Begin with what `route` decided."""
        state = cls(forward.url, forward.epoch, forward.home, attempt)
        return state, Send(forward.url, attempt)

    # -- what the place says ---------------------------------------------------------------------------------------

    def answered(self, location: str = "") -> tuple[Forwarding, ForwardAction]:
        """Take the reply or the error of the receiver itself.

        :param location: the place that it says the answer came from, where it was another
        """
        return replace(self, ended=True), Finish(location or self.url)

    def unreachable(self) -> tuple[Forwarding, ForwardAction]:
        """Take note that the place could not be reached: the message was surely not sent."""
        return replace(self, silent=True)._ask_home()

    def broken(self) -> tuple[Forwarding, ForwardAction]:
        """Take note that the connection broke, or the time passed, with the answer outstanding."""
        state = replace(self, attempt=self.attempt + 1, uncertain=True, silent=True)
        if self.repeats < MOST_REPEATS:
            return replace(state, repeats=self.repeats + 1), Send(self.url, state.attempt)
        return state._ask_home()

    def unknown(self) -> tuple[Forwarding, ForwardAction]:
        """Take note that the host there does not know the paglet."""
        return replace(self, silent=False)._ask_home()

    def gone(self) -> tuple[Forwarding, ForwardAction]:
        """Take note that the host there knows that the paglet has ended."""
        return self._fail(FailReason.GONE)

    # -- what the home says ----------------------------------------------------------------------------------------

    def home_says(self, knowledge: Knowledge) -> tuple[Forwarding, ForwardAction]:
        """Take what the home host knows: its own `Knowledge`, a mere forwarder of its own included."""
        match knowledge:
            case Ended():
                return self._fail(FailReason.GONE)
            case Departed(epoch, url) | Elsewhere(epoch, url):
                if epoch < self.epoch or (epoch == self.epoch and same_url(url, self.url)):
                    # No news. Older: the home has not heard yet. Equal: it is where it could not be found just now,
                    # unless that host has another address by now.
                    return self._fail(FailReason.UNREACHABLE)
                return self._go(url, epoch)
            case Unknown():
                return self._fail(FailReason.UNREACHABLE if self.silent else FailReason.UNKNOWN)
            case _ if self.home == self.url:
                return self._fail(FailReason.UNREACHABLE)
            case _:
                # It is at the home itself, which thereby is the authority: no epoch can be newer.
                return self._go(self.home, self.epoch)

    def home_unreachable(self) -> tuple[Forwarding, ForwardAction]:
        """Take note that the home host could not be asked."""
        return self._fail(FailReason.UNREACHABLE)

    # ----------------------------------------------------------------------------------------------------------------

    def _ask_home(self) -> tuple[Forwarding, ForwardAction]:
        if self.home and self.home != self.url:
            return self, AskHome(self.home)
        return self._fail(FailReason.UNREACHABLE if self.silent else FailReason.UNKNOWN)

    def _go(self, url: str, epoch: int) -> tuple[Forwarding, ForwardAction]:
        if self.places >= MOST_PLACES:
            return self._fail(FailReason.LOST_WAY)
        state = replace(self, url=url, epoch=epoch, repeats=0, places=self.places + 1, silent=False)
        return state, Send(url, state.attempt)

    def _fail(self, reason: FailReason) -> tuple[Forwarding, ForwardAction]:
        if self.uncertain and reason is FailReason.UNREACHABLE:
            reason = FailReason.UNCERTAIN
        return replace(self, ended=True), Fail(reason, self.uncertain)
