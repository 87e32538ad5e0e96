"""Throw malformed links at a hub for as long as wanted: ``python -m tests.faults.fuzz_links --seconds 180 --seed 7``.

Two targets, in turns: the machine of a link alone, and a hub in a process of its own, over
sockets. What is sent begins as a right conversation and is then damaged, as frames and as WebSocket frames. Only a link
may end by it: the machine raises nothing but `LinkError` and holds no more than its limits, the hub goes on answering
and grows in memory, threads and descriptors only within bounds.
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import socket
import struct
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from paglets.protocol.link import Hello, Link, LinkError, LinkFullError, LinkLimits
from paglets.protocol.link import frames as wire
from paglets.protocol.link.frames import Kind
from paglets.protocol.link.model import ResetCode
from paglets.remote.client import HostClient
from tests.cli.processes import Program
from tests.support import free_port

KEY: Final = "fuzz-key"
#: Links after which the hub must have found its size, in bytes of memory, threads and descriptors.
WARM_UP: Final = 300
MOST_GROWTH: Final = 24 * 1024 * 1024
MOST_THREADS: Final = 4
MOST_DESCRIPTORS: Final = 16
#: How long the hub may take to say how it is.
ANSWER_SECONDS: Final = 10.0
_BATCH: Final = 50
_MACHINES_PER_LINK: Final = 40


@dataclass(slots=True)
class Outcome:
    """What a run did and found."""

    machines: int = 0
    messages: int = 0
    refused: int = 0
    links: int = 0
    growth: int = 0
    problems: list[str] = field(default_factory=list)


# --- what is sent -----------------------------------------------------------------------------------------------------


def conversation(chance: random.Random) -> list[bytes]:
    """Return the messages of a right link, as one end may send them."""
    name = "B"
    said = [wire.hello_frame(Hello(name=name, instance="i", health={"name": name, "code_version": "x"}))]
    for number in range(1, 2 * chance.randrange(1, 12), 2):
        path = chance.choice(["/health", "/agents", "/hosts", "/agents/x/messages", "/blobs/missing"])
        said.append(wire.open_frame(number, chance.choice(["GET", "POST"]), path, [(b"authorization", b"Bearer x")]))
        for _ in range(chance.randrange(3)):
            said.append(wire.frame(Kind.DATA, number, chance.randbytes(chance.choice([0, 1, 100, 65536]))))
        said.append(
            chance.choice(
                [
                    wire.frame(Kind.END, number),
                    wire.credit_frame(number, chance.randrange(1 << 20)),
                    wire.reset_frame(number, ResetCode.CANCELLED, "no more"),
                    wire.answer_frame(chance.choice([2, number]), 200, [(b"content-type", b"application/json")]),
                    wire.frame(Kind.PING),
                ]
            )
        )
    return said


def damaged(chance: random.Random, said: list[bytes]) -> list[bytes]:
    """Return the messages with a few faults."""
    said = list(said)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(said))
        message = bytearray(said[at])
        fault = chance.randrange(8)
        if fault == 0 and message:
            message[chance.randrange(len(message))] ^= 1 << chance.randrange(8)
        elif fault == 1:
            del message[chance.randrange(len(message) + 1) :]
        elif fault == 2:
            message[chance.randrange(len(message) + 1) :] = chance.randbytes(chance.randrange(200))
        elif fault == 3:
            said.insert(chance.randrange(len(said) + 1), said[at])
        elif fault == 4:
            said[at], said[-1] = said[-1], said[at]
            continue
        elif fault == 5:
            kind, stream = chance.randrange(256), chance.choice([0, 1, 2, 3, 2**63, 2**64 - 1])
            message += struct.pack(">BQI", kind, stream, chance.choice([0, 1, 2**31, 2**32 - 1]))
        elif fault == 6:
            # Deep or wide values where a head should be.
            content = chance.choice([b"\x91" * 5000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x93\xa3GET"])
            message += wire.frame(chance.choice([Kind.OPEN, Kind.HEAD, Kind.HELLO]), chance.choice([1, 3, 99]), content)
        else:
            message += b"".join(wire.credit_frame(1, 2**32 - 1) for _ in range(20))
        said[at] = bytes(message)
    return said


def as_websocket(chance: random.Random, message: bytes) -> bytes:
    """Return a message as a WebSocket frame, in some cases as what no client should send."""
    mask = chance.randbytes(4)
    first, marked = 0x82, 0x80
    match chance.randrange(40):
        case 0:
            first = chance.randrange(256)
        case 1:
            marked = 0
        case 2:
            first = 0x02  # not the last part, and none follows
        case 3:
            return bytes([0x82, 0xFF]) + struct.pack(">Q", chance.choice([2**62, 2**63 - 1, 2**24]))
        case 4:
            return chance.randbytes(chance.randrange(1, 300))
    size = len(message)
    if size < 126:
        head = bytes([first, size | marked])
    elif size < 65536:
        head = bytes([first, 126 | marked]) + struct.pack(">H", size)
    else:
        head = bytes([first, 127 | marked]) + struct.pack(">Q", size)
    if not marked:
        return head + message
    masked = int.from_bytes(message, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head + mask + masked.to_bytes(size, "big")


# --- the machine ------------------------------------------------------------------------------------------------------


def try_machine(chance: random.Random, outcome: Outcome) -> None:
    """Let one end of a link hear a damaged conversation while it does work of its own.

    :raises AssertionError: it holds more than its limits.
    """
    limits = LinkLimits(data_bytes=65536, streams=16, pending_bytes=256 * 1024)
    link = Link(Hello(name="A"), first=chance.random() < 0.5, now=0.0, limits=limits)
    outcome.machines += 1
    for message in damaged(chance, conversation(chance)):
        outcome.messages += 1
        try:
            link.receive(message, now=0.0)
            if link.other is not None and chance.random() < 0.3:
                link.ask("GET", "/health", [])
        except LinkError:
            outcome.refused += 1
            return
        except LinkFullError:
            pass  # as many requests of its own as it may have
        held = link.statistics()
        assert held.serving <= limits.streams and held.asked <= limits.streams, held
        assert held.unread <= limits.streams * limits.first_window + limits.window_budget, held
        if chance.random() < 0.7:
            link.take()


# --- a hub ------------------------------------------------------------------------------------------------------------


def try_hub(chance: random.Random, port: int, outcome: Outcome) -> None:
    """Open a link to a hub, say something damaged, and leave in one way or another."""
    outcome.links += 1
    head = (
        f"GET /relay/link?name=B{chance.randrange(16)} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(chance.randbytes(16)).decode()}\r\n\r\n"
    )
    with closing(socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)) as connection:
        try:
            connection.sendall(head.encode())
            if b" 101 " not in connection.recv(4096):
                return  # the name is taken by a link that has not ended yet
            said = conversation(chance)
            for message in damaged(chance, said) if chance.random() < 0.9 else said:
                connection.sendall(as_websocket(chance, message))
            how = chance.randrange(3)
            if how == 0:
                connection.shutdown(socket.SHUT_WR)
            if how < 2:
                connection.settimeout(0.05)
                while connection.recv(65536):
                    pass
            else:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:  # also where there is nothing left to shut down
            outcome.refused += 1


def size_of(process: psutil.Process) -> tuple[int, int, int]:
    """Return memory in bytes, threads and descriptors of a process."""
    with process.oneshot():
        return process.memory_info().rss, process.num_threads(), process.num_fds()


def fuzz(seed: int, *, seconds: float = 0.0, links: int = 0) -> Outcome:
    """Throw until time is over and so many links were tried; return what happened."""
    chance, outcome, port = random.Random(seed), Outcome(), free_port()
    with tempfile.TemporaryDirectory(prefix="paglets-fuzz-") as name:
        hub = Program(
            *("host", "--name", "A", "--port", str(port), "--json", "--persistence-dir", str(Path(name) / "A")),
            *("--launch-config", str(Path(name) / "launch.toml"), "--no-sync-launch-config"),
            *("--log-level", "error", "--public-url", "http://127.0.0.1:1/", "--mesh-version", "fuzz"),
            PAGLETS_API_KEY=KEY,
            PAGLETS_DISCOVERY="off",
            PYTHONWARNINGS="default",
        )
        try:
            hub.json_line()  # it listens
            process = psutil.Process(hub.process.pid)
            with HostClient(ANSWER_SECONDS, api_key=KEY) as client:
                _throw(chance, outcome, port, process, client, time.monotonic() + seconds, links)
            outcome.problems += [line for line in hub.err if "Traceback" in line or "Error" in line]
        except AssertionError as exc:
            outcome.problems.append(str(exc))
        finally:
            hub.close()
    return outcome


def _throw(
    chance: random.Random,
    outcome: Outcome,
    port: int,
    process: psutil.Process,
    client: HostClient,
    deadline: float,
    links: int,
) -> None:
    base: tuple[int, int, int] | None = None
    while outcome.links < links or time.monotonic() < deadline:
        for _ in range(_BATCH):
            try_hub(chance, port, outcome)
            for _ in range(_MACHINES_PER_LINK):
                try_machine(chance, outcome)
        assert client.get_json(f"http://127.0.0.1:{port}/health")["name"] == "A"
        size = size_of(process)
        if base is None:
            base = size if outcome.links >= WARM_UP else None
            continue
        outcome.growth = size[0] - base[0]
        for what, now, before, most in zip(
            ("bytes of memory", "threads", "descriptors"), size, base, (MOST_GROWTH, MOST_THREADS, MOST_DESCRIPTORS),
            strict=True,
        ):  # fmt: skip
            assert now - before <= most, f"the hub went from {before} to {now} {what} after {outcome.links} links"


def main() -> int:
    """Run, print what happened, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=180.0, help="how long (default: 180)")
    parser.add_argument("--seed", type=int, default=None, help="what is drawn from (default: another each time)")
    options = parser.parse_args()
    seed = int.from_bytes(os.urandom(3), "big") if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    outcome = fuzz(seed, seconds=options.seconds)
    print(f"machines {outcome.machines}, messages {outcome.messages}, links to the hub {outcome.links}, ")
    print(f"refused {outcome.refused}, growth of the hub {outcome.growth / 1024 / 1024:.1f} MB")
    for problem in outcome.problems:
        print(problem)
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
