"""The services that a host keeps available: declared, started, put to sleep and held awake on its event loop.

What to do is decided by :mod:`paglets.protocol.residency`; here it is done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from paglets.config.startup import ResidentServiceConfig, ResolvedResidentService, resolve_resident_service
from paglets.core.errors import (
    ConflictError,
    HostError,
    HostUnreachableError,
    PagletCrashedError,
    PagletError,
    ServiceNotFoundError,
)
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.protocol.residency import PAUSES, Expired, Look, Loss, Residency, Rest, Standing, Start
from paglets.runtime.activation import Activator
from paglets.runtime.agents import AgentEntry
from paglets.runtime.deactivation import SHUTDOWN_DEACTIVATE_TIMEOUT_SECONDS, Deactivator
from paglets.runtime.kernel import Kernel
from paglets.runtime.residents.declared import Declared
from paglets.runtime.residents.startup import Keeper, Startup
from paglets.runtime.service_desk import MESH_SERVICE_LOOKUP_TIMEOUT_SECONDS, ServiceDesk
from paglets.runtime.sleep import Dormitory

__all__ = ["MESH_SERVICE_LOOKUP_TIMEOUT_SECONDS", "SHUTDOWN_DEACTIVATE_TIMEOUT_SECONDS", "ResidentServices"]

IDLE_REASON = "resident-service-idle"
IDLE_SOURCE = "resident-service-manager"
#: So long a call waits for a service that rests after a failure; one that rests for longer is refused at once.
PATIENCE_SECONDS = 1.0


class ResidentServices:
    """Keep the managed services of one host; runs on its loop."""

    def __init__(
        self,
        kernel: Kernel,
        dormitory: Dormitory,
        activator: Activator,
        deactivator: Deactivator,
        services: ServiceDesk,
        keeper: Keeper,
    ) -> None:
        self._kernel = kernel
        self._dormitory = dormitory
        self._activator = activator
        self._deactivator = deactivator
        self._services = services
        self._keeper = keeper
        self._core = Residency()
        self._declared: dict[str, Declared] = {}
        self._errors: dict[str, str] = {}
        self._startups: dict[str, Startup] = {}
        self._timer: asyncio.TimerHandle | None = None
        kernel.on_active.append(self._is_active)
        kernel.on_departed.append(self._departed)
        kernel.check_id = self._check_id
        deactivator.wakes_on_startup = self._wakes_on_startup

    # --- declaring ----------------------------------------------------------------------------------------------------

    async def declare(self, configs: Sequence[ResidentServiceConfig]) -> None:
        """Make the services of a launch configuration known; nothing is started yet.

        One that cannot be is told by an event and keeps nothing else from working.
        """
        for config in configs:
            data = {"use": config.use or "", "class": config.class_name or ""}
            if not config.enabled:
                self._kernel.emit("resident-service-skip", data={"reason": "disabled", **data})
                continue
            try:
                # Beside the loop, because it imports the class.
                resolved = await self._kernel.loop.run_in_executor(None, resolve_resident_service, config)
                await self._declare(resolved)
            except PagletError as exc:
                self._kernel.emit("resident-service-failed", data=data, error=str(exc))

    async def _declare(self, resolved: ResolvedResidentService) -> None:
        service = Declared.of(resolved)
        agent_id = service.agent_id
        if agent_id in self._declared:
            raise ConflictError(f"a resident service with the agent id {agent_id!r} is declared already")
        replaced = await self._make_room(service)
        self._core.declare(agent_id, eager=service.eager, idle_timeout=service.idle_timeout)
        self._services.declare(agent_id, service.contract, service.metadata(), service.scope)
        self._declared[agent_id] = service
        if replaced:
            self._emit("resident-service-replace", service, {"class": service.class_name, "previous_class": replaced})

    async def _make_room(self, service: Declared) -> str:
        """End a paglet of another class that has the id of a service; return what it was.

        It is from a time when the service was another one, and its state would not fit.
        """
        agent_id = service.agent_id
        known = self._kernel.agents.get(agent_id)
        if known is not None:
            found = known.class_name, known.state_class_name
        else:
            summary = self._dormitory.summary(agent_id)
            if summary is None:
                return ""
            found = summary.agent_class_name, summary.state_class_name
        if found == (service.class_name, service.state_class_name):
            return ""
        await self._keeper.dispose(agent_id)
        return found[0]

    async def start_wanted(self, timeout: float) -> None:
        """Start the eager services and those with a lease, and wait until each is up or has failed.

        :param timeout: seconds after which those that take longer go on in the background.
        """
        if self._kernel.draining or self._kernel.closing:
            return
        starts = self._core.wanted(self._kernel.loop.time())
        futures = [self._begin(start.agent_id).up for start in starts]
        if futures:
            await asyncio.wait(futures, timeout=timeout)

    # --- asked by the other parts of the host -------------------------------------------------------------------------

    def manages(self, agent_id: str) -> bool:
        """Tell whether this is the id of a managed service."""
        return agent_id in self._declared

    async def bring(self, agent_id: str) -> bool:
        """See to it that a service takes messages; return whether it does, here.

        :return: False where this is no managed service, or one that lives on another host.
        :raises PagletCrashedError: it has failed lately, and rests before it is started again.
        :raises PagletError: it did not start.
        """
        if agent_id not in self._declared:
            return False
        if self._kernel.closing:
            raise self._kernel.closing_error()
        startup = self._startups.get(agent_id)
        while startup is None:
            admission = self._core.want(agent_id, self._kernel.loop.time())
            match admission:
                case Start():
                    startup = self._begin(agent_id)
                case Rest(seconds):
                    await self._rest(agent_id, seconds)
                    startup = self._startups.get(agent_id)
                case _:
                    await asyncio.sleep(0)  # whoever is told that its paglet has just left needs the loop for that
                    return True
        return await asyncio.shield(startup.placed)

    async def _rest(self, agent_id: str, seconds: float) -> None:
        if seconds > PATIENCE_SECONDS:
            raise PagletCrashedError(
                f"resident service {agent_id} has failed and is not started again before {seconds:.1f} s have passed: "
                f"{self._errors.get(agent_id, 'unknown')}"
            )
        await asyncio.sleep(seconds)

    def _wakes_on_startup(self, agent_id: str) -> bool:
        return agent_id not in self._declared or self._core.is_eager(agent_id)

    def _check_id(self, agent_id: str, class_name: str) -> None:
        declared = self._declared.get(agent_id)
        if declared is not None and declared.class_name != class_name:
            raise ConflictError(
                f"{agent_id} is the id of the resident service {declared.name!r} of {self._kernel.config.name}, "
                f"a {declared.class_name}; a {class_name} cannot have it"
            )

    # --- starting -----------------------------------------------------------------------------------------------------

    def _begin(self, agent_id: str) -> Startup:
        """Start a service whose core has said so."""
        startup = self._startups[agent_id] = Startup.new(self._kernel.loop)
        self._kernel.background(self._start(self._declared[agent_id], startup))
        return startup

    async def _start(self, service: Declared, startup: Startup) -> None:
        agent_id = service.agent_id
        try:
            here = await startup.bring_up(service, self._kernel, self._dormitory, self._activator, self._keeper)
        except asyncio.CancelledError:
            startup.failed(HostUnreachableError(f"host {self._kernel.config.name} is shutting down"))
            raise
        except Exception as exc:
            # A hook may raise whatever it likes.
            entry = self._kernel.agents.get(agent_id)
            if entry is not None and entry.active:
                startup.ended()  # somebody else was faster
            else:
                self._failed(service, startup, exc)
        else:
            if not here:
                self._core.away(agent_id)
                startup.ended(here=False)
            elif agent_id in self._startups:
                # It is here through somebody else's doing, who says when it is active.
                entry = self._kernel.agents.get(agent_id)
                if entry is not None and entry.active:
                    self._is_active(entry)
                else:
                    startup.adopt()
        finally:
            if self._startups.get(agent_id) is startup and not startup.adopted:
                del self._startups[agent_id]
            self._arm()

    def _failed(self, service: Declared, startup: Startup, error: Exception) -> None:
        agent_id = service.agent_id
        self._errors[agent_id] = str(error) or type(error).__name__
        if self._kernel.draining or self._kernel.closing:
            self._core.put_off(agent_id)
        else:
            pause = self._core.failed(agent_id, self._kernel.loop.time())
            data = {"use": "", "class": service.class_name, "retry_in": round(pause, 3)}
            self._emit("resident-service-failed", service, data, error=self._errors[agent_id])
        failure = error if isinstance(error, PagletError) else HostError(f"resident service {agent_id}: {error}")
        startup.failed(failure)

    def _is_active(self, entry: AgentEntry) -> None:
        service = self._declared.get(entry.agent_id)
        if service is None:
            return
        startup = self._startups.pop(entry.agent_id, None)
        entry.used_at = self._kernel.loop.time()
        if not entry.restart.restarts and entry.durable:
            # Its class leaves it to the host, and a service that is managed is meant to be there.
            entry.restart = PAUSES
        if self._core.present(entry.agent_id, entry.used_at):
            kind = "create" if startup is not None and startup.creating else "activate"
            self._emit(f"resident-service-{kind}", service, {"lifecycle": service.lifecycle.value})
        if startup is not None:
            startup.ended()
        self._arm()

    # --- the end of a stay --------------------------------------------------------------------------------------------

    def _departed(self, entry: AgentEntry) -> None:
        if self._kernel.closing:
            return
        startup = self._startups.get(entry.agent_id)
        if startup is not None and startup.adopted:
            del self._startups[entry.agent_id]
            self._core.put_off(entry.agent_id)
            startup.failed(HostError(f"resident service {entry.agent_id} did not come up"))
        elif startup is None and entry.agent_id in self._declared:
            # Whether it sleeps, or is about to be started again, is known when whoever tells this has gone on.
            self._kernel.loop.call_soon(self._look_after, entry)

    def _look_after(self, entry: AgentEntry) -> None:
        agent_id, now = entry.agent_id, self._kernel.loop.time()
        here = self._kernel.agents.get(agent_id)
        if self._kernel.closing or (here is not None and (not here.crashed or here.restarting)):
            return
        location = entry.gone.result() if entry.gone.done() else None
        if here is not None:
            self._errors[agent_id] = here.error or "its process died"
            loss = Loss.CRASHED
        elif agent_id in self._dormitory:
            loss = Loss.ASLEEP
        elif location is None:
            loss = Loss.ENDED
        else:
            loss = Loss.MOVED
        for start in self._core.lost(agent_id, loss, now):
            self._begin(start.agent_id)
        self._arm()

    # --- leases -------------------------------------------------------------------------------------------------------

    async def lease(self, agent_id: str, service_name: str, lease_id: str, ttl: float) -> float:
        """Have a service up and keep it so for `ttl` seconds; return when that ends, in Unix seconds.

        :raises ServiceNotFoundError: this is no managed service of that name, or one that has moved to another host.
        :raises OverloadedError: it has as many leases as it may.
        :raises PagletError: the service did not start.
        """
        service = self._declared.get(agent_id)
        if service is None or service.name != service_name:
            raise ServiceNotFoundError(
                f"{agent_id!r} is no managed resident service {service_name!r} of {self._kernel.config.name}"
            )
        # First, so that it is not put to sleep while it is waited for.
        self._core.lease(agent_id, lease_id, ttl, self._kernel.loop.time())
        try:
            await self._have_up(agent_id)
            # Its time begins now.
            self._core.lease(agent_id, lease_id, ttl, self._kernel.loop.time())
        except BaseException:
            self._core.release(lease_id, self._kernel.loop.time())
            raise
        finally:
            self._arm()
        expires_at = time.time() + ttl
        self._emit("service-lease-acquire", service, {"lease_id": lease_id, "expires_at": expires_at, "ttl": ttl})
        return expires_at

    async def _have_up(self, agent_id: str) -> None:
        while True:
            startup = self._startups.get(agent_id)
            if startup is not None:
                await asyncio.shield(startup.up)
            standing = self._core.standing(agent_id)
            if standing is Standing.ACTIVE:
                return
            if standing is Standing.STOPPING:
                entry = self._kernel.agents.get(agent_id)
                if entry is not None:
                    async with entry.lock:  # held until it sleeps
                        pass
                await asyncio.sleep(0)
            elif not await self.bring(agent_id):
                raise ServiceNotFoundError(f"resident service {agent_id} has moved to another host; lease it there")

    def release(self, lease_id: str) -> bool:
        """Give a lease back; return whether there was one."""
        agent_id = self._core.release(lease_id, self._kernel.loop.time())
        if agent_id is None:
            return False
        self._emit("service-lease-release", self._declared[agent_id], {"lease_id": lease_id})
        self._arm()
        return True

    # --- time ---------------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._core.next_due()
        if due is not None and not self._kernel.closing:
            self._timer = self._kernel.loop.call_at(due, self._on_time)

    def _on_time(self) -> None:
        now = self._kernel.loop.time()
        for action in self._core.due(now):
            match action:
                case Start(agent_id):
                    if self._kernel.draining:
                        self._core.put_off(agent_id)
                    else:
                        self._begin(agent_id)
                case Look(agent_id):
                    if self._core.looked(agent_id, self._used_at(agent_id), now):
                        self._kernel.background(self._put_to_sleep(self._declared[agent_id]))
                case Expired(lease_id, agent_id):
                    self._emit("service-lease-expire", self._declared[agent_id], {"lease_id": lease_id})
        self._arm()

    def _used_at(self, agent_id: str) -> float | None:
        entry = self._kernel.agents.get(agent_id)
        return None if entry is None or not entry.active or entry.in_use else entry.used_at

    async def _put_to_sleep(self, service: Declared) -> None:
        agent_id = service.agent_id
        policy = DeactivationPolicy(
            activate_on_message=True, queue_messages_when_inactive=True, activate_on_startup=False
        )
        try:
            entry = self._kernel.agents.require(agent_id)
            await self._deactivator.deactivate(entry, DeactivationRequest(IDLE_REASON, IDLE_SOURCE, policy))
        except Exception as exc:
            # A hook may raise whatever it likes; it goes on, and is asked again when it has been idle for as long.
            there = self._kernel.agents.get(agent_id)
            if there is not None and there.active:
                self._core.stayed(agent_id, self._kernel.loop.time())
                data = {"use": "", "class": service.class_name}
                self._emit("resident-service-failed", service, data, error=f"it does not go to sleep: {exc}")
            # Otherwise somebody else was faster, and what became of it is heard of in another way.
        else:
            self._emit("resident-service-idle-deactivate", service, {"idle_timeout": service.idle_timeout})
        self._arm()

    def close(self) -> None:
        """Let no time pass any more, and nobody wait for what is not going to start."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for startup in self._startups.values():
            startup.failed(HostUnreachableError(f"host {self._kernel.config.name} is shutting down"))

    # --- showing ------------------------------------------------------------------------------------------------------

    def overview(self) -> list[dict[str, Any]]:
        """Return how each managed service is, in the order of their declaration."""
        now = self._kernel.loop.time()
        return [self._shown(service, now) for service in self._declared.values()]

    def _shown(self, service: Declared, now: float) -> dict[str, Any]:
        agent_id = service.agent_id
        standing = self._core.standing(agent_id)
        entry = self._kernel.agents.get(agent_id)
        state = standing.value
        if standing is Standing.DOWN:
            state = "asleep" if agent_id in self._dormitory else "declared"
        elif entry is not None and entry.crashed and entry.restarting:
            state = Standing.STARTING.value
        up = standing is Standing.ACTIVE
        rests = self._core.rests_for(agent_id, now)
        return {
            "service_name": service.name,
            "agent_id": agent_id,
            "class_name": service.class_name,
            "lifecycle": service.lifecycle.value,
            "scope": service.scope.value,
            "idle_timeout": service.idle_timeout,
            "state": state,
            "leases": self._core.leases(agent_id),
            "idle_seconds": round(self._core.idle_for(agent_id, self._used_at(agent_id), now), 3) if up else None,
            "retry_in": round(rests, 3) if standing is Standing.FAILED else None,
            "error": self._errors.get(agent_id) if standing is Standing.FAILED else None,
        }

    def _emit(self, kind: str, service: Declared, data: dict[str, Any], *, error: str | None = None) -> None:
        self._kernel.emit(
            kind,
            agent_id=service.agent_id,
            class_name=service.class_name,
            service_name=service.name,
            data=data,
            error=error,
        )
