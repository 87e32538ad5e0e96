"""What a hub costs: messages and files between a client and a host that is reached through it, each in its process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import floors
from bench.measure import Row, milliseconds, timed
from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy

MEGABYTE = 1024 * 1024
KEY = "bench"

_HOST = """
import sys, tempfile
from paglets.runtime.host import Host
name, option, url, port = sys.argv[1:]
options = {option: url} if option else {}
with tempfile.TemporaryDirectory() as directory:
    host = Host(
        name,
        port=int(port),
        persistence_dir=directory,
        mesh=False,
        api_key="bench",
        preload=["bench.agents"],
        **options,
    )
    host.start_background()
    print(host.address, flush=True)
    sys.stdin.read()
    host.stop()
"""


@contextmanager
def started(name: str, option: str = "", url: str = "", port: int = 0) -> Iterator[str]:
    """Give the address of a host in a process of its own."""
    command = [sys.executable, "-c", _HOST, name, option, url, str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


def relay(quick: bool) -> Iterator[Row]:
    """Send messages and files through a hub."""
    rounds = 300 if quick else 2000
    size = (64 if quick else 256) * MEGABYTE
    http_floor = floors.http_round_trip(rounds)
    with ExitStack() as stack:
        port = _free_port()
        hub = stack.enter_context(started("hub", "public_url", f"http://127.0.0.1:{port}", port))
        far = stack.enter_context(started("far", "connect_to", hub))
        near = stack.enter_context(started("near"))
        client = stack.enter_context(HostClient(api_key=KEY, timeout=60.0))
        for name, address, aim, floor in (
            ("message straight to a host", near, None, http_floor),
            ("message through a hub", far, 1.2, 2 * http_floor),
        ):
            proxy = client_create(client, address)
            seconds = timed(lambda proxy=proxy: proxy.send(Message("echo", {"a": 1})), rounds, warm_up=100)
            yield milliseconds(name, seconds, floor=floor, aim=aim)
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source, target = directory / "source", directory / "target"
        source.write_bytes(os.urandom(size))
        line = size / MEGABYTE / floors.loopback_transfer(size, 3) * 1e3
        for name, address in (("straight to a host", near), ("through a hub", far)):
            up, down = _transfers(client, address, source, target, 2 if quick else 5)
            yield Row(f"upload {size // MEGABYTE} MB {name}", "MB/s", _rate(size, up), line, larger_is_better=True)
            yield Row(f"download {size // MEGABYTE} MB {name}", "MB/s", _rate(size, down), line, larger_is_better=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def client_create(client: HostClient, address: str) -> PagletProxy:
    """Create a paglet that answers with what it is sent."""
    names = {"agent_class_name": "bench.agents:Echo", "state_class_name": "bench.agents:EchoState", "state": {}}
    return PagletProxy.from_wire(client.post_json(f"{address}/agents", names)["proxy"], client)


def _transfers(
    client: HostClient, address: str, source: Path, target: Path, rounds: int
) -> tuple[list[float], list[float]]:
    up: list[float] = []
    down: list[float] = []
    for _ in range(rounds):
        refs = []
        up += timed(
            lambda refs=refs: refs.append(client.upload_artifact(address, source, compress="never")), 1, warm_up=0
        )
        down += timed(lambda refs=refs: client.download_artifact(refs[0], target), 1, warm_up=0)
        client.delete_artifact(refs[0])
    return up, down


def _rate(size: int, seconds: list[float]) -> float:
    return round(size / MEGABYTE / sorted(seconds)[len(seconds) // 2], 1)
