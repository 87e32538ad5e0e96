"""Start paglet processes by asking the fork server, which all hosts of this process share."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import msgspec

from paglets.core.errors import HostError
from paglets.runtime import platform
from paglets.runtime.launch.base import ExitHandler, WorkerProcess
from paglets.runtime.launch.output import OutputPump

_BOOTSTRAP = (
    # Without looking for garbage: what is imported stays, and the fork server freezes it.
    "import gc, sys, msgspec\n"
    "gc.disable()\n"
    "sys.path[:] = msgspec.json.decode(sys.argv[3])\n"
    "from paglets.runtime.launch.zygote_main import main\n"
    "main(int(sys.argv[1]), int(sys.argv[2]))\n"
)


class ZygoteLauncher:
    """Keep one fork server alive and turn its reports into callbacks.

    A fork server that dies is started again with the next launch. The paglets it forked live on: they are tied to this
    process, not to it.

    :param spares: how many processes are forked ahead of need, so that a paglet does not wait for its fork.
    """

    def __init__(self, *, spares: int = 2) -> None:
        self._spares = spares
        self._lock = threading.Lock()
        self._preloading = threading.Lock()
        self._generation: _Generation | None = None
        self._preloaded: list[str] = []
        atexit.register(self.close)

    def start(self) -> None:
        """Start the fork server ahead of the first launch."""
        with self._lock:
            self._current().refill()

    def launch(self, on_exit: ExitHandler) -> WorkerProcess:
        """Hand out a process for one paglet; see :class:`paglets.runtime.launch.base.Launcher`."""
        for last_try in (False, True):
            with self._lock:
                generation = self._current()
            try:
                return generation.take(on_exit)
            except OSError as exc:
                # The fork server died under us: begin with a new one, once.
                generation.close()
                if last_try:
                    raise HostError(f"cannot start a paglet process: {exc}") from exc
        raise AssertionError("unreachable")

    def refill(self) -> None:
        """Fork spares in place of those that were handed out."""
        with self._lock:
            generation = self._generation
        if generation is not None and not generation.lost:
            with contextlib.suppress(OSError):  # the next launch finds out that the fork server died
                generation.refill()

    def preload(self, modules: Sequence[str], timeout: float = 60.0) -> dict[str, str]:
        """Import modules in the fork server; those that fail or leave threads behind are refused.

        A refused module may already have changed the fork server, so that is replaced by one without it.
        """
        with self._preloading:
            wanted = [name for name in modules if name not in self._preloaded]
            if not wanted:
                return {}
            with self._lock:
                generation = self._current()
            refused = generation.preload(wanted, timeout)
            self._preloaded += [name for name in wanted if name not in refused]
            if refused:
                with self._lock:
                    generation.close()
                    replacement = self._generation = _Generation(self._spares)
                replacement.preload(self._preloaded, timeout)
            return refused

    def close(self) -> None:
        """End the fork server; running paglets go on."""
        with self._lock:
            generation, self._generation = self._generation, None
        if generation is not None:
            generation.close()
            generation.join(2.0)

    @property
    def pid(self) -> int | None:
        """Process id of the fork server, None when none runs."""
        generation = self._generation
        return generation.pid if generation is not None and not generation.lost else None

    def _current(self) -> _Generation:
        if self._generation is None or self._generation.lost:
            if self._generation is not None:
                self._generation.close()
            self._generation = _Generation(self._spares)
            self._generation.ask_preload(self._preloaded)
        return self._generation


class _Generation:
    """One fork server process and the thread that reads its reports."""

    def __init__(self, spares: int) -> None:
        self.lost = False
        self._lock = threading.Lock()
        self._wanted_spares = spares
        self._spares: deque[WorkerProcess] = deque()
        self._waiting: dict[int, Future[dict[str, str]]] = {}
        self._starting: dict[int, WorkerProcess] = {}
        self._running: dict[int, WorkerProcess] = {}
        self._token = 0
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._context = _context()
        line = lifeline()
        pump = OutputPump()
        out_fd, err_fd = pump.write_fds
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    _BOOTSTRAP,
                    str(theirs.fileno()),
                    str(line.read_fd),
                    msgspec.json.encode(self._context[0]).decode(),
                ],
                pass_fds=(theirs.fileno(), line.read_fd),
                stdin=subprocess.DEVNULL,
                stdout=out_fd,
                stderr=err_fd,
                # One heap for all threads: a heap per thread would cost every paglet pages of its own.
                env={**os.environ, "MALLOC_ARENA_MAX": "1"},
            )
        finally:
            theirs.close()
            pump.seal()
        self.pid = self._process.pid
        self._pump = pump
        self._thread = threading.Thread(target=self._listen, name="paglets-zygote-reports", daemon=True)
        self._thread.start()

    def take(self, on_exit: ExitHandler) -> WorkerProcess:
        """Hand out a spare process, or a fresh one where there is none."""
        with self._lock:
            self._follow_context()
            while self._spares:
                worker = self._spares.popleft()
                if worker.adopt(on_exit):
                    break
                worker.close()
            else:
                worker = self._fork()
                worker.adopt(on_exit)
            return worker

    def refill(self) -> None:
        """Fork spares."""
        with self._lock:
            self._refill()

    def _refill(self) -> None:
        while len(self._spares) < self._wanted_spares:
            self._spares.append(self._fork())

    def _fork(self) -> WorkerProcess:
        control, their_control = platform.channel_pair()
        commands, their_commands = platform.channel_pair()
        worker = WorkerProcess(control, commands, self._kill)
        self._token += 1
        self._starting[self._token] = worker
        try:
            self._tell("fork", self._token, fds=(their_control.fileno(), their_commands.fileno()))
        except OSError:
            del self._starting[self._token]
            worker.close()
            raise
        finally:
            their_control.close()
            their_commands.close()
        return worker

    def _follow_context(self) -> None:
        """Have processes start with the import path, environment and directory of this process as they are now."""
        context = _context()
        if context != self._context:
            self._drop_spares()
            self._tell("context", *context)
            self._context = context

    def _drop_spares(self) -> None:
        while self._spares:
            self._spares.popleft().close()

    def preload(self, modules: Sequence[str], timeout: float) -> dict[str, str]:
        """Have modules imported and wait for what was refused."""
        answer = self.ask_preload(modules)
        if answer is None:
            return {}
        try:
            return answer.result(timeout)
        except TimeoutError:
            return dict.fromkeys(modules, f"importing took more than {timeout:g} s")

    def ask_preload(self, modules: Sequence[str]) -> Future[dict[str, str]] | None:
        """Have modules imported before anything that is asked for later."""
        if not modules:
            return None
        answer: Future[dict[str, str]] = Future()
        with self._lock:
            self._drop_spares()
            self._token += 1
            self._waiting[self._token] = answer
            self._tell("preload", self._token, list(modules))
            self._refill()
        return answer

    def close(self) -> None:
        self.lost = True
        with self._lock:
            self._drop_spares()
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)

    def join(self, timeout: float) -> None:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(timeout)

    def _kill(self, worker: WorkerProcess, number: int) -> None:
        if worker.pid is None or worker.exited:
            return
        # The fork server is the parent, so the process id cannot have been given to another process when it signals.
        with self._lock, contextlib.suppress(OSError):
            if not self.lost:
                self._tell("kill", worker.pid, number)
                return
        platform.kill_group(worker.pid, number)

    def _tell(self, *order: Any, fds: tuple[int, ...] = ()) -> None:
        self._control.sendmsg([msgspec.msgpack.encode(order)], platform.descriptor_ancillary(fds))

    def _listen(self) -> None:
        while True:
            try:
                data = self._control.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                break
            self._hear(msgspec.msgpack.decode(data))
        self.lost = True
        self._process.wait()
        self._control.close()
        with self._lock:
            unborn = [*self._starting.values()]
            self._starting.clear()
        for worker in unborn:
            worker.ended(None)

    def _hear(self, report: list[Any]) -> None:
        match report:
            case ["forked", token, pid]:
                with self._lock:
                    worker = self._running[pid] = self._starting.pop(token)
                worker.started(pid)
            case ["exit", pid, code]:
                with self._lock:
                    worker = self._running.pop(pid)
                worker.ended(code)
            case ["failed", token, _]:
                with self._lock:
                    worker = self._starting.pop(token)
                worker.ended(None)
            case ["preloaded", token, refused]:
                with self._lock:
                    answer = self._waiting.pop(token)
                answer.set_result(refused)


def _context() -> tuple[list[str], dict[str, str], str]:
    try:
        directory = os.getcwd()  # noqa: PTH109 - text is what is sent
    except OSError:
        directory = "/"
    return [entry or directory for entry in sys.path], dict(os.environ), directory


_shared_lock = threading.Lock()
_shared_lifeline: platform.Lifeline | None = None
_shared_launcher: ZygoteLauncher | None = None


def lifeline() -> platform.Lifeline:
    """Return the pipe that ties every paglet process to this one."""
    global _shared_lifeline
    with _shared_lock:
        if _shared_lifeline is None:
            _shared_lifeline = platform.Lifeline()
        return _shared_lifeline


def shared_launcher() -> ZygoteLauncher:
    """Return the launcher that all hosts of this process use."""
    global _shared_launcher
    with _shared_lock:
        if _shared_launcher is None:
            _shared_launcher = ZygoteLauncher()
        return _shared_launcher
