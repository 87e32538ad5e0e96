"""The body of a movement, whole, damaged, cut off, and hostile: whatever comes of it, nothing stays behind."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paglets.artifacts import PagletFileRef
from paglets.core.errors import PayloadTooLargeError, SerializationError
from paglets.core.runtime_values import EnvelopeKind
from paglets.persistence.envelope import PagletEnvelope
from paglets.protocol.transfer.model import TransferKind, TransferPlan
from paglets.remote.movement import FRAME, MAGIC, MAX_PARTS, BufferPart, MovementReader, Part, movement_pieces
from paglets.runtime.host import Host
from paglets.runtime.transfer_wire import plan_to_wire
from paglets.serialization.blob import blob_from_wire, encode_blob
from tests.agents.http_agents import TalkerState
from tests.runtime.http.wire import Reply, Served, Wire, ask, served_again
from tests.support import HostFactory, eventually, leftovers, processes_of

TALKER = "tests.agents.http_agents:Talker"
STATE = "tests.agents.http_agents:TalkerState"
MOVEMENT = {"Content-Type": "application/x-paglets-movement"}
NOWHERE = "http://127.0.0.1:9"


def body_of(payload: dict[str, Any], *parts: bytes) -> bytes:
    sent: list[Part] = [BufferPart(memoryview(part)) for part in parts]
    return b"".join(movement_pieces(payload, sent))


def file_ref(name: str, data: bytes) -> dict[str, Any]:
    ref = PagletFileRef(
        name=name,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        mode="copy",
        source_host_name="far",
        source_host_url=NOWHERE,
        source_path=f"/far/{name}",
        current_host_name="far",
        current_host_url=NOWHERE,
        current_path=f"/far/{name}",
    )
    return {"file": ref.to_wire(), "transfer_mode": "copy", "source_path": f"/far/{name}"}


def prepare(paglet: str = "arriving", files: list[Any] | None = None, **plan: Any) -> dict[str, Any]:
    """Return the header of a PREPARE."""
    envelope = PagletEnvelope(
        kind=EnvelopeKind.DISPATCH,
        agent_id=paglet,
        agent_class_name=TALKER,
        state_class_name=STATE,
        state={},
        source_host_name="far",
        source_host_address=NOWHERE,
        target_host_name="here",
        target_host_address="",
        metadata={"registered_files": files or []},
    )
    made = TransferPlan(
        transfer_id=f"transfer-{paglet}",
        kind=TransferKind.DISPATCH,
        agent_id=paglet,
        epoch=5,
        source=NOWHERE,
        target="",
        activate=False,
    )
    wire = {**plan_to_wire(made), **plan}
    contents = {item["file"]["sha256"]: item["file"]["size_bytes"] for item in files or []}
    transfer = {"plan": wire, "attempt": 1, "recovering": False, "files": {"small": [*map(list, contents.items())]}}
    return {"envelope": envelope.to_wire(), "transfer": transfer}


def state_blob(count: int = 0) -> bytes:
    with encode_blob(TalkerState(count=count)) as blob:
        return blob.tobytes()


def send(host: Host, body: bytes) -> Reply:
    return ask(host.address, "POST", "/agents", body, MOVEMENT)


def unchanged(host: Host) -> None:
    """Check that nothing of a movement is here."""
    eventually(lambda: leftovers(host) == [], f"nothing left: {leftovers(host)}")
    eventually(lambda: processes_of(host.name) == [], f"no process left: {processes_of(host.name)}")
    assert host.list_agents(active=True, inactive=True) == []


@pytest.fixture(autouse=True)
def _clean(host: Host) -> Iterator[None]:
    yield
    for summary in host.list_agents(active=True, inactive=True):
        host.dispose(summary["agent_id"])
    unchanged(host)


# --- whole -----------------------------------------------------------------------------------------------------------


def test_a_paglet_with_files_arrives(host: Host) -> None:
    files = [b"", b"small", bytes(range(256)) * 4000]
    refs = [file_ref(name, data) for name, data in zip(("empty", "../up", "large.bin"), files, strict=True)]

    reply = send(host, body_of(prepare(files=refs), state_blob(7), *files))

    assert set(reply.json()) == {"vote"}, reply.body
    host._running().run(host._node.arrivals.commit("transfer-arriving", reply.json()["vote"]))
    assert ask(host.address, "GET", "/agents/arriving/state").json()["state"]["count"] == 7
    work = host.persistence_dir / "work" / "arriving"
    assert sorted(path.read_bytes() for path in work.iterdir()) == sorted(files)


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_pieces_of_any_size(host: Host, piece: int) -> None:
    body = body_of({"agent_class_name": TALKER, "agent_id": "pieces", "state_blob": state_blob(3)})
    with Wire(host.address) as wire:
        wire.send(
            b"POST /agents HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: application/x-paglets-movement\r\n\r\n"
        )
        for start in range(0, len(body), piece):
            part = body[start : start + piece]
            wire.send(b"%x\r\n%s\r\n" % (len(part), part))
        assert wire.send(b"0\r\n\r\n").reply().json()["proxy"]["agent_id"] == "pieces"
        assert wire.ask("GET", "/agents/pieces").status == 200, "the connection goes on"
    assert host.get_state("pieces", TalkerState).count == 3


def test_the_reader_takes_pieces_of_any_size() -> None:
    class Sink:
        def __init__(self) -> None:
            self.data = b""
            self.finished = 0

        def write(self, piece: memoryview, /) -> None:
            self.data += piece

        def finish(self) -> None:
            self.finished += 1

    parts = [b"", b"x", b"", b"abc" * 100, b""]
    body = body_of({"a": 1}, *parts)
    for size in (1, 2, 13, len(body)):
        sinks = [Sink() for _ in parts]
        reader = MovementReader(lambda _, sinks=sinks: sinks)
        for start in range(0, len(body), size):
            reader.feed(body[start : start + size])
        assert reader.finish()["a"] == 1
        assert [sink.data for sink in sinks] == parts
        assert [sink.finished for sink in sinks] == [1] * len(parts)


# --- cut off and damaged ---------------------------------------------------------------------------------------------


def test_every_truncation_is_refused() -> None:
    body = body_of({"a": 1}, b"part one", b"two")

    class Sink:
        def write(self, piece: memoryview, /) -> None: ...

        def finish(self) -> None: ...

    for end in range(len(body)):
        reader = MovementReader(lambda _: [Sink(), Sink()])
        reader.feed(body[:end])
        with pytest.raises(SerializationError, match="ends before"):
            reader.finish()


@pytest.mark.parametrize("missing", [1, 5, 500_000, 1_000_020, 1_000_600])
def test_a_body_that_ends_early(host: Host, missing: int) -> None:
    data = b"d" * 1_000_000
    body = body_of(prepare(files=[file_ref("a", data), file_ref("b", b"last!")]), state_blob(), data, b"last!")
    reply = send(host, body[:-missing])
    assert (reply.status, reply.error) == (400, "SerializationError")
    unchanged(host)


def test_a_client_that_leaves_in_the_middle(host: Host) -> None:
    data = b"d" * 3_000_000
    body = body_of(prepare(files=[file_ref("a", data)]), state_blob(), data)
    with Wire(host.address) as wire:
        head = f"POST /agents HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        wire.send(f"{head}Content-Type: application/x-paglets-movement\r\n\r\n".encode() + body[:2_000_000])
    unchanged(host)


@pytest.mark.parametrize(
    "tail",
    [b"\x00", b"more" * 100_000, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"],
    ids=["byte", "many", "http"],
)
def test_what_follows_a_movement_is_refused(host: Host, tail: bytes) -> None:
    for body in (
        body_of({"agent_class_name": TALKER, "agent_id": "followed"}),
        body_of(prepare(files=[file_ref("a", b"x")]), state_blob(), b"x"),
    ):
        reply = send(host, body + tail)
        assert (reply.status, reply.error) == (400, "SerializationError")
        assert reply.headers["connection"] == "close"
        unchanged(host)


def test_a_file_with_another_checksum(host: Host) -> None:
    reply = send(host, body_of(prepare(files=[file_ref("a", b"right")]), state_blob(), b"wrong"))
    assert (reply.status, reply.error) == (400, "TransferError")
    unchanged(host)


# --- hostile ---------------------------------------------------------------------------------------------------------


def header(value: Any) -> bytes:
    with blob_from_wire({"value": value}) as blob:
        return FRAME.pack(MAGIC, blob.nbytes) + blob.tobytes()


HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "SerializationError"),
    "half a frame": (b"PGLF\x00", "SerializationError"),
    "other magic": (b"PICK" + b"\x00" * 100, "SerializationError"),
    "a pickle": (b"\x80\x04\x95" + b"\x00" * 100, "SerializationError"),
    "JSON": (b'{"agent_class_name": "x"}', "SerializationError"),
    "endless header": (FRAME.pack(MAGIC, 2**64 - 1), "PayloadTooLargeError"),
    "large header": (FRAME.pack(MAGIC, 300 * 1024 * 1024), "PayloadTooLargeError"),
    "header of no bytes": (FRAME.pack(MAGIC, 0), "SerializationError"),
    "header of garbage": (FRAME.pack(MAGIC, 64) + b"\xa5" * 64, "SerializationError"),
    "header is no dict": (header([1, 2]), "SerializationError"),
    "header is deep": (FRAME.pack(MAGIC, 100_000) + b"\x91" * 100_000, "SerializationError"),
    "parts are no list": (header({"parts": {"0": 1}}), "SerializationError"),
    "parts are text": (header({"parts": ["1"]}), "SerializationError"),
    "parts are flags": (header({"parts": [True]}), "SerializationError"),
    "part of negative size": (header({"parts": [-1]}), "SerializationError"),
    "part of boundless size": (header({"parts": [2**63]}), "SerializationError"),
    "too many parts": (header({"parts": [0] * (MAX_PARTS + 1)}), "SerializationError"),
    "part of nothing": (header({"agent_class_name": TALKER, "parts": [0]}), "SerializationError"),
    "no class": (header({}), "SerializationError"),
    "class is a number": (header({"agent_class_name": 5}), "SerializationError"),
    "state is a list": (header({"agent_class_name": TALKER, "state": [1]}), "SerializationError"),
    "state is garbage": (header({"agent_class_name": TALKER, "state_blob": b"garbage"}), "SerializationError"),
    "state is a number": (header({"agent_class_name": TALKER, "state_blob": 5}), "SerializationError"),
    "id is bytes": (header({"agent_class_name": TALKER, "agent_id": b"x"}), "SerializationError"),
    "envelope is text": (header({"envelope": "x"}), "SerializationError"),
    "envelope is empty": (header({"envelope": {}}), "SerializationError"),
    "transfer is text": (header({"transfer": "x", "parts": [0]}), "SerializationError"),
    "transfer without plan": (header({"transfer": {}, "parts": [0]}), "SerializationError"),
    "no envelope": (header({**prepare(), "envelope": None, "parts": [0]}), "SerializationError"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies(host: Host, name: str) -> None:
    body, error = HOSTILE[name]
    reply = send(host, body)
    assert reply.error == error, reply.body
    assert reply.status == (413 if error == PayloadTooLargeError.__name__ else 400)
    unchanged(host)


PLANS: dict[str, tuple[dict[str, Any], str]] = {
    "kind unknown": ({"kind": "teleport"}, "SerializationError"),
    "kind local": ({"kind": "local"}, "ForbiddenError"),
    "epoch is text": ({"epoch": "5"}, "SerializationError"),
    "epoch is a fraction": ({"epoch": 5.5}, "SerializationError"),
    "epoch is true": ({"epoch": True}, "SerializationError"),
    "epoch is negative": ({"epoch": -1}, "SerializationError"),
    "epoch is boundless": ({"epoch": 2**70}, "SerializationError"),
    "attempts are none": ({"attempts": 0}, "SerializationError"),
    "attempts are text": ({"attempts": "many"}, "SerializationError"),
    "pause is text": ({"retry_interval": "x"}, "SerializationError"),
    "pause is not a number": ({"retry_interval": float("nan")}, "SerializationError"),
    "flag is text": ({"activate": "no"}, "SerializationError"),
    "unknown field": ({"colour": "red"}, "SerializationError"),
    "source is a number": ({"source": 5}, "SerializationError"),
    "other paglet": ({"agent_id": "another"}, "SerializationError"),
    "transfer id climbs": ({"transfer_id": "../../x"}, "HostError"),
    "transfer id is long": ({"transfer_id": "x" * 500}, "HostError"),
    "no transfer id": ({"transfer_id": ""}, "SerializationError"),
}


@pytest.mark.parametrize("name", PLANS)
def test_hostile_plans(host: Host, name: str) -> None:
    change, error = PLANS[name]
    reply = send(host, body_of(prepare(files=[file_ref("a", b"x")], **change), state_blob(), b"x"))
    assert reply.error == error, reply.body
    assert 400 <= reply.status < 500
    unchanged(host)


def test_nobody_else_speaks_for_this_host(host: Host, tmp_path: Path) -> None:
    """A clone from the host itself would be given copies of the host's own files, by path."""
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    ref = file_ref("secret", b"not yours")
    ref["file"]["current_path"] = str(secret)
    for source in (host.address, host.address + "/"):
        payload = prepare(files=[ref], source=source, kind="clone", epoch=0, origin_id="x")
        reply = send(host, body_of(payload, state_blob(), b"not yours"))
        assert (reply.status, reply.error) == (403, "ForbiddenError")
        unchanged(host)


@pytest.mark.parametrize("sizes", [[], [0], [0, 1, 1], [2**59, 1]])
def test_other_parts_than_announced_files(host: Host, sizes: list[int]) -> None:
    payload = {**prepare(files=[file_ref("a", b"x")]), "parts": sizes}
    reply = send(host, header(payload) + b"xx")
    assert (reply.status, reply.error) == (400, "SerializationError")
    unchanged(host)


def test_many_files_take_one_descriptor_at_a_time(host: Host) -> None:
    contents = [b"%04d" % number for number in range(3000)]
    files = [file_ref(f"f{number}", content) for number, content in enumerate(contents)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        reply = send(host, body_of(prepare(files=files), state_blob(), *contents[:-1], b"wrong"[:4]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert reply.status == 400
    assert "checksum" in reply.text, "it came as far as the last file"
    unchanged(host)


def test_a_disk_that_is_full(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("paglets.runtime.unloading.write_all", full)
    reply = send(host, body_of(prepare("full", files=[file_ref("a", b"x")]), state_blob(), b"x"))
    assert "Could not import registered files" in reply.json()["refused"]["text"]
    assert "No space left" in reply.json()["refused"]["text"]
    unchanged(host)


RIGHT = [hashlib.sha256(b"x").hexdigest(), 1]
CONTENTS: dict[str, Any] = {
    "none": {},
    "no lists": [],
    "another": {"small": [["0" * 64, 1]]},
    "another size": {"small": [[RIGHT[0], 2]]},
    "twice": {"small": [RIGHT, RIGHT]},
    "in both lists": {"small": [RIGHT], "large": [RIGHT]},
    "too large to be small": {"small": [RIGHT, ["0" * 64, 5 * 1024 * 1024]]},
    "too large together": {"small": [RIGHT, *([f"{number:064x}", 4 * 1024 * 1024] for number in range(5))]},
    "negative": {"small": [RIGHT], "large": [["0" * 64, -1]]},
    "a truth for a size": {"small": [[RIGHT[0], True]]},
    "a path for a checksum": {"small": [RIGHT], "large": [["../" * 21 + "a", 1]]},
    "upper case": {"small": [RIGHT], "large": [["A" * 64, 1]]},
    "not pairs": {"small": [[*RIGHT, 1]]},
    "too many": {"small": [RIGHT], "large": [[f"{number:064x}", 1] for number in range(100_001)]},
}


@pytest.mark.parametrize("name", CONTENTS)
def test_hostile_contents(host: Host, name: str) -> None:
    payload = prepare(files=[file_ref("a", b"x")])
    payload["transfer"]["files"] = CONTENTS[name]
    reply = send(host, body_of(payload, state_blob(), b"x"))
    assert (reply.status, reply.error) == (400, "SerializationError")
    unchanged(host)


def test_contents_that_were_not_brought_are_asked_for(host: Host) -> None:
    payload = prepare("unbrought", files=[file_ref("a", b"x")])
    payload["transfer"]["files"] = {"large": [RIGHT]}
    reply = send(host, body_of(payload, state_blob()))
    assert reply.json() == {"missing": [[RIGHT[0], 0]]}
    unchanged(host)


# --- many ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tight(host: Host) -> Iterator[Served]:
    with served_again(host, max_movements=2, max_buffered_bytes=1_000_000) as served:
        yield served


HEAD = b"POST /agents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-paglets-movement\r\n"


def test_movements_at_a_time_have_a_bound(tight: Served) -> None:
    with Wire(tight.address) as one, Wire(tight.address) as two:
        for wire in (one, two):
            wire.send(HEAD + b"Content-Length: 1000\r\n\r\nPGLF")

        def turned_away() -> bool:
            reply = ask(tight.address, "POST", "/agents", b"PGLF", MOVEMENT)
            return reply.status == 429 and reply.error == "OverloadedError"

        eventually(turned_away, "two movements to be under way")
    eventually(lambda: tight.requests == 0, "both to be let go")
    assert ask(tight.address, "POST", "/agents", b"PGLF", MOVEMENT).status == 400


def test_headers_in_memory_have_a_bound(tight: Served) -> None:
    with Wire(tight.address) as wire:
        wire.send(HEAD + b"Content-Length: 9000000\r\n\r\n" + FRAME.pack(MAGIC, 8_000_000) + b"x" * 2_000_000)
        reply = wire.reply()
    assert (reply.status, reply.error) == (429, "OverloadedError")
    body = body_of({"agent_class_name": TALKER, "agent_id": "after"})
    assert ask(tight.address, "POST", "/agents", body, MOVEMENT).status == 200


def test_a_class_that_is_not_allowed(hosts: HostFactory) -> None:
    host = hosts("choosy", allow=["tests.agents.actor"])
    reply = send(host, body_of(prepare(), state_blob()))
    assert reply.json()["refused"]["reason"] == "class-not-allowed"
    direct = send(host, body_of({"agent_class_name": TALKER}))
    assert (direct.status, direct.error) == (403, "ForbiddenError")
    enveloped = send(host, body_of({"envelope": prepare()["envelope"]}))
    assert (enveloped.status, enveloped.error) == (403, "ForbiddenError")
    unchanged(host)
