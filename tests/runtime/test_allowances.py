"""What paglets may use up on running hosts: accounted for with every transfer, and enforced."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from paglets.core.allowance import Allowance, AllowanceBalance, AllowanceGrant, AllowanceKind
from paglets.core.errors import (
    AllowanceExceededError,
    ConflictError,
    InsufficientStorageError,
    InvalidAgentError,
    PagletError,
    TransferError,
)
from paglets.core.messages import Message
from paglets.core.policies import DeactivationPolicy, DeactivationRequest
from paglets.runtime import allowances
from paglets.runtime.host import Host
from paglets.security.policy import Policy
from tests.agents.spender import CarefulSpender, CarelessSpender, FrugalSpender, Spender, SpenderState, add
from tests.support import Gate, HostFactory, await_event, events_of, eventually, where

EVENT = "paglet-allowance-exceeded"
KB = 1024


@dataclass
class Pair:
    """Two hosts for all tests of this module."""

    alpha: Host
    beta: Host

    def holder(self, agent_id: str) -> Host:
        """Return the host that has a paglet."""
        (found,) = [h for h in (self.alpha, self.beta) if h.get_proxy(agent_id, include_inactive=True) is not None]
        return found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    factory = HostFactory(tmp_path_factory.mktemp("allowances"))
    try:
        yield Pair(factory("alpha"), factory("beta"))
    finally:
        factory.close()


def asleep(host: Host, agent_id: str) -> bool:
    summaries = {each["agent_id"]: each for each in host.list_agents(active=True, inactive=True)}
    return agent_id in summaries and not summaries[agent_id]["active"] and "pid" not in summaries[agent_id]


def await_sleep(host: Host, agent_id: str) -> None:
    eventually(lambda: asleep(host, agent_id), f"{agent_id} to sleep on {host.name}")


def exceeded(host: Host, agent_id: str) -> dict[str, Any]:
    """Wait for the event, and return its data."""
    data: dict[str, Any] = await_event(host, EVENT, agent_id=agent_id).data
    return data


# --- hops -------------------------------------------------------------------------------------------------------------


def test_hops_are_used_up_by_moves_between_hosts_alone(pair: Pair) -> None:
    proxy = pair.alpha.create(Spender, allowance=Allowance(max_hops=2))
    assert proxy.send(Message("left"))["hops_left"] == 2
    proxy = proxy.dispatch(pair.alpha.address)
    proxy = proxy.dispatch(pair.beta.address)
    assert pair.beta.allowance(proxy.agent_id) == AllowanceBalance(hops_used=1, hops_left=1)
    proxy = proxy.dispatch(pair.alpha.address)
    assert proxy.send(Message("left"))["hops_left"] == 0
    assert proxy.info()["allowance"]["hops_used"] == 2
    seen = [(each["hook"], each["hops_left"]) for each in pair.alpha.get_state(proxy.agent_id, SpenderState).seen]
    assert seen == [("creation", 2), ("arrival", 2), ("arrival", 1), ("arrival", 0)]

    with pytest.raises(AllowanceExceededError, match="has moved 2 times, as often as it may"):
        proxy.dispatch(pair.beta.address)
    assert exceeded(pair.alpha, proxy.agent_id) == {"which": "hops", "limit": 2, "used": 2}
    await_sleep(pair.alpha, proxy.agent_id)
    assert where(proxy, pair.alpha, pair.beta) == ["alpha"]


def test_who_is_held_sleeps_until_an_operator_grants_more(pair: Pair) -> None:
    proxy = pair.alpha.create(Spender, allowance=Allowance(max_hops=0))
    proxy.send(add(3))
    with pytest.raises(AllowanceExceededError):
        proxy.send(Message("move", {"url": pair.beta.address}))
    await_sleep(pair.alpha, proxy.agent_id)
    with pytest.raises(AllowanceExceededError, match="paglets allowance grant"):
        proxy.send(add())
    with pytest.raises(AllowanceExceededError):
        proxy.activate()
    proxy.send_oneway(add(10))
    assert asleep(pair.alpha, proxy.agent_id)
    # More of something else does not help.
    assert pair.alpha.grant_allowance(proxy.agent_id, AllowanceGrant(clones=5)).exceeded is AllowanceKind.HOPS
    with pytest.raises(AllowanceExceededError):
        proxy.activate()
    assert pair.alpha.grant_allowance(proxy.agent_id, AllowanceGrant(hops="+1")).hops_left == 1
    # What waited for it wakes it.
    eventually(lambda: pair.alpha.get_proxy(proxy.agent_id), "the paglet to wake")
    assert proxy.send(add(0)) == 13
    proxy = proxy.dispatch(pair.beta.address)
    assert proxy.send(add(0)) == 13
    granted = await_event(pair.alpha, "paglet-allowance-granted", agent_id=proxy.agent_id)
    assert (granted.data["before"]["clones_left"], granted.data["now"]["clones_left"]) == (None, 5)


def test_one_that_tries_again_and_again_is_told_once(pair: Pair) -> None:
    proxy = pair.alpha.create(CarefulSpender, allowance=Allowance(max_hops=0))
    errors = proxy.send(Message("persist", {"url": pair.beta.address, "times": 5}))
    assert errors == ["AllowanceExceededError"] * 5
    await_sleep(pair.alpha, proxy.agent_id)
    assert len(events_of(pair.alpha, EVENT, agent_id=proxy.agent_id)) == 1


def test_a_move_that_fails_costs_nothing(pair: Pair) -> None:
    proxy = pair.alpha.create(Spender, SpenderState(grow_on="arrival", grow_by=9 * KB), allowance=Allowance(1, 1))
    with pytest.raises(TransferError):
        proxy.dispatch("http://127.0.0.1:9")
    with pytest.raises(TransferError):
        proxy.clone("http://127.0.0.1:9")
    assert pair.alpha.allowance(proxy.agent_id) == AllowanceBalance(hops_left=1, clones_left=1)


# --- clones -----------------------------------------------------------------------------------------------------------


def test_clones_divide_what_is_left(pair: Pair) -> None:
    proxy = pair.alpha.create(FrugalSpender)
    clone = proxy.clone()
    far = proxy.clone(pair.beta.address)
    assert pair.alpha.allowance(clone.agent_id) == AllowanceBalance(hops_left=2, clones_left=1)
    assert pair.beta.allowance(far.agent_id) == AllowanceBalance(hops_used=1, hops_left=1, clones_left=0)
    assert pair.alpha.allowance(proxy.agent_id) == AllowanceBalance(hops_left=2, clones_used=2, clones_left=0)
    clone.clone()
    for each, host in ((proxy, pair.alpha), (far, pair.beta), (clone, pair.alpha)):
        with pytest.raises(AllowanceExceededError, match="no clones left"):
            each.send(Message("copy"))
        assert exceeded(host, each.agent_id)["which"] == "clones"
        await_sleep(host, each.agent_id)


def test_what_a_paglet_creates_has_no_more_than_it_has_itself(pair: Pair) -> None:
    proxy = pair.alpha.create(Spender, allowance=Allowance(max_hops=4, max_clones=5, lifetime=900, max_state_bytes=KB))
    child = proxy.send(Message("spawn", {"max_clones": 100}))
    far = proxy.send(Message("spawn", {"url": pair.beta.address}))
    mine, near = pair.alpha.allowance(proxy.agent_id), pair.alpha.allowance(child)
    assert (mine.clones_used, mine.clones_left, near.hops_left, near.clones_left) == (2, 1, 4, 2)
    assert (pair.beta.allowance(far).hops_left, pair.beta.allowance(far).clones_left) == (3, 0)
    assert near.max_state_bytes == KB
    assert near.expires_at is not None and mine.expires_at is not None
    assert near.expires_at <= mine.expires_at + 1
    with pytest.raises(PagletError):
        proxy.send(Message("spawn", {"url": "http://127.0.0.1:9"}))
    assert pair.alpha.allowance(proxy.agent_id).clones_left == 1


def test_what_is_left_of_clones_is_not_spent_twice_at_once(pair: Pair) -> None:
    """A clone that is being made has a plan of what is left; a creation beside it would not be in it."""
    bound = pair.alpha.create(Spender, SpenderState(spawn_on_cloning=True), allowance=Allowance(max_clones=8))
    with pytest.raises(ConflictError, match="its clones are limited"):
        bound.clone()
    assert pair.alpha.allowance(bound.agent_id).clones_left == 8
    bound.send(Message("spawn"))
    assert pair.alpha.allowance(bound.agent_id).clones_left == 4
    free = pair.alpha.create(Spender, SpenderState(spawn_on_cloning=True), allowance=Allowance(max_hops=3))
    assert pair.alpha.allowance(free.clone().agent_id).hops_left == 3


def test_a_paglet_cannot_grant_itself_more(pair: Pair) -> None:
    proxy = pair.alpha.create(Spender, allowance=Allowance(max_hops=1))
    for url in (pair.alpha.address, f"{pair.alpha.address}/", f"{pair.alpha.address}/relay/hosts/alpha"):
        assert proxy.send(Message("help_yourself", {"url": url})) == "ForbiddenError"
    assert pair.alpha.allowance(proxy.agent_id).hops_left == 1


# --- time -------------------------------------------------------------------------------------------------------------


def test_time_that_is_over_ends_in_sleep_awake_or_asleep(pair: Pair) -> None:
    awake = pair.alpha.create(Spender, allowance=Allowance(lifetime=0.4))
    sleeper = pair.alpha.create(Spender, allowance=Allowance(lifetime=1.5))  # asleep before that
    sleeper.deactivate()
    for proxy in (awake, sleeper):
        data = exceeded(pair.alpha, proxy.agent_id)
        assert data["which"] == "lifetime" and data["used"] >= data["limit"]
        await_sleep(pair.alpha, proxy.agent_id)
        with pytest.raises(AllowanceExceededError, match="has lived for as long as it may"):
            proxy.send(add())
        pair.alpha.grant_allowance(proxy.agent_id, AllowanceGrant(lifetime="+600"))
        assert proxy.send(add()) == 1
    assert len(events_of(pair.alpha, EVENT, agent_id=sleeper.agent_id)) == 1


def test_a_handler_that_runs_may_end_when_the_time_is_over(pair: Pair, gate: Gate) -> None:
    proxy = pair.alpha.create(CarefulSpender, allowance=Allowance(lifetime=0.3))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(proxy.send, Message("gate", {"path": str(gate)}))
        gate.await_entered()
        exceeded(pair.alpha, proxy.agent_id)
        gate.open()
        assert running.result(20) == "through"
    await_sleep(pair.alpha, proxy.agent_id)


# --- the size of the state --------------------------------------------------------------------------------------------


def test_a_message_that_makes_the_state_too_large_has_no_effect(pair: Pair) -> None:
    proxy = pair.alpha.create(CarefulSpender, allowance=Allowance(max_state_bytes=16 * KB))
    assert proxy.send(add(5)) == 5
    with pytest.raises(AllowanceExceededError, match="a state of 16384 bytes"):
        proxy.send(Message("grow", {"nbytes": 20 * KB}))
    data = exceeded(pair.alpha, proxy.agent_id)
    assert (data["which"], data["limit"]) == ("state", 16 * KB) and data["used"] > 20 * KB
    await_sleep(pair.alpha, proxy.agent_id)
    pair.alpha.grant_allowance(proxy.agent_id, AllowanceGrant(state=64 * KB))
    assert proxy.send(add(0)) == 5
    assert proxy.send(Message("grow", {"nbytes": 20 * KB})) == 20 * KB


def test_nothing_leaves_a_handler_whose_message_had_no_effect(pair: Pair) -> None:
    other = pair.alpha.create(Spender)
    proxy = pair.alpha.create(CarefulSpender, allowance=Allowance(max_state_bytes=16 * KB))
    message = Message("tell_and_grow", {"other": other.agent_id, "nbytes": 20 * KB})
    with pytest.raises(AllowanceExceededError):
        proxy.send(message)
    await_sleep(pair.alpha, proxy.agent_id)
    assert other.send(add(0)) == 0
    pair.alpha.grant_allowance(proxy.agent_id, AllowanceGrant(state="unlimited"))
    proxy.send(message)  # the same id: it was never handled
    eventually(lambda: other.send(add(0)) == 1, "the message to be sent once")


def test_a_process_that_dies_for_good_does_not_come_back_when_its_time_is_over(pair: Pair) -> None:
    proxy = pair.alpha.create(Spender, allowance=Allowance(lifetime=0.5))
    os.kill(proxy.info()["pid"], signal.SIGKILL)
    await_event(pair.alpha, "paglet-crashed", agent_id=proxy.agent_id)
    expires_at = pair.alpha.allowance(proxy.agent_id).expires_at or 0.0
    eventually(lambda: time.time() > expires_at, "its time to be over")
    with pytest.raises(AllowanceExceededError):
        proxy.activate()
    pair.alpha.grant_allowance(proxy.agent_id, AllowanceGrant(lifetime=60))
    proxy.activate()
    assert proxy.send(add()) == 1


def test_who_cannot_be_put_to_sleep_goes_on_and_is_tried_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = pair.alpha.create(Spender, allowance=Allowance(lifetime=0.3))
    kernel = pair.alpha._running().kernel

    async def full(*_: object, **__: object) -> None:
        raise InsufficientStorageError("no room")

    monkeypatch.setattr(allowances, "AGAIN_SECONDS", 0.1)
    with monkeypatch.context() as patched:
        patched.setattr(kernel.vault, "slept", full)
        patched.setattr(kernel.vault, "slept_at_checkpoint", full)
        await_event(pair.alpha, "allowance-sleep-failed", agent_id=proxy.agent_id)
        assert proxy.send(add()) == 1
    await_sleep(pair.alpha, proxy.agent_id)
    pair.alpha.grant_allowance(proxy.agent_id, AllowanceGrant(lifetime="unlimited"))
    assert proxy.send(add()) == 2


def test_an_accepted_message_that_is_too_large_waits_for_more(pair: Pair) -> None:
    proxy = pair.alpha.create(CarefulSpender, allowance=Allowance(max_state_bytes=16 * KB))
    proxy.send_oneway(Message("grow", {"nbytes": 20 * KB}))
    proxy.send_oneway(add(10))
    await_sleep(pair.alpha, proxy.agent_id)
    # Not enough: it is tried again, and holds again.
    pair.alpha.grant_allowance(proxy.agent_id, AllowanceGrant(state=17 * KB))
    eventually(lambda: len(events_of(pair.alpha, EVENT, agent_id=proxy.agent_id)) == 2, "the second try")
    await_sleep(pair.alpha, proxy.agent_id)
    pair.alpha.grant_allowance(proxy.agent_id, AllowanceGrant(state=64 * KB))
    eventually(lambda: pair.alpha.get_proxy(proxy.agent_id), "the paglet to wake")
    assert proxy.send(add(0)) == 11


@pytest.mark.parametrize("step", ["save", "move", "clone", "deactivate"])
def test_a_state_that_is_too_large_is_never_stored_or_sent(pair: Pair, step: str) -> None:
    proxy = pair.alpha.create(Spender, allowance=Allowance(max_state_bytes=16 * KB))
    proxy.send(add(5))
    proxy.send(Message("save"))
    proxy.send(Message("grow", {"nbytes": 20 * KB}))
    with pytest.raises(AllowanceExceededError):
        match step:
            case "save":
                proxy.send(Message("save"))
            case "move":
                proxy.dispatch(pair.beta.address)
            case "clone":
                proxy.clone()
            case _:
                proxy.deactivate()
    await_sleep(pair.alpha, proxy.agent_id)
    assert where(proxy, pair.alpha, pair.beta) == ["alpha"]
    pair.alpha.grant_allowance(proxy.agent_id, AllowanceGrant(state="unlimited"))
    assert proxy.send(add(0)) == 5


def test_a_checkpoint_in_the_background_finds_it_as_well(pair: Pair) -> None:
    proxy = pair.alpha.create(Spender, allowance=Allowance(max_state_bytes=16 * KB))
    proxy.send(Message("grow", {"nbytes": 20 * KB}))
    assert exceeded(pair.alpha, proxy.agent_id)["which"] == "state"
    await_sleep(pair.alpha, proxy.agent_id)


def test_what_keeps_nothing_is_measured_when_it_moves(pair: Pair) -> None:
    proxy = pair.alpha.create(CarelessSpender, allowance=Allowance(max_state_bytes=16 * KB))
    proxy.send(Message("grow", {"nbytes": 20 * KB}))
    with pytest.raises(AllowanceExceededError):
        proxy.dispatch(pair.beta.address)
    await_sleep(pair.alpha, proxy.agent_id)
    pair.alpha.grant_allowance(proxy.agent_id, AllowanceGrant(state="unlimited"))
    assert proxy.send(add(0)) == 0


@pytest.mark.parametrize("hook", ["creation", "clone", "arrival", "activation"])
def test_a_hook_that_makes_the_state_too_large_fails(pair: Pair, hook: str) -> None:
    state = SpenderState(grow_on=hook, grow_by=20 * KB)
    if hook == "creation":
        with pytest.raises(AllowanceExceededError):
            pair.alpha.create(Spender, state, agent_id="fat", allowance=Allowance(max_state_bytes=16 * KB))
        assert pair.alpha.get_proxy("fat", include_inactive=True) is None
        return
    proxy = pair.alpha.create(Spender, state, allowance=Allowance(max_state_bytes=16 * KB))
    match hook:
        case "clone":
            with pytest.raises(TransferError, match="a state of 16384 bytes"):
                proxy.clone()
        case "arrival":
            with pytest.raises(TransferError, match="a state of 16384 bytes"):
                proxy.dispatch(pair.beta.address)
        case _:
            proxy.deactivate()
            with pytest.raises(AllowanceExceededError):
                proxy.activate()
            assert asleep(pair.alpha, proxy.agent_id)
            return
    assert where(proxy, pair.alpha, pair.beta) == ["alpha"]
    assert proxy.send(add()) == 1


# --- operators, hosts and their policies ------------------------------------------------------------------------------


def test_a_grant_to_a_paglet_that_is_not_here(pair: Pair) -> None:
    with pytest.raises(InvalidAgentError):
        pair.alpha.grant_allowance("nobody", AllowanceGrant(hops=1))
    with pytest.raises(InvalidAgentError):
        pair.alpha.allowance("nobody")


def test_everything_is_as_before_after_a_restart(hosts: HostFactory) -> None:
    host = hosts("gamma")
    given = Allowance(max_hops=3, max_clones=7, lifetime=900, max_state_bytes=64 * KB)
    awake, idle = host.create(Spender, allowance=given), host.create(CarefulSpender, allowance=given)
    host.deactivate(idle.agent_id, DeactivationRequest(policy=DeactivationPolicy(activate_on_message=False)))
    clone = awake.clone()
    host.grant_allowance(idle.agent_id, AllowanceGrant(hops="+2", lifetime="unlimited"))
    short = host.create(Spender, allowance=Allowance(lifetime=0.6))
    held = host.create(Spender, allowance=Allowance(max_hops=0))
    with pytest.raises(AllowanceExceededError):
        held.dispatch("http://127.0.0.1:9")
    await_sleep(host, held.agent_id)
    agents = (awake.agent_id, idle.agent_id, clone.agent_id, held.agent_id, short.agent_id)
    before = {agent_id: host.allowance(agent_id) for agent_id in agents}
    host.shutdown()
    assert before[short.agent_id].expires_at is not None
    eventually(lambda: time.time() > (before[short.agent_id].expires_at or 0), "the time of one to be over")

    again = hosts("gamma", port=host.port)
    assert exceeded(again, short.agent_id)["which"] == "lifetime"
    with pytest.raises(AllowanceExceededError):
        short.activate()
    after = {agent_id: again.allowance(agent_id) for agent_id in agents}
    assert after[short.agent_id].exceeded is AllowanceKind.LIFETIME
    del before[short.agent_id], after[short.agent_id]
    assert after == before
    assert (after[idle.agent_id].hops_left, after[awake.agent_id].clones_left) == (5, 3)
    with pytest.raises(AllowanceExceededError):
        held.activate()


def test_the_policy_of_a_host_caps_what_others_bring(pair: Pair, hosts: HostFactory) -> None:
    cap = Allowance(max_hops=3, max_clones=2, lifetime=600, max_state_bytes=32 * KB)
    strict = hosts("strict", policy=Policy(allowance=cap))
    rich = pair.alpha.create(Spender, allowance=Allowance(max_clones=1)).dispatch(strict.address)
    made = pair.alpha.create_remote(strict.address, Spender, allowance=Allowance(max_hops=1_000_000))
    own = strict.create(Spender)
    now = time.time()
    for proxy, hops, clones in ((rich, 3, 1), (made, 3, 2)):
        found = strict.allowance(proxy.agent_id)
        assert (found.hops_left, found.clones_left, found.max_state_bytes) == (hops, clones, 32 * KB)
        assert found.expires_at is not None and now < found.expires_at <= now + 600
    assert strict.allowance(own.agent_id) == AllowanceBalance()
    first = strict.allowance(rich.agent_id).expires_at
    back = rich.dispatch(pair.alpha.address).dispatch(strict.address)
    assert strict.allowance(back.agent_id).hops_left == 1
    assert strict.allowance(back.agent_id).expires_at == first
    large = pair.alpha.create(Spender, SpenderState(blob=b"x" * 40 * KB))
    with pytest.raises(TransferError, match="a state of 32768 bytes"):
        large.dispatch(strict.address)
    assert pair.alpha.allowance(large.agent_id).exceeded is None


def test_moves_are_counted_over_sleep_and_restarts(pair: Pair, hosts: HostFactory) -> None:
    """The bound of a policy on moves counts those before a sleep."""
    picky = hosts("picky", policy=Policy(max_hops=1))
    proxy = pair.alpha.create(Spender).dispatch(pair.beta.address)
    proxy.deactivate()
    proxy.activate()
    assert pair.beta.allowance(proxy.agent_id).hops_used == 1
    with pytest.raises(TransferError, match="has moved 2 times"):
        proxy.dispatch(picky.address)


def test_a_drain_lets_those_without_hops_sleep_like_any(hosts: HostFactory, pair: Pair) -> None:
    host = hosts("leaving")
    proxy = host.create(Spender, allowance=Allowance(max_hops=0))
    host.drain([pair.beta.address])
    eventually(lambda: not host.drain_status()["running"], "the drain to end")
    assert [each["agent_id"] for each in host.drain_status()["asleep"]] == [proxy.agent_id]
    assert events_of(host, EVENT) == []
    host.undrain()
    assert proxy.send(add()) == 1


def test_limits_are_in_the_listing_where_there_are_any(pair: Pair) -> None:
    free, bound = pair.alpha.create(Spender), pair.alpha.create(Spender, allowance=Allowance(max_hops=1))
    bound.deactivate()
    listed = {each["agent_id"]: each for each in pair.alpha.list_agents(active=True, inactive=True)}
    assert "allowance" not in listed[free.agent_id]
    assert listed[bound.agent_id]["allowance"]["hops_left"] == 1
