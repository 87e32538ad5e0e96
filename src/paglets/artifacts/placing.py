"""Put a file's content in another place, with as few bytes moved as the file system allows.

Every call here that only some systems have comes with what happens on the others.
"""

from __future__ import annotations

import errno
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from paglets.artifacts.sparse import SparseFile, data_ranges

if sys.platform != "win32":
    import fcntl

_F_SETSIG: Final = 10  # from fcntl.h; the fcntl module of Python 3.11 names neither this nor the next
_FICLONE: Final = 0x4004_9409  # from linux/fs.h
_COPY_BYTES: Final = 8 * 1024 * 1024
_PIECE_BYTES: Final = 1024 * 1024
#: What a file system answers that cannot share or copy for us, or not between these two files.
_CANNOT: Final = frozenset(
    {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM, errno.EBADF, errno.ETXTBSY}
)


def part_beside(path: Path) -> Path:
    """Return a fresh hidden name in the directory of `path`, of the kind that unfinished writes have."""
    return path.with_name(f".paglets-{secrets.token_hex(8)}.part")


def copy_content(source: int, target: int, size: int) -> None:
    """Make the first bytes of one open file those of another, empty one: shared, copied by the kernel, or by us.

    :raises OSError: the disk does not take it, or the source ended early.
    """
    if not (_share(source, target) or _copy_in_kernel(source, target, size)):
        _copy(source, target, size)
    if os.fstat(target).st_size != size:
        raise OSError(errno.EIO, f"the file does not have its {size} bytes any more")


def _share(source: int, target: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def _copy_in_kernel(source: int, target: int, size: int) -> bool:
    if not hasattr(os, "copy_file_range"):
        return False
    copied_any = False
    for start, end in data_ranges(source, size):
        done = start
        while done < end:
            try:
                copied = os.copy_file_range(source, target, min(_COPY_BYTES, end - done), done, done)
            except OSError as error:
                if copied_any or error.errno not in _CANNOT:
                    raise
                return False
            if not copied:  # the end of the source, or a file system that does not say that it cannot
                return copied_any
            copied_any = True
            done += copied
    os.ftruncate(target, size)  # it may end in a hole
    return True


def _copy(source: int, target: int, size: int) -> None:
    os.lseek(source, 0, os.SEEK_SET)
    os.lseek(target, 0, os.SEEK_SET)
    left = size
    file = SparseFile(target)
    while left and (piece := os.read(source, min(left, _PIECE_BYTES))):
        left -= len(piece)
        file.write(piece)
    file.finish()


def write_all(descriptor: int, data: bytes | memoryview) -> int:
    """Write every byte and return how many there were.

    :raises OSError: the disk does not take it; a part may have been written.
    """
    view = memoryview(data)
    done = 0
    while done < len(view):
        done += os.write(descriptor, view[done:])
    return done


@contextmanager
def claimed(target: Path) -> Iterator[None]:
    """Own a name that nobody had, so that a rename to it replaces nothing of anybody; give it back on an error.

    :raises FileExistsError: somebody has it; also a dangling symbolic link counts.
    """
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0), 0o600))
    try:
        yield
    except BaseException:
        with suppress(OSError):
            target.unlink()
        raise


def open_for_writing(descriptor: int) -> bool | None:
    """Return whether some process has a file open, or mapped, for writing; None where the system cannot tell.

    :param descriptor: of the file, opened for reading only.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        # Whoever opens the file in this very moment waits until the lease is given back, and the holder gets a signal:
        # not SIGIO, which would end this process, but one that is ignored.
        fcntl.fcntl(descriptor, _F_SETSIG, signal.SIGURG)
        # A lease for reading is given only while nobody can write.
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False


def start_writeback(descriptor: int, start: int, count: int) -> None:
    """Have the kernel begin to write these bytes to the disk, so that a later sync is short; a hint, never an error."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(descriptor, start, count, os.POSIX_FADV_DONTNEED)
