"""Of what the memory of a host is made: as the system sees a process, and as its allocators see it from inside."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path
from typing import Final

KILOBYTE: Final = 1024
_WANTED: Final = {"Anonymous": "anonymous KB", "Private_Dirty": "private KB"}


def figures_of(process_id: int) -> dict[str, int]:
    """Return what the system knows of a process: memory that no file is behind, mappings, descriptors, threads.

    :raises OSError: it has ended.
    """
    root = Path(f"/proc/{process_id}")
    found = {}
    for line in (root / "smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in _WANTED:
            found[_WANTED[name]] = int(rest.split()[0])
    status = dict(line.split(":", 1) for line in (root / "status").read_text().splitlines())
    mappings = (root / "maps").read_text().splitlines()
    return {
        **found,
        "shared KB": int(status["RssShmem"].split()[0]),
        "mappings": len(mappings),
        "memory files": sum("memfd:" in line for line in mappings),
        "descriptors": len(list((root / "fd").iterdir())),
        "threads": int(status["Threads"]),
    }


def inside() -> dict[str, int]:
    """Return what the allocators of this process have given out and hold, and what only the garbage collector frees.

    It collects, so what it counts as garbage is what has come up since the last time.
    """
    blocks = sys.getallocatedblocks()
    before = _malloc()
    garbage = gc.collect()
    after = _malloc()
    return {
        "garbage objects": garbage,
        "garbage KB": max(0, before["malloc used KB"] - after["malloc used KB"]),
        **after,
        "python blocks": blocks,
        "sqlite KB": _sqlite_bytes() // KILOBYTE,
    }


_MALLINFO2: Final = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _Mallinfo2(ctypes.Structure):
    # See mallinfo(3).
    _fields_ = [(name, ctypes.c_size_t) for name in _MALLINFO2.split(" ")]


def _malloc() -> dict[str, int]:
    """Return the figures of the C library, zeros where it is not that of GNU."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return {"malloc used KB": 0, "malloc free KB": 0}
    ask.restype = _Mallinfo2
    found = ask()
    return {
        "malloc used KB": (found.uordblks + found.hblkhd) // KILOBYTE,
        "malloc free KB": found.fordblks // KILOBYTE,
    }


def _sqlite_bytes() -> int:
    """Return what SQLite has allocated, 0 where its library is part of the interpreter."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split()[-1]
        if "libsqlite3" in path:
            ask = ctypes.CDLL(path).sqlite3_memory_used
            ask.restype = ctypes.c_int64
            return int(ask())
    return 0
