"""The fork server: a small single-threaded process that has imported the worker and forks one child per paglet.

It is told what to do by packets on its control socket (:mod:`paglets.runtime.launch.zygote` is the other end), reaps
its children, reports how they ended, and is killed by the kernel with the process that started it.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

import msgspec

from paglets.runtime import platform, process_title
from paglets.runtime.worker import main as worker_main
from paglets.runtime.worker.warmup import warm_up, warm_up_module

PACKET_BYTES = 1 << 20


def main(control_fd: int, lifeline_fd: int) -> NoReturn:
    """Serve fork requests until the control socket is closed."""
    platform.die_with(lifeline_fd)
    platform.leave_terminal_group()
    platform.ignore_interrupts()
    process_title.set_title("paglets-zygote")
    os.environ.pop("MALLOC_ARENA_MAX", None)  # it was for this process alone
    control = socket.socket(fileno=control_fd)
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_read, False)
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    warm_up()
    worker_main.prepare()
    gc.collect()
    gc.freeze()
    gc.enable()
    _Zygote(control, wakeup_read, wakeup_write, lifeline_fd).serve()
    os._exit(0)


class _Zygote:
    def __init__(self, control: socket.socket, wakeup_read: int, wakeup_write: int, lifeline_fd: int) -> None:
        self._control = control
        self._wakeup_read = wakeup_read
        self._wakeup_write = wakeup_write
        self._lifeline_fd = lifeline_fd
        self._children: set[int] = set()

    def serve(self) -> None:
        poller = select.poll()
        poller.register(self._control.fileno(), select.POLLIN)
        poller.register(self._wakeup_read, select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd == self._wakeup_read:
                    self._reap()
                elif not self._take_order():
                    return

    def _take_order(self) -> bool:
        data, fds = self._receive()
        if not data:
            return False
        order: list[Any] = msgspec.msgpack.decode(data)
        match order:
            case ["fork", token]:
                self._fork(token, fds)
            case ["kill", pid, number]:
                if pid in self._children:
                    platform.kill_group(pid, number)
            case ["context", path, environment, directory]:
                sys.path[:] = path
                os.environ.clear()
                os.environ.update(environment)
                with contextlib.suppress(OSError):
                    os.chdir(directory)
            case ["preload", token, modules]:
                self._tell("preloaded", token, self._preload(modules))
            case _:
                raise RuntimeError(f"unknown order {order!r}")
        return True

    def _receive(self) -> tuple[bytes, list[int]]:
        data, ancillary, _, _ = self._control.recvmsg(PACKET_BYTES, socket.CMSG_SPACE(8), socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content)
        return data, list(fds)

    def _fork(self, token: int, fds: list[int]) -> None:
        try:
            pid = os.fork()
            if pid == 0:
                self._become_worker(*fds)
        except OSError as exc:
            self._tell("failed", token, str(exc))
            return
        finally:
            for fd in fds:
                os.close(fd)
        self._children.add(pid)
        self._tell("forked", token, pid)

    def _become_worker(self, control_fd: int, commands_fd: int) -> NoReturn:
        try:
            # The handler of SIGCHLD, which does nothing, is inherited like the ignored SIGINT: resetting it would run
            # code
            # that costs every paglet 0.1 MB, to no effect that a program can see.
            signal.set_wakeup_fd(-1)
            os.close(self._wakeup_read)
            os.close(self._wakeup_write)
            self._control.close()
            lifeline = platform.die_with(self._lifeline_fd)
            os.close(self._lifeline_fd)
            worker_main.serve(control_fd, commands_fd, lifeline)
        finally:
            # Whatever happens above, this process must never go on as a second zygote.
            os._exit(70)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup_read, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._children:
                self._children.discard(pid)
                self._tell("exit", pid, os.waitstatus_to_exitcode(status))

    def _preload(self, modules: list[str]) -> dict[str, str]:
        refused: dict[str, str] = {}
        for name in modules:
            # Those of a module that was refused before still run, until this process is replaced by one without it.
            threads_before = _kernel_threads()
            try:
                warm_up_module(importlib.import_module(name))
            except BaseException as exc:
                refused[name] = f"import failed: {type(exc).__name__}: {exc}"
                continue
            if _kernel_threads() > threads_before:
                # A fork of a process with threads can deadlock in any lock they held.
                refused[name] = "it leaves threads running; paglets import it themselves instead"
        gc.collect()
        gc.freeze()
        return refused

    def _tell(self, *message: Any) -> None:
        try:
            self._control.send(msgspec.msgpack.encode(message))
        except OSError:
            os._exit(0)  # the host is gone


def _kernel_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - pathlib is slower and this is a plain count
    except OSError:
        return threading.active_count()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
