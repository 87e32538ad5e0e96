"""Run the path of a paglet's start and first message once in the fork server, so that every child begins with it warm.

What is done before the fork is shared: caches are filled, the interpreter has specialised the bytecode, and a child
writes to fewer of the pages it shares. Measured on one machine: 0.5 MB less private memory and 1 ms less per paglet.
"""

from __future__ import annotations

import inspect
import socket
from dataclasses import dataclass, field
from types import ModuleType

from paglets.core.agent import Paglet, PagletState
from paglets.core.handlers import handler, handlers_of
from paglets.core.messages import Message
from paglets.runtime import platform
from paglets.runtime.attachment import EMPTY, Attachment
from paglets.runtime.frames import IF_TOUCHED, Frame, FrameParser, FrameType, Op
from paglets.runtime.worker.endpoint import Endpoint
from paglets.runtime.worker.hot_code import gather
from paglets.runtime.worker.main import Worker, serve
from paglets.serialization.blob import blob_from_wire, decode_blob, encode_blob
from paglets.serialization.values import pack

#: The interpreter specialises code after eight runs.
ROUNDS = 12

#: What every paglet process runs beside what is run here.
_AFTER_THE_FORK = (
    platform.die_with,
    platform.leave_terminal_group,
    platform.receive_with_descriptors,
    serve,
    Worker.serve,
    Endpoint.connect,
    Endpoint.start,
    Endpoint.serve_commands,
    Endpoint._next_for,
    Endpoint._cause_of,
    Endpoint._read,
    FrameParser.feed,
)


@dataclass
class WarmState(PagletState):
    """A state with the usual kinds of fields."""

    count: int = 0
    name: str = ""
    entries: list[str] = field(default_factory=list)
    table: dict[str, int] = field(default_factory=dict)
    content: bytes = b""


class WarmPaglet(Paglet[WarmState]):
    """A paglet that does what most do."""

    State = WarmState

    @handler
    def echo(self, by: int = 1) -> int:
        """Return the argument."""
        with self.locked_state() as state:
            state.count += by
            return state.count


def warm_up() -> None:
    """Start a paglet and have it handle a message and move a few times, without process or thread."""
    _live(1)  # what is done only once is no part of what every paglet does
    gather(lambda: _live(1), _AFTER_THE_FORK)
    _live(ROUNDS)


def _live(rounds: int) -> None:
    blob = blob_from_wire({"count": 1, "entries": ["a"], "table": {"a": 1}}).tobytes()
    order = pack(
        {
            "title": "paglets-zygote",
            "agent_id": "warm-up",
            "agent_class_name": f"{__name__}:WarmPaglet",
            "state_class_name": f"{__name__}:WarmState",
            "declared_state": False,
            "host_name": "warm-up",
            "host_address": "http://127.0.0.1:0",
            "hook": "on_creation",
            "event": {"agent_id": "warm-up", "host_name": "", "host_address": "", "timestamp": 0.0, "init": None},
        }
    )
    mobility = {
        "agent_id": "warm-up",
        "host_name": "",
        "host_address": "",
        "timestamp": 0.0,
        "reason": "dispatch",
        "source_host_name": "",
        "source_host_address": "",
        "target_host_name": "",
        "target_host_address": "",
    }
    arrival = pack({"hook": "on_arrival", "event": mobility, "cleanup": "", "snapshot": IF_TOUCHED})
    departure = pack({"hook": "on_dispatching", "event": mobility, "cleanup": "dispatch", "snapshot": True})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        for _ in range(rounds):
            worker = Worker()
            worker.connect(ours, ours)
            worker.execute(Frame(FrameType.REQUEST, Op.START, 1, 0, order, Attachment.of([blob])))
            message = pack(Message("echo", {"by": 2}).to_wire())
            worker.execute(Frame(FrameType.REQUEST, Op.MESSAGE, 2, 0, b"", Attachment.of([message])))
            worker.execute(Frame(FrameType.REQUEST, Op.STATE, 3, 0, b"", EMPTY))
            worker.execute(Frame(FrameType.REQUEST, Op.HOOK, 4, 0, arrival, EMPTY))
            worker.execute(Frame(FrameType.REQUEST, Op.HOOK, 5, 0, departure, EMPTY))
            theirs.recv(65536)


def warm_up_module(module: ModuleType) -> None:
    """Prepare the codecs and handlers of every paglet class that a preloaded module defines."""
    for cls in vars(module).values():
        if inspect.isclass(cls) and issubclass(cls, Paglet) and cls.__module__ == module.__name__:
            handlers_of(cls)
            state_cls = getattr(cls, "State", None)
            if isinstance(state_cls, type):
                try:
                    decode_blob(state_cls, encode_blob(state_cls()).tobytes())
                except Exception:  # noqa: S112 - whatever is wrong with it is told to whoever creates one
                    continue
