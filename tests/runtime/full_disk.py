"""A journal whose commits fail, as on a full disk, while its host runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from paglets.persistence.commits import Unit
from paglets.runtime.host import Host


@contextmanager
def full_disk(host: Host) -> Iterator[None]:
    """Have every commit of a host's journal fail until the block ends."""
    committer: Any = host._node.kernel.journal._committer
    committer._transaction = _no_room
    try:
        yield
    finally:
        del committer._transaction


def _no_room(units: Iterable[Unit], *, guarded: bool = False) -> NoReturn:
    del guarded
    for _ in units:
        pass  # they are taken, as by a transaction that fails when it ends
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    raise error
