"""Paglet processes as simulated ones: the same worker, in threads of this program."""

from __future__ import annotations

import contextvars
import itertools
import signal
from collections.abc import Sequence

from paglets.core.errors import HostError
from paglets.runtime.launch.base import ExitHandler, WorkerProcess
from paglets.runtime.worker.main import Worker
from paglets.testing.scheduler import CURRENT, Process, Scheduler
from paglets.testing.sockets import memory_pair

_numbers = itertools.count(1)


class ThreadLauncher:
    """Start the worker of a paglet in simulated threads; see :class:`paglets.runtime.launch.base.Launcher`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def start(self) -> None:
        """Do nothing: there is nothing to get ready."""

    def launch(self, on_exit: ExitHandler) -> WorkerProcess:
        """Start a process for one paglet."""
        scheduler, host = self._scheduler, CURRENT.get()
        if host is None or host.dead:
            raise HostError("cannot start a paglet process: the host has ended")
        control, their_control = memory_pair(scheduler)
        commands, their_commands = memory_pair(scheduler)
        process = Process(f"paglet-{next(_numbers)}", host.host)
        worker = WorkerProcess(control, commands, lambda _, number: scheduler.end_process(process, -number))

        def end(code: int) -> None:
            their_control.close()
            their_commands.close()
            if end_with_host in host.at_end:
                host.at_end.remove(end_with_host)
            scheduler.loop.call_soon(worker.ended, code, context=host_context)

        def end_with_host(_: int) -> None:
            scheduler.end_process(process, -signal.SIGKILL)

        host_context = _context_of(host)
        process.at_end.append(end)
        host.at_end.append(end_with_host)
        worker.adopt(on_exit)
        worker.started(next(_numbers))
        scheduler.spawn(process, lambda: Worker().serve(their_control, their_commands), "main")
        return worker

    def refill(self) -> None:
        """Do nothing: nothing is kept ahead."""

    def preload(self, modules: Sequence[str], timeout: float = 60.0) -> dict[str, str]:
        """Refuse nothing: every process is this one."""
        del modules, timeout
        return {}

    def close(self) -> None:
        """Do nothing."""


def _context_of(process: Process) -> contextvars.Context:
    context = contextvars.Context()
    context.run(CURRENT.set, process)
    return context
