"""Work spread over the hosts of a mesh: the books of the parent, the children, and events handed on piece by piece."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import HostError, InvalidAgentError, RemoteHostError
from paglets.patterns.coordination import CursorDrainMixin, MeshFanoutMixin, MeshFanoutState
from paglets.protocol.membership import HostRef
from paglets.remote.references import PagletProxyRef
from paglets.runtime.host import Host
from tests.agents.fanout import Fan, FanState
from tests.support import eventually, where

Pair = tuple[Host, Host]


def host_ref(name: str, *, online: bool = True) -> HostRef:
    return HostRef(name, f"http://{name}:8765", "v", online, 0.0, 0, 0)


class Child:
    """Stands for the proxy of a child."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.ended = False

    def dispose(self) -> None:
        if self.error is not None:
            raise self.error
        self.ended = True


@dataclass
class DrainState(MeshFanoutState):
    events: list[dict[str, Any]] = field(default_factory=list)
    next_cursor: int = 1


class Helper(MeshFanoutMixin, CursorDrainMixin):
    """Has what the mixins need, and nothing else."""

    def __init__(self) -> None:
        self.state = DrainState()
        self.children: dict[str, Child | None] = {}
        self.online = [host_ref("alpha"), host_ref("beta")]
        self.context = SimpleNamespace(  # type: ignore[assignment,misc]
            address="http://alpha:8765",
            agent_id="parent",
            available_hosts=lambda *, online_only, include_self: self.online[0 if include_self else 1 :],
            get_proxy=lambda agent_id, host_url=None: self.children[agent_id],
        )
        self.notified = 0
        self.waited: list[float | None] = []

    @contextmanager
    def locked_state(self) -> Iterator[DrainState]:
        yield self.state

    def notify_all_state_changed(self) -> None:
        self.notified += 1

    def wait_state(self, predicate: Callable[[Any], bool], timeout: float | None = None) -> bool:
        self.waited.append(timeout)
        return predicate(self.state)


def test_a_round_begins_with_empty_books() -> None:
    helper = Helper()
    helper.state.errors["old"] = "old"
    helper.state.role = "child"
    before = time.monotonic()
    helper.fanout_reset(timeout=10)
    assert before + 10 <= helper.state.deadline <= time.monotonic() + 10
    helper.state.deadline = 0.0
    assert helper.state == DrainState(parent_host_url="http://alpha:8765", parent_agent_id="parent")
    assert helper.notified == 1


def test_hosts_are_selected_by_name_or_url_each_once() -> None:
    helper = Helper()
    alpha, beta = helper.online
    assert helper.fanout_available_hosts() == helper.fanout_select_hosts([]) == [alpha, beta]
    assert helper.fanout_select_hosts((), include_self=False) == [beta]
    assert helper.fanout_select_hosts(["beta", "http://alpha:8765/", "beta:8765", "alpha"]) == [beta, alpha]
    for unknown in ("gamma", "http://gamma:8765", "", " "):
        with pytest.raises(HostError, match="target host is not online or not visible in the mesh"):
            helper.fanout_select_hosts(["alpha", unknown])
    with pytest.raises(HostError, match="alpha"):
        helper.fanout_select_hosts(["alpha"], include_self=False)


def test_a_clone_is_prepared_without_the_deadline_of_its_parent() -> None:
    helper = Helper()
    helper.fanout_reset(timeout=10)
    deadline = helper.state.deadline
    for _ in range(2):  # the second without a finish in between, as after a clone that failed
        helper.fanout_prepare_clone(host_ref("beta"))
        assert (helper.state.role, helper.state.deadline) == ("child", 0.0)
        assert (helper.state.target_host_name, helper.state.target_host_url) == ("beta", "http://beta:8765")
        assert helper.state.pending_hosts == ["beta"]
    helper.fanout_finish_clone_prepare()
    assert (helper.state.role, helper.state.deadline) == ("parent", deadline)
    assert (helper.state.target_host_name, helper.state.target_host_url) == ("", "")
    helper.fanout_finish_clone_prepare()
    assert helper.state.deadline == deadline


def test_the_books_say_who_has_answered() -> None:
    helper = Helper()
    helper.state.pending_hosts = ["a", "b", "c"]
    proxy: Any = PagletProxyRef("http://a", "child")
    helper.fanout_record_child_proxy("a", proxy)
    assert helper.state.child_proxies == {"a": {"host_url": "http://a", "agent_id": "child"}}
    assert helper.state.pending_hosts == ["a", "b", "c"]
    helper.fanout_record_error("b", "no")
    helper.fanout_record_done("a")
    helper.fanout_record_done("a")
    assert helper.notified == 4
    helper.fanout_record_done("")
    assert helper.notified == 4
    assert (helper.state.pending_hosts, helper.state.done_hosts, helper.state.errors) == (["c"], ["a"], {"b": "no"})


def test_hosts_that_are_pending_at_the_deadline_are_errors() -> None:
    helper = Helper()
    helper.state.pending_hosts = ["a", "b"]
    helper.state.deadline = time.monotonic() + 60
    helper.fanout_expire_pending("late")
    assert (helper.state.pending_hosts, helper.notified) == (["a", "b"], 0)
    helper.state.deadline = time.monotonic() - 1
    for _ in range(2):
        helper.fanout_expire_pending("late")
    assert (helper.state.pending_hosts, helper.state.errors) == ([], {"a": "late", "b": "late"})
    assert helper.notified == 1


def test_nobody_waits_beyond_the_deadline() -> None:
    helper = Helper()
    helper.fanout_reset(timeout=60)
    helper.fanout_wait_for(lambda state: not state.pending_hosts, wait_timeout=5)
    helper.fanout_wait_for(lambda state: False, wait_timeout=600)
    helper.state.deadline -= 100
    helper.fanout_wait_for(lambda state: False, wait_timeout=5)
    first, second, third = helper.waited
    assert (first, third) == (5, 0.0)
    assert second is not None
    assert 50 < second <= 60


def test_a_child_that_cannot_be_ended_is_an_error_and_the_others_end() -> None:
    helper = Helper()
    good, bad = Child(), Child(RemoteHostError("unreachable"))
    ended = Child(InvalidAgentError("no paglet ended on ended"))
    helper.children = {"good": good, "bad": bad, "gone": None, "ended": ended}
    helper.state.child_proxies = {
        name: {"host_url": f"http://{name}", "agent_id": name} for name in ("bad", "good", "gone", "ended")
    } | {"odd": {}}
    helper.fanout_cleanup_children()
    assert good.ended
    assert helper.state.cleanup_errors == {"bad": "unreachable", "odd": "'agent_id'"}
    assert list(helper.state.child_proxies) == ["bad", "odd"]
    assert helper.notified == 1


# --- cursors ----------------------------------------------------------------------------------------------------------


def test_events_get_cursors_and_are_handed_on_in_pieces() -> None:
    helper = Helper()
    assert helper.cursor_append_events([]) == 0
    assert helper.notified == 0
    assert helper.cursor_append_events([{"n": 1}, {"n": 2}, {"n": 3}]) == 3
    assert helper.cursor_append_events([]) == 3
    first = [{"n": 1, "cursor": 1}, {"n": 2, "cursor": 2}]
    assert helper.cursor_drain_events(after_cursor=0, limit=2) == (first, 2, True)
    assert helper.cursor_drain_events(after_cursor=2, limit=2) == ([{"n": 3, "cursor": 3}], 3, False)
    assert helper.cursor_drain_events(after_cursor=3, limit=2) == ([], 3, False)
    assert helper.cursor_drain_events(after_cursor=0, limit=0) == (first[:1], 1, True)


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(-1, 4))
def test_whoever_drains_gets_every_event_once_and_in_order(pieces: list[int], limit: int) -> None:
    helper = Helper()
    numbers = iter(range(100))
    for piece in pieces:
        helper.cursor_append_events([{"n": next(numbers)} for _ in range(piece)])
    got: list[int] = []
    cursor, more = 0, True
    while more:
        events, cursor, more = helper.cursor_drain_events(after_cursor=cursor, limit=limit)
        got += [event["n"] for event in events]
    assert got == list(range(sum(pieces)))


# --- clones with a state of their own ---------------------------------------------------------------------------------


def test_children_begin_with_their_own_state_and_the_parent_keeps_its_own(pair: Pair) -> None:
    alpha, beta = pair
    parent = alpha.create(Fan, FanState(note="of the parent"))
    before = parent.call(Fan.begin, 60.0)
    parent.call(Fan.spread, ["beta"])
    state = alpha.get_state(parent.agent_id, FanState)
    assert (state.role, state.deadline, state.note) == ("parent", before, "of the parent")
    # What the hooks write is kept, also where they replace the value of a field.
    assert (state.hooks, state.hook_count) == (["cloning", "cloned"], 2)
    assert (state.target_host_name, state.pending_hosts) == ("", ["beta"])
    child = beta.get_proxy(state.child_proxies["beta"]["agent_id"])
    assert child is not None
    young = beta.get_state(child.agent_id, FanState)
    assert (young.role, young.deadline, young.note) == ("child", 0.0, "of the child")
    assert (young.target_host_name, young.target_host_url) == ("beta", beta.address)
    assert (young.parent_host_url, young.parent_agent_id) == (alpha.address, parent.agent_id)
    assert (young.pending_hosts, young.child_proxies) == ([], {})
    child.call(Fan.answer)
    eventually(lambda: alpha.get_state(parent.agent_id, FanState).done_hosts == ["beta"], "the answer of the child")
    parent.call(Fan.clean_up)
    assert where(child, alpha, beta) == []
    assert alpha.get_state(parent.agent_id, FanState).child_proxies == {}


def test_a_child_that_has_ended_by_itself_elsewhere_is_no_error(pair: Pair) -> None:
    alpha, beta = pair
    parent = alpha.create(Fan)
    parent.call(Fan.begin, 60.0)
    parent.call(Fan.spread, ["beta"])
    beta.dispose(alpha.get_state(parent.agent_id, FanState).child_proxies["beta"]["agent_id"])
    parent.call(Fan.clean_up)
    state = alpha.get_state(parent.agent_id, FanState)
    assert (state.cleanup_errors, state.child_proxies) == ({}, {})


def test_a_child_that_cannot_be_made_is_an_error_of_its_host(pair: Pair) -> None:
    alpha, _ = pair
    parent = alpha.create(Fan, FanState(note="of the parent"))
    parent.call(Fan.begin, 60.0)
    lost = HostRef("lost", "http://127.0.0.1:1", "v", True, 0.0, 0, 0)
    assert "could not move" in parent.call(Fan.spread_to, lost.to_wire(), {})
    state = alpha.get_state(parent.agent_id, FanState)
    assert (state.role, state.note, state.pending_hosts) == ("parent", "of the parent", [])
    assert "could not move" in state.errors["lost"]
    assert "unknown" in parent.call(Fan.spread_to, lost.to_wire(), {"unknown": 1})


def test_a_plain_clone_may_differ_in_some_fields(pair: Pair) -> None:
    alpha, beta = pair
    parent = alpha.create(Fan, FanState(note="of the parent"))
    copy_id = parent.call(Fan.copy, beta.address, {"note": "of the copy"})
    assert beta.get_state(copy_id, FanState).note == "of the copy"
    assert beta.get_state(copy_id, FanState).role == "parent"
    assert alpha.get_state(parent.agent_id, FanState).note == "of the parent"
