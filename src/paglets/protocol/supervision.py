"""Decide what happens when the process of a paglet dies by itself: start it again or not, and what of its message.

Pure: the time of a death is passed in (any clock that only moves forward), and the shell adds jitter to the pauses. A
`Supervisor` is frozen; each death makes a new one::

    supervisor, verdict = supervisor.died(now, policy, durability, in_hand)
    # perform verdict.process (Restart or GiveUp) and verdict.message (Rerun, Keep, DeadLetter, FailCaller or None)

Only deaths that nobody asked for count: not the end of a process that slept, moved or was disposed, and not the death
of the host, after which everything that was active is started again anyway.

Source: J. Armstrong, *Making reliable distributed systems in the presence of software errors*, KTH 2003, chapter 5
(restart intensity: so many restarts within so much time, then give up and say so).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from paglets.core.policies import RestartPolicy
from paglets.core.runtime_values import Durability

MOST_RERUNS: Final = 3
"""How often the same message may be handled again after it took its process along."""
_MOST_SUSPECTS: Final = 16
_LONGEST_DOUBLING: Final = 60


@dataclass(frozen=True, slots=True)
class InHand:
    """Name the message that the process was handling when it died."""

    message_id: str
    oneway: bool = False
    """Whether its sender was told that it is accepted, and waits for nothing more."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the paglet again from its row."""

    after: float
    """Seconds from the death; the shell may add jitter."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Leave the entry crashed, on disk too, until somebody revives or disposes it."""

    deaths: int
    """How many lie in the window, this one included."""


@dataclass(frozen=True, slots=True)
class Rerun:
    """Put the message back to where it came from: its effects are not on disk, so it was not handled."""

    message_id: str
    rerun: int
    """1 for the first time it runs again, up to `MOST_RERUNS`."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Leave the accepted message queued, on disk: it is handled if the paglet is revived."""

    message_id: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Move the accepted message to the dead letters: it may have been handled in part, or kills its receiver."""

    message_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class FailCaller:
    """Answer whoever waits for the reply with the crash."""

    message_id: str


ProcessVerdict: TypeAlias = Restart | GiveUp
MessageVerdict: TypeAlias = Rerun | Keep | DeadLetter | FailCaller


@dataclass(frozen=True, slots=True)
class Verdict:
    """Say what to do after one death."""

    process: ProcessVerdict
    message: MessageVerdict | None = None
    """None where the process was idle."""


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Hold what the deaths of one paglet's processes say about the next."""

    deaths: tuple[float, ...] = ()
    """The newest times of death, never more than the policy allows restarts."""
    suspects: tuple[tuple[str, int], ...] = ()
    """The messages that processes died of lately, with how often, the newest last."""

    def died(
        self, now: float, policy: RestartPolicy, durability: Durability, in_hand: InHand | None = None
    ) -> tuple[Supervisor, Verdict]:
        """Take one death.

        :param now: seconds, on any clock that only moves forward
        :param durability: of the paglet; with `NONE` there is no row to start from
        :param in_hand: the message that was being handled, None where the process was idle
        """
        recent = tuple(death for death in self.deaths if now - death < policy.window)
        process: ProcessVerdict
        if durability is Durability.NONE or len(recent) >= policy.restarts:
            process = GiveUp(len(recent) + 1)
        else:
            process = Restart(back_off(policy, len(recent)))
        deaths = (*recent, now)[-policy.restarts :] if policy.restarts else ()
        if in_hand is None:
            return Supervisor(deaths, self.suspects), Verdict(process)
        times = 1 + next((count for suspect, count in self.suspects if suspect == in_hand.message_id), 0)
        others = tuple(suspect for suspect in self.suspects if suspect[0] != in_hand.message_id)
        suspects = (*others, (in_hand.message_id, times))[-_MOST_SUSPECTS:]
        return Supervisor(deaths, suspects), Verdict(process, _message(process, durability, in_hand, times))

    def revived(self) -> Supervisor:
        """Start counting deaths anew, because somebody revived the paglet; what its messages did is remembered."""
        return Supervisor((), self.suspects)


def back_off(policy: RestartPolicy, earlier: int) -> float:
    """Return the seconds before a restart.

    :param earlier: how many deaths lie in the window before this one
    """
    return min(policy.max_backoff, policy.backoff * float(2 ** min(earlier, _LONGEST_DOUBLING)))


def _message(process: ProcessVerdict, durability: Durability, in_hand: InHand, times: int) -> MessageVerdict:
    message_id = in_hand.message_id
    if durability is Durability.MESSAGE and times <= MOST_RERUNS:
        if isinstance(process, Restart):
            return Rerun(message_id, times)
        return Keep(message_id) if in_hand.oneway else FailCaller(message_id)
    if not in_hand.oneway:
        return FailCaller(message_id)
    if durability is Durability.MESSAGE:
        return DeadLetter(message_id, f"the receiver's process died {times} times while it handled this message")
    return DeadLetter(message_id, "the receiver's process died while it handled this message")
