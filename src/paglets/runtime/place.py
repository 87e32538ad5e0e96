"""A place: one process that holds a paglet, as the kernel sees it.

The kernel addresses (place, agent id) and never "the child of this agent", so that a place may hold more than one
paglet one day.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

import msgspec

from paglets.core.error_wire import error_from_wire
from paglets.core.errors import HostError, PagletCrashedError, PagletError
from paglets.runtime.attachment import EMPTY, Attachment
from paglets.runtime.channel import HostChannel, ReplyHandler
from paglets.runtime.frames import COMMANDS, Frame, FrameType, Op
from paglets.runtime.launch.base import Launcher
from paglets.serialization.values import pack, unpack

#: How long the end of a connection waits for the exit code to be reported.
EXIT_REPORT_SECONDS = 0.5
#: How long a process may take to leave after it was told to.
LEAVE_SECONDS = 0.5


class Place:
    """Own one paglet process: its channel, its requests, and how it ended.

    Every method must be called on the loop's thread.

    :param on_call: gets each request of the process for the host's API.
    :param on_run_ended: gets the error of ``run()``, or None when it returned.
    :param on_lost: called once when the process ended without being told to, before pending requests fail.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        launcher: Launcher,
        *,
        on_call: Callable[[Place, Frame], None],
        on_run_ended: Callable[[Place, Exception | None], None],
        on_lost: Callable[[Place], None],
    ) -> None:
        self._loop = loop
        self._on_call = on_call
        self._on_run_ended = on_run_ended
        self._on_lost = on_lost
        self.exitcode: int | None = None
        self.leaving = False
        """Whether the process was told to end, so that its end is no crash."""
        self.left_for: dict[str, str] | None = None
        """Where the paglet of this process lives now, once it lives elsewhere."""
        self.ended: asyncio.Future[None] = loop.create_future()
        self.run_ended: asyncio.Future[None] | None = None
        """Resolved when ``run()`` has ended, with its error if it failed; None for a paglet that has no ``run()``."""
        self.answered: asyncio.Future[None] | None = None
        """Resolved when the handler that runs has ended; None when none runs."""
        self.detached = False
        """Whether another process on this host has taken the paglet over, and its mailbox with it."""
        self.failure: PagletError | None = None
        """What a handler that was cut off ends in, where its paglet sleeps as it was before."""
        self.newest_state = 0
        """The number, as the process counts them, of the newest state that is on its way to the disk."""
        self._exit_reported = False
        self._disconnected = False
        self._pid: int | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._process = launcher.launch(self._exited_elsewhere)
        self.channel = HostChannel(loop, self._process.control, on_frame=self._frame, on_lost=self._connection_lost)
        self._commands = HostChannel(
            loop, self._process.commands, on_frame=self._frame_among_commands, on_lost=self._connection_lost
        )
        self._main_calls: set[int] = set()
        """The calls that the main thread of the process waits for."""

    @property
    def pid(self) -> int | None:
        """Process id, None until the process is known to run."""
        return self._pid or self._process.pid

    def started(self, pid: int) -> None:
        """Note the process id that the process itself gave."""
        self._pid = pid

    @property
    def alive(self) -> bool:
        """Whether requests can be answered."""
        return not self._disconnected and not self._exit_reported and not self.leaving

    async def request(
        self,
        op: Op,
        payload: bytes = b"",
        attachment: Attachment = EMPTY,
        *,
        parent: int = 0,
        timeout: float | None = None,
    ) -> Frame:
        """Send a request and wait for its reply.

        :param parent: id of the process's own call that this request serves; its thread executes it.
        :param timeout: seconds, None to wait as long as the process lives.
        :raises PagletCrashedError: the process ended first.
        :raises TimeoutError: no reply in time; the process may still execute it.
        :raises PagletError: what the process answered.
        """
        future: asyncio.Future[Frame] = self._loop.create_future()

        def done(frame: Frame | None) -> None:
            if future.done():
                return
            if frame is None:
                future.set_exception(self.crash_error())
            elif frame.type == FrameType.FAILURE:
                future.set_exception(restore_failure(frame))
            else:
                future.set_result(frame)

        # A step that the process's own call needs is for the thread that waits in that call.
        among_commands = parent in self._main_calls if parent else op in COMMANDS
        channel = self._commands if among_commands else self.channel
        id_ = channel.request(op, payload, done, attachment=attachment, parent=parent)
        if timeout is None:
            return await future
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            channel.forget(id_)
            raise

    def post(self, op: Op, payload: bytes, attachment: Attachment, done: ReplyHandler) -> None:
        """Send a command whose answer goes to a callback."""
        self._commands.request(op, payload, done, attachment=attachment)

    def reply(self, frame: Frame, attachment: Attachment) -> None:
        """Answer a call of the process."""
        self._channel_of(frame).reply(frame, b"", attachment)

    def fail(self, frame: Frame, payload: bytes) -> None:
        """Answer a call of the process with an error."""
        self._channel_of(frame).fail(frame, payload)

    def _channel_of(self, frame: Frame) -> HostChannel:
        if not frame.is_command:
            return self.channel
        self._main_calls.discard(frame.id)
        return self._commands

    def crash_error(self) -> PagletCrashedError:
        """Return the error that callers of a process that ended get."""
        if self.leaving:
            return PagletCrashedError("the host ended the paglet's process before it had answered")
        if self.exitcode is None:
            return PagletCrashedError("the paglet's process ended")
        return PagletCrashedError(f"the paglet's process ended: {describe_exit(self.exitcode)}")

    def tell_address(self, url: str) -> None:
        """Tell the process that its host has another base URL from now on."""
        self.channel.notify(Op.ADDRESS, url.encode())

    def leave(self) -> None:
        """Tell the process to end; it is killed if it does not."""
        if self.leaving:
            return
        self.leaving = True
        self.channel.notify(Op.EXIT)
        if not self.ended.done():
            self._watchdog = self._loop.call_later(LEAVE_SECONDS, self.kill)

    def kill(self) -> None:
        """End the process at once."""
        self.leaving = True
        self._process.signal(signal.SIGKILL)

    # --- what the process does ----------------------------------------------------------------------------------------

    def _frame_among_commands(self, frame: Frame) -> None:
        if frame.type == FrameType.REQUEST:
            frame.is_command = True
            self._main_calls.add(frame.id)
        self._frame(frame)

    def _frame(self, frame: Frame) -> None:
        if frame.type == FrameType.REQUEST:
            self._on_call(self, frame)
        elif frame.op == Op.RUN_ENDED:
            self._on_run_ended(self, restore_failure(frame) if frame.payload else None)

    def _exited_elsewhere(self, code: int | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._exited, code)
        except RuntimeError:
            return  # the loop has ended, and with it everyone who could ask

    def _exited(self, code: int | None) -> None:
        self._exit_reported = True
        if self.exitcode is None:
            self.exitcode = code
        self._finish()

    def _connection_lost(self) -> None:
        if self._disconnected:
            return
        self._disconnected = True
        if self._exit_reported:
            self._finish()
        else:
            # The report of the exit code is on its way; a descriptor that leaked elsewhere must not hold callers up for
            # long.
            self._loop.call_later(EXIT_REPORT_SECONDS, self._finish)
            if not self.leaving:
                self._process.signal(signal.SIGKILL)

    def _finish(self) -> None:
        if self.ended.done():
            return
        self.ended.set_result(None)
        if self._watchdog is not None:
            self._watchdog.cancel()
        if not self.leaving:
            self._on_lost(self)
        self.channel.close()
        self._commands.close()
        # They lead to the paglet, which leads back here: its state would wait for the garbage collector.
        self._on_call = self._on_run_ended = self._on_lost = _nothing


def _nothing(*_: object) -> None:
    """Take what a process does that has ended."""


def restore_failure(frame: Frame) -> Exception:
    """Return the exception that a failure frame carries, with the remote traceback as a note."""
    return failure_from(frame.payload)


def failure_from(payload: bytes) -> Exception:
    """Return the exception that a process described."""
    wire: dict[str, Any] = unpack(payload)
    error = error_from_wire(wire, unknown=HostError)
    trace = wire.get("traceback")
    if trace:
        error.add_note(f"in the paglet's process:\n{trace}")
    return error


def describe_exit(code: int) -> str:
    """Return an exit code in words: ``process exited with code 3``, or the name of the signal."""
    if code < 0:
        try:
            return f"process was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"process was killed by signal {-code}"
    return f"process exited with code {code}"


def packed(value: Any) -> Attachment:
    """Hold a packed value; one that is packed already stays as it is."""
    return Attachment.of([bytes(value) if type(value) is msgspec.Raw else pack(value)])
