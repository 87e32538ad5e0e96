"""The store of blobs with many threads at the same few contents."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.errors import NotStoredError
from tests.artifacts.contents import content_of, files, read, received, sha

CONTENTS = [content_of(str(number), 1 + number * 9_000) for number in range(5)]
NAMES = [sha(content) for content in CONTENTS]
THREADS, STEPS = 8, 100


@pytest.mark.parametrize("cache_bytes", [0, 20_000, 1 << 30])
def test_threads_leave_a_store_in_order(tmp_path: Path, cache_bytes: int) -> None:
    store = BlobStore(tmp_path / "store", cache_bytes=cache_bytes)
    work = tmp_path / "work"
    work.mkdir()
    errors: list[BaseException] = []

    def act(chance: random.Random, me: str) -> None:
        placed: dict[Path, int] = {}
        kept: set[int] = set()
        for step in range(STEPS):
            number = chance.randrange(len(CONTENTS))
            name, content = NAMES[number], CONTENTS[number]
            path = work / f"{me}-{step}"
            try:
                match chance.randrange(9):
                    case 0 | 1:
                        assert received(store, content, durable=chance.random() < 0.1).size == len(content)
                    case 2 | 3:
                        store.put_at(name, path, durable=chance.random() < 0.1, holder=chance.choice(["", me]))
                        assert path.read_bytes() == content
                        placed[path] = number
                    case 4 if placed:
                        path, number = placed.popitem()
                        if chance.random() < 0.5:
                            path.write_bytes(b"changed")
                        if not store.take(path, NAMES[number]):
                            path.unlink()
                    case 5:
                        store.keep(name, me)
                        kept.add(number)
                        assert read(store, name) == content
                    case 6 if kept:
                        store.drop(NAMES[kept.pop()], me, discard=chance.random() < 0.5)
                    case 7:
                        for missing in store.hold(me, [name], seconds=60):
                            received(store, CONTENTS[NAMES.index(missing)], durable=False)
                    case _:
                        store.release(me)
                        store.sweep(part_seconds=60)
                for number in kept:
                    assert read(store, NAMES[number]) == CONTENTS[number]
                for path, number in placed.items():
                    assert path.read_bytes() == CONTENTS[number]
            except NotStoredError:
                assert number not in kept
        for number in kept:
            store.drop(NAMES[number], me)
        store.release(me)

    def guarded(number: int) -> None:
        try:
            act(random.Random(number), f"t{number}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(store.problems) == []
    found = files(store.root)
    assert all(name.startswith("blobs/") for name in found)
    assert store.used_bytes == store.cached_bytes == sum(found.values())
    store.sweep(part_seconds=60)
    assert store.used_bytes <= cache_bytes
    assert [name for name in files(work) if name.startswith(".")] == []
    for name, content in zip(NAMES, CONTENTS, strict=True):
        if store.has(name):
            assert read(store, name) == content
