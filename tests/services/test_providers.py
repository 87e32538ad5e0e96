from __future__ import annotations

import dataclasses
import time
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from paglets.remote.references import PagletProxyRef
from paglets.services.contracts import ServiceContract, ServiceOperation, ServiceRecord
from paglets.services.providers import Distance, Providers, distance

OWN = "http://own:1"
CONTRACT = ServiceContract("tests.providers", (ServiceOperation("ping"),))
OTHER = ServiceContract("tests.providers", (ServiceOperation("ping"),), version="2")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def record(agent_id: str, host_url: str = OWN, contract: ServiceContract = CONTRACT) -> ServiceRecord:
    return ServiceRecord(
        contract.name,
        PagletProxyRef(host_url, agent_id),
        contract.capabilities,
        contract.advertise_metadata(),
        host_url=host_url,
    )


def providers(*records: ServiceRecord, sticky: bool = False, clock: Clock | None = None) -> Providers:
    return Providers(CONTRACT, records, own=OWN, sticky=sticky, clock=clock or Clock(), avoid_seconds=10.0)


def test_distance() -> None:
    assert distance("http://own:1/", OWN) is Distance.SAME_HOST
    assert distance("http://other:1", OWN) is Distance.DIRECT
    assert distance("http://hub:1/relay/hosts/b", OWN) is Distance.RELAYED


def test_the_nearest_is_chosen_and_a_farther_one_when_it_was_tried() -> None:
    relayed, direct, near = record("r", "http://hub:1/relay/hosts/x"), record("d", "http://d:1"), record("n")
    known = providers(relayed, direct, near)
    assert known.choose() == near
    assert known.choose({("n", OWN)}) == direct
    assert known.choose({("n", OWN), ("d", "http://d:1")}) == relayed
    assert known.choose(Providers.key(item) for item in known.records) is None


def test_the_less_busy_of_two_is_chosen() -> None:
    one, other = record("1"), record("2")
    known = providers(one, other)
    with known.calling(one):
        assert known.in_flight(one) == 1
        assert {known.choose() == other for _ in range(20)} == {True}
    assert known.in_flight(one) == 0


def test_among_equals_the_host_with_fewer_paglets_is_chosen() -> None:
    one, other = record("1", "http://a:1"), record("2", "http://b:1")
    known = providers()
    known.update([one, other], {"http://a:1": 7, "http://b:1": 3})
    assert {known.choose() == other for _ in range(20)} == {True}


def test_calls_are_spread_over_equal_providers() -> None:
    known = providers(*(record(str(number)) for number in range(4)))
    chosen = Counter(found.proxy.agent_id for _ in range(400) if (found := known.choose()) is not None)
    assert set(chosen) == {"0", "1", "2", "3"}


def test_one_that_failed_is_avoided_for_a_while_that_grows() -> None:
    clock = Clock()
    near, far = record("n"), record("f", "http://f:1")
    known = providers(near, far, clock=clock)
    known.failed(near)
    assert known.choose() == far
    assert known.choose({Providers.key(far)}) == near
    assert known.choose({Providers.key(far)}, fresh_only=True) is None
    clock.now += 10.0
    assert known.choose() == near
    known.failed(near)
    clock.now += 10.0
    assert known.choose() == far
    clock.now += 10.0
    assert known.choose() == near
    known.failed(near)
    known.succeeded(near)
    assert known.choose() == near


def test_a_sticky_one_stays_until_it_fails() -> None:
    first, second = record("1"), record("2")
    known = providers(first, second, sticky=True)
    assert known.current == first
    assert {known.choose() == first for _ in range(20)} == {True}
    known.failed(first)
    assert known.current is None
    assert known.choose() == second
    known.succeeded(second)
    assert known.current == second


def test_a_sticky_one_is_found_again_where_it_is_now() -> None:
    known = providers(record("1"), sticky=True)
    moved = record("1", "http://there:1")
    known.update([record("2"), moved])
    assert known.choose() == moved


def test_what_does_not_fit_or_has_expired_is_no_provider() -> None:
    expired = dataclasses.replace(record("e"), expires_at=time.time() - 1)
    known = providers()
    known.update([record("o", contract=OTHER), expired])
    assert [item.proxy.agent_id for item in known.records] == ["e"]
    assert known.choose() is None


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["fail", "succeed", "wait"])), max_size=40))
def test_while_anybody_is_known_somebody_is_chosen(steps: list[tuple[str, str]]) -> None:
    clock = Clock()
    records = {name: record(name, f"http://{name}:1") for name in "abcde"}
    known = providers(*records.values(), clock=clock)
    failed: dict[str, float] = {}
    for name, step in steps:
        match step:
            case "fail":
                known.failed(records[name])
                failed[name] = clock.now
            case "succeed":
                known.succeeded(records[name])
                failed.pop(name, None)
            case _:
                clock.now += 7.0
        chosen = known.choose()
        assert chosen is not None
        healthy = set(records) - set(failed)
        if healthy and all(clock.now < at + 10.0 for at in failed.values()):
            assert chosen.proxy.agent_id in healthy
