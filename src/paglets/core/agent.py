"""The class that authors of paglets extend, and its state."""

from __future__ import annotations

import functools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Final, Generic, ParamSpec, TypeVar

from paglets.core.allowance import NO_LIMITS, Allowance, AllowanceBalance
from paglets.core.context import ACTIVE, INACTIVE, PagletContext
from paglets.core.errors import HostError
from paglets.core.events import CloneEvent, CreationEvent, MobilityEvent, PersistencyEvent
from paglets.core.handlers import dispatch_message, handler
from paglets.core.messages import Message, ReplySet
from paglets.core.policies import DeactivationPolicy, DeactivationRequest, RestartPolicy
from paglets.core.resources import ResourceRegistry
from paglets.core.runtime_values import Durability, ServiceScope

if TYPE_CHECKING:
    from paglets.artifacts import ArtifactRef, PagletFileRef
    from paglets.persistence.storage import ManagedStorage
    from paglets.remote.proxy import PagletProxy
    from paglets.remote.references import PagletProxyRef
    from paglets.remote.transfer import TransferTicket
    from paglets.services.contracts import ServiceContract, ServiceHandle, ServiceOperation, ServiceRecord
    from paglets.services.pool import RetryPolicy, ServicePool
    from paglets.services.resident import ServiceLease

__all__ = [
    "ACTIVE",
    "INACTIVE",
    "NOT_HANDLED",
    "P",
    "Paglet",
    "PagletContext",
    "PagletState",
    "PagletT",
    "ReturnT",
    "StateT",
    "handler",
    "state_locked",
]


class PagletState:
    """Mark a dataclass as the state of a paglet: the only part of it that moves and is stored.

    ``STATE_VERSION`` is stored with the state. When an older state is read, ``upgrade_state(cls, data, from_version)``,
    a classmethod that takes and returns the plain field dictionary, brings it up to date.
    """


class _NotHandled:
    __slots__ = ()

    def __repr__(self) -> str:
        return "NOT_HANDLED"


NOT_HANDLED: Final = _NotHandled()
"""Returned by ``handle_message`` to decline a message."""

StateT = TypeVar("StateT", bound=Any)
PagletT = TypeVar("PagletT", bound="Paglet[Any]")
P = ParamSpec("P")
ReturnT = TypeVar("ReturnT")


def state_locked(
    method: Callable[Concatenate[PagletT, P], ReturnT],
) -> Callable[Concatenate[PagletT, P], ReturnT]:
    """Run a method of a paglet under its state lock."""

    @functools.wraps(method)
    def locked_method(self: PagletT, /, *args: P.args, **kwargs: P.kwargs) -> ReturnT:
        with self.locked():
            return method(self, *args, **kwargs)

    return locked_method


class Paglet(Generic[StateT]):
    """Extend this: a durable object with identity that handles messages and moves between hosts.

    A subclass names its dataclass state in ``State`` and overrides hooks, `run`, and either marks methods with
    `paglets.core.handlers.handler` or overrides `handle_message`. Hooks, handlers and ``run`` may be
    ``async def``. Only the state travels; every other attribute is rebuilt by ``__init__`` wherever the paglet starts.

    :param state: the initial state; a fresh ``State()`` when None.
    :param agent_id: the identity; a fresh 32-digit hexadecimal id when None.
    :raises HostError: ``State`` is missing or no dataclass, or ``state`` is no dataclass instance.
    """

    State: ClassVar[type[Any]]
    ACTIVE: ClassVar[int] = ACTIVE
    INACTIVE: ClassVar[int] = INACTIVE
    DURABILITY: ClassVar[Durability] = Durability.CHECKPOINT
    """What of the paglet survives the death of its host while it is active."""
    RESTART: ClassVar[RestartPolicy] = RestartPolicy()
    """What happens when the paglet's process dies by itself."""
    ALLOWANCE: ClassVar[Allowance] = NO_LIMITS
    """What the paglet may use up, unless whoever creates it says otherwise."""
    MAILBOX_WORKERS: ClassVar[int] = 4
    """Accepted for older programs. A paglet handles one message at a time whatever it says."""

    def __init__(self, state: StateT | None = None, *, agent_id: str | None = None) -> None:
        if state is None:
            state = self.state_class()()
        if not is_dataclass(state) or isinstance(state, type):
            raise HostError(f"state of {type(self).__name__} must be a dataclass instance, not {type(state).__name__}")
        self.agent_id: str = agent_id or uuid.uuid4().hex
        self.state: StateT = state
        self.resources = ResourceRegistry()
        self._context: PagletContext | None = None
        self._lock = threading.RLock()
        self._changed: threading.Condition | None = None

    @classmethod
    def state_class(cls) -> type[Any]:
        """Return the dataclass that holds this class's state.

        :raises HostError: the class names none.
        """
        state = getattr(cls, "State", None)
        if not isinstance(state, type) or not is_dataclass(state):
            raise HostError(f"{cls.__module__}:{cls.__qualname__} must set State to a dataclass")
        return state

    @property
    def context(self) -> PagletContext:
        """The host this paglet is on.

        :raises HostError: it is on none.
        """
        if self._context is None:
            raise HostError(f"{type(self).__name__} {self.agent_id} is not attached to a host")
        return self._context

    def _attach(self, context: PagletContext) -> None:
        self._context = context

    @property
    def _state_changed(self) -> threading.Condition:
        # Made when somebody first waits: most paglets never do, and there may be hundreds of them.
        with self._lock:
            if self._changed is None:
                self._changed = threading.Condition(self._lock)
            return self._changed

    # --- state --------------------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the state lock; nesting in one thread is fine."""
        with self._lock:
            yield

    @contextmanager
    def locked_state(self) -> Iterator[StateT]:
        """Hold the state lock and yield the state."""
        with self._lock:
            yield self.state

    def wait_state(self, predicate: Callable[[StateT], bool], timeout: float | None = None) -> bool:
        """Wait until ``predicate(state)`` holds, re-evaluated at each notification.

        :param timeout: seconds; None waits for ever, negative counts as 0.
        :return: whether it holds. The lock is released while waiting.
        """
        deadline = None if timeout is None else time.monotonic() + max(0.0, timeout)
        with self._state_changed:
            while not predicate(self.state):
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return False
                if not self._state_changed.wait(remaining):
                    return bool(predicate(self.state))
            return True

    def notify_state_changed(self) -> None:
        """Wake one thread that waits in `wait_state`."""
        with self._state_changed:
            self._state_changed.notify()

    def notify_all_state_changed(self) -> None:
        """Wake every thread that waits in `wait_state`."""
        with self._state_changed:
            self._state_changed.notify_all()

    def checkpoint(self) -> None:
        """Have the present state on disk when this returns; what a later crash brings back is at least this.

        Inside a handler of a paglet with `Durability.MESSAGE` it does nothing: the end of the handler is its
        checkpoint, together with the reply; in ``run`` and in other threads it waits until no handler runs. Where the
        paglet comes to a host (``on_creation``, ``on_arrival``, ``on_clone``, ``on_activation``) the end of the hook is
        its checkpoint. With `Durability.CHECKPOINT` the state is kept as it is, also in the middle of a handler. State
        that other threads change belongs under `locked`.

        :raises LifecycleError: the class keeps no checkpoints (`Durability.NONE`); or a coroutine of ``run`` of a
            `Durability.MESSAGE` paglet would block the handlers it waits for: ``await asyncio.to_thread(...)`` then.
        :raises InsufficientStorageError: the disk is full; the last checkpoint stays.
        """
        self.context.checkpoint(self.agent_id)

    @property
    def allowance(self) -> AllowanceBalance:
        """What this paglet has used of its allowance and what is left, as its host has it now."""
        return self.context.allowance(self.agent_id)

    # --- timers -------------------------------------------------------------------------------------------------------

    def remind(
        self,
        name: str,
        *,
        after: float | None = None,
        every: float | None = None,
        at: float | None = None,
        args: dict[str, Any] | None = None,
    ) -> None:
        """Have the host send this paglet a message of kind ``name`` later, once or again and again.

        The timer is durable: it wakes the paglet when it sleeps, whatever its policy says, moves with it, and survives
        restarts. It fires at least once for each time; ``message_id`` is the same when one firing is repeated. A series
        that was missed (host down, clock moved) fires once and goes on with its next time, and so does one whose last
        message is not handled yet. ``message.arg`` has the Unix time ``due``, how many times ``missed``, and the
        ``count`` of earlier firings. The same name replaces.

        :param after: seconds from now.
        :param at: Unix time instead of ``after``.
        :param every: seconds between firings; alone it fires first after that time. None to fire once.
        :param args: arguments of the message, plain values.
        :raises ValueError: no time, both ``after`` and ``at``, one that makes no sense, or such a name.
        :raises OverloadedError: the paglet has as many timers as it may.
        :raises SerializationError: an argument is no plain value.
        """
        self.context.remind(name, after=after, every=every, at=at, args=args, agent_id=self.agent_id)

    def forget(self, name: str) -> bool:
        """Remove a timer; return whether there was one."""
        return self.context.forget(name, agent_id=self.agent_id)

    # --- operations on itself -----------------------------------------------------------------------------------------

    def dispatch(self, target: str | TransferTicket) -> PagletProxy:
        """Move to another host; on success this process ends soon after.

        :raises TransferError: the move failed and this paglet goes on here.
        """
        return self.context.dispatch(self.agent_id, target)

    def clone(self, target: str | TransferTicket | None = None) -> PagletProxy:
        """Make a copy with a new id, here or on another host."""
        return self.context.clone(self.agent_id, target)

    def dispatch_to(self, name_or_url: str) -> PagletProxy:
        """Move to a mesh host given by name or URL."""
        return self.context.dispatch_to(self.agent_id, name_or_url)

    def clone_to(self, name_or_url: str) -> PagletProxy:
        """Make a copy on a mesh host given by name or URL."""
        return self.context.clone_to(self.agent_id, name_or_url)

    def deactivate(
        self,
        *,
        reason: str = "deactivate",
        policy: DeactivationPolicy | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> PagletProxy:
        """Be stored on disk; on success this process ends soon after."""
        request = DeactivationRequest(reason=reason, source="self", policy=policy, metadata=metadata or {})
        return self.context.deactivate(self.agent_id, request)

    def dispose(self) -> None:
        """End for good; on success this process ends soon after."""
        self.context.host.dispose(self.agent_id)

    def send(self, target_agent_id: str, message: Message, *, host_url: str | None = None) -> Any:
        """Send a message to another paglet and return its reply."""
        return self.context.send(target_agent_id, message, host_url=host_url)

    def multicast(
        self, kind: str | Message, args: dict[str, Any] | None = None, *, include_self: bool = True
    ) -> ReplySet:
        """Send a message to every active paglet on this host."""
        return self.context.multicast(kind, args, exclude=None if include_self else {self.agent_id})

    def wait_message(self, timeout: float | None = None) -> bool:
        """Wait for `notify_message`, from another thread of this paglet or from its host.

        :return: whether a notification came within ``timeout`` seconds. Handlers are serial, so no other handler runs
            meanwhile.
        """
        return self.context.host.wait_message(self.agent_id, timeout=timeout)

    def notify_message(self) -> None:
        """Wake one thread that waits in `wait_message`."""
        self.context.host.notify_message(self.agent_id)

    def notify_all_messages(self) -> None:
        """Wake every thread that waits in `wait_message`."""
        self.context.host.notify_all_messages(self.agent_id)

    # --- services -----------------------------------------------------------------------------------------------------

    def advertise_service(
        self,
        name: str,
        *,
        capabilities: list[str] | tuple[str, ...] | None = None,
        metadata: dict[str, Any] | None = None,
        scope: ServiceScope = ServiceScope.LOCAL,
        ttl: float | None = None,
    ) -> ServiceRecord:
        """Make this paglet findable under a service name."""
        return self.context.advertise_service(
            name, capabilities=capabilities, metadata=metadata, scope=scope, ttl=ttl, agent_id=self.agent_id
        )

    def unadvertise_service(self, name: str) -> list[ServiceRecord]:
        """Withdraw this paglet's record of a service."""
        return self.context.unadvertise_service(name, agent_id=self.agent_id)

    def lookup_service(
        self, name: str, *, capability: str | None = None, scope: ServiceScope = ServiceScope.LOCAL
    ) -> PagletProxyRef | None:
        """Return a reference to the first provider of a service, or None."""
        return self.context.lookup_service(name, capability=capability, scope=scope)

    def lookup_services(
        self, name: str | None = None, *, capability: str | None = None, scope: ServiceScope = ServiceScope.LOCAL
    ) -> list[ServiceRecord]:
        """Return the records of matching services."""
        return self.context.lookup_services(name, capability=capability, scope=scope)

    def advertise_contract(
        self,
        contract: ServiceContract,
        *,
        scope: ServiceScope = ServiceScope.LOCAL,
        ttl: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> ServiceRecord:
        """Make this paglet findable as a provider of a typed contract."""
        return self.context.advertise_contract(
            contract, scope=scope, ttl=ttl, metadata=metadata, agent_id=self.agent_id
        )

    def lookup_contract(
        self,
        contract: ServiceContract,
        *,
        operation: ServiceOperation[Any, Any] | None = None,
        scope: ServiceScope = ServiceScope.LOCAL,
    ) -> ServiceHandle | None:
        """Return a handle of the first provider of a contract, or None."""
        return self.context.lookup_contract(contract, operation=operation, scope=scope)

    def lookup_contracts(
        self,
        contract: ServiceContract,
        *,
        operation: ServiceOperation[Any, Any] | None = None,
        scope: ServiceScope = ServiceScope.LOCAL,
    ) -> list[ServiceHandle]:
        """Return handles of all providers of a contract."""
        return self.context.lookup_contracts(contract, operation=operation, scope=scope)

    def require_contract(
        self,
        contract: ServiceContract,
        *,
        operation: ServiceOperation[Any, Any] | None = None,
        scope: ServiceScope = ServiceScope.LOCAL,
    ) -> ServiceHandle:
        """Return a handle of a provider; ServiceNotFoundError if there is none."""
        return self.context.require_contract(contract, operation=operation, scope=scope)

    def service(
        self,
        contract: ServiceContract,
        *,
        scope: ServiceScope = ServiceScope.LOCAL,
        policy: RetryPolicy | None = None,
    ) -> ServicePool:
        """Return what spreads calls over all providers of a contract; see `PagletContext.service`."""
        return self.context.service(contract, scope=scope, policy=policy)

    def lease_contract(
        self,
        contract: ServiceContract,
        *,
        operation: ServiceOperation[Any, Any] | None = None,
        scope: ServiceScope = ServiceScope.LOCAL,
        ttl: float = 60.0,
    ) -> ServiceLease:
        """Have a managed resident service up and keep it so for ``ttl`` seconds, or until this paglet leaves."""
        return self.context.lease_contract(contract, operation=operation, scope=scope, ttl=ttl)

    # --- files --------------------------------------------------------------------------------------------------------

    def work_dir(self, *, create: bool = True) -> Path:
        """Return this paglet's private scratch directory on the present host."""
        return self.context.work_dir(create=create, agent_id=self.agent_id)

    def persistent_storage(self, *, quota_bytes: int | None = None) -> ManagedStorage:
        """Return the storage that all paglets of this class share on the present host."""
        return self.context.persistent_storage(quota_bytes=quota_bytes, agent_id=self.agent_id)

    def register_file(self, path: Path | str, *, name: str | None = None, mode: str = "copy") -> PagletFileRef:
        """Have a file travel along; ``mode="move"`` deletes it here once this paglet has arrived elsewhere."""
        return self.context.register_file(path, name=name, mode=mode, agent_id=self.agent_id)

    def registered_files(self) -> list[PagletFileRef]:
        """Return the files that travel along."""
        return self.context.registered_files(agent_id=self.agent_id)

    def unregister_file(self, name_or_ref: str | PagletFileRef) -> None:
        """Leave a file behind from now on."""
        self.context.unregister_file(name_or_ref, agent_id=self.agent_id)

    def file_path(self, name_or_ref: str | PagletFileRef) -> Path:
        """Return where a registered file lies on the present host."""
        return self.context.file_path(name_or_ref, agent_id=self.agent_id)

    def upload_artifact(
        self,
        path: Path | str,
        *,
        host_url: str | None = None,
        owner_agent_id: str | None = None,
        name: str | None = None,
        compression: str = "",
        expires_at: float = 0.0,
    ) -> ArtifactRef:
        """Store a file on a host, owned by this paglet unless told otherwise."""
        return self.context.upload_artifact(
            path,
            host_url=host_url,
            owner_agent_id=self.agent_id if owner_agent_id is None else owner_agent_id,
            name=name,
            compression=compression,
            expires_at=expires_at,
        )

    def download_artifact(self, artifact: ArtifactRef, target: Path | str, *, move: bool = False) -> ArtifactRef:
        """Fetch a stored file, verified."""
        return self.context.download_artifact(artifact, target, move=move)

    def read_artifact(self, artifact: ArtifactRef, *, start: int = 0, length: int | None = None) -> bytes:
        """Return a part of a stored file, less where it ends earlier; ``length`` in bytes, None for the rest."""
        return self.context.read_artifact(artifact, start=start, length=length)

    def delete_artifact(self, artifact: ArtifactRef) -> None:
        """Delete a stored file."""
        self.context.delete_artifact(artifact)

    # --- hooks: each may be ``async def`` -----------------------------------------------------------------------------

    def on_creation(self, event: CreationEvent) -> Any:
        """Called once, when the paglet has been created, before `run`."""

    def on_dispatching(self, event: MobilityEvent) -> Any:
        """Called before a move, on the host it leaves; raising cancels the move."""

    def on_arrival(self, event: MobilityEvent) -> Any:
        """Called after a move, on the host it reached; raising sends it back."""

    def on_reverting(self, event: MobilityEvent) -> Any:
        """Called instead of `on_dispatching` when another host pulls the paglet back."""

    def on_cloning(self, event: CloneEvent) -> Any:
        """Called on the original before it is copied; what it writes is part of the copy."""

    def on_clone(self, event: CloneEvent) -> Any:
        """Called on the copy, with its new id."""

    def on_cloned(self, event: CloneEvent) -> Any:
        """Called on the original after the copy lives."""

    def on_deactivating(self, event: PersistencyEvent) -> Any:
        """Called before the paglet is stored; what it writes is stored."""

    def on_activation(self, event: PersistencyEvent) -> Any:
        """Called after the paglet was brought back from disk."""

    def on_disposing(self, event: PersistencyEvent) -> Any:
        """Called before the paglet ends for good; raising keeps it."""

    def run(self) -> Any:
        """The paglet's own activity, started after creation, each arrival, cloning and activation, beside its
        handlers."""

    def deactivation_policy(self, request: DeactivationRequest) -> DeactivationPolicy:
        """Decide when a stored paglet wakes; by default what the request says."""
        return request.policy or DeactivationPolicy()

    def handle_message(self, message: Message) -> Any:
        """Handle a message and return the reply; by default the method marked with ``@handler`` for its kind.

        :raises NotHandledError: there is none.
        """
        return dispatch_message(self, message)

    @staticmethod
    def not_handled() -> Any:
        """Return the value that declines a message."""
        return NOT_HANDLED
