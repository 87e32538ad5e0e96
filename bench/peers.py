"""The hosts that are measured: one in this process, one in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from paglets.runtime.host import Host

_PEER = """
import sys, tempfile
from paglets.runtime.host import Host
with tempfile.TemporaryDirectory() as directory:
    host = Host("bench-peer", persistence_dir=directory, mesh=False, preload=["bench.agents"])
    host.start_background()
    print(host.address, flush=True)
    sys.stdin.read()
    host.stop()
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A host in another process."""

    address: str
    pid: int


@contextmanager
def local_host(*, preload: bool = True, modules: tuple[str, ...] = ()) -> Iterator[Host]:
    """Give a host in this process.

    :param modules: preloaded beside `bench.agents`.
    """
    with tempfile.TemporaryDirectory() as directory:
        host = Host(
            "bench", persistence_dir=directory, mesh=False, preload=["bench.agents", *modules] if preload else []
        )
        host.start_background()
        try:
            yield host
        finally:
            host.stop()


@contextmanager
def peer() -> Iterator[Peer]:
    """Give a host in another process."""
    process = subprocess.Popen([sys.executable, "-c", _PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield Peer(process.stdout.readline().strip(), process.pid)
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


@contextmanager
def peer_host() -> Iterator[str]:
    """Give the address of a host in another process."""
    with peer() as started:
        yield started.address
