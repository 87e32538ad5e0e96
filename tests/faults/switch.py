"""An Ethernet switch in a thread: hosts in network namespaces of their own, and what is between them.

Every host has a network namespace with one interface, a TAP device, whose other end the switch holds. So hosts speak
real TCP over real packets, and what happens to each packet is decided here: lost, delayed, overtaken, not let through.
It does what ``tc netem`` does on veth pairs, which needs a kernel module that many machines lack, and counts bytes.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import heapq
import itertools
import os
import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_TUN = Path("/dev/net/tun")
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
_IFF_UP = 1
_FRAME_BYTES = 65536
_MOST_WAITING = 100_000
PREFIX = "10.77"


@dataclass(frozen=True, slots=True)
class Line:
    """What happens to a packet."""

    loss: float = 0.0
    """How probable it is that it is lost."""
    delay: float = 0.0
    """Seconds that it takes."""
    reorder: float = 0.0
    """How probable it is that it does not wait and so overtakes others."""


def why_not() -> str:
    """Return why namespaces cannot be made here, or nothing."""
    pid = os.fork()
    if pid == 0:
        code = 1
        with suppress(OSError):
            enter_namespace()
            os.close(_open_tap("probe"))
            code = 0
        os._exit(code)
    if os.waitpid(pid, 0)[1] == 0:
        return ""
    return f"network namespaces with TAP devices need root and {_TUN}"


def enter_namespace() -> None:
    """Put this process, which must have one thread, into a network namespace of its own.

    :raises OSError: it may not.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _bring_up("lo")


def address_of(number: int) -> str:
    """Return the address of a port."""
    return f"{PREFIX}.{number // 250}.{number % 250 + 1}"


def plug_in(name: str, number: int, switch: str) -> None:
    """Give this namespace an interface at a port of the switch that listens at a path.

    :raises OSError: it cannot be made, or there is no switch.
    """
    tap = _open_tap("mesh0")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for request, text in ((_SIOCSIFADDR, address_of(number)), (_SIOCSIFNETMASK, "255.255.0.0")):
                entry = struct.pack("16sH2s4s8x", b"mesh0", socket.AF_INET, b"", socket.inet_aton(text))
                fcntl.ioctl(control, request, entry)
        _bring_up("mesh0")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.connect(switch)
            fds = array.array("i", [tap])
            line.sendmsg([name.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            line.recv(1)
    finally:
        os.close(tap)


def _open_tap(interface: str) -> int:
    tap = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", interface.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError:
        os.close(tap)
        raise
    return tap


def _bring_up(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        entry = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH22x", interface.encode(), 0))
        flags = struct.unpack("16sH22x", entry)[1] | _IFF_UP
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", interface.encode(), flags))


@dataclass(eq=False)
class Port:
    """Where one host is plugged in."""

    name: str
    tap: int
    sent_bytes: int = 0
    received_bytes: int = 0
    sent_packets: int = 0
    lost_packets: int = 0
    _closed: bool = False


@dataclass(frozen=True, order=True)
class _Waiting:
    due: float
    order: int
    source: Port = field(compare=False)
    frame: bytes = field(compare=False)


class Switch:
    """All ports; its methods may be called from any thread.

    :param path: of the socket to which hosts hand their end.
    """

    def __init__(self, path: Path, seed: int = 0) -> None:
        self.path = path
        self.line = Line()
        self.ports: dict[str, Port] = {}
        self._chance = random.Random(seed)
        self._sides: tuple[frozenset[str], ...] = ()
        self._known: dict[bytes, Port] = {}
        """By hardware address."""
        self._waiting: list[_Waiting] = []
        self._order = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="switch", daemon=True)
        self._thread.start()

    def separate(self, *sides: Collection[str]) -> None:
        """Let no packet from one side to another; a port that is in none is on all."""
        self._sides = tuple(frozenset(side) for side in sides)

    def close(self) -> None:
        """End it and close every port."""
        self._stopping = True
        os.write(self._wake_write, b"x")
        self._thread.join()
        for port in list(self.ports.values()):
            self._unplug(port)
        self._selector.close()
        self._listener.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self.path.unlink()

    def _run(self) -> None:
        while not self._stopping:
            wait = None if not self._waiting else max(0.0, self._waiting[0].due - time.monotonic())
            for key, _ in self._selector.select(wait):
                if isinstance(key.data, Port):
                    self._take(key.data)
                elif key.fileobj is self._listener:
                    self._plug_in()
            now = time.monotonic()
            while self._waiting and self._waiting[0].due <= now:
                waiting = heapq.heappop(self._waiting)
                self._deliver(waiting.source, waiting.frame)

    def _plug_in(self) -> None:
        line, _ = self._listener.accept()
        with line:
            said, fds, _, _ = socket.recv_fds(line, 4096, 1)
            name = said.decode()
            former = self.ports.pop(name, None)
            if former is not None:
                self._unplug(former)
            os.set_blocking(fds[0], False)
            port = self.ports[name] = Port(name, fds[0])
            if former is not None:
                port.sent_bytes, port.received_bytes = former.sent_bytes, former.received_bytes
                port.sent_packets, port.lost_packets = former.sent_packets, former.lost_packets
            self._selector.register(port.tap, selectors.EVENT_READ, port)
            line.send(b"!")

    def _unplug(self, port: Port) -> None:
        if not port._closed:
            port._closed = True
            self._selector.unregister(port.tap)
            os.close(port.tap)

    def _take(self, port: Port) -> None:
        for _ in range(64):
            try:
                frame = os.read(port.tap, _FRAME_BYTES)
            except BlockingIOError:
                return
            except OSError:
                self._unplug(port)  # its namespace is gone
                return
            port.sent_packets += 1
            port.sent_bytes += len(frame)
            line = self.line
            if self._chance.random() < line.loss or len(self._waiting) >= _MOST_WAITING:
                port.lost_packets += 1
            elif not line.delay or self._chance.random() < line.reorder:
                self._deliver(port, frame)
            else:
                waiting = _Waiting(time.monotonic() + line.delay, next(self._order), port, frame)
                heapq.heappush(self._waiting, waiting)

    def _deliver(self, source: Port, frame: bytes) -> None:
        self._known[frame[6:12]] = source
        known = self._known.get(frame[:6])
        targets = [known] if known is not None else [port for port in self.ports.values() if port is not source]
        for target in targets:
            if target._closed or self._separated(source.name, target.name):
                continue
            # A full or closed interface loses packets, like any other.
            with suppress(OSError):
                os.write(target.tap, frame)
                target.received_bytes += len(frame)

    def _separated(self, one: str, other: str) -> bool:
        first = [side for side in self._sides if one in side]
        second = [side for side in self._sides if other in side]
        return bool(first and second) and not set(first) & set(second)
