"""The paglet process's ends of its two sockets to its host.

On the *command* socket come the steps of its life and its messages; the main thread reads it, executes, answers, and
reads again, so that a message wakes one thread and no more. On the *control* socket goes everything beside that: calls
of the paglet, queries that are answered while a handler runs, the order to leave. A thread of its own reads it; any
thread asks and waits.

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
    """

    _control: socket.socket
    _commands: socket.socket

    def __init__(self, execute: Callable[[Frame], None]) -> None:
        self._execute = execute
        self._parser = FrameParser()
        self._send_lock = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[Frame]] = {}
        self._next_id = 0
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
        parser = FrameParser()
        try:
            while True:
                data, fds = platform.receive_with_descriptors(self._commands, _READ_BYTES)
                if not data:
                    leave(1)
                for frame in parser.feed(data, fds):
                    frame.is_command = True
                    self._execute(frame)
        except (OSError, FrameError):
            leave(1)

    def call(self, method: str, arguments: Attachment) -> Attachment:
        """Ask the host for something and wait for the answer, running hooks that the host needs for it meanwhile.

        :raises PagletError: what the host answered.
        """
        answers: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        with self._send_lock:
            self._next_id = self._next_id + 1 if self._next_id < 0xFFFFFFFF else 1
            id_ = self._next_id
            self._waiting[id_] = answers
        try:
            self._tell(FrameType.REQUEST, Op.CALL, id_, method.encode(), arguments)
            while True:
                frame = answers.get()
                if frame.type == FrameType.REQUEST:
                    self._execute(frame)
                elif frame.type == FrameType.FAILURE:
                    raise error_from_wire(unpack(frame.payload), unknown=HostError, table=CALL_ERRORS)
                else:
                    return frame.attachment
        finally:
            del self._waiting[id_]

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
        if fds:
            sent = sock.sendmsg(chunks, platform.descriptor_ancillary(fds))
            rest = b"".join(chunks)[sent:]
            if rest:
                sock.sendall(rest)
        else:
            for chunk in chunks:
                sock.sendall(chunk)
    except OSError:
        leave(1)  # without its host this process has nothing to do
