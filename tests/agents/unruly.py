"""Paglets that behave badly."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from paglets.core.agent import Paglet, PagletState, handler


@dataclass
class UnrulyState(PagletState):
    """What the paglet remembers."""

    handled: int = 0
    content: bytes = b""


class Unruly(Paglet[UnrulyState]):
    """Do what no paglet should."""

    State = UnrulyState

    @handler
    def ping(self) -> int:
        """Answer with the number of calls so far."""
        self.state.handled += 1
        return self.state.handled

    @handler
    def pid(self) -> int:
        """Return the process id."""
        return os.getpid()

    @handler
    def parent(self) -> int:
        """Return the process id of whoever started this process."""
        return os.getppid()

    @handler
    def fail(self) -> None:
        """Raise."""
        raise RuntimeError("this handler fails")

    @handler
    def leave(self, code: int) -> None:
        """End the process through the interpreter."""
        sys.exit(code)

    @handler
    def drop_dead(self, code: int) -> None:
        """End the process past the interpreter."""
        os._exit(code)

    @handler
    def shoot(self) -> None:
        """Kill the process."""
        os.kill(os.getpid(), signal.SIGKILL)

    @handler
    def block(self, path: str) -> None:
        """Tell that the handler runs, then never end."""
        Path(path).write_text("entered")
        threading.Event().wait()

    @handler
    def hold_the_interpreter(self) -> None:
        """Never give the interpreter lock back: no other thread of this process runs again."""
        import ctypes

        ctypes.PyDLL(None).sleep(3600)

    @handler
    def flood(self, megabytes: int) -> int:
        """Print more than anybody reads."""
        line = "x" * 1023 + "\n"
        for _ in range(megabytes * 1024):
            sys.stdout.write(line)
        sys.stdout.flush()
        return megabytes

    @handler
    def say(self, text: str) -> None:
        """Print one line."""
        print(text, flush=True)

    @handler
    def kill_the_fork_server(self) -> None:
        """Kill the process that forked this one."""
        os.kill(os.getppid(), signal.SIGKILL)

    @handler
    def nap(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
