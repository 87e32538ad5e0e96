"""A process that has imported what a host needs and forks one host per order, so that a test can start dozens of them.

Started as ``python -m tests.faults.nursery``. Orders come as lines of JSON on standard input, news go out the same way
on standard output. A host is a process of its own in every respect: it leads a session of its own, so that everything
that it starts can be found, and it is told apart from one that was started by hand by its short start alone.

Nothing outlives this process, which ends with its standard input: each host is tied to it by a lifeline.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
import traceback
from typing import Any, NoReturn

import uvloop  # noqa: F401 - imported ahead for the hosts

import paglets.runtime.http.server  # noqa: F401 - imported ahead for the hosts
from paglets.config.startup import load_launch_config
from paglets.runtime import faults, platform
from paglets.runtime.assembly import product_version
from paglets.runtime.host import Host
from paglets.runtime.http.page import documented_routes
from tests.faults import switch
from tests.preload import waiting

_NEWS = 1


def main() -> None:
    """Serve orders until nobody holds the other end of standard input."""
    documented_routes(product_version())  # once for all hosts
    waiting.get_ready()
    lifeline = platform.Lifeline()
    # A duplicate, because a fork closes the lifeline that it inherits.
    _Nursery(os.dup(lifeline.read_fd)).serve()


class _Nursery:
    def __init__(self, lifeline_fd: int) -> None:
        self._lifeline_fd = lifeline_fd
        self._stop_fds: dict[int, int] = {}
        """By process id: the pipe whose end lets a host stop in order."""
        self._wakeup_read, self._wakeup_write = os.pipe()
        for descriptor in (self._wakeup_read, self._wakeup_write):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def serve(self) -> None:
        pending = b""
        while True:
            readable, _, _ = select.select([0, self._wakeup_read], [], [])
            if self._wakeup_read in readable:
                os.read(self._wakeup_read, 4096)
                self._reap()
            if 0 in readable:
                data = os.read(0, 1 << 16)
                if not data:
                    return
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))

    def _obey(self, order: dict[str, Any]) -> None:
        if "stop" in order:
            descriptor = self._stop_fds.pop(order["stop"], None)
            if descriptor is not None:
                os.close(descriptor)
            return
        read_fd, write_fd = os.pipe()
        process_id = os.fork()
        if process_id == 0:
            os.close(write_fd)
            self._become_host(order, read_fd)
        os.close(read_fd)
        self._stop_fds[process_id] = write_fd
        tell({"token": order["token"], "started": process_id})

    def _reap(self) -> None:
        while True:
            try:
                process_id, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process_id == 0:
                return
            descriptor = self._stop_fds.pop(process_id, None)
            if descriptor is not None:
                os.close(descriptor)
            tell({"ended": process_id, "code": os.waitstatus_to_exitcode(status)})

    def _become_host(self, order: dict[str, Any], stop_fd: int) -> NoReturn:
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            for descriptor in (self._wakeup_read, self._wakeup_write, *self._stop_fds.values()):
                os.close(descriptor)
            platform.die_with(self._lifeline_fd)
            log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            news = os.dup(_NEWS)
            os.set_inheritable(news, False)
            for there, here in ((null, 0), (log, 1), (log, 2)):
                os.dup2(there, here)
            if "port_of_switch" in order:
                # Before the host has threads: a namespace belongs to the thread that enters it.
                switch.enter_namespace()
                switch.plug_in(order["name"], *order["port_of_switch"])
            waiting.keep_one_waiting()
            run_host(order, stop_fd, news)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(70)


def run_host(order: dict[str, Any], stop_fd: int, news: int) -> NoReturn:
    """Be a host until the pipe ``stop_fd`` is closed at its other end."""
    os.environ.update(order["environment"])
    faults.arm(os.environ.get("PAGLETS_FAULT", ""))
    if order.get("log_mesh"):
        logging.basicConfig(format="%(created).3f %(message)s")
        logging.getLogger("paglets.remote.mesh").setLevel(logging.INFO)
    options = dict(order["options"])
    if "launch_config" in options:
        options["launch_config"] = load_launch_config(options["launch_config"])
    host = Host(order["name"], **options)
    try:
        host.start_background()
    except Exception as exc:
        traceback.print_exc()
        tell({"token": order["token"], "failed": f"{type(exc).__name__}: {exc}"}, news)
        sys.stderr.flush()
        os._exit(71)
    tell({"token": order["token"], "address": host.address, "port": host.port}, news)
    os.read(stop_fd, 1)
    host.stop(deactivate_active=bool(order.get("deactivate")))
    sys.stderr.flush()
    os._exit(0)


def tell(news: dict[str, Any], descriptor: int = _NEWS) -> None:
    """Write one line in one piece: short lines of several processes do not mix in a pipe."""
    os.write(descriptor, json.dumps(news).encode() + b"\n")


if __name__ == "__main__":
    main()
