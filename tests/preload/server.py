"""Import what `paglets` and its hosts need, and fork programs for `client`.

Started as ``python -P -m tests.preload.server SOCKET``. It ends with its standard input, and everything that it forked
ends with it. A client that goes before its program has ended takes the program with it: who kills the one has killed
the other.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import paglets.cli
import paglets.runtime.http.server
import tests.docs.code_blocks  # noqa: F401 - imported ahead for the pages
from paglets.cli.app import app
from paglets.cli.launcher import command_of
from paglets.runtime import platform
from paglets.runtime.assembly import product_version
from paglets.runtime.http.page import documented_routes
from tests.preload import INTERPRETER, waiting

_AHEAD = (
    "asyncio",
    "doctest",
    "pytest",
    "uvloop",
    "paglets.remote.client",
    "paglets.remote.connections",
    "rich.table",
    "typer.rich_utils",
)
_WITH_HOSTS = ("tests.docs.run_page", INTERPRETER)


@dataclass(frozen=True, slots=True)
class Order:
    """A program that is to be run."""

    directory: bytes
    module: str
    arguments: list[str]
    environment: dict[bytes, bytes]

    @classmethod
    def of(cls, body: bytes) -> Order:
        """Read what a client wrote."""
        directory, count, *rest = body.split(b"\0")
        module, *arguments = (os.fsdecode(each) for each in rest[: int(count)])
        variables = (each.partition(b"=") for each in rest[int(count) :])
        return cls(directory, module, arguments, {name: value for name, _, value in variables})

    @property
    def has_hosts(self) -> bool:
        """Whether the program is one that runs hosts in its process."""
        return self.module in _WITH_HOSTS or (self.module == "paglets" and self.arguments[:1] == ["host"])

    def take_effect(self, own_path: list[str]) -> None:
        """Make this process what the order says, but for the descriptors."""
        os.chdir(self.directory)
        os.environb.clear()
        os.environb.update(self.environment)
        given = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
        sys.path[:] = [*(str(Path(each).absolute()) for each in given), *own_path]
        sys.argv[:] = [self.module, *self.arguments]


class Server:
    """Forks programs until nobody holds the other end of standard input."""

    def __init__(self, path: str) -> None:
        self._lifeline = platform.Lifeline()
        # A duplicate, because a fork closes the lifeline that it inherits.
        self._lifeline_fd = os.dup(self._lifeline.read_fd)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(64)
        self._running: dict[socket.socket, int] = {}
        self._wakeup_read, self._wakeup_write = os.pipe()
        for descriptor in (self._wakeup_read, self._wakeup_write):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def serve(self) -> Order | None:
        """Return an order, in the process that was forked for it, or None at the end."""
        while True:
            readable, _, _ = select.select([0, self._wakeup_read, self._listener, *self._running], [], [])
            if 0 in readable:
                return None
            for connection in [each for each in readable if isinstance(each, socket.socket)]:
                if connection is not self._listener:
                    self._pass_on(connection)
                elif (order := self._accept()) is not None:
                    return order
            if self._wakeup_read in readable:
                os.read(self._wakeup_read, 4096)
                self._reap()

    def _accept(self) -> Order | None:
        connection, _ = self._listener.accept()
        data, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 3)
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
            more = connection.recv(1 << 16)
            if not more:
                break
            data += more
        process_id = os.fork()
        if process_id == 0:
            self._become_child(connection, descriptors)
            return Order.of(data[4:])
        for descriptor in descriptors:
            os.close(descriptor)
        self._running[connection] = process_id
        return None

    def _become_child(self, connection: socket.socket, descriptors: list[int]) -> None:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for here, there in enumerate(descriptors):
            os.dup2(there, here)
            os.close(there)
        for each in (connection, self._listener, *self._running):
            each.close()
        for descriptor in (self._wakeup_read, self._wakeup_write):
            os.close(descriptor)
        platform.die_with(self._lifeline_fd)

    def _pass_on(self, connection: socket.socket) -> None:
        numbers = connection.recv(16)
        for number in numbers or [signal.SIGKILL]:
            os.kill(self._running[connection], number)
        if not numbers:
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        del self._running[connection]
        connection.close()

    def _reap(self) -> None:
        while True:
            try:
                process_id, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process_id == 0:
                return
            for connection in [each for each, running in self._running.items() if running == process_id]:
                with suppress(BrokenPipeError):
                    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
                self._forget(connection)


def main() -> None:
    """Serve, or be one of the programs."""
    given = {str(Path(each).absolute()) for each in os.environ["PYTHONPATH"].split(os.pathsep)}
    own_path = [each for each in sys.path if each not in given]
    for module in pkgutil.iter_modules(paglets.cli.__path__, "paglets.cli."):
        importlib.import_module(module.name)
    for name in _AHEAD:
        importlib.import_module(name)
    command_of(app)
    documented_routes(product_version())  # once for all hosts
    waiting.get_ready()
    server = Server(sys.argv[1])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    order = server.serve()
    if order is not None:
        del server
        order.take_effect(own_path)
        if order.has_hosts:
            waiting.keep_one_waiting()
        runpy.run_module(order.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
