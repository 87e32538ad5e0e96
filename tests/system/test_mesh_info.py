"""Hosts learn how the others do, whatever their clocks say, and the best come first."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from paglets.core.agent import PagletContext
from paglets.core.errors import RemoteTimeoutError
from paglets.core.runtime_values import ResidentLifecycle, ServiceScope
from paglets.runtime.host import Host
from paglets.serialization.codec import from_wire, to_wire
from paglets.services.contracts import ServiceHandle
from paglets.system import mesh_info
from paglets.system.mesh_info import (
    GET_LANDSCAPE,
    GET_SNAPSHOT,
    MESH_INFO,
    SELECT_TARGETS,
    SYNC_MESH_INFO,
    LandscapeRequest,
    MeshHostSnapshot,
    MeshInfoAgent,
    MeshInfoSyncRequest,
    SnapshotRequest,
    TargetSelectionRequest,
)
from paglets.system.mesh_info.agent import MESH_INFO_LOOP_ERROR_KEY
from paglets.system.mesh_info.ages import Ages
from paglets.system.mesh_info.landscape import Landscape, news_of
from paglets.system.mesh_info.sample import LocalSampler, _figures, load_per_cpu
from paglets.system.mesh_info.selection import select, target_score
from paglets.system.server_info import GET_SUMMARY, LoadReply, SummaryReply
from tests.support import HostFactory, eventually
from tests.system.conftest import Pair


def snapshot(name: str, at: float = 1000.0, **more: Any) -> MeshHostSnapshot:
    known: dict[str, Any] = {
        "memory_total_bytes": 100,
        "memory_available_bytes": 50,
        "work_total_bytes": 100,
        "work_free_bytes": 50,
    }
    return MeshHostSnapshot(name, f"http://{name}", "v", at, **(known | more))


def handle(host: Host) -> ServiceHandle:
    return PagletContext(host).require_contract(MESH_INFO)


# --- the service ------------------------------------------------------------------------------------------------------


def test_what_the_class_declares() -> None:
    (spec,) = MeshInfoAgent.RESIDENT_SERVICES
    assert (spec.contract, spec.scope, spec.lifecycle) == (MESH_INFO, ServiceScope.MESH, ResidentLifecycle.EAGER)
    assert (spec.agent_id, spec.idle_timeout) == ("service.mesh-info", 0.0)
    assert MESH_INFO.capabilities == ("snapshot", "landscape", "sync", "select")
    assert all(hasattr(mesh_info, name) for name in mesh_info.__all__)


def test_the_own_host(pair: Pair) -> None:
    alpha, _ = pair
    service = handle(alpha)
    found = service.call(GET_SNAPSHOT, SnapshotRequest(force=True)).snapshot
    assert found is not None
    assert (found.host_name, found.host_url, found.code_version) == ("alpha", alpha.address, "test-version")
    assert (found.host_tags, found.host_properties, found.errors) == (("fast",), {"room": "1"}, [])
    assert Path(found.work_path).name == "service.mesh-info"
    assert found.work_total_bytes > found.work_free_bytes > 0
    assert found.memory_total_bytes >= found.memory_available_bytes > 0
    assert found.cpu_count_logical >= 1
    assert found.load_per_cpu == round(found.load_average[0] / found.cpu_count_logical, 4)
    assert found.active_count >= 2
    # What was just found out is not found out again.
    assert service.call(GET_SNAPSHOT).snapshot == found


def test_hosts_learn_of_each_other(pair: Pair) -> None:
    for host in pair:
        service = handle(host)
        eventually(lambda service=service: names(service) == ["alpha", "beta"], "both hosts to be known")
        assert service.call(GET_LANDSCAPE).errors == {}
        assert names(service, limit=1) == ["alpha"]
    targets = handle(pair[0]).call(SELECT_TARGETS, TargetSelectionRequest(limit=9)).targets
    assert {target.snapshot.host_name for target in targets} == {"alpha", "beta"}
    without = handle(pair[0]).call(SELECT_TARGETS, TargetSelectionRequest(limit=9, include_self=False))
    assert [target.snapshot.host_name for target in without.targets] == ["beta"]
    assert without.rejected == {"alpha": "self excluded"}


def names(service: ServiceHandle, **more: Any) -> list[str]:
    return [host.host_name for host in service.call(GET_LANDSCAPE, LandscapeRequest(**more)).hosts]


def test_stale_hosts_are_left_out_and_busy_ones_are_not(pair: Pair) -> None:
    service, now = handle(pair[0]), time.time()
    stale, busy = snapshot("stale", now - 25), snapshot("zz-busy", now, load_per_cpu=99.0)
    reply = service.call(SYNC_MESH_INFO, MeshInfoSyncRequest([stale, busy, replace(busy, observed_at=now - 1)]))
    assert reply.accepted == 2
    assert service.call(SYNC_MESH_INFO, MeshInfoSyncRequest([stale, busy])).accepted == 0
    assert {"stale", "zz-busy"} & set(names(service)) == {"zz-busy"}
    assert "stale" in names(service, fresh_only=False)
    assert "stale" in names(service, max_age_seconds=60.0)
    targets = service.call(SELECT_TARGETS, TargetSelectionRequest(limit=9)).targets
    assert targets[-1].snapshot.host_name == "zz-busy"
    assert targets[-1].reasons == ["fresh", "eligible", "over-load-limit"]


def test_a_clock_that_is_wrong_makes_nobody_stale(pair: Pair) -> None:
    service = handle(pair[0])
    # Two hosts whose clocks are a day off, in both directions, one of which somebody says to be old.
    behind, ahead = snapshot("behind", time.time() - 86400), snapshot("ahead", time.time() + 86400)
    ages = {"http://behind": 2.0, "http://ahead": 3600.0}
    assert service.call(SYNC_MESH_INFO, MeshInfoSyncRequest([behind, ahead], ages=ages)).accepted == 2
    reply = service.call(GET_LANDSCAPE)
    found = {host.host_name: reply.generated_at - host.observed_at for host in reply.hosts}
    assert 2.0 <= found["behind"] < 20.0
    assert "ahead" not in found
    # Between services the stamps stay what they are, or news could not be told from echoes.
    sent = service.call(SYNC_MESH_INFO, MeshInfoSyncRequest())
    (told,) = [each for each in sent.snapshots if each.host_name == "behind"]
    assert told.observed_at == behind.observed_at
    assert 2.0 <= sent.ages["http://behind"] < 20.0


def test_what_the_asking_one_has_is_not_sent_back(pair: Pair) -> None:
    service = handle(pair[0])
    mine = snapshot("mine", time.time())
    reply = service.call(SYNC_MESH_INFO, MeshInfoSyncRequest([mine]))
    assert "mine" not in [each.host_name for each in reply.snapshots]
    assert "alpha" in [each.host_name for each in reply.snapshots]


def test_others_do_not_know_the_own_host_better(pair: Pair) -> None:
    alpha, _ = pair
    lie = replace(snapshot("alpha", time.time() + 50), host_url=alpha.address + "/", platform="a lie")
    assert handle(alpha).call(SYNC_MESH_INFO, MeshInfoSyncRequest([lie])).accepted == 0
    (own,) = [host for host in handle(alpha).call(GET_LANDSCAPE).hosts if host.host_name == "alpha"]
    assert own.platform != "a lie"


@pytest.fixture
def lonely(hosts: HostFactory) -> Iterator[Host]:
    """Give a host without the other service, that knows a host which does not exist any more."""
    host = hosts("lonely")
    host.create(MeshInfoAgent, agent_id="service.mesh-info")
    yield host


def test_a_part_that_cannot_be_found_out_is_said(lonely: Host) -> None:
    reply = handle(lonely).call(GET_SNAPSHOT)
    assert reply.snapshot is not None
    assert [error.partition(":")[0] for error in reply.errors] == ["load", "summary"]
    assert reply.snapshot.errors == reply.errors
    assert (reply.snapshot.memory_total_bytes, reply.snapshot.load_per_cpu) == (0, 0.0)
    assert reply.snapshot.work_total_bytes > 0
    (target,) = handle(lonely).call(SELECT_TARGETS).targets
    assert target.reasons == ["fallback", "; ".join(reply.errors)]
    strict = handle(lonely).call(SELECT_TARGETS, TargetSelectionRequest(allow_fallback=False))
    assert (strict.targets, list(strict.rejected)) == ([], ["lonely"])


def test_nobody_waits_for_the_next_sample_who_may_have_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = MeshInfoAgent()
    agent._attach(Unreachable())  # type: ignore[arg-type] # what is used of one
    own = replace(snapshot("own", time.time() - 7), host_url="http://own")
    agent.state.snapshots["http://own"] = to_wire(own)
    agent.state.last_sample_at = own.observed_at
    with agent._sampling:  # somebody looks at the host just now
        assert agent.get_snapshot(SnapshotRequest()).snapshot == own
    # Otherwise seven seconds are too long, and so is a sample from the future.
    samples = iter([1, 2])

    def sample(*_: Any, **__: Any) -> dict[str, Any]:
        return {"host_name": "own", "host_url": "http://own", "code_version": "v", "active_count": next(samples)}

    monkeypatch.setattr(agent._sampler, "sample", sample)
    assert agent.get_snapshot(SnapshotRequest()).snapshot.active_count == 1
    assert agent.get_snapshot(SnapshotRequest()).snapshot.active_count == 1
    agent.state.last_sample_at = time.time() + 60
    assert agent.get_snapshot(SnapshotRequest()).snapshot.active_count == 2


class Unreachable:
    """A context in which no peer answers."""

    name, address = "own", "http://own"

    def __init__(self) -> None:
        self.host = self
        self.client = self
        self.fails = True

    def available_hosts(self, **_: Any) -> list[Any]:
        from paglets.protocol.membership import HostRef

        if self.fails is None:
            raise RuntimeError("no mesh")
        return [HostRef("peer", "http://peer", "v", True, 0.0, 0, 0), HostRef("", "http://x", "v", True, 0.0, 0, 0)]

    def get_json(self, url: str, *, timeout: float) -> Any:
        assert timeout == 1.0
        if self.fails:
            raise OSError(f"nobody at {url.partition('?')[0]}")
        return {"services": []}


def test_peers_that_fail_are_named_until_they_do_not() -> None:
    agent, context = MeshInfoAgent(), Unreachable()
    agent._attach(context)  # type: ignore[arg-type] # what is used of one
    agent._gossip_once()
    assert agent.state.errors == {
        "peer": "nobody at http://peer/services",
        "http://x": "nobody at http://x/services",
    }
    context.fails = False
    agent._gossip_once()
    assert "no mesh-info service" in agent.state.errors["peer"]
    # News of a host clear what was wrong with it, and so does its leaving.
    agent._merge_snapshot(snapshot("peer", time.time()))
    assert list(agent.state.errors) == ["http://x"]
    agent._record_error(MESH_INFO_LOOP_ERROR_KEY, "broken")
    agent._record_error("long-gone", "nobody there")
    agent._gossip_once()
    assert sorted(agent.state.errors) == ["http://x", MESH_INFO_LOOP_ERROR_KEY, "peer"]


def test_news_is_taken_in_without_a_host_and_not_without_a_url() -> None:
    agent = MeshInfoAgent()
    agent.state.errors = {"peer": "nobody there"}
    assert agent._merge_snapshot(snapshot("peer", time.time()))
    assert agent.state.errors == {}
    assert not agent._merge_snapshot(replace(snapshot("nameless", time.time()), host_url=""))


def test_news_from_the_future_does_not_outlive_a_sleep(lonely: Host) -> None:
    # Alone: whoever was told would tell it again, with how old it is.
    service = handle(lonely)
    assert service.call(SYNC_MESH_INFO, MeshInfoSyncRequest([snapshot("ahead", time.time() + 3600)])).accepted == 1
    assert "ahead" in names(service)
    lonely.deactivate("service.mesh-info")
    lonely.activate("service.mesh-info")
    assert "ahead" not in names(service, fresh_only=False)


def test_a_round_that_fails_is_named_and_the_next_clears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, rounds = MeshInfoAgent(), []

    def round_of(*_: Any) -> None:
        rounds.append(dict(agent.state.errors))
        if len(rounds) == 1:
            raise RuntimeError("broken")
        if len(rounds) == 3:
            agent._stop()

    monkeypatch.setattr(agent, "_refresh_local_snapshot", lambda: None)
    monkeypatch.setattr(agent, "_gossip_once", round_of)
    monkeypatch.setattr(agent, "_drop_outdated", lambda: None)
    agent.state.gossip_interval = 0.0
    agent._loop()
    assert rounds == [{}, {MESH_INFO_LOOP_ERROR_KEY: "broken"}, {}]


# --- decisions --------------------------------------------------------------------------------------------------------


def chosen(*snapshots: MeshHostSnapshot, **more: Any) -> tuple[list[tuple[str, list[str]]], dict[str, str]]:
    found = select(snapshots, TargetSelectionRequest(**({"limit": 9} | more)), own_url="http://own/")
    return [(ranked.snapshot.host_name, ranked.reasons) for ranked in found.targets], found.rejected


def test_the_score() -> None:
    known = snapshot("a", load_per_cpu=0.5, cpu_percent=25.0, memory_percent=50.0, work_percent_used=10.0)
    assert target_score(known) == 1.35
    assert target_score(replace(known, memory_total_bytes=0, work_total_bytes=0)) == 2.75


def test_busy_hosts_come_after_all_others() -> None:
    idle, full = snapshot("idle"), snapshot("full", memory_percent=99.0, work_percent_used=99.0)
    loaded, hot = snapshot("loaded", load_per_cpu=1.01), snapshot("hot", cpu_percent=91.0)
    targets, rejected = chosen(loaded, hot, full, idle, max_cpu_percent=90.0)
    assert targets == [
        ("idle", ["fresh", "eligible"]),
        ("full", ["fresh", "eligible"]),
        ("hot", ["fresh", "eligible", "over-load-limit"]),
        ("loaded", ["fresh", "eligible", "over-load-limit"]),
    ]
    assert rejected == {}


def test_hosts_that_do_not_do() -> None:
    low, small, odd = snapshot("low"), snapshot("small", work_free_bytes=1), snapshot("odd", errors=["load: x", "y"])
    fine = snapshot("fine", memory_available_bytes=70)
    reasons = {
        "low": "available memory below minimum",
        "small": "work storage below minimum",
        "odd": "load: x; y",
        "own": "self excluded",
    }
    low = replace(low, memory_available_bytes=9)
    needs = {"min_memory_available_bytes": 10, "min_work_free_bytes": 2, "include_self": False}
    assert chosen(low, small, odd, snapshot("own"), fine, **needs) == ([("fine", ["fresh", "eligible"])], reasons)
    # When nobody does, those who nearly do, but never who must not.
    others = [(name, ["fallback", reasons[name]]) for name in ("low", "small", "odd")]
    assert chosen(low, small, odd, snapshot("own"), **needs) == (others, reasons)
    assert chosen(low, small, odd, snapshot("own"), **needs, limit=0)[0] == others[:1]
    assert chosen(low, small, odd, snapshot("own"), **needs, allow_fallback=False) == ([], reasons)
    assert chosen() == ([], {})


def test_a_host_of_which_little_is_known_comes_last_and_says_why() -> None:
    busy = snapshot("busy", load_per_cpu=3.0, memory_percent=90.0, work_percent_used=90.0)
    broken = snapshot("broken", memory_total_bytes=0, memory_available_bytes=0, errors=["load: no provider"])
    targets, rejected = chosen(busy, broken, min_memory_available_bytes=60)
    assert [name for name, _ in targets] == ["busy", "broken"]
    assert rejected["broken"] == "available memory below minimum; load: no provider"


def test_the_memory_of_a_host_without_a_load_is_not_known() -> None:
    told = SummaryReply("a", "u", "p", "3", 0.0, 2, 2, 10**9, "x", None, 64)
    assert "memory_total_bytes" not in _figures(None, told)


class Busy:
    """A paglet on a host whose server-info answers once, and is busy from then on."""

    def __init__(self) -> None:
        self.context = self.host = self
        self.name, self.address, self.asked = "own", "http://own", 0

    def health(self) -> dict[str, Any]:
        return {}

    def require_contract(self, _: Any) -> Busy:
        return self

    def call(self, operation: Any, *_: Any, **__: Any) -> Any:
        if operation is GET_SUMMARY:
            return SummaryReply("a", "u", "p", "3", 0.0, 2, 2, 10**9, "x", None, 64)
        self.asked += 1
        if self.asked > 1:
            raise RemoteTimeoutError("busy")
        return LoadReply("a", "u", 12.5)

    def work_dir(self) -> Path:
        return Path()


def test_a_service_that_is_busy_measuring_makes_nobody_ineligible_for_a_while() -> None:
    sampler, paglet = LocalSampler(), Busy()
    first = sampler.sample(paglet, include_gpu=False, patience=60.0)  # type: ignore[arg-type] # what is used of one
    assert (first["cpu_percent"], first["errors"]) == (12.5, [])
    again = sampler.sample(paglet, include_gpu=False, patience=60.0)  # type: ignore[arg-type]
    assert (again["cpu_percent"], again["errors"]) == (12.5, [])
    late = sampler.sample(paglet, include_gpu=False, patience=0.0)  # type: ignore[arg-type]
    assert ("cpu_percent" in late, late["errors"]) == (False, ["load: busy"])


def test_a_container_counts_what_is_worse() -> None:
    def summary(limit: float | None) -> SummaryReply:
        return SummaryReply("a", "u", "p", "3", 0.0, 2, 2, 1, "x", limit, 64)

    assert load_per_cpu(3.0, 10.0, summary(None)) == 1.5
    assert load_per_cpu(32.0, 10.0, summary(1.5)) == 0.5  # of the machine, not 32 on two CPUs
    assert load_per_cpu(3.2, 100.0, summary(1.5)) == 1.0


# --- what is known ----------------------------------------------------------------------------------------------------


def decoded(wire: dict[str, Any]) -> MeshHostSnapshot:
    found: MeshHostSnapshot = from_wire(MeshHostSnapshot, wire)
    return found


class Station:
    """One host: its clock is off, and it knows what it was told."""

    def __init__(self, name: str, skew: float) -> None:
        self.name, self.skew, self.ages = name, skew, Ages()
        self.known = Landscape({}, self.ages, f"http://{name}", decoded)

    def look(self, now: float) -> MeshHostSnapshot:
        own = snapshot(self.name, now + self.skew)
        self.known.snapshots[own.host_url] = to_wire(own)
        return own


class Gossip(RuleBasedStateMachine):
    """Hosts with wrong clocks tell each other; what they hold to be the age of a snapshot is its true age."""

    @initialize(skews=st.lists(st.floats(-1e5, 1e5), min_size=2, max_size=4))
    def begin(self, skews: list[float]) -> None:
        self.now = 1e6
        self.taken: dict[tuple[str, float], float] = {}
        self.stations = [Station(f"h{number}", skew) for number, skew in enumerate(skews)]
        for station in self.stations:
            self.look(station)

    def look(self, station: Station) -> None:
        self.taken[station.name, station.look(self.now).observed_at] = self.now

    @rule(seconds=st.floats(0.5, 10.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(data=st.data())
    def look_again(self, data: st.DataObject) -> None:
        self.look(data.draw(st.sampled_from(self.stations)))

    @rule(data=st.data())
    def talk(self, data: st.DataObject) -> None:
        teller, hearer = (data.draw(st.sampled_from(self.stations)) for _ in range(2))
        there, here = self.now + teller.skew, self.now + hearer.skew
        told = teller.known.freshest(1e9, 64, now=there)
        ages = teller.known.ages_of(told, now=there)
        for each in news_of(told, {}):
            hearer.known.merge(each, age=ages[each.host_url], now=here)

    @invariant()
    def ages_are_true(self) -> None:
        for station in getattr(self, "stations", []):
            here = self.now + station.skew
            for each in station.known.known():
                true = self.now - self.taken[each.host_name, each.observed_at]
                assert abs(station.known.age(each, now=here) - true) < 0.1  # rounded a little at every hop


TestGossip = Gossip.TestCase
TestGossip.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


@given(st.floats(), st.floats(-1e9, 1e9), st.one_of(st.none(), st.floats()))
def test_no_stamp_makes_an_age_negative_or_no_number(stamp: float, now: float, age: float | None) -> None:
    ages = Ages()
    ages.note("u", stamp, now=now, age=age)
    if not math.isnan(stamp):  # the codec refuses it
        assert ages.age("u", stamp, now=now) >= 0.0


def test_what_is_outdated_is_forgotten_but_for_the_own_host() -> None:
    landscape = Landscape({}, Ages(), "http://own/", decoded)
    for name in ("old", "new"):
        assert landscape.merge(snapshot(name, {"old": 10.0, "new": 95.0}[name]), age=None, now=100.0)
    assert not landscape.merge(snapshot("own"), age=None, now=100.0)
    landscape.drop_outdated(60.0, now=100.0)
    assert [each.host_name for each in landscape.known()] == ["new"]
