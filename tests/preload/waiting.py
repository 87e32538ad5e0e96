"""A fork server that is there before a host asks for one, forked from a process that has imported what it needs.

A host starts its fork server as an interpreter of its own, which imports for a quarter of a second. Where hosts are
forked by the dozen, each finds one in waiting as its child instead. A further one, after that has died, is started as
usual.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import setproctitle

from paglets.runtime.launch import zygote, zygote_main
from paglets.runtime.worker.warmup import warm_up

_ORDER_BYTES = 1 << 20
_warm = False


def get_ready() -> None:
    """Do once, before anything is forked, what every process would do for itself.

    That is what a fork server does before its first paglet, and looking for garbage in what was imported.

    :raises RuntimeError: there are threads, and a process with threads must not fork.
    """
    global _warm
    title = setproctitle.getproctitle()
    warm_up()
    setproctitle.setproctitle(title)
    _warm = True
    if threading.active_count() != 1:
        raise RuntimeError("a process with threads must not fork others")
    gc.collect()
    gc.freeze()


def keep_one_waiting() -> None:
    """Fork a process that becomes the fork server of this one, which is to be a host and has no thread yet."""
    if threading.active_count() != 1:
        raise RuntimeError("a process with threads must not fork a fork server")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process_id = os.fork()
    if process_id == 0:
        _wait_for_host(theirs.detach())
    theirs.close()
    waiting: list[socket.socket] = [ours]

    def begin(command: Sequence[str], *, pass_fds: tuple[int, int], stdout: int, stderr: int, **options: Any) -> Any:
        if not waiting:
            return subprocess.Popen(command, pass_fds=pass_fds, stdout=stdout, stderr=stderr, **options)
        with waiting.pop() as connection:
            order = {"path": json.loads(command[-1]), "environment": options["env"], "directory": str(Path.cwd())}
            socket.send_fds(connection, [json.dumps(order).encode()], [*pass_fds, stdout, stderr])
        return _Forked(process_id)

    names = {name: getattr(subprocess, name) for name in ("DEVNULL", "TimeoutExpired")}
    # The one place where a fork server is started; all else of the launcher stays what it is.
    zygote.subprocess = SimpleNamespace(Popen=begin, **names)  # type: ignore[assignment]


def _wait_for_host(descriptor: int) -> NoReturn:
    try:
        os.dup2(descriptor, 3)
        os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        with socket.socket(fileno=3) as connection:
            data, descriptors, _, _ = socket.recv_fds(connection, _ORDER_BYTES, 4)
        if not data:
            os._exit(0)  # the host ended before it had a paglet
        order = json.loads(data)
        control_fd, lifeline_fd, out_fd, err_fd = descriptors
        for there, here in ((os.open(os.devnull, os.O_RDONLY), 0), (out_fd, 1), (err_fd, 2)):
            os.dup2(there, here)
            os.close(there)
        if _warm:
            zygote_main.warm_up = lambda: None
        sys.path[:] = order["path"]
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["directory"])
        zygote_main.main(control_fd, lifeline_fd)
    finally:
        os._exit(70)


class _Forked:
    """As much of `subprocess.Popen` as the launcher uses, for a process that was forked."""

    def __init__(self, process_id: int) -> None:
        self.pid = process_id
        self._ended_fd = os.pidfd_open(process_id)
        self._lock = threading.Lock()
        self._code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code."""
        with self._lock:
            if self._code is not None:
                return self._code
        poller = select.poll()
        poller.register(self._ended_fd, select.POLLIN)
        if not poller.poll(None if timeout is None else timeout * 1000):
            raise subprocess.TimeoutExpired("fork server", timeout or 0.0)
        with self._lock:
            if self._code is None:
                _, status = os.waitpid(self.pid, 0)
                self._code = os.waitstatus_to_exitcode(status)
            return self._code

    def kill(self) -> None:
        """Kill it, unless it has been waited for."""
        with self._lock:
            if self._code is None:
                os.kill(self.pid, signal.SIGKILL)
