"""The search paglet on two hosts."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from paglets.core.agent import ACTIVE, INACTIVE, PagletContext
from paglets.core.errors import ConflictError, InvalidAgentError, PagletCrashedError, PagletError
from paglets.examples import search
from paglets.examples.search.agent import (
    CANCELLED,
    NO_HOSTS,
    SEARCH_CHILD_DONE,
    SEARCH_CHILD_EVENTS,
    SEARCH_CLEANUP,
    SEARCH_DRAIN,
    SEARCH_START,
    SEARCH_SUMMARY,
    TIMED_OUT,
    MeshSearchAgent,
    SearchChildDoneRequest,
    SearchChildEventsRequest,
    SearchDrainReply,
    SearchDrainRequest,
    SearchStartReply,
    SearchStartRequest,
    SearchSummaryReply,
)
from paglets.examples.search.gathering import MAX_WAITING_EVENTS
from paglets.examples.search.models import (
    DEFAULT_BATCH_SIZE,
    DEFAULT_DRAIN_WAIT_SECONDS,
    DEFAULT_SEARCH_TIMEOUT_SECONDS,
    HostSearchSummary,
    SearchEvent,
    SearchRequest,
)
from paglets.patterns import CursorDrainMixin, MeshFanoutMixin, OperationClient, OperationPaglet
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from paglets.serialization.codec import dataclass_from_wire, dataclass_to_wire
from tests.agents.searching import ImpatientSearch, PatientSearch
from tests.cli.processes import Program
from tests.examples.search.local import plant
from tests.support import HostFactory, eventually

MANY = MAX_WAITING_EVENTS + 1000


@dataclass
class Mesh:
    """Two hosts, and a tree that both search."""

    alpha: Host
    beta: Host
    tree: Path
    parents: list[PagletProxy] = field(default_factory=list)

    def create(self, agent_class: type[MeshSearchAgent] = MeshSearchAgent) -> OperationClient:
        self.parents.append(self.alpha.create(agent_class))
        return OperationClient(self.parents[-1])

    def begin(self, operations: OperationClient, pattern: str = "needle", **fields: Any) -> SearchStartReply:
        terms = {name: fields.pop(name) for name in ("timeout", "targets") if name in fields}
        request = SearchRequest(pattern=pattern, **{"paths": [str(self.tree)], **fields})
        return operations.call(SEARCH_START, SearchStartRequest(dataclass_to_wire(request), **terms))

    def counts(self) -> list[int]:
        return [len(host.get_proxies(ACTIVE | INACTIVE)) for host in (self.alpha, self.beta)]


@pytest.fixture
def mesh(standing: tuple[Host, Host], tmp_path: Path) -> Iterator[Mesh]:
    made = Mesh(*standing, plant(tmp_path / "tree", ["a.txt", "sub/b.txt", ".hidden", "c.log"]))
    yield made
    for proxy in made.parents:
        with suppress(InvalidAgentError):  # it may have ended by itself
            proxy.dispose()
    eventually(lambda: made.counts() == [0, 0], "no paglet of the test to be left")


def drained(operations: OperationClient, cursor: int = 0) -> tuple[list[dict[str, Any]], SearchSummaryReply]:
    """Take everything that comes, and return it with the summary at the end."""
    events: list[dict[str, Any]] = []
    while True:
        reply = operations.call(SEARCH_DRAIN, SearchDrainRequest(cursor, 5.0, 1000), timeout=30.0)
        events += reply.events
        cursor = reply.cursor
        if reply.done:
            return events, dataclass_from_wire(SearchSummaryReply, reply.summary)


# --- names and values -------------------------------------------------------------------------------------------------


def test_names_and_defaults() -> None:
    assert (DEFAULT_SEARCH_TIMEOUT_SECONDS, DEFAULT_DRAIN_WAIT_SECONDS, DEFAULT_BATCH_SIZE) == (60.0, 0.5, 20)
    assert issubclass(MeshSearchAgent, CursorDrainMixin)
    assert issubclass(MeshSearchAgent, MeshFanoutMixin)
    assert issubclass(MeshSearchAgent, OperationPaglet)
    operations = (SEARCH_START, SEARCH_DRAIN, SEARCH_CHILD_EVENTS, SEARCH_CHILD_DONE, SEARCH_SUMMARY, SEARCH_CLEANUP)
    assert [each.name for each in operations] == ["start", "drain", "child_events", "child_done", "summary", "cleanup"]
    assert search.MeshSearchState().request == {}
    assert SearchDrainRequest() == SearchDrainRequest(0, 0.5, 200)


@pytest.mark.parametrize(
    "value",
    [
        SearchRequest(pattern="x", globs=["*.py"], max_depth=3, extensions=["md"], kind="dir"),
        SearchEvent("match", "alpha", "http://alpha", "a", 3, 4, "text", "te", 0, 2, cursor=5, sequence=6),
        HostSearchSummary("alpha", "http://alpha", 1, 2, 3, 4, 5, ["e"], True, 0.5),
        SearchStartRequest({"pattern": "x"}, 5.0, ["beta"]),
        SearchDrainReply([{"event": "file"}], 4, True, {"errors": {}}),
    ],
)
def test_values_travel(value: Any) -> None:
    assert dataclass_from_wire(type(value), dataclass_to_wire(value)) == value


# --- a search ---------------------------------------------------------------------------------------------------------


def test_both_hosts_are_searched(mesh: Mesh) -> None:
    operations = mesh.create()
    started = mesh.begin(operations)
    assert [target["name"] for target in started.targets] == ["alpha", "beta"]
    events, summary = drained(operations)
    assert [event["cursor"] for event in events] == list(range(1, 7))
    for host in (mesh.alpha, mesh.beta):
        own = [event for event in events if event["host_name"] == host.name]
        assert [Path(event["path"]).name for event in own] == ["a.txt", "c.log", "b.txt"]
        assert [event["sequence"] for event in own] == [1, 2, 3]
        assert {event["host_url"] for event in own} == {host.address}
        result = dataclass_from_wire(HostSearchSummary, summary.results[host.name])
        assert (result.matches, result.files_seen, result.errors) == (3, 3, [])
    assert (summary.errors, summary.pending_hosts, sorted(summary.done_hosts)) == ({}, [], ["alpha", "beta"])
    assert summary.event_count == 6
    eventually(lambda: mesh.counts() == [1, 0], "the clones to end by themselves")


def test_names_are_found(mesh: Mesh) -> None:
    operations = mesh.create()
    mesh.begin(operations, "", mode="find", extensions=["txt"], kind="file", targets=["beta"])
    events, summary = drained(operations)
    assert [(event["host_name"], Path(event["path"]).name) for event in events] == [
        ("beta", "a.txt"),
        ("beta", "b.txt"),
    ]
    assert summary.results["beta"]["paths_matched"] == 2


def test_results_come_before_the_end_and_wait_for_whoever_takes_them(mesh: Mesh) -> None:
    plant(mesh.tree, {"many": "needle\n" * MANY})
    operations = mesh.create()
    mesh.begin(operations)
    reply = operations.call(SEARCH_DRAIN, SearchDrainRequest(0, 5.0, 10))
    assert 0 < len(reply.events) <= 10
    assert not reply.done
    # Nobody takes more than this, so that both wait; then the rest is taken, and nothing is missing.
    waiting = eventually(lambda: _waiting(operations), "events to wait")
    assert waiting.pending_hosts == ["alpha", "beta"]
    assert waiting.event_count < 2 * MAX_WAITING_EVENTS
    events, summary = drained(operations, reply.cursor)
    assert len(reply.events) + len(events) == 2 * (MANY + 3) == summary.event_count
    assert [event["cursor"] for event in events] == list(range(reply.cursor + 1, summary.event_count + 1))


def _waiting(operations: OperationClient) -> SearchSummaryReply | None:
    summary = operations.call(SEARCH_SUMMARY)
    return summary if summary.event_count >= MAX_WAITING_EVENTS else None


def test_events_are_given_again_until_they_are_acknowledged(mesh: Mesh) -> None:
    operations = mesh.create()
    mesh.begin(operations, targets=["alpha"])
    events, _ = drained(operations)
    last = events[-1]["cursor"]
    again = operations.call(SEARCH_DRAIN, SearchDrainRequest(last - 1, 0.0, 1))
    assert (again.events, again.cursor, again.done) == ([events[-1]], last, True)
    assert operations.call(SEARCH_DRAIN, SearchDrainRequest(last)).events == []
    assert operations.call(SEARCH_DRAIN, SearchDrainRequest(0)).events == []


def test_a_paglet_searches_again(mesh: Mesh) -> None:
    operations = mesh.create()
    mesh.begin(operations)
    first, _ = drained(operations)
    mesh.begin(operations, "in a", targets=[mesh.beta.address])
    second, summary = drained(operations, first[-1]["cursor"])
    assert [(event["host_name"], event["match_text"]) for event in second] == [("beta", "in a")]
    assert set(summary.results) == {"beta"}
    assert summary.event_count == len(second) == 1


def test_a_hostile_pattern_is_stopped_and_the_rest_is_searched(mesh: Mesh) -> None:
    plant(mesh.tree, {"b.log": "a" * 60 + "!\n", "z": "aa\n"})
    operations = mesh.create()
    mesh.begin(operations, "^(a+)+$", targets=["alpha"])
    events, summary = drained(operations)
    assert [(event["event"], Path(event["path"]).name) for event in events] == [("error", "b.log"), ("match", "z")]
    assert "takes longer" in summary.results["alpha"]["errors"][0]


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_host_that_is_not_there_is_an_error_of_its_own(mesh: Mesh) -> None:
    operations = mesh.create()
    mesh.begin(operations, targets=["zeta", "beta", mesh.beta.address])
    events, summary = drained(operations)
    assert {event["host_name"] for event in events} == {"beta"}
    assert list(summary.errors) == ["zeta"]
    assert "not online or not visible in the mesh" in summary.errors["zeta"]


def test_no_host_at_all(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MeshSearchAgent, "fanout_available_hosts", lambda *_, **__: [])
    agent = MeshSearchAgent()  # in this process, where that holds
    agent._attach(PagletContext(mesh.alpha, agent.agent_id))
    reply = agent.start(SearchStartRequest(dataclass_to_wire(SearchRequest(pattern="x"))))
    assert reply.targets == []
    assert reply.summary["errors"] == {"mesh": NO_HOSTS}
    assert agent.drain(SearchDrainRequest(0, 5.0)).done


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mode": "guess"}, "mode must be"),
        ({"timeout": 0.0}, "timeout must be"),
        ({"timeout": 1e9}, "timeout must be"),
    ],
)
def test_a_search_that_makes_no_sense_does_not_begin(mesh: Mesh, fields: dict[str, Any], words: str) -> None:
    operations = mesh.create()
    with pytest.raises((PagletError, ValueError), match=words):
        mesh.begin(operations, **fields)
    assert mesh.counts() == [1, 0]


def test_one_search_at_a_time(mesh: Mesh) -> None:
    plant(mesh.tree, {"many": "needle\n" * MANY})
    operations = mesh.create()
    mesh.begin(operations)
    with pytest.raises(ConflictError, match="is searching"):
        mesh.begin(operations)


def test_cleaning_up_ends_the_search_everywhere(mesh: Mesh) -> None:
    plant(mesh.tree, {"many": "needle\n" * MANY})
    operations = mesh.create()
    mesh.begin(operations)
    assert operations.call(SEARCH_DRAIN, SearchDrainRequest(0, 5.0, 1)).events
    summary = operations.call(SEARCH_CLEANUP, timeout=20.0)
    assert mesh.counts() == [1, 0]
    assert (summary.errors, summary.pending_hosts) == ({"alpha": CANCELLED, "beta": CANCELLED}, [])
    assert summary.cleanup_errors == {}


def test_ending_the_paglet_ends_the_search_everywhere(mesh: Mesh) -> None:
    plant(mesh.tree, {"many": "needle\n" * MANY})
    operations = mesh.create()
    mesh.begin(operations)
    operations.proxy.dispose()
    assert mesh.counts() == [0, 0]


def test_the_time_of_a_search_ends_it(mesh: Mesh) -> None:
    plant(mesh.tree, {"many": "needle\n" * MANY})
    operations = mesh.create()
    mesh.begin(operations, timeout=0.5)
    eventually(lambda: not operations.call(SEARCH_SUMMARY).pending_hosts, "the time to be over")
    _, summary = drained(operations)
    assert summary.errors == {"alpha": TIMED_OUT, "beta": TIMED_OUT}
    eventually(lambda: mesh.counts() == [1, 0], "the clones to end")


def test_a_clone_that_dies_is_told_and_the_rest_goes_on(mesh: Mesh) -> None:
    plant(mesh.tree, {"many": "needle\n" * MANY})
    operations = mesh.create()
    mesh.begin(operations)
    eventually(lambda: _waiting(operations), "the search to wait")
    (clone,) = mesh.beta.list_agents()
    os.kill(int(clone["pid"]), signal.SIGKILL)
    events, summary = drained(operations)
    assert len([event for event in events if event["host_name"] == "alpha"]) == MANY + 3
    assert (list(summary.errors), summary.done_hosts) == (["beta"], ["alpha"])


def test_who_is_forgotten_ends(mesh: Mesh) -> None:
    plant(mesh.tree, {"many": "needle\n" * MANY})
    mesh.begin(mesh.create(ImpatientSearch), timeout=1.5)
    eventually(lambda: mesh.counts() == [0, 0], "everything to end by itself", 30)


def test_clones_that_have_to_wait_are_not_forgotten(mesh: Mesh) -> None:
    plant(mesh.tree, {"many": "needle\n" * MANY})
    operations = mesh.create(PatientSearch)
    mesh.begin(operations)
    eventually(lambda: _waiting(operations), "the search to wait")
    long_enough = time.monotonic() + 1.5 * PatientSearch.child_lingers_seconds
    eventually(lambda: time.monotonic() > long_enough, "some time to pass")
    events, summary = drained(operations)
    assert (len(events), summary.errors) == (2 * (MANY + 3), {})


def test_clones_whose_parent_died_end(mesh: Mesh) -> None:
    plant(mesh.tree, {"many": "needle\n" * MANY})
    operations = mesh.create(ImpatientSearch)
    mesh.begin(operations)
    pid = next(each["pid"] for each in mesh.alpha.list_agents() if each["agent_id"] == operations.proxy.agent_id)
    os.kill(pid, signal.SIGKILL)
    # A paglet that has crashed is neither active nor asleep.
    eventually(lambda: mesh.counts() == [0, 0], "the clones to end by themselves")
    with pytest.raises(PagletCrashedError):
        operations.call(SEARCH_SUMMARY)


def test_a_host_that_dies_is_told_and_the_rest_goes_on(hosts: HostFactory, tmp_path: Path) -> None:
    near = hosts("near", mesh=True)
    options = ["--name", "far", "--port", "0", "--persistence-dir", str(tmp_path / "far"), "--peer", near.address]
    options += ["--launch-config", str(tmp_path / "launch.toml"), "--no-sync-launch-config", "--json"]
    far = Program("host", *options, "--mesh-version", "test-version", "--log-level", "error")
    try:
        far.json_line()
        near.mesh.wait_for_host("far")
        mesh = Mesh(near, near, plant(tmp_path / "tree", {"many": "needle\n" * MANY}))
        operations = OperationClient(near.create(MeshSearchAgent))
        mesh.begin(operations)
        eventually(lambda: _waiting(operations), "the search to wait")
        far.process.kill()
        events, summary = drained(operations)
        assert len([event for event in events if event["host_name"] == "near"]) == MANY
        assert (list(summary.errors), summary.done_hosts) == (["far"], ["near"])
        operations.proxy.dispose()
    finally:
        far.close()


# --- without a host ---------------------------------------------------------------------------------------------------


def test_what_children_tell_is_taken() -> None:
    agent = MeshSearchAgent()
    agent.state.pending_hosts = ["alpha", "beta"]
    reply = agent.record_child_events(SearchChildEventsRequest("alpha", "u", [{"event": "file"}, {"event": "file"}]))
    assert (reply.ok, reply.cursor) == (True, 2)
    agent.record_child_done(SearchChildDoneRequest("alpha", "u", {"matches": 2}))
    agent.record_child_done(SearchChildDoneRequest("beta", "u", error="gone"))
    summary = agent.summary()
    assert summary == replace(
        SearchSummaryReply(),
        results={"alpha": {"matches": 2}},
        errors={"beta": "gone"},
        done_hosts=["alpha"],
        event_count=2,
    )
