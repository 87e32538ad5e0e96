"""Hold every call that exists on POSIX or on Linux only, each with what happens elsewhere.

Nothing outside this module and the launchers may name such a call, so that the rest of the runtime reads the same
everywhere.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence

LINUX = sys.platform.startswith("linux")

if sys.platform != "win32":
    # At the top, because an import statement in a function costs a freshly forked process pages of its own.
    import fcntl

#: Descriptors accepted with one read of a socket. The peer never sends more than one per frame.
MAX_DESCRIPTORS_PER_READ = 64
_IOV_MAX = 512


def raise_descriptor_limit() -> None:
    """Raise this process's soft limit of open descriptors to its hard limit.

    One paglet costs its host one descriptor, and the usual soft limit of 1,024 would be met by a host with a thousand
    paglets.
    """
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def can_fork() -> bool:
    """Tell whether a fork server is safe here: macOS frameworks do not survive a fork, Windows has none."""
    return LINUX and hasattr(os, "fork")


class Lifeline:
    """A pipe whose closing ends every process that holds its other end.

    The kernel closes the write end when this process ends, whatever ends it. Readers that called :func:`die_with` are
    then killed by the kernel itself, without their interpreter taking part.
    """

    def __init__(self) -> None:
        self.read_fd, self._write_fd = os.pipe()
        if hasattr(os, "register_at_fork"):
            # A fork of the host process must not keep the lifeline of its parent open.
            os.register_at_fork(after_in_child=self.release)

    def release(self) -> None:
        """Close this process's ends of the pipe."""
        for name in ("_write_fd", "read_fd"):
            fd = getattr(self, name)
            if fd >= 0:
                setattr(self, name, -1)
                with contextlib.suppress(OSError):
                    os.close(fd)


_F_SETSIG = 10  # from fcntl.h; the fcntl module of Python 3.11 does not name it


def die_with(lifeline_fd: int) -> int:
    """Have the kernel kill this process with SIGKILL as soon as the lifeline's write end is closed.

    The descriptor is opened anew because owner and signal belong to the open file description, which forked processes
    share.

    :return: the new descriptor, to be kept open; the old one where this is not supported.
    """
    if not LINUX:
        return lifeline_fd
    fd = os.open(f"/proc/self/fd/{lifeline_fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    try:
        closed = os.read(fd, 1) == b""
    except BlockingIOError:
        closed = False
    if closed:  # the host ended before the signal was armed
        os.kill(os.getpid(), signal.SIGKILL)
    return fd


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected stream sockets with room for a burst of frames; the first is non-blocking."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 512 * 1024)
    ours.setblocking(False)
    return ours, theirs


def receive_with_descriptors(sock: socket.socket, nbytes: int) -> tuple[bytes, list[int]]:
    """Read up to ``nbytes`` and any descriptors sent along.

    :return: the bytes (empty at end of stream) and the descriptors, in order of sending.
    :raises BlockingIOError: nothing is there and the socket does not block.
    """
    if not hasattr(socket, "SCM_RIGHTS"):
        return sock.recv(nbytes), []
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, ancillary, _, _ = sock.recvmsg(nbytes, socket.CMSG_SPACE(4 * MAX_DESCRIPTORS_PER_READ), flags)
    if not ancillary:
        return data, []
    fds: list[int] = []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            usable = len(content) - len(content) % 4
            fds.extend(memoryview(content[:usable]).cast("i").tolist())
    return data, fds


def descriptor_ancillary(fds: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """Return the ancillary data that sends ``fds`` along with a message."""
    if not fds:
        return []
    packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)]


def can_pass_descriptors() -> bool:
    """Tell whether memory can be handed to another process by descriptor here."""
    return hasattr(socket, "SCM_RIGHTS")


def open_memory_file(name: str) -> int:
    """Open an unnamed file that can be passed by descriptor.

    :return: its descriptor, owned by the caller.
    :raises OSError: no memory or descriptors left.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    import tempfile  # not needed where memory files exist, and it brings much along

    fd, path = tempfile.mkstemp(prefix="paglets-")
    os.unlink(path)  # noqa: PTH108 - the path comes from mkstemp as text
    return fd


def memory_file(name: str, segments: Sequence[bytes | bytearray | memoryview]) -> int:
    """Write ``segments`` into an unnamed file that can be passed by descriptor and never changes afterwards.

    :return: its descriptor, owned by the caller.
    :raises OSError: no memory or descriptors left.
    """
    fd = open_memory_file(name)
    try:
        write_all(fd, segments)
        seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def seal(fd: int) -> None:
    """Keep a memory file from ever changing again, where that can be had."""
    if not LINUX:
        return
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)


def map_file(fd: int, nbytes: int) -> memoryview:
    """Map ``nbytes`` of a received memory file for reading.

    A file that its sender could still shrink is read into memory instead: touching a page that is gone would kill this
    process.

    :raises OSError: the file is shorter than announced.
    """
    if os.fstat(fd).st_size < nbytes:
        raise OSError(f"memory file holds less than the announced {nbytes} bytes")
    if LINUX and _is_sealed(fd):
        return memoryview(mmap.mmap(fd, nbytes, access=mmap.ACCESS_READ))
    content = bytearray(nbytes)
    view = memoryview(content)
    done = 0
    while done < nbytes:
        got = os.preadv(fd, [view[done:]], done)
        if not got:
            raise OSError("memory file ended early")
        done += got
    return view.toreadonly()


def _is_sealed(fd: int) -> bool:
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:
        return False


def write_all(fd: int, segments: Sequence[bytes | bytearray | memoryview]) -> int:
    """Write every byte of ``segments`` to ``fd`` and return how many there were."""
    total = 0
    pending = [memoryview(segment).cast("B") for segment in segments if len(segment)]
    start = 0
    while start < len(pending):
        batch = pending[start : start + _IOV_MAX]
        written = os.writev(fd, batch)
        total += written
        for view in batch:
            if written >= len(view):
                written -= len(view)
                start += 1
            else:
                pending[start] = view[written:]
                break
    return total


def kill_group(pid: int, number: int) -> None:
    """Send a signal to a paglet's process group, or to its process alone where it has none; a gone process is no
    error."""
    try:
        if hasattr(os, "killpg"):
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    except PermissionError:
        os.kill(pid, number)


def leave_terminal_group() -> None:
    """Leave the terminal's process group, so that Ctrl-C reaches the host alone."""
    try:
        os.setpgid(0, 0)
    except (AttributeError, OSError):
        return  # the system has no groups, or this process leads one already


def ignore_interrupts() -> None:
    """Ignore SIGINT, in this process and in those forked from it."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
