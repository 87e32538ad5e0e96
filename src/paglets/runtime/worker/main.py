"""What runs inside a paglet process: it builds the paglet, runs its hooks and handlers one at a time, and its
``run`` beside them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import closing
from contextvars import ContextVar
from typing import Any, NoReturn

import msgspec

from paglets.core.agent import NOT_HANDLED, Paglet, PagletContext
from paglets.core.error_wire import error_to_wire
from paglets.core.errors import (
    ForbiddenError,
    HostError,
    NotHandledError,
    PagletError,
    PayloadTooLargeError,
    StreamInterruptedError,
)
from paglets.core.events import CloneEvent, CreationEvent, MobilityEvent, PagletEvent, PersistencyEvent
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.core.resources import ResourceRegistry
from paglets.core.stage import Stage, current_stage
from paglets.runtime import platform, process_title
from paglets.runtime.attachment import Attachment
from paglets.runtime.frames import IF_TOUCHED, Frame, Op
from paglets.runtime.worker.coroutines import CoroutineRunner
from paglets.runtime.worker.endpoint import Endpoint, leave
from paglets.runtime.worker.exchange import Exchange
from paglets.runtime.worker.host import WorkerHost
from paglets.serialization.blob import decode_blob, encode_blob
from paglets.serialization.names import qualified_name, resolve_qualified_name
from paglets.serialization.values import pack, unpack

TRACEBACK_BYTES = 16 * 1024
#: The largest reply of a paglet whose replies are kept on disk.
MAX_RECORDED_BYTES = 1_000_000

#: The message on whose behalf code runs, in every thread and task that inherits the handler's context.
_handling: ContextVar[object | None] = ContextVar("paglets-handling", default=None)


def serve(control_fd: int, commands_fd: int, lifeline_fd: int) -> NoReturn:
    """Turn this process into a paglet process that speaks on two sockets; never returns.

    :param lifeline_fd: kept open; its closing ends this process.
    """
    platform.leave_terminal_group()
    (prepared or Worker()).serve(socket.socket(fileno=control_fd), socket.socket(fileno=commands_fd))


def serve_spawned(control_fd: int, commands_fd: int, lifeline_fd: int) -> NoReturn:
    """Turn a fresh interpreter into a paglet process; see :func:`serve`."""
    platform.ignore_interrupts()
    serve(control_fd, commands_fd, platform.die_with(lifeline_fd))


class Worker:
    """Execute what the host asks for; made by the thread that serves."""

    def __init__(self) -> None:
        self._endpoint = Endpoint(self.execute, self._notice)
        self._coroutines = CoroutineRunner()
        self._paglet: Paglet[Any] | None = None
        self._host: WorkerHost | None = None
        self._address = ""
        self._told_resources: dict[str, bool] = {}
        self._main_thread = threading.current_thread()
        self._run_thread: threading.Thread | None = None
        self._handling: object | None = None
        self._in_hook = False
        self._exchange: Exchange | None = None
        self._stage: Stage | None = None
        self._told_states = 0
        self._told_digest = b""
        self._recorded_digest = b""
        self._operations: dict[int, Callable[[Frame], tuple[bytes, Attachment | None]]] = {
            Op.START: self._start,
            Op.RUN: self._run,
            Op.MESSAGE: self._message,
            Op.HOOK: self._hook,
            Op.CLEANUP: self._cleanup,
            Op.STATE: self._state,
            Op.CHECKPOINT: self._checkpoint,
            Op.RESOURCES: self._resources,
        }

    def connect(self, control: socket.socket, commands: socket.socket) -> None:
        """Take over the two sockets to the host; see `Endpoint`."""
        self._endpoint.connect(control, commands)

    def serve(self, control: socket.socket, commands: socket.socket) -> NoReturn:
        """Execute commands on this thread for ever."""
        self.connect(control, commands)
        self._endpoint.start()
        self._endpoint.serve_commands()

    def execute(self, frame: Frame) -> None:
        """Execute one request and answer it; ``sys.exit`` in it ends the process."""
        if frame.op == Op.STREAM:
            self._pull(frame)
            return
        try:
            payload, attachment = self._operations[frame.op](frame)
        except SystemExit as exc:
            leave(_exit_code(exc))
        except BaseException as exc:
            self._endpoint.fail(frame, _failure(exc))
            return
        finally:
            frame.attachment.close()
        if attachment is None:
            self._endpoint.reply(frame, payload)
        else:
            try:
                self._endpoint.reply(frame, payload, attachment)
            finally:
                attachment.close()

    @property
    def _agent(self) -> Paglet[Any]:
        if self._paglet is None:
            raise HostError("the paglet of this process has not started")
        return self._paglet

    def _notice(self, frame: Frame) -> None:
        if frame.op == Op.ADDRESS:
            self._address = frame.payload.decode()
            if self._host is not None:
                self._host.address = self._address

    # --- operations ---------------------------------------------------------------------------------------------------

    def _start(self, frame: Frame) -> tuple[bytes, Attachment | None]:
        order = unpack(frame.payload)
        process_title.set_title(order["title"])
        agent_cls = load_paglet_class(order["agent_class_name"])
        state_cls = load_state_class(order["state_class_name"], agent_cls, declared=order["declared_state"])
        state = decode_blob(state_cls, frame.attachment.view())
        agent_id = order["agent_id"]
        paglet = agent_cls(state=state, agent_id=agent_id)
        if paglet.agent_id != agent_id:
            raise HostError(f"{agent_cls.__name__}.__init__ must pass agent_id on to Paglet.__init__")
        host = WorkerHost(
            self._endpoint,
            paglet,
            name=order["host_name"],
            address=order["host_address"],
            in_handler=self._in_handler,
            exchange=self._own_exchange,
            snapshot=self._snapshot,
            handlers_rest=self._handlers_rest,
        )
        self._host = host
        if self._address:
            # What the host says of it later comes another way, and was here first.
            host.address = self._address
        paglet._attach(PagletContext(host, agent_id))
        self._paglet = paglet
        hook = order["hook"]
        if hook:
            self._call_hook(hook, order["event"])
        answer = {
            "pid": os.getpid(),
            "has_run": _has_run(paglet),
            "resources": self._resource_status(),
            "departure_hooks": [name for name in DEPARTURE_HOOKS if _overrides(paglet, name)],
            "durability": agent_cls.DURABILITY.value,
            "allowance": agent_cls.ALLOWANCE.to_wire() if agent_cls.ALLOWANCE.limits else None,
            "restart": agent_cls.RESTART.to_wire() if agent_cls.RESTART.restarts else None,
        }
        # What no hook has touched is what the host sent.
        return msgspec.msgpack.encode(answer), self._state_blob() if hook and _overrides(paglet, hook) else None

    def _run(self, frame: Frame) -> tuple[bytes, Attachment | None]:
        self._run_thread = threading.Thread(target=self._run_paglet, name="paglet-run", daemon=True)
        self._run_thread.start()
        return b"", None

    def _run_paglet(self) -> None:
        try:
            self._coroutines.settle(self._agent.run())
        except SystemExit as exc:
            leave(_exit_code(exc))
        except BaseException as exc:
            self._endpoint.notify(Op.RUN_ENDED, _failure(exc))
        else:
            self._endpoint.notify(Op.RUN_ENDED)

    def _message(self, frame: Frame) -> tuple[bytes, Attachment | None]:
        message = Message.from_wire(unpack(frame.attachment.view()))
        exchange = Exchange.begin(frame.payload, message.message_id, self._agent.agent_id)
        if not exchange.durable:
            reply = self._handle(frame, message, exchange)
            resources = self._changed_resources()
            # One-way: nobody waits for what the handler returned.
            return resources, None if exchange.oneway else Attachment.of([pack(reply)])
        answer: dict[str, Any] = {}
        try:
            answer["reply"] = recordable(pack(self._handle(frame, message, exchange)))
        except Exception as exc:
            # A handler that failed is handled too: what it changed and sent counts, with the error as its reply.
            answer["error"] = _failure(exc)
        answer["outbox"] = exchange.outbox
        answer["resources"] = self._resource_status()
        # What a checkpoint told in between does not count: it may get to the disk later than this message.
        answer["state"], state = self._snapshot(self._recorded_digest)
        if state is not None:
            self._recorded_digest = self._told_digest
        return pack(answer), state

    def _handle(self, frame: Frame, message: Message, exchange: Exchange) -> Any:
        paglet = self._agent
        if self._stage is None:
            # Not before: an idle paglet has no use for it.
            self._stage = Stage(self._coroutines.loop, self._tell_self)
        if current_stage.get() is not self._stage:
            current_stage.set(self._stage)  # for this thread, and for the coroutines that it starts
        self._exchange = exchange
        self._handling = frame
        handling = _handling.set(frame)
        try:
            reply = self._coroutines.settle(paglet.handle_message(message))
        finally:
            _handling.reset(handling)
            self._handling = None
            self._exchange = None
        if reply is NOT_HANDLED:
            raise NotHandledError(f"{type(paglet).__name__} does not handle message {message.kind!r}")
        to_wire = getattr(reply, "to_wire", None)
        return to_wire() if callable(to_wire) else reply

    def _tell_self(self, message: Message) -> None:
        context = self._agent.context
        context.host.client.deliver(context.address, self._agent.agent_id, message, oneway=True)

    def _pull(self, frame: Frame) -> None:
        """Have a pull at a stream answered by the loop that runs the paglet's coroutines."""
        try:
            message = Message.from_wire(unpack(frame.attachment.view()))
        except PagletError as exc:
            self._endpoint.fail(frame, _failure(exc))
            return
        finally:
            frame.attachment.close()
        streams = None if self._stage is None else self._stage.streams

        async def answer() -> None:
            try:
                if streams is None:
                    raise StreamInterruptedError("this paglet serves no stream")
                reply = Attachment.of([pack(await streams.pull(message))])
            except Exception as exc:
                self._endpoint.fail(frame, _failure(exc))
                return
            with closing(reply):
                self._endpoint.reply(frame, b"", reply)

        asyncio.run_coroutine_threadsafe(answer(), self._coroutines.loop())

    def _end_streams(self) -> None:
        """End the streams before the paglet leaves this process, so that what they clean up goes along."""
        streams = None if self._stage is None else self._stage.streams
        if streams is not None:
            on_loop = self._coroutines.owns(threading.current_thread())
            streams.close_all("ended, because its provider leaves", on_loop=on_loop)

    def _own_exchange(self) -> Exchange | None:
        """Return the exchange on whose behalf the calling code runs, None outside of handlers."""
        exchange = self._exchange
        # The thread would not tell: the coroutines of a handler and of an asynchronous `run` share one.
        return exchange if exchange is not None and _handling.get() is self._handling else None

    def _handlers_rest(self) -> bool | None:
        """Tell whether no handler can run while the calling thread does not want it; None where waiting until none
        runs could be for ever."""
        thread = threading.current_thread()
        if thread is self._main_thread:
            return True
        # The coroutines of a handler and of an asynchronous `run` share one thread.
        return (self._in_hook or None) if self._coroutines.owns(thread) else False

    def _in_handler(self) -> bool:
        """Tell whether the calling thread is what the handler that runs waits for: waiting for its end would be for
        ever."""
        thread = threading.current_thread()
        if thread is self._main_thread or self._coroutines.owns(thread):
            return True
        # `asyncio.to_thread` takes the context along into its thread.
        handled = _handling.get()
        return handled is not None and handled is self._handling

    def _resource_status(self) -> dict[str, bool]:
        """Return the status of the paglet's resources; asking does not make a registry, which most have no use for."""
        made: ResourceRegistry | None = vars(self._agent).get("resources")
        return {} if made is None else made.status()

    def _changed_resources(self) -> bytes:
        """Return the status of the resources, packed, if a handler has changed it since the host last heard."""
        status = self._resource_status()
        if status == self._told_resources:
            return b""
        self._told_resources = status
        return pack(status)

    def _hook(self, frame: Frame) -> tuple[bytes, Attachment | None]:
        order = unpack(frame.payload)
        answer: dict[str, Any] = {}
        if order["hook"] == "on_deactivating":
            answer["policy"] = self._deactivation_policy(order["event"]).to_wire()
            order["event"]["policy"] = answer["policy"]
        if order["hook"] in LEAVING_HOOKS:
            self._end_streams()
        self._call_hook(order["hook"], order["event"])
        if order["cleanup"]:
            self._agent.resources.cleanup(reason=order["cleanup"])
        wanted = order["snapshot"] and (order["snapshot"] != IF_TOUCHED or _overrides(self._agent, order["hook"]))
        attachment = self._state_blob() if wanted else None
        answer["resources"] = self._resource_status()
        if frame.parent and self._exchange is not None:
            # The handler that caused this may never return: what it sent goes with its paglet's snapshot.
            answer["outbox"] = self._exchange.outbox
        return pack(answer), attachment

    def _deactivation_policy(self, event: dict[str, Any]) -> DeactivationPolicy:
        policy = self._coroutines.settle(
            self._agent.deactivation_policy(DeactivationRequest.from_wire(event.get("request")))
        )
        if not isinstance(policy, DeactivationPolicy):
            raise HostError(
                f"{type(self._agent).__name__}.deactivation_policy must return a DeactivationPolicy, "
                f"not {type(policy).__name__}"
            )
        return policy

    def _call_hook(self, name: str, event: dict[str, Any]) -> None:
        self._in_hook = True
        try:
            self._coroutines.settle(getattr(self._agent, name)(_event(name, event)))
        finally:
            self._in_hook = False

    def _cleanup(self, frame: Frame) -> tuple[bytes, Attachment | None]:
        self._agent.resources.cleanup(reason=unpack(frame.payload))
        return pack(self._resource_status()), None

    def _state(self, frame: Frame) -> tuple[bytes, Attachment | None]:
        return pack(self._resource_status()), self._state_blob()

    def _state_blob(self) -> Attachment:
        paglet = self._agent
        with paglet.locked():
            # Copied under the lock: the blob's large buffers are the state's own.
            return Attachment.of(encode_blob(paglet.state).segments)

    def _snapshot(self, known: bytes = b"") -> tuple[int, Attachment | None]:
        """Return the state blob with its number: of two, the one with the higher number is newer.

        :param known: the digest of a blob in place of which None is returned.
        """
        paglet = self._agent
        with paglet.locked():
            segments = encode_blob(paglet.state).segments
            digest = hashlib.blake2b(digest_size=16)
            for segment in segments:
                digest.update(segment)
            if digest.digest() == known:
                return self._told_states, None
            self._told_digest = digest.digest()
            self._told_states += 1
            return self._told_states, Attachment.of(segments)

    def _checkpoint(self, frame: Frame) -> tuple[bytes, Attachment | None]:
        """Answer with the state if it has changed, and with whether something may change it without a message."""
        # With a payload: what the host was told last is not on its disk.
        number, state = self._snapshot(b"" if frame.payload else self._told_digest)
        return pack({"goes_on": self._has_own_activity(), "state": number}), state

    def _has_own_activity(self) -> bool:
        run = self._run_thread
        if run is not None and run.is_alive():
            return True
        return self._coroutines.busy or any(
            thread is not self._main_thread and not thread.name.startswith("paglet-")
            for thread in threading.enumerate()
        )

    def _resources(self, frame: Frame) -> tuple[bytes, Attachment | None]:
        remove = unpack(frame.payload)
        if remove is not None:
            self._agent.resources.remove(remove)
        return pack(self._resource_status()), None


#: What the fork server has made before the fork, so that its children need not: 0.1 MB of private memory for each.
prepared: Worker | None = None


def prepare() -> None:
    """Make the worker that the next call of `serve` uses, in this process or a fork of it."""
    global prepared
    prepared = Worker()


def recordable(reply: bytes) -> bytes:
    """Return a reply that can be kept with its message.

    :raises PayloadTooLargeError: it is too large for that.
    """
    if len(reply) > MAX_RECORDED_BYTES:
        raise PayloadTooLargeError(
            f"a reply of {len(reply)} bytes cannot be recorded with its message; at most {MAX_RECORDED_BYTES} are"
        )
    return reply


def load_paglet_class(name: str) -> type[Paglet[Any]]:
    """Import a paglet class by its qualified name.

    :raises SerializationError: it cannot be imported.
    :raises HostError: it is no :class:`Paglet`.
    """
    agent_cls = _resolve(name)
    if not isinstance(agent_cls, type) or not issubclass(agent_cls, Paglet):
        raise HostError(f"{name} is not a Paglet class")
    return agent_cls


def _resolve(name: str) -> Any:
    """Return what a qualified name stands for; one whose module is loaded takes no way through the import system.

    What a paglet process never runs costs it no memory: this short way saves 0.1 MB.
    """
    module_name, _, path = name.partition(":")
    target: Any = sys.modules.get(module_name)
    if target is None:
        return resolve_qualified_name(name)
    for part in path.split("."):
        target = getattr(target, part, None)
    return resolve_qualified_name(name) if target is None else target


def load_state_class(name: str, agent_cls: type[Paglet[Any]], *, declared: bool = False) -> type[Any]:
    """Return a paglet's state class: the one named, or the class's own when the name is empty.

    :param declared: the name imports nothing: it must be that of the class's own.
    :raises ForbiddenError: it has to be, and is not.
    :raises HostError: it is no dataclass.
    """
    if declared:
        own = agent_cls.state_class()
        if qualified_name(own) != name:
            raise ForbiddenError(
                f"class {name!r} may not be used here: it is not allowed by its name, and is not the state that "
                f"{agent_cls.__name__} declares, {qualified_name(own)!r}"
            )
        return own
    state_cls = _resolve(name) if name else agent_cls.state_class()
    if not isinstance(state_cls, type) or not hasattr(state_cls, "__dataclass_fields__"):
        raise HostError(f"state class {name} of {agent_cls.__name__} is not a dataclass")
    return state_cls


def _has_run(paglet: Paglet[Any]) -> bool:
    return _overrides(paglet, "run")


def _overrides(paglet: Paglet[Any], name: str) -> bool:
    return getattr(type(paglet), name) is not getattr(Paglet, name) or name in vars(paglet)


LEAVING_HOOKS = frozenset({"on_dispatching", "on_reverting", "on_deactivating", "on_disposing"})
DEPARTURE_HOOKS = ("on_dispatching", "on_reverting", "on_cloning")

_EVENT_TYPES: dict[str, type[PagletEvent]] = {
    "on_creation": CreationEvent,
    "on_dispatching": MobilityEvent,
    "on_arrival": MobilityEvent,
    "on_reverting": MobilityEvent,
    "on_cloning": CloneEvent,
    "on_clone": CloneEvent,
    "on_cloned": CloneEvent,
    "on_deactivating": PersistencyEvent,
    "on_activation": PersistencyEvent,
    "on_disposing": PersistencyEvent,
}


def _event(hook: str, fields: dict[str, Any]) -> PagletEvent:
    event_type = _EVENT_TYPES[hook]
    if event_type is PersistencyEvent:
        fields = dict(fields)
        if fields.get("request") is not None:
            fields["request"] = DeactivationRequest.from_wire(fields["request"])
        if fields.get("policy") is not None:
            fields["policy"] = DeactivationPolicy.from_wire(fields["policy"])
    return event_type(**fields)


def _failure(exc: BaseException) -> bytes:
    wire: dict[str, Any] = dict(error_to_wire(exc))
    if not isinstance(exc, PagletError):
        text = "".join(traceback.format_exception(exc))
        wire["traceback"] = text[-TRACEBACK_BYTES:]
    return pack(wire)


def _exit_code(exc: SystemExit) -> int:
    if exc.code is None:
        return 0
    if isinstance(exc.code, int):
        return exc.code & 0xFF
    print(exc.code, file=sys.stderr)  # noqa: T201 - what the interpreter itself does with such an exit
    return 1
