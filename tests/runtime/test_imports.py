"""Paglets that come as one document, with files that were uploaded for them before."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from paglets.artifacts import PagletDirectoryRef, PagletFileRef, paglet_file_ref_from_path
from paglets.core.errors import ConflictError, ForbiddenError, PagletError, SerializationError, TransferError
from paglets.core.runtime_values import ArrivalMode, EnvelopeKind
from paglets.persistence.envelope import PagletEnvelope
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.remote.transfer import TransferTicket
from paglets.runtime.host import Host
from paglets.security.policy import ClassPolicy, Policy
from tests.agents.hardy import RestartedCareful
from tests.agents.keeper import Keeper, KeeperState
from tests.faults.cluster import Cluster
from tests.runtime.relay.conftest import RelayFactory
from tests.support import Gate, HostFactory, events_of, eventually, leftovers

KEEPER = "tests.agents.keeper:Keeper"
STATE = "tests.agents.keeper:KeeperState"


@pytest.fixture
def client() -> Iterator[HostClient]:
    with HostClient() as made:
        yield made


@dataclass
class Sender:
    """A program that is no host, and brings a paglet to one."""

    client: HostClient
    url: str
    directory: Path
    agent_id: str = ""

    def __post_init__(self) -> None:
        self.agent_id = uuid.uuid4().hex
        self.directory.mkdir(exist_ok=True)

    def upload(self, name: str, content: bytes, *, owner: str | None = None, **options: Any) -> dict[str, Any]:
        """Upload a file; return what the envelope says of it."""
        path = self.directory / name.replace("/", "-")
        path.write_bytes(content)
        artifact = self.client.upload_artifact(
            self.url, path, owner_agent_id=self.agent_id if owner is None else owner, **options
        )
        ref = paglet_file_ref_from_path(path, name=name, mode="move", host_name="far", host_url="http://127.0.0.1:9")
        return {
            "file": ref.to_wire(),
            "artifact": artifact.to_wire(),
            "transfer_mode": "move",
            "source_path": ref.source_path,
        }

    def envelope(
        self,
        *items: dict[str, Any],
        kind: EnvelopeKind = EnvelopeKind.DISPATCH,
        ticket: Any = None,
        **state: Any,
    ) -> dict[str, Any]:
        """Return the document."""
        metadata = {"registered_files": list(items), **({} if ticket is None else {"transfer_ticket": ticket})}
        return PagletEnvelope(
            kind, self.agent_id, KEEPER, STATE, state, "far", "http://127.0.0.1:9", "", self.url, metadata=metadata
        ).to_wire()

    def bring(self, envelope: dict[str, Any], *, packed: bool = False) -> PagletProxy:
        """Send the document."""
        send = self.client.post_pickle if packed else self.client.post_json
        return PagletProxy.from_wire(send(f"{self.url}/agents", {"envelope": envelope})["proxy"], self.client)

    def artifacts(self) -> list[str]:
        """Return the names of what lies at the host."""
        return sorted(ref.name for ref in self.client.list_artifacts(self.url))


@pytest.fixture
def host(hosts: HostFactory) -> Host:
    return hosts()


@pytest.fixture
def sender(client: HostClient, host: Host, tmp_path: Path) -> Sender:
    return Sender(client, host.address, tmp_path / "far")


def assert_nothing_came(host: Host, sender: Sender) -> None:
    assert host.list_agents(inactive=True) == []
    eventually(lambda: leftovers(host) == [], "what was put in place to be removed")
    assert not (host.persistence_dir / "work" / sender.agent_id).exists()


@pytest.mark.parametrize("kind", EnvelopeKind)
@pytest.mark.parametrize("packed", [False, True], ids=["json", "movement"])
def test_files_are_there_before_the_hook_and_their_artifacts_go(
    host: Host, sender: Sender, kind: EnvelopeKind, packed: bool
) -> None:
    contents = {"a b": "one", "a_b": "other", "empty": "", "large": "x" * 5_000_000}
    items = [sender.upload(name, text.encode()) for name, text in contents.items()]

    proxy = sender.bring(sender.envelope(*items, kind=kind), packed=packed)

    assert proxy.agent_id == sender.agent_id
    assert host.get_state(proxy.agent_id, KeeperState).seen == [contents]
    assert sender.artifacts() == []
    work = host.work_dir_for(proxy.agent_id)
    refs = [PagletFileRef.from_wire(wire) for wire in proxy.call(Keeper.files)]
    assert sorted(path.name for path in work.iterdir()) == sorted(Path(ref.current_path).name for ref in refs)
    for ref, item in zip(refs, items, strict=True):
        assert (ref.current_host_name, ref.current_host_url) == (host.name, host.address)
        assert (ref.status, ref.last_error, ref.mode) == ("available", "", "move")
        assert Path(ref.current_path).parent == work
        for field in ("source_path", "source_host_url", "source_host_name", "source_modified_at", "sha256"):
            assert getattr(ref, field) == item["file"][field]


def test_imported_files_travel_on(hosts: HostFactory, host: Host, sender: Sender) -> None:
    proxy = sender.bring(sender.envelope(sender.upload("here", b"hello")))
    moved = proxy.dispatch(hosts("beta").address)
    assert moved.call(Keeper.read, "here") == "hello"
    eventually(lambda: leftovers(host) == [], "the work directory to be removed")


def test_an_envelope_names_no_files_of_the_host_itself(host: Host, sender: Sender, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for kind in EnvelopeKind:
        item = sender.upload("named", b"uploaded")
        item["file"].update(current_path=str(secret), current_host_url=host.address)
        del item["file"]["sha256"], item["artifact"]["sha256"]
        sender.bring(sender.envelope(item, kind=kind))
        assert host.get_state(sender.agent_id, KeeperState).seen == [{"named": "uploaded"}]
        host.dispose(sender.agent_id)
        without = {"file": item["file"]}
        with pytest.raises(SerializationError, match="without an artifact; upload it"):
            sender.bring(sender.envelope(without, kind=kind))
    assert_nothing_came(host, sender)
    assert secret.read_text() == "secret"


def spoiled(sender: Sender, how: str) -> list[dict[str, Any]]:
    """Return what an envelope says of files that cannot be imported, after one that can."""
    good = sender.upload("good", b"good")
    match how:
        case "unknown":
            bad = sender.upload("bad", b"bad")
            bad["artifact"]["artifact_id"] = "0" * 32
        case "no id at all":
            bad = sender.upload("bad", b"bad")
            bad["artifact"]["artifact_id"] = "../../x"
        case "another paglet's":
            bad = sender.upload("bad", b"bad", owner="somebody")
        case "nobody's":
            bad = sender.upload("bad", b"bad", owner="")
        case "expired":
            bad = sender.upload("bad", b"bad", expires_at=time.time() - 1)
        case "another content":
            bad = sender.upload("bad", b"bad")
            bad["file"]["sha256"] = good["file"]["sha256"]
        case "twice":
            bad = good
        case _:
            bad = sender.upload("bad", b"bad")
            bad["file"] = PagletDirectoryRef("bad").to_wire()
    return [good, bad]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("unknown", "No artifact 0000"),
        ("no id at all", "invalid artifact id"),
        ("another paglet's", "is not the paglet's; upload it with owner_agent_id="),
        ("nobody's", "is not the paglet's; upload it with owner_agent_id="),
        ("expired", "it has expired"),
        ("another content", "not the one that is listed"),
        ("twice", "listed twice"),
        ("directory", "is a directory"),
    ],
)
def test_what_cannot_be_imported_stays_where_it_is(host: Host, sender: Sender, how: str, said: str) -> None:
    items = spoiled(sender, how)
    before = sender.artifacts()
    with pytest.raises(TransferError, match=f"Could not import registered files of paglet .*{said}"):
        sender.bring(sender.envelope(*items))
    assert sender.artifacts() == before
    assert_nothing_came(host, sender)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"registered_files": {}}, "malformed list of registered files"),
        ({"registered_files": [{}]}, "malformed list of registered files"),
        ({"registered_files": [{"file": {}}]}, "'name' is missing"),
        ({"registered_files": [{"file": {"name": "x"}, "artifact": {}}]}, "'artifact_id' is missing"),
        ({"registered_files": [{"file": {"name": "x"}, "artifact": "x"}]}, "without an artifact"),
        ({"transfer_ticket": {}}, "destination"),
        ({"transfer_ticket": "inactive"}, "ticket"),
        ({"transfer_ticket": {"destination": "x", "arrival_mode": "asleep"}}, "arrival_mode"),
    ],
)
def test_malformed_metadata_is_refused(host: Host, sender: Sender, metadata: dict[str, Any], said: str) -> None:
    with pytest.raises(SerializationError, match=said):
        sender.bring({**sender.envelope(), "metadata": metadata})
    assert_nothing_came(host, sender)


def test_what_a_hook_refuses_may_be_sent_again(host: Host, sender: Sender) -> None:
    item = sender.upload("kept", b"kept")
    with pytest.raises(TransferError, match="keeper refuses"):
        sender.bring(sender.envelope(item, refuse=True))
    assert sender.artifacts() == ["kept"]
    assert_nothing_came(host, sender)
    proxy = sender.bring(sender.envelope(item))
    assert proxy.call(Keeper.read, "kept") == "kept"
    assert sender.artifacts() == []


def test_an_id_that_is_taken_keeps_its_files(host: Host, sender: Sender) -> None:
    proxy = sender.bring(sender.envelope(sender.upload("mine", b"mine")))
    again = sender.upload("mine", b"theirs")
    with pytest.raises(ConflictError):
        sender.bring(sender.envelope(again))
    assert proxy.call(Keeper.read, "mine") == "mine"
    assert sender.artifacts() == ["mine"]


def test_two_requests_for_one_paglet(host: Host, sender: Sender, gate: Gate) -> None:
    """A caller that lost patience and asks again must not take the files from under the first arrival."""
    item = sender.upload("kept", b"kept")
    envelope = sender.envelope(item, plan={"arrival": [f"gate {gate}"]})
    envelope["agent_class_name"] = f"{RestartedCareful.__module__}:RestartedCareful"
    envelope["state_class_name"] = f"{RestartedCareful.__module__}:HardyState"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(sender.bring, envelope)
        gate.await_entered()
        with pytest.raises(ConflictError, match="being imported by another request"):
            sender.bring(envelope)
        gate.open()
        proxy = first.result(20)
    (ref,) = host.registered_files_for(proxy.agent_id)
    assert Path(ref.current_path).read_text() == "kept"
    assert sender.artifacts() == []


@pytest.mark.parametrize("kind", [EnvelopeKind.DISPATCH, EnvelopeKind.CLONE])
def test_an_envelope_that_is_to_arrive_asleep(
    hosts: HostFactory, host: Host, sender: Sender, kind: EnvelopeKind
) -> None:
    ticket = TransferTicket(host.address, arrival_mode=ArrivalMode.INACTIVE).to_wire()
    proxy = sender.bring(sender.envelope(sender.upload("kept", b"kept"), kind=kind, ticket=ticket))
    assert sender.artifacts() == []
    assert proxy.info()["active"] is False
    (arrival,) = events_of(host, "arrival", agent_id=proxy.agent_id)
    assert arrival.data == {"active": False, "kind": kind.value}
    host.stop()
    again = hosts(port=host.port)
    woken = again.activate(proxy.agent_id)
    assert woken.call(Keeper.read, "kept") == "kept"
    # No hook ran when it arrived.
    assert again.get_state(proxy.agent_id, KeeperState).seen == [{"kept": "kept"}]


def test_one_that_must_be_looked_at_does_not_arrive_asleep(
    hosts: HostFactory, client: HostClient, tmp_path: Path
) -> None:
    host = hosts("choosy", allow=[KEEPER])
    sender = Sender(client, host.address, tmp_path / "far")
    ticket = TransferTicket(host.address, arrival_mode=ArrivalMode.INACTIVE).to_wire()
    with pytest.raises(ForbiddenError, match="would have to arrive awake"):
        sender.bring(sender.envelope(ticket=ticket))
    assert sender.bring(sender.envelope()).is_active()


def test_a_file_may_be_too_large_for_a_host(hosts: HostFactory, client: HostClient, tmp_path: Path) -> None:
    host = hosts("small", policy=Policy(classes=ClassPolicy(("tests.*",)), max_file_bytes=3))
    sender = Sender(client, host.address, tmp_path / "far")
    item = sender.upload("big", b"1234")
    item["file"]["size_bytes"] = 1
    with pytest.raises(PagletError, match="of 4 bytes is larger than the 3 allowed"):
        sender.bring(sender.envelope(item))
    assert_nothing_came(host, sender)


def test_through_a_relay(tmp_path: Path) -> None:
    relay = RelayFactory(tmp_path / "hosts")
    try:
        hub = relay.hub()
        far = relay.connected("B", hub)
        with HostClient(api_key=hub.api_key) as client:
            eventually(lambda: client.get_json(f"{far.address}/health"), "the host to be connected")
            sender = Sender(client, far.address, tmp_path / "far")
            proxy = sender.bring(sender.envelope(sender.upload("kept", b"kept")))
            assert proxy.host_url == far.address
            assert far.get_state(proxy.agent_id, KeeperState).seen == [{"kept": "kept"}]
            assert sender.artifacts() == []
    finally:
        relay.close()


@pytest.mark.parametrize(
    ("point", "came"),
    [
        ("target.materialised", False),
        ("target.prepared", False),
        ("target.activating", False),
        ("target.activated", True),
    ],
)
def test_a_host_dies_while_it_imports(cluster: Cluster, tmp_path: Path, point: str, came: bool) -> None:
    """The paglet is there with its file, or its artifact still is: never neither."""
    host = cluster.add("alpha").start(point)
    sender = Sender(cluster.client, host.url, tmp_path / "far")
    envelope = sender.envelope(sender.upload("kept", b"kept"))
    with pytest.raises(PagletError):
        sender.bring(envelope)
    eventually(lambda: host.deaths == [-9], "the host to die")
    host.start()

    work = host.directory / "work" / sender.agent_id
    if came:
        proxy = cluster.proxy(host, sender.agent_id)
        assert eventually(lambda: proxy.call(Keeper.read, "kept"), "the paglet to come back") == "kept"
    else:
        eventually(lambda: not work.exists(), "what was put in place to be removed")
        assert sender.artifacts() == ["kept"]
        proxy = sender.bring(envelope)
        assert sender.artifacts() == []
        assert proxy.call(Keeper.read, "kept") == "kept"
    assert [path.name for path in work.iterdir()] == ["kept"]
