from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import HostError, InsufficientStorageError
from paglets.persistence.rows import StateRef
from paglets.persistence.states import INLINE_BYTES, StateStore

LARGE = os.urandom(INLINE_BYTES + 1)


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(tmp_path / "host" / "states")


def names(store: StateStore) -> list[str]:
    return sorted(path.name for path in store.directory.iterdir()) if store.directory.exists() else []


@pytest.mark.parametrize(
    "blob", [b"", b"state", LARGE[:INLINE_BYTES], memoryview(b"state")], ids=["empty", "small", "limit", "view"]
)
def test_a_small_state_stays_inline(store: StateStore, blob: bytes | memoryview) -> None:
    ref = store.keep(blob)
    assert (ref.inline, ref.file, ref.nbytes) == (blob, "", len(blob))
    assert isinstance(ref.inline, bytes)
    assert store.load(ref) == blob
    assert not store.directory.exists()


def test_a_large_state_is_a_private_file(store: StateStore) -> None:
    first = store.keep(LARGE)
    second = store.keep(memoryview(LARGE))
    assert first.inline is None
    assert first.file != second.file
    assert (store.load(first), store.load(second)) == (LARGE, LARGE)
    assert names(store) == sorted([first.file, second.file])
    assert (store.directory / first.file).stat().st_mode & 0o077 == 0


def test_a_dropped_state_is_gone(store: StateStore) -> None:
    ref = store.keep(LARGE)
    store.drop(ref.file)
    store.drop(ref.file)
    assert names(store) == []
    with pytest.raises(HostError, match=ref.file):
        store.load(ref)


@pytest.mark.parametrize(
    "damage",
    [LARGE[:-1], LARGE + b"x", b"", bytes([LARGE[0] ^ 1]) + LARGE[1:]],
    ids=["short", "long", "empty", "flipped"],
)
def test_damage_is_noticed_and_the_file_named(store: StateStore, damage: bytes) -> None:
    ref = store.keep(LARGE)
    (store.directory / ref.file).write_bytes(damage)
    with pytest.raises(HostError, match=ref.file):
        store.load(ref)


def test_damage_of_an_inline_state_is_noticed(store: StateStore) -> None:
    ref = store.keep(b"state")
    with pytest.raises(HostError, match="damaged"):
        store.load(StateRef(b"stat3", "", ref.crc, ref.nbytes))


def test_a_sweep_removes_what_no_row_names(store: StateStore) -> None:
    assert store.sweep([]) == 0
    kept, dropped = store.keep(LARGE).file, store.keep(LARGE).file
    (store.directory / "notes.txt").write_text("not a state")
    assert store.sweep([kept, "absent"]) == 1
    assert names(store) == sorted([kept, "notes.txt"])
    assert dropped not in names(store)


@pytest.mark.parametrize("name", ["", "../journal.db", "/etc/passwd", "x.state", "a" * 32, "A" * 32 + ".state"])
def test_only_names_of_states_are_followed(store: StateStore, name: str) -> None:
    with pytest.raises(HostError, match="No name of a stored state"):
        store.drop(name)
    with pytest.raises(HostError, match="No name of a stored state"):
        store.load(StateRef(None, name, 0, 0))


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, InsufficientStorageError),
        (errno.EDQUOT, InsufficientStorageError),
        (errno.EFBIG, InsufficientStorageError),
        (errno.EIO, HostError),
    ],
)
def test_a_failed_write_leaves_nothing(
    store: StateStore, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[HostError]
) -> None:
    def fail(_descriptor: int) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    store.directory.mkdir(parents=True)
    with pytest.raises(HostError, match="cannot be stored") as caught:
        store.keep(LARGE)
    assert type(caught.value) is expected
    assert names(store) == []


def test_a_file_in_place_of_the_directory(store: StateStore) -> None:
    store.directory.parent.mkdir()
    store.directory.write_text("")
    with pytest.raises(HostError, match="cannot be stored"):
        store.keep(LARGE)
