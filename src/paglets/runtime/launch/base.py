"""What the kernel needs of whatever starts paglet processes."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

ExitHandler = Callable[[int | None], None]


class WorkerProcess:
    """One started process that is going to hold a paglet, and the host's ends of the two sockets to it.

    :param kill: sends a signal to the process; safe against a process that is already gone.
    """

    def __init__(
        self, control: socket.socket, commands: socket.socket, kill: Callable[[WorkerProcess, int], None]
    ) -> None:
        self.control = control
        self.commands = commands
        self.pid: int | None = None
        """Process id, None until the process is known to run."""
        self.exited = False
        self._kill = kill
        self._killed_early: int | None = None
        self._lock = threading.Lock()
        self._on_exit: ExitHandler | None = None

    def adopt(self, on_exit: ExitHandler) -> bool:
        """Give the process to whoever hears of its end from now on; False where it has ended already."""
        with self._lock:
            if self.exited:
                return False
            self._on_exit = on_exit
            return True

    def ended(self, code: int | None) -> None:
        """Record that the process has ended and tell whoever adopted it."""
        with self._lock:
            self.exited = True
            tell, self._on_exit = self._on_exit, None
        if tell is not None:
            tell(code)

    def started(self, pid: int) -> None:
        """Record the process id, and deliver a signal that was asked for before it was known."""
        self.pid = pid
        if self._killed_early is not None:
            self._kill(self, self._killed_early)

    def signal(self, number: int) -> None:
        """Send a signal to the process, or as soon as it is known to run."""
        if self.exited:
            return
        if self.pid is None:
            self._killed_early = number
        else:
            self._kill(self, number)

    def close(self) -> None:
        """Close the sockets of a process that nobody needs; without a host it ends."""
        self.control.close()
        self.commands.close()

    def kill(self) -> None:
        """End the process at once."""
        self.signal(signal.SIGKILL)


class Launcher(Protocol):
    """Start paglet processes; every method may be called from any thread and none blocks for long."""

    def start(self) -> None:
        """Get ready ahead of the first launch."""

    def launch(self, on_exit: ExitHandler) -> WorkerProcess:
        """Start a process that speaks frames on the returned sockets, or hand out one that was started ahead.

        :param on_exit: called once, on any thread, with the exit code (negative: minus the signal number), or None if
            nobody knows.
        :raises HostError: no process can be started.
        """

    def refill(self) -> None:
        """Start what is kept ahead of need again; called when a launched process has its paglet, not while it
        starts."""

    def preload(self, modules: Sequence[str], timeout: float = 60.0) -> dict[str, str]:
        """Import modules ahead of time, so that paglets that need them start faster.

        :return: for each module that was refused, why.
        """

    def close(self) -> None:
        """End what was started ahead of time; running paglet processes go on."""
