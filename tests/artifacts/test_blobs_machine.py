"""The store of blobs against a model, over any order of what hosts, paglets and disks do."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from paglets.artifacts.blobs import BlobStore
from paglets.artifacts.errors import NotStoredError, WrongContentError
from paglets.core.errors import TransferError
from tests.artifacts.contents import files, read, sha

CONTENTS = [b"", b"one", b"two", b"three" * 1000]
NAMES = [sha(content) for content in CONTENTS]
KEYS = ["a" * 32, "b" * 64]

which = st.integers(0, len(CONTENTS) - 1)
holders = st.sampled_from(["t1", "t2"])
owners = st.sampled_from(["a1", "a2"])


@dataclass
class Placed:
    """A file in a work directory."""

    number: int
    content: bytes
    known: bool


class BlobMachine(RuleBasedStateMachine):
    """`shelf` is what must be in the directory; nothing is evicted, as the cache is large."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="paglets-"))
        self.work = self.directory / "work"
        self.work.mkdir()
        self.store = BlobStore(self.directory / "store")
        self.shelf: set[int] = set()
        self.owned: dict[int, set[str]] = {}
        self.held: dict[str, set[int]] = {}
        self.places: dict[Path, Placed] = {}
        self.parts: dict[str, tuple[int, int, bool]] = {}
        self.count = 0

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    def here(self, number: int) -> bool:
        return number in self.shelf or any(p.known and p.number == number for p in self.places.values())

    def wanted(self, number: int, holder: str = "") -> bool:
        others = {name for name, held in self.held.items() if number in held} - {holder}
        return bool(self.owned.get(number)) or len(others) > (0 if holder else 1)

    # receiving

    @initialize(numbers=st.sets(which), placed=st.sets(which))
    def begin_with(self, numbers: set[int], placed: set[int]) -> None:
        for number in numbers | placed:
            self.receive(number, durable=False, announce=True)
        for number in placed:
            self.put_at(number, "", 1e9, durable=False)

    @rule(number=which, durable=st.booleans(), announce=st.booleans())
    def receive(self, number: int, durable: bool, announce: bool) -> None:
        content = CONTENTS[number]
        with self.store.receive(sha256=NAMES[number] if announce else "") as writer:
            writer.write(content)
            blob = writer.commit(durable=durable)
        assert (blob.sha256, blob.size) == (NAMES[number], len(content))
        assert blob.durable or not durable
        self.shelf.add(number)

    @rule(number=which)
    def receive_something_else(self, number: int) -> None:
        try:
            with self.store.receive(sha256=NAMES[number]) as writer:
                writer.write(CONTENTS[number] + b"x")
                writer.commit()
        except WrongContentError:
            return
        raise AssertionError("wrong content was taken")

    @rule(number=which, key=st.sampled_from(KEYS), announce=st.booleans(), portion=st.integers(0, 20))
    def receive_in_parts(self, number: int, key: str, announce: bool, portion: int) -> None:
        before = self.parts.get(key, (number, 0, announce))
        number, offset, announce = before
        content = CONTENTS[number]
        with self.store.receive(
            key=key, sha256=NAMES[number] if announce else "", size=len(content), offset=offset
        ) as writer:
            writer.write(content[offset : offset + portion])
            if writer.offset == len(content):
                writer.commit(durable=False)
        if writer.offset == len(content):
            self.parts.pop(key, None)
            self.shelf.add(number)
        else:
            self.parts[key] = (number, writer.offset, announce)

    # who wants what

    @rule(number=which, owner=owners)
    def keep(self, number: int, owner: str) -> None:
        here = self.here(number)
        try:
            self.store.keep(NAMES[number], owner)
        except NotStoredError:
            assert not here
            return
        assert here
        self.shelf.add(number)
        self.owned.setdefault(number, set()).add(owner)

    @rule(number=which, owner=owners, discard=st.booleans())
    def drop(self, number: int, owner: str, discard: bool) -> None:
        self.store.drop(NAMES[number], owner, discard=discard)
        self.owned.get(number, set()).discard(owner)
        if discard and not self.owned.get(number) and not any(number in held for held in self.held.values()):
            self.shelf.discard(number)

    @rule(holder=holders, numbers=st.sets(which))
    def hold(self, holder: str, numbers: set[int]) -> None:
        missing = self.store.hold(holder, [NAMES[number] for number in sorted(numbers)], seconds=1000)
        assert missing == [NAMES[number] for number in sorted(numbers) if not self.here(number)]
        self.held.setdefault(holder, set()).update(numbers)

    @rule(holder=holders)
    def release(self, holder: str) -> None:
        self.store.release(holder)
        self.held.pop(holder, None)

    # places

    @precondition(lambda self: any(map(self.here, range(len(CONTENTS)))))
    @rule(
        data=st.data(),
        holder=st.sampled_from(["", "t1", "t2"]),
        modified_at=st.sampled_from([0.0, 1e9, 1.5e9 + 0.123456]),
        durable=st.booleans(),
    )
    def put(self, data: Any, holder: str, modified_at: float, durable: bool) -> None:
        number = data.draw(st.sampled_from([number for number in range(len(CONTENTS)) if self.here(number)]))
        self.put_at(number, holder, modified_at, durable)

    def put_at(self, number: int, holder: str, modified_at: float, durable: bool) -> None:
        self.count += 1
        path = self.work / str(self.count)
        moves = number in self.shelf and not self.wanted(number, holder)
        self.store.put_at(NAMES[number], path, holder=holder, modified_at=modified_at, durable=durable)
        if moves:
            self.shelf.discard(number)
        self.places[path] = Placed(number, CONTENTS[number], known=True)

    @rule(number=which)
    def put_what_is_not_here(self, number: int) -> None:
        if self.here(number):
            return
        try:
            self.store.put_at(NAMES[number], self.work / "nothing")
        except NotStoredError:
            return
        raise AssertionError("it was put")

    @precondition(lambda self: self.places)
    @rule(data=st.data(), number=which)
    def put_where_something_is(self, data: Any, number: int) -> None:
        try:
            self.store.put_at(NAMES[number], self.drawn_place(data))
        except TransferError:
            return
        raise AssertionError("a file was overwritten")

    @precondition(lambda self: self.places)
    @rule(data=st.data(), same_time=st.booleans(), same_size=st.booleans())
    def modify(self, data: Any, same_time: bool, same_size: bool) -> None:
        path = self.drawn_place(data)
        place, status = self.places[path], path.stat()
        place.content = place.content[:-1] + b"#" if same_size and place.content else place.content + b"#"
        with path.open("r+b") as stream:
            stream.write(place.content)
        if same_time:
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            # Two changes of the inode within one tick of the clock are what nobody can see: let it tick.
            while path.stat().st_ctime_ns == status.st_ctime_ns:
                path.chmod(0o600)
        place.known = False

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def remove_place(self, data: Any) -> None:
        path = self.drawn_place(data)
        path.unlink()
        del self.places[path]

    @precondition(lambda self: self.places)
    @rule(data=st.data(), open_for_writing=st.booleans(), other=st.booleans())
    def take(self, data: Any, open_for_writing: bool, other: bool) -> None:
        path = self.drawn_place(data)
        place = self.places[path]
        number = (place.number + 1) % len(CONTENTS) if other else place.number
        expected = place.known and not other
        if open_for_writing:
            with path.open("r+b"):
                taken = self.store.take(path, NAMES[number])
            if expected:  # it was moved and moved back, which nobody can tell from a change
                place.known = False
            expected = False
        else:
            taken = self.store.take(path, NAMES[number])
        assert taken == expected
        if taken:
            del self.places[path]
            self.shelf.add(number)

    def drawn_place(self, data: Any) -> Path:
        return Path(data.draw(st.sampled_from(sorted(self.places))))

    # what happens to it

    @precondition(lambda self: self.shelf)
    @rule(data=st.data(), truncate=st.booleans())
    def damage(self, data: Any, truncate: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.shelf)))
        path = self.directory / "store" / "blobs" / NAMES[number][:2] / NAMES[number]
        path.chmod(0o600)
        path.write_bytes(b"" if truncate and CONTENTS[number] else CONTENTS[number] + b"x")
        self.shelf.discard(number)

    @rule()
    def restart(self) -> None:
        self.store = BlobStore(self.directory / "store")
        self.held.clear()
        for place in self.places.values():
            place.known = False
        self.parts = {key: part for key, part in self.parts.items() if part[2]}
        for number, names in self.owned.items():
            for name in names if number in self.shelf else ():
                self.store.claim(NAMES[number], name)
        self.owned = {number: names for number, names in self.owned.items() if number in self.shelf}

    @precondition(lambda self: self.parts)
    @rule(data=st.data())
    def give_up_a_part(self, data: Any) -> None:
        key = data.draw(st.sampled_from(sorted(self.parts)))
        self.store.forget(key)
        del self.parts[key]

    @rule()
    def tidy(self) -> None:
        swept = self.store.sweep(part_seconds=1000)
        assert (swept.parts, swept.blobs) == (0, 0)
        for name in self.store.settle(most_bytes=1 << 30, most=100):
            assert NAMES.index(name) not in self.shelf

    # what always holds

    @invariant()
    def contents_are_right(self) -> None:
        for number, name in enumerate(NAMES):
            assert self.store.has(name) == self.here(number)
            if self.here(number):
                assert read(self.store, name) == CONTENTS[number]
                assert self.store.size(name) == len(CONTENTS[number])

    @invariant()
    def counts_are_right(self) -> None:
        used = sum(len(CONTENTS[number]) for number in self.shelf)
        wanted = {number for number in self.shelf if self.owned.get(number)}
        wanted |= {number for number in self.shelf if any(number in held for held in self.held.values())}
        held = sum(len(CONTENTS[number]) for number in wanted)
        assert (self.store.used_bytes, self.store.held_bytes, self.store.cached_bytes) == (used, held, used - held)

    @invariant()
    def directories_are_right(self) -> None:
        expected = {f"blobs/{NAMES[number][:2]}/{NAMES[number]}" for number in self.shelf}
        expected |= {f"tmp/{key}.{kind}" for key in self.parts for kind in ("part", "json")}
        assert set(files(self.directory / "store")) == expected
        assert {key: self.store.received(key) for key in KEYS} == {
            key: self.parts[key][1] if key in self.parts else 0 for key in KEYS
        }
        for path, place in self.places.items():
            assert path.read_bytes() == place.content
        assert set(files(self.work)) == {path.name for path in self.places}


TestBlobs = BlobMachine.TestCase
TestBlobs.settings = settings(
    max_examples=80, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
