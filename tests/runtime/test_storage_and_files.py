"""What paglets keep on disk: scratch space, the storage of their class, and files that travel with them."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from paglets.core.errors import (
    HostError,
    InvalidAgentError,
    PagletError,
    RemoteHostError,
    StorageQuotaError,
    TransferError,
)
from paglets.core.runtime_values import ArrivalMode
from paglets.persistence.storage import DEFAULT_PERSISTENT_STORAGE_QUOTA_BYTES
from paglets.remote.proxy import PagletProxy
from paglets.remote.transfer import TransferTicket
from paglets.runtime.host import Host
from tests.agents.keeper import Keeper, KeeperState, OtherKeeper
from tests.support import HostFactory, eventually, leftovers, where


def seen(host: Host, proxy: PagletProxy) -> list[dict[str, str]]:
    return host.get_state(proxy.agent_id, KeeperState).seen


def source(tmp_path: Path, name: str = "data.txt", text: str = "hello") -> Path:
    path = tmp_path / "sources" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def released(path: Path) -> None:
    eventually(lambda: not path.exists(), f"{path} to be removed")


# --- scratch space -----------------------------------------------------------------------------------------------


def test_a_work_directory_is_private_and_ends_with_its_paglet(hosts: HostFactory) -> None:
    host = hosts()
    one, two = host.create(Keeper), host.create(Keeper)
    assert not (host.persistence_dir / "work" / one.agent_id).exists()
    path = Path(one.call(Keeper.scratch, "a", "1"))
    assert path == host.persistence_dir / "work" / one.agent_id / "a"
    assert host.work_dir_for(one.agent_id) == path.parent
    assert two.call(Keeper.scratched) == []
    assert host.work_dir_for(two.agent_id, create=False) == host.persistence_dir / "work" / two.agent_id
    assert not host.work_dir_for(two.agent_id, create=False).exists()
    one.deactivate()
    assert path.exists()
    with pytest.raises(InvalidAgentError):
        host.work_dir_for(one.agent_id)
    one.activate()
    assert one.call(Keeper.scratched) == ["a"]
    one.dispose()
    released(path.parent)
    with pytest.raises(InvalidAgentError):
        host.work_dir_for(one.agent_id)


def test_a_work_directory_stays_behind_and_is_removed_when_its_paglet_leaves(hosts: HostFactory) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Keeper)
    proxy.call(Keeper.scratch, "a", "1")
    moved = proxy.dispatch(beta.address)
    released(alpha.persistence_dir / "work" / proxy.agent_id)
    assert moved.call(Keeper.scratched) == []
    moved.call(Keeper.scratch, "b", "2")
    home = alpha.retract(beta.address, proxy.agent_id)
    released(beta.persistence_dir / "work" / proxy.agent_id)
    assert home.call(Keeper.scratched) == []
    assert leftovers(beta) == []


def test_a_clone_begins_with_an_empty_work_directory(hosts: HostFactory) -> None:
    host = hosts()
    proxy = host.create(Keeper)
    proxy.call(Keeper.scratch, "a", "1")
    copy = proxy.clone()
    assert copy.call(Keeper.scratched) == []
    assert proxy.call(Keeper.scratched) == ["a"]


def test_work_directories_of_nobody_are_removed_when_a_host_starts(hosts: HostFactory) -> None:
    host = hosts()
    gone, asleep = host.create(Keeper), host.create(Keeper)
    gone.call(Keeper.scratch, "a", "1")
    asleep.call(Keeper.make, "kept.txt", "kept")
    asleep.deactivate()
    host.stop()
    assert (host.persistence_dir / "work" / gone.agent_id).exists()
    again = hosts()
    assert not (host.persistence_dir / "work" / gone.agent_id).exists()
    # A paglet that sleeps keeps the directory its registered files lie in.
    woken = again.activate(asleep.agent_id)
    assert woken.call(Keeper.read, "kept.txt") == "kept"
    assert seen(again, woken) == [{"kept.txt": "kept"}]


# --- storage of the class ----------------------------------------------------------------------------------------


def test_paglets_of_a_class_share_a_storage_that_outlives_them(hosts: HostFactory) -> None:
    host = hosts()
    one, two, other = host.create(Keeper), host.create(Keeper), host.create(OtherKeeper)
    path = one.call(Keeper.store, "deep/a", b"\x00\x01")
    assert Path(path) == host.persistence_dir / "storage" / "tests.agents.keeper.Keeper" / "deep" / "a"
    assert two.call(Keeper.stored, "deep/a") == b"\x00\x01"
    with pytest.raises(PagletError):
        other.call(Keeper.stored, "deep/a")
    assert one.call(Keeper.storage_status)["quota"] == DEFAULT_PERSISTENT_STORAGE_QUOTA_BYTES
    assert host.persistent_storage_for(two.agent_id).read_bytes("deep/a") == b"\x00\x01"
    for proxy in (one, two, other):
        proxy.dispose()
    host.stop()
    again = hosts()
    late = again.create(Keeper)
    assert late.call(Keeper.stored, "deep/a") == b"\x00\x01"
    late.call(Keeper.clear, "deep")
    assert late.call(Keeper.storage_status)["used"] == 0
    moved = late.dispatch(hosts("beta").address)
    assert moved.call(Keeper.storage_status)["used"] == 0


def test_a_quota_is_shared_by_all_paglets_of_a_class(hosts: HostFactory) -> None:
    host = hosts(persistent_storage_quota_bytes=10)
    one, two, other = host.create(Keeper), host.create(Keeper), host.create(OtherKeeper)
    one.call(Keeper.store, "a", b"123456")
    with pytest.raises(StorageQuotaError):
        two.call(Keeper.store, "b", b"12345")
    two.call(Keeper.store, "b", b"1234")
    one.call(Keeper.store, "a", b"654321")
    with pytest.raises(StorageQuotaError):
        one.call(Keeper.store, "a", b"1234567")
    assert two.call(Keeper.stored, "a") == b"654321"
    other.call(Keeper.store, "own", b"1234567890")
    two.call(Keeper.store, "more", b"12345", quota=100)
    assert host.persistent_storage_for(one.agent_id, quota_bytes=3).status().quota_bytes == 3
    one.call(Keeper.clear)
    assert two.call(Keeper.storage_status) == {
        "root": str(host.persistence_dir / "storage" / "tests.agents.keeper.Keeper"),
        "used": 0,
        "quota": 10,
    }


def test_paglets_that_write_at_once_never_exceed_the_quota_together(hosts: HostFactory) -> None:
    host = hosts(persistent_storage_quota_bytes=100)
    proxies = [host.create(Keeper) for _ in range(4)]

    def write(number: int) -> int:
        try:
            proxies[number % 4].call(Keeper.store, f"f{number}", b"x" * 30)
        except StorageQuotaError:
            return 0
        return 1

    with ThreadPoolExecutor(4) as pool:
        written = sum(pool.map(write, range(12)))
    assert written == 3
    assert proxies[0].call(Keeper.storage_status)["used"] == 90


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../outside", ""])
def test_a_path_cannot_lead_out_of_the_storage(hosts: HostFactory, name: str) -> None:
    host = hosts()
    proxy = host.create(Keeper)
    with pytest.raises(RemoteHostError):
        proxy.call(Keeper.store, name, b"x")
    with pytest.raises(ValueError):
        host.persistent_storage_for(proxy.agent_id).write_bytes(name, b"x")
    assert not list(host.persistence_dir.rglob("outside"))


# --- files that travel along -------------------------------------------------------------------------------------


def test_a_registered_file_is_described_as_it_was(hosts: HostFactory, tmp_path: Path) -> None:
    host = hosts()
    proxy = host.create(Keeper)
    path = source(tmp_path)
    wire = proxy.call(Keeper.take, str(path))
    assert (wire["name"], wire["mode"], wire["size_bytes"], wire["status"]) == ("data.txt", "copy", 5, "registered")
    assert (wire["source_host_name"], wire["source_host_url"]) == ("alpha", host.address)
    assert wire["source_path"] == wire["current_path"] == str(path.resolve())
    assert wire["sha256"] == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert proxy.call(Keeper.path_of, "data.txt") == str(path)
    proxy.call(Keeper.take, str(source(tmp_path, "b")), name="other", mode="move")
    proxy.call(Keeper.take, str(source(tmp_path, "c")), name="data.txt")
    assert [ref["name"] for ref in proxy.call(Keeper.files)] == ["data.txt", "other"]
    assert [ref.name for ref in host.registered_files_for(proxy.agent_id)] == ["data.txt", "other"]
    assert host.registered_file_path_for(proxy.agent_id, "data.txt").name == "c"
    proxy.call(Keeper.drop, "data.txt")
    proxy.call(Keeper.drop, "unknown")
    host.unregister_file_for(proxy.agent_id, "unknown")
    assert path.exists()
    with pytest.raises(HostError, match=r"data\.txt"):
        proxy.call(Keeper.read, "data.txt")
    with pytest.raises(HostError, match="nothing"):
        host.registered_file_path_for(proxy.agent_id, "nothing")


def test_files_that_cannot_be_registered_are_refused(hosts: HostFactory, tmp_path: Path) -> None:
    host = hosts()
    proxy = host.create(Keeper)
    out = tmp_path / "out"
    out.mkdir()
    (out / "link").symlink_to("/etc")
    for attempt in (
        lambda: proxy.call(Keeper.take, str(tmp_path / "missing")),
        lambda: proxy.call(Keeper.take, "/dev/null"),
        lambda: proxy.call(Keeper.take, str(out)),
        lambda: proxy.call(Keeper.take, str(source(tmp_path)), mode="lend"),
        lambda: host.register_file_for(proxy.agent_id, tmp_path / "missing"),
    ):
        with pytest.raises(TransferError):
            attempt()
    assert proxy.call(Keeper.files) == []


@pytest.mark.parametrize("way", ["dispatch", "retract", "handler"])
def test_a_copied_file_is_there_before_its_paglet_arrives_and_stays_at_its_source(
    hosts: HostFactory, tmp_path: Path, way: str
) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Keeper)
    path = source(tmp_path)
    alpha.register_file_for(proxy.agent_id, path, name="a/b c.txt")
    match way:
        case "dispatch":
            moved = proxy.dispatch(beta.address)
        case "retract":
            moved = beta.retract(alpha.address, proxy.agent_id)
        case _:
            moved = PagletProxy.from_wire(proxy.call(Keeper.go, beta.address))
    assert seen(beta, moved) == [{"a/b c.txt": "hello"}]
    (ref,) = moved.call(Keeper.files)
    installed = beta.persistence_dir / "work" / proxy.agent_id / "a_b_c.txt"
    assert (ref["current_path"], ref["current_host_name"], ref["current_host_url"]) == (
        str(installed),
        "beta",
        beta.address,
    )
    assert (ref["status"], ref["last_error"]) == ("available", "")
    assert (ref["source_path"], ref["source_host_name"]) == (str(path), "alpha")
    assert path.read_text() == "hello"
    with pytest.raises(InvalidAgentError):
        alpha.registered_files_for(proxy.agent_id)
    moved.dispose()
    released(installed)
    assert path.exists()
    assert leftovers(alpha) + leftovers(beta) == []


def test_a_moved_file_is_deleted_only_after_its_paglet_has_arrived(hosts: HostFactory, tmp_path: Path) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    path = source(tmp_path)
    proxy = alpha.create(Keeper, KeeperState(refuse=True))
    proxy.call(Keeper.take, str(path), mode="move")
    proxy.call(Keeper.make, "own.txt", "own", mode="move")
    with pytest.raises(TransferError, match="keeper refuses"):
        proxy.dispatch(beta.address)
    assert path.read_text() == "hello"
    assert proxy.call(Keeper.read, "own.txt") == "own"
    assert [ref["name"] for ref in proxy.call(Keeper.files)] == ["data.txt", "own.txt"]
    eventually(lambda: leftovers(beta) == [], "the files of the failed move to be removed")
    with pytest.raises(TransferError, match="reach"):
        proxy.dispatch("http://127.0.0.1:1")
    assert path.exists()


def test_a_moved_file_is_at_one_place_afterwards(hosts: HostFactory, tmp_path: Path) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    path = source(tmp_path)
    proxy = alpha.create(Keeper)
    proxy.call(Keeper.take, str(path), mode="MOVE")
    moved = proxy.dispatch(beta.address)
    assert seen(beta, moved) == [{"data.txt": "hello"}]
    released(path)
    assert moved.call(Keeper.read, "data.txt") == "hello"
    home = moved.dispatch(alpha.address)
    assert seen(alpha, home)[1] == {"data.txt": "hello"}
    assert home.call(Keeper.files)[0]["source_path"] == str(path)
    eventually(lambda: leftovers(beta) == [], "the copy at beta to be removed")
    assert home.call(Keeper.path_of, "data.txt").startswith(str(alpha.persistence_dir / "work"))


@pytest.mark.parametrize("place", ["here", "elsewhere"])
def test_a_clone_copies_files_whatever_their_mode(hosts: HostFactory, tmp_path: Path, place: str) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    target = alpha if place == "here" else beta
    path = source(tmp_path)
    proxy = alpha.create(Keeper)
    proxy.call(Keeper.take, str(path), mode="move")
    copy = proxy.clone(target.address)
    assert seen(target, copy) == [{"data.txt": "hello"}]
    assert path.exists()
    assert proxy.call(Keeper.read, "data.txt") == "hello"
    (ref,) = copy.call(Keeper.files)
    assert (ref["source_path"], ref["status"], ref["current_host_url"]) == (str(path), "available", target.address)
    assert ref["current_path"] == str(target.persistence_dir / "work" / copy.agent_id / "data.txt")
    copy.dispose()
    released(Path(ref["current_path"]))
    assert path.exists()


def test_a_move_on_one_host_keeps_files_and_work_directory(hosts: HostFactory, tmp_path: Path) -> None:
    host = hosts()
    path = source(tmp_path)
    proxy = host.create(Keeper)
    proxy.call(Keeper.scratch, "scratch", "s")
    proxy.call(Keeper.take, str(path), mode="move")
    proxy.call(Keeper.make, "own.txt", "own", mode="move")
    before = proxy.call(Keeper.files)
    for _ in range(2):
        proxy = proxy.dispatch(host.address)
    assert proxy.call(Keeper.go, host.address) == proxy.to_wire()
    assert seen(host, proxy) == [{"data.txt": "hello", "own.txt": "own"}] * 3
    assert proxy.call(Keeper.files) == before
    assert proxy.call(Keeper.scratched) == ["own.txt", "scratch"]
    assert path.exists()


def test_names_that_are_the_same_on_disk_do_not_meet(hosts: HostFactory, tmp_path: Path) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    proxy = alpha.create(Keeper)
    names = ["a b", "a_b", "a/b", "ä", "..", ".", "a_b-2", "A_B", "x" * 300]
    for number, name in enumerate(names):
        proxy.call(Keeper.take, str(source(tmp_path, f"f{number}", f"text {number}")), name=name)
    expected = {name: f"text {number}" for number, name in enumerate(names)}
    moved = proxy.dispatch(beta.address)
    assert seen(beta, moved) == [expected]
    copy = moved.clone()
    assert seen(beta, copy)[1] == expected
    work = beta.persistence_dir / "work" / moved.agent_id
    assert len(list(work.iterdir())) == len(names)
    assert all(Path(ref["current_path"]).parent == work for ref in moved.call(Keeper.files))


def test_a_file_travels_as_it_is_now(hosts: HostFactory, tmp_path: Path) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    path = source(tmp_path)
    proxy = alpha.create(Keeper)
    proxy.call(Keeper.take, str(path))
    path.write_text("changed since")
    moved = proxy.dispatch(beta.address)
    assert seen(beta, moved) == [{"data.txt": "changed since"}]
    (ref,) = moved.call(Keeper.files)
    assert ref["size_bytes"] == len("changed since")


@pytest.mark.parametrize("operation", ["dispatch", "clone"])
def test_a_file_that_is_missing_keeps_its_paglet(hosts: HostFactory, tmp_path: Path, operation: str) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    here, gone = source(tmp_path, "here"), source(tmp_path, "gone")
    proxy = alpha.create(Keeper)
    proxy.call(Keeper.take, str(here), mode="move")
    proxy.call(Keeper.take, str(gone))
    gone.unlink()
    with pytest.raises(TransferError, match=r"registered file 'gone' is missing"):
        getattr(proxy, operation)(beta.address)
    assert where(proxy, alpha, beta) == ["alpha"]
    assert here.exists()
    assert leftovers(beta) == []
    proxy.call(Keeper.drop, "gone")
    assert getattr(proxy, operation)(beta.address).call(Keeper.read, "here") == "hello"


def test_large_and_empty_files_arrive_whole(hosts: HostFactory, tmp_path: Path) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    data = os.urandom(1024) * 9000
    large = tmp_path / "large.bin"
    large.write_bytes(data)
    proxy = alpha.create(Keeper, KeeperState(look=False))
    proxy.call(Keeper.take, str(source(tmp_path, "empty", "")))
    alpha.register_file_for(proxy.agent_id, large)
    alpha.register_file_for(proxy.agent_id, source(tmp_path, "small", "s"))
    copy = proxy.clone(beta.address)
    files = {ref.name: ref for ref in beta.registered_files_for(copy.agent_id)}
    assert Path(files["large.bin"].current_path).read_bytes() == data
    assert files["large.bin"].sha256 == hashlib.sha256(data).hexdigest()
    assert Path(files["empty"].current_path).read_bytes() == b""
    assert Path(files["small"].current_path).read_text() == "s"


def test_registered_files_sleep_with_their_paglet(hosts: HostFactory, tmp_path: Path) -> None:
    host = hosts()
    path = source(tmp_path)
    proxy = host.create(Keeper)
    proxy.call(Keeper.take, str(path), mode="move")
    proxy.call(Keeper.make, "own.txt", "own")
    before = proxy.call(Keeper.files)
    proxy.deactivate()
    proxy.activate()
    assert proxy.call(Keeper.files) == before
    host.shutdown()
    again = hosts()
    woken = again.get_proxy(proxy.agent_id)
    assert woken is not None
    assert seen(again, woken) == [{"data.txt": "hello", "own.txt": "own"}] * 2
    beta = hosts("beta")
    moved = woken.dispatch(beta.address)
    assert seen(beta, moved)[2] == {"data.txt": "hello", "own.txt": "own"}
    released(path)


def test_files_of_a_paglet_that_arrives_asleep_are_with_it(hosts: HostFactory, tmp_path: Path) -> None:
    alpha, beta = hosts("alpha"), hosts("beta")
    path = source(tmp_path)
    proxy = alpha.create(Keeper)
    proxy.call(Keeper.take, str(path), mode="move")
    moved = proxy.dispatch(TransferTicket(beta.address, arrival_mode=ArrivalMode.INACTIVE))
    released(path)
    beta.stop()
    again = hosts("beta", port=beta.port)
    woken = again.activate(moved.agent_id)
    assert seen(again, woken) == [{"data.txt": "hello"}]
    woken.deactivate()
    woken.dispose()
    assert leftovers(again) == []
