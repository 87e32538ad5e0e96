"""The paglet process's ends of its sockets: who gets which frame of the one that carries commands."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from paglets.core.errors import HostError
from paglets.runtime.attachment import EMPTY, Attachment
from paglets.runtime.frames import Frame, FrameParser, FrameType, Op, encode
from paglets.runtime.worker import endpoint
from paglets.runtime.worker.endpoint import Endpoint
from paglets.serialization.values import pack


@dataclass
class Line:
    """The host's end of a command socket, with a process at the other that does what ``perform`` says."""

    perform: dict[bytes, Callable[[Endpoint], bytes]]
    done: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(10)
        self._control, control = socket.socketpair()
        self._theirs = (theirs, control)
        self._parser = FrameParser()
        self._frames: list[Frame] = []
        self.endpoint = Endpoint(self._execute)
        self.endpoint.connect(control, theirs)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(SystemExit):
            self.endpoint.serve_commands()

    def close(self) -> None:
        self.sock.close()
        self._thread.join(10)
        for each in (self._control, *self._theirs):
            each.close()
        assert not self._thread.is_alive()

    def _execute(self, frame: Frame) -> None:
        answer = self.perform[frame.payload](self.endpoint)
        self.done.append(frame.payload)
        self.endpoint.reply(frame, answer)

    def send(self, type_: FrameType, id_: int, payload: bytes, *, parent: int = 0, value: bytes = b"") -> None:
        attachment = Attachment.of([value]) if value else EMPTY
        chunks, _ = encode(type_, Op.MESSAGE, id_, parent, payload, attachment)
        self.sock.sendall(b"".join(chunks))

    def command(self, id_: int, what: bytes, *, parent: int = 0) -> None:
        self.send(FrameType.REQUEST, id_, what, parent=parent)

    def answer(self, call: Frame, value: bytes) -> None:
        self.send(FrameType.REPLY, call.id, b"", value=value)

    def heard(self) -> Frame:
        while not self._frames:
            self._frames += self._parser.feed(self.sock.recv(65536), [])
        return self._frames.pop(0)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Line]]:
    """Give what makes a line; the process at its other end is a thread, which ends where a process would."""
    made: list[Line] = []
    monkeypatch.setattr(endpoint, "leave", sys.exit)

    def make(**perform: Callable[[Endpoint], bytes]) -> Line:
        made.append(Line({name.encode(): work for name, work in perform.items()}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def ask(question: str) -> Callable[[Endpoint], bytes]:
    return lambda process: process.call(question, EMPTY).bytes()


def test_a_handler_is_answered_on_the_socket_that_its_message_came_on(line: Callable[..., Line]) -> None:
    host = line(handler=ask("when"))
    host.command(1, b"handler")
    call = host.heard()
    assert (call.type, call.op, call.payload) == (FrameType.REQUEST, Op.CALL, b"when")
    host.answer(call, b"now")
    answer = host.heard()
    assert (answer.type, answer.id, answer.payload) == (FrameType.REPLY, 1, b"now")


def test_commands_that_come_while_a_handler_waits_are_executed_after_it_in_their_order(
    line: Callable[..., Line],
) -> None:
    host = line(handler=ask("when"), second=lambda _: b"2", third=lambda _: b"3")
    host.command(1, b"handler")
    call = host.heard()
    host.command(2, b"second")
    host.command(3, b"third")
    host.answer(call, b"now")
    assert [host.heard().payload for _ in range(3)] == [b"now", b"2", b"3"]
    assert host.done == [b"handler", b"second", b"third"]


def test_what_the_host_needs_for_a_call_is_done_by_the_handler_that_waits_for_it(line: Callable[..., Line]) -> None:
    thread: list[int] = []

    def note(_: Endpoint) -> bytes:
        thread.append(threading.get_ident())
        return b"noted"

    def handler(process: Endpoint) -> bytes:
        note(process)
        return ask("leave")(process)

    host = line(handler=handler, hook=note)
    host.command(1, b"handler")
    call = host.heard()
    host.command(2, b"hook", parent=call.id)
    assert host.heard().payload == b"noted"
    host.answer(call, b"left")
    assert host.heard().payload == b"left"
    assert thread == [thread[0]] * 2


def test_a_call_that_is_answered_while_its_hook_asks_for_something_keeps_its_answer(line: Callable[..., Line]) -> None:
    host = line(handler=ask("outer"), hook=ask("inner"))
    host.command(1, b"handler")
    outer = host.heard()
    host.command(2, b"hook", parent=outer.id)
    inner = host.heard()
    host.answer(outer, b"too late for the hook")
    host.answer(inner, b"in time")
    assert [(frame.id, frame.payload) for frame in (host.heard(), host.heard())] == [
        (2, b"in time"),
        (1, b"too late for the hook"),
    ]


def test_what_the_host_needs_for_a_call_that_has_ended_is_done_all_the_same(line: Callable[..., Line]) -> None:
    host = line(handler=ask("when"), hook=lambda _: b"done")
    host.command(1, b"handler")
    call = host.heard()
    host.answer(call, b"now")
    host.command(2, b"hook", parent=call.id)
    assert [host.heard().payload for _ in range(2)] == [b"now", b"done"]


def test_an_answer_that_nobody_waits_for_any_more_is_dropped(line: Callable[..., Line]) -> None:
    host = line(handler=lambda process: str(len(process._unclaimed)).encode())
    host.send(FrameType.REPLY, 77, b"", value=b"too late")
    host.command(1, b"handler")
    assert host.heard().payload == b"0"


def test_a_refused_call_raises_in_the_handler(line: Callable[..., Line]) -> None:
    def handler(process: Endpoint) -> bytes:
        try:
            return ask("when")(process)
        except HostError as exc:
            return str(exc).encode()

    host = line(handler=handler)
    host.command(1, b"handler")
    host.send(FrameType.FAILURE, host.heard().id, pack({"error_type": "HostError", "error": "not now"}))
    assert host.heard().payload == b"not now"


def test_large_frames_arrive_whole(line: Callable[..., Line]) -> None:
    large = bytes(range(256)) * 20_000
    host = line(handler=lambda _: large)
    host.command(1, b"handler")
    assert host.heard().payload == large
