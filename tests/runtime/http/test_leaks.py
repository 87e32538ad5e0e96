"""After every kind of request, good and bad, the host holds what it held before."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import threading
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from paglets.core.messages import Message
from paglets.remote.client import HostClient
from paglets.remote.movement import FRAME, MAGIC
from paglets.runtime.host import Host
from paglets.runtime.http.connection import ServerLimits
from tests.agents.http_agents import Talker, TalkerState
from tests.runtime.http.test_movement_bodies import body_of, file_ref, prepare, state_blob
from tests.runtime.http.wire import Served, Wire, ask, in_threads, served_again
from tests.support import HostFactory, eventually, http_server_of, leftovers

TALKER = "tests.agents.http_agents:Talker"
MOVEMENT = {"Content-Type": "application/x-paglets-movement"}
#: Threads of pools, which grow to their bounds as they happen to be needed.
POOL = re.compile(r"paglets-(content|store|far|files|cleanup|move|disk|hash)\b")
HASTY = ServerLimits(head_seconds=0.1, body_pause_seconds=0.1, keep_alive_seconds=0.2, write_pause_seconds=0.1)


@dataclass(frozen=True)
class Holdings:
    """What a host process holds."""

    descriptors: int
    threads: int
    tasks: int
    children: int
    connections: int
    requests: int
    files: int
    paglets: int


def holdings(host: Host, served: Served) -> Holdings:
    gc.collect()  # a socket that only a cycle holds is not a leak
    process = psutil.Process()
    assembly = host._running()
    own, more = http_server_of(host), served.server
    assert own is not None
    found = assembly.call(lambda: [server.statistics() for server in (own, more)])
    return Holdings(
        descriptors=process.num_fds(),
        threads=sum(1 for thread in threading.enumerate() if POOL.match(thread.name) is None),
        tasks=len(asyncio.all_tasks(assembly.loop)),
        children=len(process.children(recursive=True)),
        connections=sum(statistics.connections for statistics in found),
        requests=sum(statistics.requests for statistics in found),
        files=len(leftovers(host)),
        paglets=len(host.list_agents(inactive=True)),
    )


def send_and_leave(address: str, data: bytes) -> None:
    with contextlib.suppress(ConnectionError), Wire(address) as wire:
        wire.send(data)


def send_and_wait(address: str, data: bytes) -> None:
    with contextlib.suppress(ConnectionError), Wire(address) as wire:
        wire.send(data)
        wire.ended()


def request(method: str, path: str, body: bytes, fields: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode() + body


def barrage(host: Host, served: Served) -> None:
    """Do everything to a host that a client can do to it, many at a time."""
    agent_id = host.create(Talker, TalkerState(data=b"x" * 1_000_000)).agent_id
    path = f"/agents/{agent_id}/messages"
    message = json.dumps({"message": {"kind": "take", "args": {"data": "eA=="}}}).encode()
    lengthy = f"Content-Length: {len(message)}\r\n"
    moving = body_of(prepare(files=[file_ref("a", b"d" * 500_000)]), state_blob(), b"d" * 500_000)
    moved = "Content-Type: application/x-paglets-movement\r\n"

    def one(index: int) -> None:
        client = HostClient()
        with contextlib.suppress(Exception):
            client.deliver(host.address, agent_id, Message("take", {"data": b"x" * 100_000}))
            client.post_pickle(
                f"{host.address}/agents", {"agent_class_name": "nowhere:X", "state": {"x": b"y" * 300_000}}
            )
        client.close()
        for body in (b"{", b"[" * 100_000, {"agent_class_name": "tests.agents.import_exits:X"}, {"agent_id": "../x"}):
            ask(host.address, "POST", "/agents", body)
        ask(host.address, "POST", "/agents", {"agent_class_name": "tests.agents.http_agents:Refuser"})
        ask(host.address, "POST", "/agents", moving + b"more", MOVEMENT)
        ask(host.address, "POST", "/agents", moving[:-5], MOVEMENT)
        ask(host.address, "POST", f"/agents/{agent_id}/dispatch", {"ticket": {"destination": "http://127.0.0.1:9"}})
        for state in ("all", "wrong"):
            ask(host.address, "GET", f"/agents?state={state}&include_state=1")
        for address in (host.address, served.address):
            whole = f"Content-Length: {len(moving)}\r\n"
            for data in (
                b"",
                b"GET",
                b"\x00\x01",
                request("GET", "/agents?include_state=1", b""),
                request("POST", path, message, lengthy)[: -1 - index % 5],
                request("POST", path, message, lengthy) * 5,
                request("POST", "/agents", moving, moved + whole)[:-1],
                request("POST", "/agents", moving, moved + whole)[: -400_000 + index],
                request("POST", "/agents", FRAME.pack(MAGIC, 50_000_000) + b"x" * 200_000, moved + whole),
                request("POST", "/agents", b"", "Transfer-Encoding: chunked\r\n") + b"5\r\nab",
                request("GET", "/x", b"", "X: y\r\n" * 500),
            ):
                send_and_leave(address, data)
                if address == served.address and index % 4 == 0:
                    send_and_wait(address, data)

    in_threads(one, 8)
    host.dispose(agent_id)


def test_nothing_is_left_of_a_barrage(hosts: HostFactory) -> None:
    host = hosts("besieged")
    with served_again(host, HASTY) as served:
        barrage(host, served)  # what is made once and kept, such as threads and memory pools, is made now
        eventually(lambda: holdings(host, served).connections == 0, "the first barrage to end")
        before = settled(host, served)

        barrage(host, served)

        eventually(lambda: holdings(host, served) == before, f"{before}, not {holdings(host, served)}")
        assert ask(host.address, "GET", "/health").status == 200


def settled(host: Host, served: Served) -> Holdings:
    """Return what the host holds as soon as that stays the same."""
    seen: list[Any] = [None, None, None]

    def same() -> bool:
        seen[:] = [*seen[1:], asdict(holdings(host, served))]
        return seen[0] == seen[1] == seen[2]

    eventually(same, "the host to settle")
    return Holdings(**seen[-1])
