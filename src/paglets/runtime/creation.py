"""Create paglets: check, start, store, let live."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from paglets.core.agent import Paglet, PagletState
from paglets.core.errors import HostError
from paglets.persistence.directory import validate_agent_id
from paglets.runtime import faults
from paglets.runtime.agents import AgentEntry, Opening
from paglets.runtime.attachment import Attachment
from paglets.runtime.kernel import Kernel, check_importable
from paglets.runtime.starting import StartOrder
from paglets.security.caller import Caller
from paglets.serialization.blob import encode_blob
from paglets.serialization.names import qualified_name


class Creator:
    """Create the paglets of one host; runs on its loop."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def create(
        self,
        class_name: str,
        state_class_name: str,
        blob: Attachment,
        *,
        init: Any = None,
        agent_id: str | None = None,
        trusted: bool = False,
        by: Caller | None = None,
        opening: Opening | None = None,
        reserved: Callable[[AgentEntry], None] | None = None,
    ) -> dict[str, str]:
        """Create a paglet and return the wire form of its proxy, wherever its ``run`` has taken it within the settling
        time.

        :param opening: what it is allowed; what its class says where that is left out.
        :param trusted: the class was named by the program that owns this host, so the allow-list is not asked.
        :param by: who asked for it over the network.
        :param reserved: is given its entry before its process is started.
        :raises AllowanceExceededError: its state is larger than its allowance.
        :raises ConflictError: the id is taken.
        :raises ForbiddenError: the class is not on the allow-list.
        :raises OverloadedError: the host, or whoever asked, has as many paglets as allowed.
        :raises PayloadTooLargeError: the state is larger than allowed.
        :raises PagletError: the class is unusable, or a hook or an early ``run`` failed; nothing is left then.
        """
        kernel = self._kernel
        agent_id = validate_agent_id(agent_id) if agent_id else uuid.uuid4().hex
        declared_state = kernel.check_classes(class_name, state_class_name, trusted=trusted, by=by)
        if by is not None:
            kernel.config.policy.check_state(blob.nbytes)
        entry = kernel.reserve(agent_id, class_name, state_class_name, epoch=first_epoch())
        entry.home = kernel.address()
        entry.timers = {}
        entry.opening = opening or Opening()
        if by is not None:
            entry.holder = by.name
            entry.opening = replace(entry.opening, cap=entry.opening.cap.within(kernel.config.policy.allowance_of(by)))
        if reserved is not None:
            reserved(entry)
        try:
            if by is not None:
                kernel.holdings.add(by, agent_id)
            event = kernel.event_fields(agent_id, init=init)
            await kernel.starter.start(entry, StartOrder(blob, "on_creation", event, declared_state))
            if faults.ARMED:
                faults.reached("create.started")
            kernel.starter.check_size(entry, entry.last_state or blob)
            timers, entry.timers = entry.timers, {}
            await kernel.vault.created(entry, entry.last_state or blob, timers)
            if faults.ARMED:
                faults.reached("create.stored")
        except BaseException:
            kernel.ending.abandon(entry)
            if by is not None:
                kernel.holdings.discard(by, agent_id)
            raise
        kernel.timers.adopt(agent_id, [row for row in timers.values() if row is not None])
        kernel.starter.activate(entry)
        kernel.emit("create", entry)
        return await kernel.starter.begin(entry, fail_with_run=True) or kernel.proxy_wire(agent_id)


def blueprint(agent_cls: type[Paglet[Any]], state: PagletState | None) -> tuple[str, str, Attachment]:
    """Return class name, state class name and state blob of a paglet to be.

    :raises HostError: the class is no paglet, or its state no dataclass.
    :raises SerializationError: a class is local, or the state cannot travel.
    """
    candidate: Any = agent_cls
    if not isinstance(candidate, type) or not issubclass(candidate, Paglet):
        raise HostError(f"{agent_cls!r} is not a Paglet class")
    value = agent_cls.state_class()() if state is None else state
    if isinstance(value, type) or not hasattr(value, "__dataclass_fields__"):
        raise HostError(f"state of {agent_cls.__name__} must be a dataclass instance, not {type(value).__name__}")
    names = qualified_name(agent_cls), qualified_name(value)
    for name in names:
        check_importable(name)
    return *names, Attachment.of(encode_blob(value).segments)


def first_epoch() -> int:
    """Return the epoch of a new paglet: milliseconds of Unix time, so that an id that is used again is never taken
    for its past."""
    return int(time.time() * 1000)
