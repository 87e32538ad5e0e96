"""The paglet process's ends of its two sockets to its host.

On the *command* socket come the steps of its life and its messages; the main thread reads it, executes, answers, and
reads again, so that a message wakes one thread and no more. What the main thread itself asks the host for, which is
what handlers and hooks ask for, goes and is answered there too, for the same reason. On the *control* socket goes
everything beside that: calls of other threads, queries that are answered while a handler runs, the order to leave. A
thread of its own reads it; any thread asks and waits.

A request of the host that was caused by a call of this process (a hook that a ``dispatch`` of its own needs) carries
the id of that call and is executed by the thread that waits for its answer. So locks that the thread holds are held for
the hook as well, and a handler that moves its own paglet does not wait for itself.
"""

from __future__ import annotations

import _thread
import os
import queue
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from paglets.core.error_wire import CALL_ERRORS, error_from_wire
from paglets.core.errors import HostError
from paglets.runtime import platform
from paglets.runtime.attachment import EMPTY, Attachment
from paglets.runtime.frames import Frame, FrameError, FrameParser, FrameType, Op, encode
from paglets.serialization.values import unpack

_READ_BYTES = 256 * 1024


def leave(code: int) -> NoReturn:
    """End this process now, after what it printed was written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # nobody can receive it any more
    os._exit(code)


class Endpoint:
    """Exchange frames with the host.

    :param execute: runs a request of the host and returns nothing; it answers by :meth:`reply` or :meth:`fail`.
    :param noticed: is told what the host does not want answered, on the thread that reads; it must not wait.
    """

    _control: socket.socket
    _commands: socket.socket

    def __init__(self, execute: Callable[[Frame], None], noticed: Callable[[Frame], None] = lambda _: None) -> None:
        self._execute = execute
        self._noticed = noticed
        self._parser = FrameParser()
        self._send_lock = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[Frame]] = {}
        self._next_id = 0
        self._main_thread = 0
        self._command_parser = FrameParser()
        self._unclaimed: deque[Frame] = deque()
        """What came on the command socket and is for none of those who have read it so far."""
        self._main_calls: set[int] = set()
        self._queries: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._query_thread: threading.Thread | None = None

    def connect(self, control: socket.socket, commands: socket.socket) -> None:
        """Take over the two sockets; before anything else."""
        self._control = control
        self._commands = commands

    def start(self) -> None:
        """Begin to read what comes beside the commands."""
        # The bare function instead of a Thread object, which would cost every paglet 0.3 MB of private memory.
        _thread.start_new_thread(self._read, ())

    def serve_commands(self) -> NoReturn:
        """Execute commands on this thread, in order, for ever."""
        self._main_thread = _thread.get_ident()
        while True:
            self._execute(self._next_for(0))

    def call(self, method: str, arguments: Attachment) -> Attachment:
        """Ask the host for something and wait for the answer, running hooks that the host needs for it meanwhile.

        :raises PagletError: what the host answered.
        """
        on_main_thread = _thread.get_ident() == self._main_thread
        frame = (self._ask_among_commands if on_main_thread else self._ask_beside)(method.encode(), arguments)
        if frame.type == FrameType.FAILURE:
            raise error_from_wire(unpack(frame.payload), unknown=HostError, table=CALL_ERRORS)
        return frame.attachment

    def _ask_among_commands(self, method: bytes, arguments: Attachment) -> Frame:
        with self._send_lock:
            id_ = self._new_id()
        self._main_calls.add(id_)
        try:
            _send(self._commands, FrameType.REQUEST, Op.CALL, id_, method, arguments)
            while (frame := self._next_for(id_)).type == FrameType.REQUEST:
                self._execute(frame)
            return frame
        finally:
            self._main_calls.discard(id_)

    def _ask_beside(self, method: bytes, arguments: Attachment) -> Frame:
        answers: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        with self._send_lock:
            id_ = self._new_id()
            self._waiting[id_] = answers
        try:
            self._tell(FrameType.REQUEST, Op.CALL, id_, method, arguments)
            while (frame := answers.get()).type == FrameType.REQUEST:
                self._execute(frame)
            return frame
        finally:
            del self._waiting[id_]

    def _new_id(self) -> int:
        self._next_id = self._next_id + 1 if self._next_id < 0xFFFFFFFF else 1
        return self._next_id

    def _next_for(self, call: int) -> Frame:
        """Return the next frame of the command socket that belongs to a call of the main thread, or to none (0)."""
        unclaimed = self._unclaimed
        at = 0
        while True:
            while at < len(unclaimed):
                frame = unclaimed[at]
                if self._cause_of(frame) == call:
                    del unclaimed[at]
                    return frame
                at += 1
            try:
                data, fds = platform.receive_with_descriptors(self._commands, _READ_BYTES)
                if not data:
                    leave(1)
                for frame in self._command_parser.feed(data, fds):
                    frame.is_command = True
                    if frame.type == FrameType.REQUEST or frame.id in self._main_calls:
                        unclaimed.append(frame)
                    else:
                        frame.attachment.close()  # its caller was torn away, by a signal handler that raised
            except (OSError, FrameError):
                leave(1)

    def _cause_of(self, frame: Frame) -> int:
        if frame.type != FrameType.REQUEST:
            return frame.id
        # What the host still wanted for a call that it has answered is done when its turn comes.
        return frame.parent if frame.parent in self._main_calls else 0

    def notify(self, op: Op, payload: bytes = b"") -> None:
        """Tell the host something that it does not answer."""
        self._tell(FrameType.NOTICE, op, 0, payload, EMPTY)

    def reply(self, frame: Frame, payload: bytes = b"", attachment: Attachment = EMPTY) -> None:
        """Answer a request of the host."""
        self._answer(frame, FrameType.REPLY, payload, attachment)

    def fail(self, frame: Frame, payload: bytes) -> None:
        """Answer a request of the host with an error."""
        self._answer(frame, FrameType.FAILURE, payload, EMPTY)

    def _answer(self, frame: Frame, type_: FrameType, payload: bytes, attachment: Attachment) -> None:
        if frame.is_command:
            # Only the thread that executes commands writes to their socket.
            _send(self._commands, type_, frame.op, frame.id, payload, attachment)
        else:
            self._tell(type_, frame.op, frame.id, payload, attachment)

    def _tell(self, type_: FrameType, op: int, id_: int, payload: bytes, attachment: Attachment) -> None:
        with self._send_lock:
            _send(self._control, type_, op, id_, payload, attachment)

    def _read(self) -> None:
        while True:
            try:
                data, fds = platform.receive_with_descriptors(self._control, _READ_BYTES)
                if not data:
                    leave(1)
                for frame in self._parser.feed(data, fds):
                    self._route(frame)
            except (OSError, FrameError):
                leave(1)

    def _route(self, frame: Frame) -> None:
        if frame.type == FrameType.REQUEST:
            waiter = self._waiting.get(frame.parent) if frame.parent else None
            if waiter is not None:
                waiter.put(frame)
            else:
                self._query(frame)
        elif frame.type == FrameType.NOTICE:
            if frame.op == Op.EXIT:
                leave(0)
            self._noticed(frame)
        else:
            waiter = self._waiting.get(frame.id)
            if waiter is not None:
                waiter.put(frame)

    def _query(self, frame: Frame) -> None:
        if self._query_thread is None:
            self._query_thread = threading.Thread(target=self._answer_queries, name="paglet-queries", daemon=True)
            self._query_thread.start()
        self._queries.put(frame)

    def _answer_queries(self) -> None:
        while True:
            self._execute(self._queries.get())


def _send(sock: socket.socket, type_: FrameType, op: int, id_: int, payload: bytes, attachment: Attachment) -> None:
    chunks, fds = encode(type_, op, id_, 0, payload, attachment)
    try:
        # In one piece: the host would wake for the first one.
        sent = sock.sendmsg(chunks, platform.descriptor_ancillary(fds))
        for chunk in chunks:
            if sent < len(chunk):
                sock.sendall(memoryview(chunk)[sent:])
            sent = max(0, sent - len(chunk))
    except OSError:
        leave(1)  # without its host this process has nothing to do
