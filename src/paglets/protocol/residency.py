"""Decide when a managed service of a host is started, how long it stays up, and who holds it awake.

Pure: time is passed in, on any clock that only moves forward, and whoever calls performs what is answered::

                 want, eager, lease                 present
        DOWN ------------------------> STARTING ---------------> ACTIVE
         ^  ^                              |                      |  |
         |  |                       failed |      unused, no lease|  | crashed
         |  |                              v                      |  v
         |  +-- (away: moved on) AWAY    FAILED <-----------------+--+
         |                                 |  start again after a pause: at once for eager and leased services,
         +------------ STOPPING <----------+  with the next call for the others

Somebody who puts a service to sleep or ends it has their way, of an eager one too: the next call, lease or start of the
host brings it back. A crash is nobody's wish: an eager or leased service is started again, after pauses that double.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from paglets.core.errors import ConflictError, OverloadedError
from paglets.core.policies import RestartPolicy
from paglets.protocol.reminders import TimerQueue
from paglets.protocol.supervision import back_off

MOST_LEASES: Final = 10_000
"""How many leases there may be on one service."""
PAUSES: Final = RestartPolicy(restarts=64, window=600.0, backoff=0.1, max_backoff=30.0)
"""How long a service that fails again and again rests between two starts."""
SHORTEST_LOOK_SECONDS: Final = 0.05
"""How often at most a service that is in use is looked at, however short its idle timeout."""


class Standing(StrEnum):
    """How a managed service is."""

    DOWN = "down"
    """It has no process: it was never started, sleeps or has ended."""
    STARTING = "starting"
    ACTIVE = "active"
    STOPPING = "stopping"
    """It is being put to sleep because nobody uses it."""
    FAILED = "failed"
    """It did not start, or its process died; it rests before the next start."""
    AWAY = "away"
    """It moved to another host and lives there."""


class Loss(StrEnum):
    """Why a service is not up any more."""

    ASLEEP = "asleep"
    ENDED = "ended"
    CRASHED = "crashed"
    MOVED = "moved"


# -- what whoever calls is to do -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Start a service, then say `present` or `failed`."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class Look:
    """Look when a service was last used, and say so with `looked`."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class Expired:
    """Say that a lease has run out."""

    lease_id: str
    agent_id: str


Action: TypeAlias = Start | Look | Expired


# -- what is wanted of a service -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Join:
    """It is up, or somebody starts it already."""


@dataclass(frozen=True, slots=True)
class Rest:
    """It has failed lately and is not started again before `seconds` have passed."""

    seconds: float


Admission: TypeAlias = Start | Join | Rest
JOIN: Final = Join()


@dataclass(slots=True)
class _Service:
    agent_id: str
    eager: bool
    idle_timeout: float
    standing: Standing = Standing.DOWN
    used_at: float = 0.0
    failures: tuple[float, ...] = ()
    retry_at: float = 0.0
    leases: dict[str, float] = field(default_factory=dict)


class Residency:
    """The managed services of one host, by the id of their paglet."""

    def __init__(self) -> None:
        self._services: dict[str, _Service] = {}
        self._holders: dict[str, str] = {}  # lease -> service
        self._timers: TimerQueue[tuple[str, str]] = TimerQueue()

    def __contains__(self, agent_id: object) -> bool:
        """Tell whether this is the id of a managed service."""
        return agent_id in self._services

    def ids(self) -> list[str]:
        """Return the ids of all services, in the order of their declaration."""
        return list(self._services)

    def declare(self, agent_id: str, *, eager: bool, idle_timeout: float) -> None:
        """Know of a service; nothing is started.

        :param idle_timeout: seconds without use after which one that is not eager is put to sleep.
        :raises ConflictError: there is one with this id.
        """
        if agent_id in self._services:
            raise ConflictError(f"a resident service with the agent id {agent_id!r} is declared already")
        self._services[agent_id] = _Service(agent_id, eager, idle_timeout)

    def standing(self, agent_id: str) -> Standing:
        """Return how a service is."""
        return self._services[agent_id].standing

    def is_eager(self, agent_id: str) -> bool:
        """Tell whether a service runs all the time."""
        return self._services[agent_id].eager

    def rests_for(self, agent_id: str, now: float) -> float:
        """Return the seconds before a service that failed is started again, 0 for any other."""
        service = self._services[agent_id]
        return max(0.0, service.retry_at - now) if service.standing is Standing.FAILED else 0.0

    # -- starting ------------------------------------------------------------------------------------------------------

    def want(self, agent_id: str, now: float) -> Admission:
        """Somebody wants to use a service."""
        service = self._services[agent_id]
        match service.standing:
            case Standing.STARTING | Standing.ACTIVE | Standing.STOPPING:
                return JOIN
            case Standing.FAILED if now < service.retry_at:
                return Rest(service.retry_at - now)
        return self._begin(service)

    def wanted(self, now: float) -> list[Start]:
        """Begin to start what should be up and is not: eager services, and those with a lease."""
        return [
            self._begin(service)
            for service in self._services.values()
            if self._should_be_up(service)
            and (service.standing is Standing.DOWN or (service.standing is Standing.FAILED and now >= service.retry_at))
        ]

    def present(self, agent_id: str, now: float) -> bool:
        """A service is up; return whether that is news."""
        service = self._services[agent_id]
        was, service.standing = service.standing, Standing.ACTIVE
        service.used_at = now
        self._timers.cancel(("retry", agent_id))
        self._look_later(service, now)
        return was is not Standing.ACTIVE

    def failed(self, agent_id: str, now: float) -> float:
        """A service did not start, or did not stay; return the seconds before it may be started again."""
        service = self._services[agent_id]
        recent = tuple(time for time in service.failures if now - time < PAUSES.window)
        pause = back_off(PAUSES, len(recent))
        service.failures = (*recent, now)[-PAUSES.restarts :]
        service.standing = Standing.FAILED
        service.retry_at = now + pause
        self._timers.cancel(("idle", agent_id))
        if self._should_be_up(service):
            self._timers.set(("retry", agent_id), service.retry_at)
        return pause

    def lost(self, agent_id: str, loss: Loss, now: float) -> list[Start]:
        """A service that was up is not any more; return what to start again at once."""
        service = self._services[agent_id]
        if service.standing not in (Standing.ACTIVE, Standing.STOPPING):
            return []
        if loss is Loss.CRASHED:
            self.failed(agent_id, now)
            return []
        unasked = service.standing is Standing.STOPPING
        service.standing = Standing.AWAY if loss is Loss.MOVED else Standing.DOWN
        self._timers.cancel(("idle", agent_id))
        # Whoever took a lease while it was on its way to bed has been promised that it is awake.
        return [self._begin(service)] if unasked and loss is Loss.ASLEEP and service.leases else []

    def away(self, agent_id: str) -> None:
        """A service that was to be started lives on another host."""
        self._services[agent_id].standing = Standing.AWAY

    def put_off(self, agent_id: str) -> None:
        """A service is not started for now, through no fault of its own."""
        self._services[agent_id].standing = Standing.DOWN

    def _begin(self, service: _Service) -> Start:
        service.standing = Standing.STARTING
        self._timers.cancel(("retry", service.agent_id))
        return Start(service.agent_id)

    def _should_be_up(self, service: _Service) -> bool:
        return service.eager or bool(service.leases)

    # -- leases --------------------------------------------------------------------------------------------------------

    def lease(self, agent_id: str, lease_id: str, ttl: float, now: float) -> None:
        """Hold a service awake for a time, or for longer with a lease that is there.

        :raises OverloadedError: there are as many leases on it as there may be.
        """
        service = self._services[agent_id]
        if lease_id not in service.leases and len(service.leases) >= MOST_LEASES:
            raise OverloadedError(f"resident service {agent_id} has {len(service.leases)} leases, as many as it may")
        service.leases[lease_id] = now + ttl
        self._holders[lease_id] = agent_id
        self._timers.set(("lease", lease_id), now + ttl)
        self._timers.cancel(("idle", agent_id))

    def release(self, lease_id: str, now: float) -> str | None:
        """Give a lease back; return whose it was, or None where there is none."""
        agent_id = self._holders.pop(lease_id, None)
        if agent_id is None:
            return None
        self._timers.cancel(("lease", lease_id))
        service = self._services[agent_id]
        del service.leases[lease_id]
        if not service.leases:
            # It was in use until now.
            service.used_at = max(service.used_at, now)
            self._look_later(service, now)
            if not service.eager:
                self._timers.cancel(("retry", agent_id))
        return agent_id

    def leases(self, agent_id: str) -> int:
        """Count the leases on a service."""
        return len(self._services[agent_id].leases)

    # -- idling --------------------------------------------------------------------------------------------------------

    def looked(self, agent_id: str, used_at: float | None, now: float) -> bool:
        """Hear when a service was last used; return whether to put it to sleep now, after which comes `lost`.

        :param used_at: None while it is in use.
        """
        service = self._services[agent_id]
        if service.standing is not Standing.ACTIVE or service.eager or service.leases:
            return False
        service.used_at = max(service.used_at, now if used_at is None else used_at)
        if used_at is None:
            # Its idle time begins when that use ends, so not before now.
            self._look_later(service, now, at_least=SHORTEST_LOOK_SECONDS)
            return False
        if service.used_at + service.idle_timeout > now:
            self._look_later(service, service.used_at)
            return False
        service.standing = Standing.STOPPING
        return True

    def stayed(self, agent_id: str, now: float) -> None:
        """A service could not be put to sleep, and goes on."""
        service = self._services[agent_id]
        if service.standing is Standing.STOPPING:
            self.present(agent_id, now)

    def idle_for(self, agent_id: str, used_at: float | None, now: float) -> float:
        """Return the seconds for which a service that is up has not been used.

        :param used_at: None while it is in use.
        """
        service = self._services[agent_id]
        return 0.0 if used_at is None else max(0.0, now - max(service.used_at, used_at))

    def _look_later(self, service: _Service, since: float, at_least: float = 0.0) -> None:
        if service.standing is Standing.ACTIVE and not service.eager and not service.leases:
            self._timers.set(("idle", service.agent_id), since + max(at_least, service.idle_timeout))

    # -- time ----------------------------------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Return when `due` has something to say, None for never as things stand."""
        return self._timers.next_due()

    def due(self, now: float) -> list[Action]:
        """Return what the time asks for."""
        actions: list[Action] = []
        for what, key in self._timers.due(now):
            if what == "lease":
                agent_id = self.release(key, now)
                if agent_id is not None:
                    actions.append(Expired(key, agent_id))
                continue
            service = self._services[key]
            if what == "retry" and service.standing is Standing.FAILED and self._should_be_up(service):
                actions.append(self._begin(service))
            elif what == "idle" and service.standing is Standing.ACTIVE:
                actions.append(Look(key))
        return actions
