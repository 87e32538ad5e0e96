"""Start paglet processes as fresh interpreters, a few of them ahead of need; for systems where forking is not safe."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence

import msgspec

from paglets.core.errors import HostError
from paglets.runtime import platform
from paglets.runtime.launch.base import ExitHandler, WorkerProcess
from paglets.runtime.launch.output import OutputPump
from paglets.runtime.launch.zygote import lifeline

_BOOTSTRAP = (
    "import sys, msgspec\n"
    "sys.path[:] = msgspec.json.decode(sys.argv[4])\n"
    "from paglets.runtime.worker.main import serve_spawned\n"
    "serve_spawned(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))\n"
)


class _Spare:
    """A fresh interpreter that has imported the worker and waits for the name of its paglet."""

    def __init__(self, output_fds: tuple[int, int]) -> None:
        self.control, their_control = platform.channel_pair()
        self.commands, their_commands = platform.channel_pair()
        line = lifeline()
        path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109 - text is what is sent
        try:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _BOOTSTRAP,
                    str(their_control.fileno()),
                    str(their_commands.fileno()),
                    str(line.read_fd),
                    msgspec.json.encode(path).decode(),
                ],
                pass_fds=(their_control.fileno(), their_commands.fileno(), line.read_fd),
                stdin=subprocess.DEVNULL,
                stdout=output_fds[0],
                stderr=output_fds[1],
            )
        except OSError:
            self.close()
            raise
        finally:
            their_control.close()
            their_commands.close()

    def close(self) -> None:
        """Close the sockets."""
        self.control.close()
        self.commands.close()


class SpawnLauncher:
    """Start a new interpreter per paglet.

    :param spares: how many are started ahead of need.
    """

    def __init__(self, *, spares: int = 2) -> None:
        self._wanted = spares
        self._lock = threading.Lock()
        self._spares: deque[_Spare] = deque()
        self._closed = False
        self._pump: OutputPump | None = None

    def start(self) -> None:
        """Start the spares."""
        with self._lock:
            self._refill()

    def launch(self, on_exit: ExitHandler) -> WorkerProcess:
        """Hand out a process for one paglet; see :class:`paglets.runtime.launch.base.Launcher`."""
        try:
            with self._lock:
                spare = self._spares.popleft() if self._spares else _Spare(self._output())
        except OSError as exc:
            raise HostError(f"cannot start a paglet process: {exc}") from exc
        worker = WorkerProcess(spare.control, spare.commands, _kill)
        worker.adopt(on_exit)
        worker.started(spare.process.pid)
        threading.Thread(target=_watch, args=(spare.process, worker), name="paglets-spawn-watch", daemon=True).start()
        return worker

    def refill(self) -> None:
        """Start spares in place of those that were handed out."""
        with self._lock, contextlib.suppress(OSError):
            self._refill()

    def preload(self, modules: Sequence[str], timeout: float = 60.0) -> dict[str, str]:
        """Say that nothing is imported ahead: every process imports for itself here."""
        del timeout
        return dict.fromkeys(modules, "processes are spawned here, not forked, and import for themselves")

    def close(self) -> None:
        """End the spares."""
        with self._lock:
            self._closed = True
            spares, self._spares = self._spares, deque()
        for spare in spares:
            spare.close()
            with contextlib.suppress(ProcessLookupError):
                spare.process.send_signal(signal.SIGKILL)
            spare.process.wait()

    def _output(self) -> tuple[int, int]:
        if self._pump is None:
            self._pump = OutputPump()
        return self._pump.write_fds

    def _refill(self) -> None:
        while not self._closed and len(self._spares) < self._wanted:
            self._spares.append(_Spare(self._output()))


def _kill(worker: WorkerProcess, number: int) -> None:
    if worker.pid is not None and not worker.exited:
        platform.kill_group(worker.pid, number)


def _watch(process: subprocess.Popen[bytes], worker: WorkerProcess) -> None:
    worker.ended(process.wait())
