"""Paglets that do one typed task: they are started, say how far they are, and keep the outcome."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field, is_dataclass
from enum import Enum
from typing import Any, ClassVar, Final, Generic, TypeVar, cast

from paglets.core.agent import Paglet, PagletState
from paglets.core.errors import ConflictError, HostError, SerializationError, ServiceContractError
from paglets.core.frozen import stays_frozen
from paglets.core.messages import Message
from paglets.patterns.declining import other_answer
from paglets.remote.proxy import PagletProxy
from paglets.remote.references import PagletProxyRef
from paglets.serialization.codec import dataclass_from_wire, dataclass_to_wire
from paglets.services.contracts import EmptyPayload, ServiceOperation

__all__ = [
    "TASK_START",
    "TASK_STATUS",
    "TASK_WAIT",
    "RequestT",
    "ResultT",
    "StateT",
    "TaskClient",
    "TaskPaglet",
    "TaskSnapshot",
    "TaskStartRequest",
    "TaskState",
    "TaskStatus",
    "TaskStatusReply",
    "TaskWaitRequest",
]

#: The longest that one `wait` may hold up a task, seconds.
MAX_WAIT_SECONDS: Final = 3600.0
#: How long `TaskClient.start` waits for a task that has moved and is still about to arrive, seconds.
ARRIVAL_SECONDS: Final = 10.0
#: What the answer to a `wait` may take beyond what it waits, seconds.
_ANSWER_SECONDS: Final = 10.0


class TaskStatus(Enum):
    """How far a task is."""

    NEW = "NEW"
    RUNNING = "RUNNING"
    WAITING_FOR_ARRIVAL = "WAITING_FOR_ARRIVAL"
    """The task moves its paglet and is finished at the target."""
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


@dataclass
class TaskState(PagletState):
    """What a task knows of itself; request and result are plain values, times are Unix seconds, 0 for never."""

    status: TaskStatus = TaskStatus.NEW
    done: bool = False
    request: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    started_at: float = 0.0
    completed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskStartRequest:
    """Ask a task to begin; `request` are the fields of its request class."""

    request: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskWaitRequest:
    """Ask a task to answer when it is done, or after so many seconds."""

    wait_timeout: float = 0.5


@dataclass(frozen=True, slots=True)
class TaskStatusReply:
    """How far a task is, as plain values, and where it is."""

    status: TaskStatus = TaskStatus.NEW
    done: bool = False
    request: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    started_at: float = 0.0
    completed_at: float = 0.0
    agent_id: str = ""
    host_name: str = ""
    host_url: str = ""


TASK_START: Final = ServiceOperation("start", TaskStartRequest, TaskStatusReply)
TASK_STATUS: Final = ServiceOperation("status", EmptyPayload, TaskStatusReply)
TASK_WAIT: Final = ServiceOperation("wait", TaskWaitRequest, TaskStatusReply)

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")
StateT = TypeVar("StateT", bound=TaskState)


@stays_frozen
@dataclass(frozen=True, slots=True)
class TaskSnapshot(Generic[ResultT]):
    """How far a task was when it was asked, with its result decoded."""

    status: TaskStatus
    done: bool
    result: ResultT | None = None
    error: str = ""
    started_at: float = 0.0
    completed_at: float = 0.0
    agent_id: str = ""
    host_name: str = ""
    host_url: str = ""

    def to_wire(self) -> dict[str, Any]:
        """Return the snapshot as plain values; the result is `{}` when there is none."""
        return {
            "status": self.status.value,
            "done": self.done,
            "result": {} if self.result is None else dataclass_to_wire(self.result),
            "error": self.error,
            "started_at": self.started_at,
            "completed_at": self.completed_at,
            "agent_id": self.agent_id,
            "host_name": self.host_name,
            "host_url": self.host_url,
        }


class TaskPaglet(Paglet[StateT], Generic[RequestT, ResultT, StateT]):
    """Do one task at a time: override `run_task` and name its classes in `Request` and `Result`.

    The state is a `TaskState`, or a class that extends it. Nothing starts a task again after its host or process has
    died: an unfinished one comes back with the status of its last checkpoint, and a class that wants to go on does so
    in `run`.
    """

    Request: ClassVar[type[Any]]
    """The dataclass of what is asked."""
    Result: ClassVar[type[Any]]
    """The dataclass of what comes out."""
    State = TaskState

    @classmethod
    def request_class(cls) -> type[RequestT]:
        """Return the dataclass of what is asked.

        :raises HostError: the class names none.
        """
        return cast("type[RequestT]", _payload_class(cls, "Request"))

    @classmethod
    def result_class(cls) -> type[ResultT]:
        """Return the dataclass of what comes out.

        :raises HostError: the class names none.
        """
        return cast("type[ResultT]", _payload_class(cls, "Result"))

    # --- to be overridden ---------------------------------------------------------------------------------------------

    def run_task(
        self, request: RequestT
    ) -> ResultT | PagletProxy | PagletProxyRef | Awaitable[ResultT | PagletProxy | PagletProxyRef | None] | None:
        """Do the task, inside the handler of `start`; plain or `async def`.

        :return: the result, which completes the task; what `dispatch` returned, where the task goes on elsewhere; or
            None, where the status says already how it stands, or something else completes it later.
        :raises Exception: anything; the task has failed with its text then.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement run_task")

    def handle_task_message(self, message: Message) -> Any | None:
        """Answer a message that is not about the task; None declines it."""
        return None

    def task_is_under_way(self) -> bool:
        """Tell whether another `start` would disturb the present task: one that is about to arrive somewhere."""
        return self.state.status is TaskStatus.WAITING_FOR_ARRIVAL and not self.state.done

    # --- messages -----------------------------------------------------------------------------------------------------

    def handle_message(self, message: Message) -> Any:
        """Answer `start`, `status` and `wait`, or else what `handle_task_message` or a marked method answers."""
        match message.kind:
            case TASK_START.name:
                return self._start(TASK_START.decode_request(message))
            case TASK_STATUS.name:
                return TASK_STATUS.encode_reply(self.task_status_reply())
            case TASK_WAIT.name:
                return TASK_WAIT.encode_reply(self._wait(TASK_WAIT.decode_request(message)))
        return other_answer(self, message, self.handle_task_message(message))

    def _start(self, order: TaskStartRequest) -> Any:
        request = dataclass_from_wire(self.request_class(), order.request, path="request")
        with self.locked_state() as state:
            if self.task_is_under_way():
                if order.request == state.request:  # a sender that has lost the first answer
                    return TASK_START.encode_reply(self.task_status_reply())
                raise ConflictError(f"task {self.agent_id} is under way with another request; wait until it is done")
            state.request = dict(order.request)
            state.status, state.done = TaskStatus.RUNNING, False
            state.result, state.error = {}, ""
            state.started_at, state.completed_at = time.time(), 0.0
            self.notify_all_state_changed()
        place: dict[str, str] | None = None
        try:
            outcome = self.run_task(request)
            if inspect.isawaitable(outcome):
                return self._awaited(outcome)
            place = self._take_outcome(outcome)
        except Exception as exc:  # whatever the task raised is its outcome
            self.fail_task(exc)
        return place or TASK_START.encode_reply(self.task_status_reply())

    async def _awaited(self, outcome: Awaitable[Any]) -> dict[str, Any]:
        from asyncio import CancelledError  # loaded already where anything is awaited

        place: dict[str, str] | None = None
        try:
            place = self._take_outcome(await outcome)
        except (Exception, CancelledError) as exc:  # likewise; what it awaits may have been cancelled
            self.fail_task(exc)
        return place or TASK_START.encode_reply(self.task_status_reply())

    def _take_outcome(self, outcome: Any) -> dict[str, str] | None:
        """Note the result that a task has come to, or return the place that it has moved to."""
        if isinstance(outcome, PagletProxy | PagletProxyRef):
            return outcome.to_wire()
        if outcome is not None:
            self.complete_task(outcome)
        return None

    def _wait(self, order: TaskWaitRequest) -> TaskStatusReply:
        self.wait_state(lambda state: bool(state.done), min(order.wait_timeout, MAX_WAIT_SECONDS))
        return self.task_status_reply()

    # --- the outcome --------------------------------------------------------------------------------------------------

    def task_status_reply(self) -> TaskStatusReply:
        """Return how far the task is; without a host its name and URL are empty."""
        here = self._context
        with self.locked_state() as state:
            return TaskStatusReply(
                state.status,
                state.done,
                dict(state.request),
                dict(state.result),
                state.error,
                state.started_at,
                state.completed_at,
                self.agent_id,
                "" if here is None else here.name,
                "" if here is None else here.address,
            )

    def complete_task(self, result: ResultT, *, status: TaskStatus = TaskStatus.COMPLETED) -> None:
        """End the task with a result.

        :raises HostError: the result is no instance of a dataclass.
        :raises SerializationError: it holds a value that cannot travel.
        """
        if not is_dataclass(result) or isinstance(result, type):
            raise HostError(f"the result of {type(self).__name__} must be a dataclass, not {type(result).__name__}")
        self._end(status, dataclass_to_wire(result), "")

    def fail_task(self, error: str | BaseException) -> None:
        """End the task with an error."""
        text = error if isinstance(error, str) else str(error) or type(error).__name__
        self._end(TaskStatus.FAILED, {}, text)

    def set_task_status(self, status: TaskStatus, *, done: bool | None = None) -> None:
        """Change how far the task is.

        :param done: whether it has ended; None leaves that as it is.
        """
        with self.locked_state() as state:
            state.status = status
            if done is not None:
                state.done = done
            self.notify_all_state_changed()

    def _end(self, status: TaskStatus, result: dict[str, Any], error: str) -> None:
        with self.locked_state() as state:
            state.status, state.done = status, True
            state.result, state.error = result, error
            state.completed_at = time.time()
            self.notify_all_state_changed()


@dataclass(slots=True)
class TaskClient(Generic[RequestT, ResultT]):
    """Start a task and hear how far it is."""

    proxy: PagletProxy
    """Where the task is; `start` renews it when the task moves."""
    request_type: type[RequestT]
    result_type: type[ResultT]

    @classmethod
    def for_paglet(
        cls, proxy: PagletProxy, paglet_cls: type[TaskPaglet[RequestT, ResultT, Any]]
    ) -> TaskClient[RequestT, ResultT]:
        """Return a client for a paglet of a class.

        :raises HostError: the class names no request or result.
        """
        return cls(proxy, paglet_cls.request_class(), paglet_cls.result_class())

    def start(self, request: RequestT, *, timeout: float | None = None) -> TaskSnapshot[ResultT]:
        """Start the task, follow it where it moves, and return how far it is.

        A task that finishes after a move is waited for at its new place, for at most 10 s.

        :param timeout: seconds that one answer may take. The first one comes when `run_task` has ended.
        :raises ServiceContractError: the request is of another class, or the answer cannot be understood.
        :raises ConflictError: the task is under way with another request.
        :raises PagletInactiveError: the paglet sleeps and messages do not wake it; nothing was started.
        :raises PagletError: as `PagletProxy.send`.
        """
        if not isinstance(request, self.request_type):
            raise ServiceContractError(
                f"The request must be a {self.request_type.__name__}, not {type(request).__name__}"
            )
        order = TaskStartRequest(dataclass_to_wire(request))
        reply = self._ask(TASK_START.to_message(order), timeout)
        if not _is_location(reply):
            return self._snapshot(TASK_START.decode_reply(reply))
        self.proxy = PagletProxy.from_wire(reply, self.proxy.client)
        snapshot = self.status(timeout=timeout)
        if snapshot.status is TaskStatus.WAITING_FOR_ARRIVAL and not snapshot.done:
            patience = ARRIVAL_SECONDS if timeout is None else min(timeout, ARRIVAL_SECONDS)
            return self.wait(wait_timeout=patience)
        return snapshot

    def status(self, *, timeout: float | None = None) -> TaskSnapshot[ResultT]:
        """Return how far the task is.

        :raises PagletError: as `PagletProxy.send`.
        """
        reply = self._ask(TASK_STATUS.to_message(), timeout)
        return self._snapshot(TASK_STATUS.decode_reply(reply))

    def wait(self, *, wait_timeout: float = 0.5, timeout: float | None = None) -> TaskSnapshot[ResultT]:
        """Return how far the task is when it is done, or after `wait_timeout` seconds.

        :param timeout: seconds that the answer may take; 10 more than it waits by default.
        :raises PagletError: as `PagletProxy.send`.
        """
        patience = wait_timeout + _ANSWER_SECONDS if timeout is None else timeout
        reply = self._ask(TASK_WAIT.to_message(TaskWaitRequest(wait_timeout)), patience)
        return self._snapshot(TASK_WAIT.decode_reply(reply))

    def start_and_wait(
        self, request: RequestT, *, wait_timeout: float = 0.5, timeout: float | None = None
    ) -> TaskSnapshot[ResultT]:
        """Start the task, wait once if it is not done, and return how far it is."""
        snapshot = self.start(request, timeout=timeout)
        return snapshot if snapshot.done else self.wait(wait_timeout=wait_timeout, timeout=timeout)

    def _ask(self, message: Message, timeout: float | None) -> Any:
        # What is stored for a paglet that stays asleep is answered with a receipt, which says nothing of the task.
        return self.proxy.send(message, no_delay=True, timeout=timeout)

    def _snapshot(self, reply: TaskStatusReply) -> TaskSnapshot[ResultT]:
        result: ResultT | None = None
        if reply.result:
            try:
                result = dataclass_from_wire(self.result_type, reply.result, path="result")
            except SerializationError as exc:
                raise ServiceContractError(f"The result does not fit {self.result_type.__name__}: {exc}") from exc
        return TaskSnapshot(
            reply.status,
            reply.done,
            result,
            reply.error,
            reply.started_at,
            reply.completed_at,
            reply.agent_id,
            reply.host_name,
            reply.host_url,
        )


def _payload_class(cls: type[Any], name: str) -> type[Any]:
    found = getattr(cls, name, None)
    if not isinstance(found, type) or not is_dataclass(found):
        raise HostError(f"{cls.__module__}:{cls.__qualname__} must set {name} to a dataclass")
    return found


def _is_location(reply: Any) -> bool:
    """Tell whether a task answered with the place it moved to instead of its status."""
    return isinstance(reply, dict) and "status" not in reply and {"host_url", "agent_id"} <= reply.keys()
