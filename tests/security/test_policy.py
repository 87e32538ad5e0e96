"""What others may bring: the table of the launch file, and hosts that keep to it before anything is imported."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.config.launch_file import launch_config_from, load_launch_config
from paglets.config.launch_merge import merged_launch_text
from paglets.core.allowance import Allowance
from paglets.core.errors import (
    ForbiddenError,
    HostError,
    OverloadedError,
    PayloadTooLargeError,
    SerializationError,
    TransferError,
)
from paglets.core.runtime_values import ArrivalMode
from paglets.remote.client import HostClient
from paglets.remote.transfer import TransferTicket
from paglets.runtime.host import Host
from paglets.security.caller import Caller
from paglets.security.keys import KeyLimits
from paglets.security.policy import KeyPolicy, Policy, policy_from
from paglets.security.roles import Role
from paglets.serialization.names import ClassPolicy
from paglets.serialization.values import pack, unpack
from tests.agents.courier import Courier, CourierState
from tests.agents.http_agents import OtherState, Talker, TalkerState
from tests.runtime.http.test_movement_bodies import body_of, file_ref, prepare, state_blob
from tests.runtime.http.wire import ask
from tests.security.support import TALKER, add_key, bearer
from tests.support import HostFactory, await_event, eventually, leftovers, processes_of, where

FULL = """
[policy]
allow = ["myapp.*", "other.jobs:Survey"]
hosts = ["https://10.0.0.*:8765"]
max_paglets = 100
max_paglets_per_key = 10
max_state_size = "64M"
max_file_size = 1000
max_hops = 32

[policy.allowance]
max_hops = 10
lifetime = "7d"
max_state_size = "64M"

[policy.keys.laptop]
allow = ["myapp.reports:*"]
max_paglets = 3

[policy.keys.laptop.allowance]
max_hops = 2
lifetime = "1h"
"""


def parsed(text: str, tmp_path: Path) -> Policy | None:
    path = tmp_path / "launch.toml"
    path.write_text(text)
    return load_launch_config(path).policy


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_whole_table(tmp_path: Path) -> None:
    assert parsed(FULL, tmp_path) == Policy(
        ClassPolicy(("myapp.*", "other.jobs:Survey")),
        ("https://10.0.0.*:8765",),
        100,
        10,
        64 * 1024**2,
        1000,
        32,
        {"laptop": KeyPolicy(ClassPolicy(("myapp.reports:*",)), 3, Allowance(max_hops=2, lifetime=3600.0))},
        Allowance(max_hops=10, lifetime=7 * 86400.0, max_state_bytes=64 * 1024**2),
    )
    assert parsed("", tmp_path) is None
    assert parsed("[policy]", tmp_path) == Policy()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("policy = 3", "must be a table"),
        ("[policy]\nalow = []", "unknown key 'alow'; allowed are allow, hosts"),
        ("[policy]\nallow = 'x'", "'allow' must be a list of texts"),
        ("[policy]\nallow = ['not a pattern']", "no class pattern"),
        ("[policy]\nhosts = [1]", "'hosts' must be a list of texts"),
        ("[policy]\nmax_paglets = -1", "'max_paglets' must be a whole number"),
        ("[policy]\nmax_paglets = true", "'max_paglets' must be a whole number"),
        ("[policy]\nmax_state_size = 'lots'", "'max_state_size' must be a size"),
        ("[policy]\nmax_state_size = 1.5", "'max_state_size' must be a whole number"),
        ("[policy]\nallowance = 3", "must be a table"),
        ("[policy.allowance]\nhops = 3", "allowance: unknown key 'hops'"),
        ("[policy.allowance]\nlifetime = 'ever'", "'lifetime' must be a time"),
        ("[policy.allowance]\nlifetime = -1", "'lifetime' must be a time"),
        ("[policy.allowance]\nmax_clones = 1e3", "'max_clones' must be a whole number"),
        ("[policy]\nkeys = 3", "must be tables"),
        ("[policy.keys]\nlaptop = 3", "must be tables"),
        ("[policy.keys.laptop]\nrole = 'admin'", "keys.laptop: unknown key 'role'"),
        ("[policy.keys.laptop]\nallowance = 3", "keys.laptop.allowance: must be a table with max_hops, max_clones"),
        ("[policy.keys.laptop.allowance]\nhops = 3", "keys.laptop.allowance: unknown key 'hops'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(HostError, match=words) as caught:
        parsed(text, tmp_path)
    assert re.search(r"launch\.toml, line \d+: \[policy\]", str(caught.value))


WORDS = ["allow", "hosts", "keys", "max_hops", "max_state_size", "allowance", "lifetime", "x"]


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["allow", "hosts", "keys", "max_hops", "max_state_size", "allowance", "lifetime", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_is_in_the_table_there_is_one_kind_of_error(table: Any) -> None:
    try:
        assert isinstance(policy_from(table, HostError), Policy)
    except HostError as exc:
        assert str(exc)


def test_an_update_of_the_bundled_file_keeps_the_policy(tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text(FULL)
    import tomllib

    merged = merged_launch_text("[launch]\ndemo_config_id = 'x'\n", tomllib.loads(FULL))
    assert launch_config_from(tomllib.loads(merged), path).policy == load_launch_config(path).policy


# --- the checks -------------------------------------------------------------------------------------------------------


def test_sources() -> None:
    policy = Policy(hosts=("http://10.0.0.*:8765", "https://beta.example"))
    anybody = Caller("a", Role.OPERATE)
    for source in ("http://10.0.0.7:8765", "http://10.0.0.7:8765/", "HTTPS://BETA.example"):
        policy.check_source(source, anybody)
    for source in ("", "http://10.0.1.7:8765", "https://10.0.0.7:8765", "http://evil/http://10.0.0.7:8765", "\x00"):
        with pytest.raises(ForbiddenError):
            policy.check_source(source, anybody)
    bound = Caller("b", Role.OPERATE, hosts=("http://10.0.0.7:*",))
    policy.check_source("http://10.0.0.7:8765", bound)
    with pytest.raises(ForbiddenError, match="'b' may not bring"):
        policy.check_source("http://10.0.0.8:8765", bound)
    issued = Caller("c", Role.OPERATE, names=("0:0:0:0:0:0:0:1", "beta.example"))
    Policy().check_source("https://[::1]:5", issued)
    Policy().check_source("https://BETA.example:9", issued)
    for source in ("https://[::2]:5", "https://beta.example.evil", "nonsense", "https://["):
        with pytest.raises(ForbiddenError, match="not issued"):
            Policy().check_source(source, issued)


def test_states() -> None:
    allowed, other = "tests.agents.http_agents:TalkerState", "tests.agents.actor:ActorState"
    laptop = Caller("laptop", Role.OPERATE)
    assert Policy().check_state_class(allowed, laptop)
    listed = Policy(ClassPolicy(("tests.agents.http_agents:Talker",)))
    assert not listed.check_state_class(allowed)
    assert not Policy(
        ClassPolicy((allowed, other)), keys={"laptop": KeyPolicy(ClassPolicy((other,)))}
    ).check_state_class(allowed, laptop)
    for policy in (Policy(), listed):
        for never in ("os:environ", "__main__:State"):
            with pytest.raises(ForbiddenError):
                policy.check_state_class(never)
        with pytest.raises(SerializationError):
            policy.check_state_class("no name")
    assert Policy(ClassPolicy(("types",))).check_state_class("types:SimpleNamespace")


def test_how_many_paglets_a_caller_may_have() -> None:
    policy = Policy(max_paglets_per_key=10, keys={"laptop": KeyPolicy(max_paglets=3)})
    assert policy.most_paglets_of(Caller("other", Role.OPERATE)) == 10
    assert policy.most_paglets_of(Caller("laptop", Role.OPERATE)) == 3
    assert policy.most_paglets_of(Caller("laptop", Role.OPERATE, KeyLimits(max_paglets=2))) == 2
    assert Policy().most_paglets_of(Caller("x", Role.OPERATE)) is None


def test_the_command_line_adds_to_the_file(hosts: HostFactory, tmp_path: Path) -> None:
    config = launch_config_from({"policy": {"allow": ["myapp"], "max_hops": 3}}, tmp_path)
    host = hosts.new(launch_config=config, allow=["other"])
    assert (host.policy.classes.allow, host.policy.max_hops) == (("myapp", "other"), 3)
    assert hosts.new("plain").policy == Policy()


# --- hosts ------------------------------------------------------------------------------------------------------------


def creation(agent_id: str = "made", class_name: str = TALKER, **more: Any) -> dict[str, Any]:
    return {"agent_class_name": class_name, "agent_id": agent_id, **more}


IMPORTING = "tests.agents.import_exits:Nothing"


def test_a_class_outside_the_list_is_not_even_imported(hosts: HostFactory) -> None:
    host = hosts(
        "choosy",
        policy=Policy(ClassPolicy(("tests.agents.http_agents:Talker", "tests.agents.http_agents:TalkerState"))),
    )
    started = len(host._running().kernel.starter.places)
    with HostClient() as client:
        for name in (IMPORTING, "os:system", "__main__:X", "tests.agents.http_agents:Parrot"):
            with pytest.raises((ForbiddenError, HostError), match=r"may not be used here|__main__"):
                client.post_json(f"{host.address}/agents", creation(class_name=name))
            with pytest.raises((ForbiddenError, HostError)):
                client.post_pickle(f"{host.address}/agents", creation(class_name=name))
            header = prepare("sent")
            header["envelope"]["agent_class_name"] = name
            answer = client._call(
                "POST", f"{host.address}/agents", body_of(header, state_blob()), "application/x-paglets-movement", 10.0
            )
            assert answer["refused"]["reason"] in ("class-not-allowed", "class_not_allowed", "policy")
            header = prepare(f"state-{name.partition(':')[2]}")
            header["envelope"]["state_class_name"] = name
            answer = client._call(
                "POST", f"{host.address}/agents", body_of(header, state_blob()), "application/x-paglets-movement", 10.0
            )
            assert "refused" in answer
    assert "tests.agents.import_exits" not in sys.modules
    assert len(host._running().kernel.starter.places) == started
    assert processes_of(host.name) == []
    assert host.list_agents(inactive=True) == []


def test_the_state_that_an_allowed_class_declares_comes_with_it(hosts: HostFactory) -> None:
    source = hosts("open")
    target = hosts("choosy", allow=["tests.agents.http_agents:Talker"])
    moved = source.create(Talker, TalkerState(count=3)).dispatch(target.address)
    assert moved.call(Talker.count, by=2) == 5
    moved.deactivate()
    moved.activate()
    assert moved.call(Talker.count) == 6
    # One that arrives asleep is not started, so that nobody could tell.
    ticket = TransferTicket(target.address, arrival_mode=ArrivalMode.INACTIVE)
    with pytest.raises(TransferError, match=r"TalkerState' may not be used here: .* would have to arrive awake"):
        source.create(Talker).dispatch(ticket)


def test_another_state_is_refused_without_importing_it(hosts: HostFactory) -> None:
    source = hosts("open")
    target = hosts("choosy", allow=["tests.agents.http_agents:Talker"])
    stays = source.create(Talker, OtherState(count=3))
    with pytest.raises(TransferError, match=r"OtherState' may not be used here: .* not the state that Talker declares"):
        stays.dispatch(target.address)
    assert stays.call(Talker.count) == 4
    with HostClient() as client:
        header = prepare("sent", activate=True)
        header["envelope"]["state_class_name"] = IMPORTING  # it would end the process
        body = body_of(header, state_blob())
        answer = client._call("POST", f"{target.address}/agents", body, "application/x-paglets-movement", 10.0)
        assert "not the state that Talker declares" in json.dumps(answer["refused"])
        envelope = {**header["envelope"], "state": {"count": 1}}
        with pytest.raises((ForbiddenError, TransferError), match="not the state that Talker declares"):
            client.post_pickle(f"{target.address}/agents", {"envelope": envelope})
        envelope["state_class_name"] = "tests.agents.http_agents:TalkerState"
        client.post_pickle(f"{target.address}/agents", {"envelope": envelope})
    assert [summary["agent_id"] for summary in target.list_agents(inactive=True)] == ["sent"]


def test_a_paglet_that_was_not_decided_on_keeps_to_it_over_a_restart(hosts: HostFactory) -> None:
    host = hosts("choosy", allow=["tests.agents.http_agents:Talker"])
    with HostClient() as client:
        body = body_of(prepare("inert", activate=True), state_blob())
        answer = client._call("POST", f"{host.address}/agents", body, "application/x-paglets-movement", 10.0)
    host.stop()
    # As if the host had been killed between writing down what came and seeing what the class declares.
    with closing(sqlite3.connect(host.persistence_dir / "journal.db")) as journal, journal:
        ((record,),) = journal.execute("SELECT record FROM transfers WHERE role = 'prepared'")
        wire = unpack(record)
        assert wire["envelope"]["metadata"]["declared_state"] is True
        wire["envelope"]["state_class_name"] = IMPORTING
        journal.execute("UPDATE transfers SET record = ?", (pack(wire),))
    host.start_background()
    host._running().run(host._node.arrivals.commit("transfer-inert", answer["vote"]))
    (found,) = eventually(
        lambda: [each for each in host.list_agents() if each["crashed"]], "the paglet that could not be brought back"
    )
    assert "is not the state that Talker declares" in found["error"]


def test_a_key_may_have_classes_of_its_own(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    few, all_of_them = add_key(path, "few", Role.OPERATE), add_key(path, "all", Role.OPERATE)
    policy = Policy(keys={"few": KeyPolicy(ClassPolicy(("tests.agents.http_agents:Parrot",)))})
    host = hosts("picky", keys=path, policy=policy)
    refused = ask(host.address, "POST", "/agents", creation(), bearer(few))
    assert (refused.status, refused.error) == (403, "ForbiddenError")
    allowed = ask(host.address, "POST", "/agents", creation(class_name="tests.agents.http_agents:Parrot"), bearer(few))
    assert allowed.status == 200
    assert ask(host.address, "POST", "/agents", creation("more"), bearer(all_of_them)).status == 200


def test_what_comes_with_a_key_has_no_more_left_than_that(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    few, other = add_key(path, "few", Role.OPERATE), add_key(path, "other", Role.OPERATE)
    policy = Policy(
        keys={"few": KeyPolicy(allowance=Allowance(max_hops=1, max_clones=9))}, allowance=Allowance(max_clones=4)
    )
    host, source = hosts("sparing", keys=path, policy=policy), hosts("giving", client=HostClient(api_key=few))

    def left(agent_id: str) -> tuple[int | None, int | None]:
        balance = host.allowance(agent_id)
        return balance.hops_left, balance.clones_left

    for key, agent_id, expected in ((few, "p", (1, 4)), (other, "q", (None, 4))):
        body = {**creation(agent_id), "allowance": {"max_hops": None}}
        assert ask(host.address, "POST", "/agents", body, bearer(key)).status == 200
        assert left(agent_id) == expected
    envelope = {**prepare("r")["envelope"], "state": {}}
    assert ask(host.address, "POST", "/agents", {"envelope": envelope}, bearer(few)).status == 200
    assert left("r") == (1, 4)
    # A move, which shows the key of its host.
    moved = source.create(Talker).dispatch(host.address)
    assert left(moved.agent_id) == (1, 4)


def test_a_key_has_so_many_paglets(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    few, other = add_key(path, "few", Role.OPERATE, max_paglets=2), add_key(path, "other", Role.OPERATE)
    host = hosts("counting", keys=path)

    def create(agent_id: str, key: str = few) -> int:
        return ask(host.address, "POST", "/agents", creation(agent_id), bearer(key)).status

    assert [create(f"p{number}") for number in range(3)] == [200, 200, 429]
    assert create("q", other) == 200
    # A failed one does not count, nor does one that is gone; one that sleeps does.
    host.dispose("p0")
    assert ask(host.address, "POST", "/agents", creation("p1"), bearer(few)).status == 409
    host.deactivate("p1")
    assert [create("p3"), create("p4")] == [200, 429]
    envelope = {**prepare("p5")["envelope"], "state": {}}
    assert ask(host.address, "POST", "/agents", {"envelope": envelope}, bearer(few)).status == 429


def test_a_host_that_starts_again_goes_on_counting(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    few = add_key(path, "few", Role.OPERATE, max_paglets=3)
    host = hosts("counting-on", keys=path)

    def create(agent_id: str) -> int:
        return ask(host.address, "POST", "/agents", creation(agent_id), bearer(few)).status

    assert [create("p0"), create("p1")] == [200, 200]
    host.deactivate("p0")
    # A clone counts for whoever brought its original.
    host.clone("p1")
    host.shutdown()
    host = hosts("counting-on", keys=path, port=host.port)
    assert create("p2") == 429
    host.dispose("p0")
    assert [create("p3"), create("p4")] == [200, 429]


def test_a_host_has_so_many_paglets(hosts: HostFactory) -> None:
    host = hosts("small", policy=Policy(max_paglets=1))
    host.create(Talker)
    assert ask(host.address, "POST", "/agents", creation()).status == 429
    with pytest.raises(OverloadedError):
        host.create(Talker)


def test_states_and_files_have_a_largest_size(hosts: HostFactory) -> None:
    host = hosts("narrow", policy=Policy(max_state_bytes=10_000, max_file_bytes=100))
    other = hosts("wide")
    for body in (creation(state={"data": "x" * 20_000}), creation(state={"count": 1, "begun": "x" * 20_000})):
        reply = ask(host.address, "POST", "/agents", body)
        assert (reply.status, reply.error) == (413, "PayloadTooLargeError")
    with HostClient() as client, pytest.raises(PayloadTooLargeError):
        client.post_pickle(f"{host.address}/agents", creation(state_blob=b"x" * 20_000))
    heavy = other.create(Talker, TalkerState(data=b"x" * 20_000))
    with pytest.raises(TransferError, match="a state of"):
        heavy.dispatch(host.address)
    assert where(heavy, host, other) == ["wide"]
    data = b"d" * 101
    with HostClient() as client:
        answer = client._call(
            "POST",
            f"{host.address}/agents",
            body_of(prepare(files=[file_ref("a", data)]), state_blob(), data),
            "application/x-paglets-movement",
            10.0,
        )
        assert "file 'a' of 101 bytes" in json.dumps(answer)
    eventually(lambda: leftovers(host) == [], "the file to be removed")
    blob = f"/blobs/{hashlib.sha256(data).hexdigest()}?holder=somebody&size={len(data)}"
    reply = ask(host.address, "PUT", blob, data, {"Content-Type": "application/octet-stream"})
    assert (reply.status, reply.error) == (413, "PayloadTooLargeError")
    # The host's own program is not bound by what others may bring.
    host.create(Talker, TalkerState(data=b"x" * 20_000))


def test_paglets_arrive_from_where_they_may(hosts: HostFactory) -> None:
    far = hosts("far")
    near = hosts("near", policy=Policy(hosts=("http://10.0.0.*",)))
    proxy = far.create(Talker)
    with pytest.raises(TransferError, match="are not taken here"):
        proxy.dispatch(near.address)
    assert where(proxy, far, near) == ["far"]
    envelope = {**prepare("sent")["envelope"], "state": {}}
    assert ask(near.address, "POST", "/agents", {"envelope": envelope}).status == 403


def test_a_key_brings_paglets_from_its_own_addresses(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    key = add_key(path, "beta", Role.OPERATE, hosts=("http://10.0.0.7:*",))
    host = hosts("strict", keys=path)
    envelope = {**prepare("sent")["envelope"], "state": {}, "source_host_address": "http://10.0.0.8:8765"}
    assert ask(host.address, "POST", "/agents", {"envelope": envelope}, bearer(key)).status == 403
    envelope["source_host_address"] = "http://10.0.0.7:8765"
    assert ask(host.address, "POST", "/agents", {"envelope": envelope}, bearer(key)).status == 200


def test_a_paglet_that_never_rests_is_stopped(hosts: HostFactory) -> None:
    alpha, beta = (hosts(name, policy=Policy(max_hops=4)) for name in ("alpha", "beta"))
    route = [beta.address, alpha.address] * 10
    proxy = alpha.create(Courier, CourierState(route=route))

    failed = await_event(alpha, "transfer-failed", agent_id=proxy.agent_id)
    assert "has moved 5 times" in failed.error
    assert where(proxy, alpha, beta) == []
    (left,) = [summary for host in (alpha, beta) for summary in host.list_agents()]
    assert (left["host"], left["crashed"]) == ("alpha", True)


def test_a_class_name_that_is_none_is_no_reason_to_import(hosts: HostFactory) -> None:
    host: Host = hosts("malformed")
    with HostClient() as client, pytest.raises(SerializationError):
        client.post_json(f"{host.address}/agents", creation(class_name="tests.agents.import_exits"))
    assert "tests.agents.import_exits" not in sys.modules
