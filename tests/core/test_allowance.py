"""What is left of an allowance: never more by anything that a paglet does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.core.allowance import (
    NO_LIMITS,
    NOTHING_USED,
    Allowance,
    AllowanceBalance,
    AllowanceExcess,
    AllowanceGrant,
    AllowanceKind,
    grant_of,
)
from paglets.core.error_wire import HTTP_ERRORS, error_from_wire, error_to_wire, http_status
from paglets.core.errors import AllowanceExceededError, LifecycleError, RemoteHostError, SerializationError
from paglets.protocol.transfer import Charge, TransferKind, charge
from tests.effort import thorough

counts = st.none() | st.integers(0, 20)
allowances = st.builds(
    Allowance, counts, counts, st.none() | st.floats(0, 1e6, allow_nan=False), st.none() | st.integers(0, 1 << 40)
)
kinds = st.sampled_from(list(TransferKind))
places = st.sampled_from(["http://a", "http://b"])


def clones_of(balances: list[AllowanceBalance]) -> int | None:
    found = [balance.clones_left for balance in balances]
    return None if None in found else sum(each or 0 for each in found)


@given(allowances, st.lists(st.tuples(st.integers(0, 50), kinds, places, places), max_size=30))
@settings(max_examples=thorough(50, 150), deadline=None)
def test_a_family_never_has_more_than_it_was_given(
    given_: Allowance, steps: list[tuple[int, TransferKind, str, str]]
) -> None:
    family = [given_.opened(0.0)]
    moves = made = 0
    for which, kind, source, target in steps:
        place = which % len(family)
        before = family[place]
        cost = charge(before, kind, source=source, target=target, now=0.0)
        if isinstance(cost, AllowanceExcess):
            assert cost.which in (AllowanceKind.HOPS, AllowanceKind.CLONES, AllowanceKind.LIFETIME)
            continue
        if kind is TransferKind.CLONE:
            assert cost.kept is not None
            family[place] = cost.kept
            family.append(cost.carried)
            made += 1
        else:
            assert cost.kept is None
            family[place] = cost.carried
        crossed = source != target and kind is not TransferKind.LOCAL
        moves += crossed
        assert cost.carried.hops_used == before.hops_used + crossed
        assert cost.carried.expires_at == before.expires_at
        assert cost.carried.max_state_bytes == before.max_state_bytes
        if given_.max_clones is not None:
            assert clones_of(family) == given_.max_clones - made
    for balance in family:
        if given_.max_hops is not None:
            assert balance.hops_left is not None and balance.hops_used + balance.hops_left == given_.max_hops
        assert balance.hops_used <= moves


@pytest.mark.parametrize(
    ("left", "kept", "clone"), [(None, None, None), (1, 0, 0), (2, 1, 0), (3, 1, 1), (4, 2, 1), (7, 3, 3)]
)
def test_how_clones_are_divided(left: int | None, kept: int | None, clone: int | None) -> None:
    original, copy = AllowanceBalance(hops_used=2, hops_left=3, clones_used=4, clones_left=left).split()
    assert (original.clones_left, copy.clones_left) == (kept, clone)
    assert (original.clones_used, copy.clones_used) == (5, 0)
    assert (original.hops_left, copy.hops_left) == (3, 3)


def test_nothing_is_taken_of_what_is_used_up() -> None:
    with pytest.raises(ValueError, match="no hop"):
        AllowanceBalance(hops_left=0).hop()
    with pytest.raises(ValueError, match="no clone"):
        AllowanceBalance(clones_left=0).split()


@pytest.mark.parametrize(
    ("balance", "kind", "which"),
    [
        (AllowanceBalance(hops_used=3, hops_left=0), TransferKind.DISPATCH, AllowanceKind.HOPS),
        (AllowanceBalance(hops_used=3, hops_left=0), TransferKind.RETRACT, AllowanceKind.HOPS),
        (AllowanceBalance(hops_used=3, hops_left=0), TransferKind.CLONE, AllowanceKind.HOPS),
        (AllowanceBalance(clones_left=0), TransferKind.CLONE, AllowanceKind.CLONES),
        (AllowanceBalance(expires_at=10.0), TransferKind.DISPATCH, AllowanceKind.LIFETIME),
        (AllowanceBalance(expires_at=10.0), TransferKind.LOCAL, AllowanceKind.LIFETIME),
        (AllowanceBalance(hops_left=9, exceeded=AllowanceKind.STATE), TransferKind.DISPATCH, AllowanceKind.STATE),
    ],
)
def test_what_is_refused(balance: AllowanceBalance, kind: TransferKind, which: AllowanceKind) -> None:
    cost = charge(balance, kind, source="a", target="b", now=10.0)
    assert isinstance(cost, AllowanceExcess) and cost.which is which
    error = cost.error("p")
    assert isinstance(error, LifecycleError) and error.excess is cost
    assert f"paglets allowance grant p --{which.value}" in str(error)


def test_a_clone_within_a_host_needs_no_hop() -> None:
    cost = charge(AllowanceBalance(hops_left=0, clones_left=1), TransferKind.CLONE, source="a", target="a", now=0.0)
    assert isinstance(cost, Charge) and cost.carried.hops_left == 0


@given(allowances, allowances)
def test_a_cap_is_never_exceeded(one: Allowance, cap: Allowance) -> None:
    balance = one.opened(5.0).capped(cap, 100.0)
    most = cap.opened(100.0)
    for name in ("hops_left", "clones_left", "expires_at", "max_state_bytes"):
        value, limit, own = (getattr(each, name) for each in (balance, most, one.opened(5.0)))
        assert limit is None or (value is not None and value <= limit)
        assert own is None or value <= own
    assert one.within(cap) == cap.within(one)
    assert balance.capped(cap, 100.0) == balance


@given(allowances)
def test_round_trips(one: Allowance) -> None:
    assert Allowance.from_wire(one.to_wire()) == one
    for exceeded in (None, *AllowanceKind):
        balance = AllowanceBalance(3, one.max_hops, 2, one.max_clones, one.lifetime, one.max_state_bytes, exceeded)
        assert AllowanceBalance.from_wire(balance.to_wire()) == balance
    assert Allowance.from_wire(None) is NO_LIMITS
    assert AllowanceBalance.from_wire(None) is NOTHING_USED


@given(st.dictionaries(st.sampled_from([*NOTHING_USED.to_wire()]), st.none() | st.integers() | st.floats() | st.text()))
def test_what_a_peer_says_is_checked(payload: dict[str, Any]) -> None:
    try:
        balance = AllowanceBalance.from_wire(payload)
    except SerializationError:
        return
    assert balance.hops_used >= 0 and (balance.hops_left is None or balance.hops_left >= 0)
    assert AllowanceBalance.from_wire(balance.to_wire()) == balance


@pytest.mark.parametrize("payload", [{"max_hop": 3}, {"max_hops": -1}, {"max_hops": True}, {"lifetime": -1}, []])
def test_an_allowance_that_is_none(payload: Any) -> None:
    with pytest.raises(SerializationError):
        Allowance.from_wire(payload)


@pytest.mark.parametrize(
    ("grant", "before", "after"),
    [
        (AllowanceGrant(hops="+5"), AllowanceBalance(hops_left=1), AllowanceBalance(hops_left=6)),
        (AllowanceGrant(hops="-5"), AllowanceBalance(hops_left=1), AllowanceBalance(hops_left=0)),
        (AllowanceGrant(hops=2), AllowanceBalance(hops_left=9), AllowanceBalance(hops_left=2)),
        (AllowanceGrant(hops="+5"), AllowanceBalance(), AllowanceBalance()),
        (AllowanceGrant(hops="unlimited"), AllowanceBalance(hops_left=0), AllowanceBalance()),
        (AllowanceGrant(lifetime="+60"), AllowanceBalance(expires_at=500.0), AllowanceBalance(expires_at=560.0)),
        (AllowanceGrant(lifetime="+60"), AllowanceBalance(expires_at=50.0), AllowanceBalance(expires_at=160.0)),
        (AllowanceGrant(lifetime="60"), AllowanceBalance(), AllowanceBalance(expires_at=160.0)),
        (AllowanceGrant(state=7), AllowanceBalance(max_state_bytes=3), AllowanceBalance(max_state_bytes=7)),
        (
            AllowanceGrant(hops="+1"),
            AllowanceBalance(hops_left=0, exceeded=AllowanceKind.HOPS),
            AllowanceBalance(hops_left=1),
        ),
        (
            AllowanceGrant(state=2),
            AllowanceBalance(max_state_bytes=3, exceeded=AllowanceKind.STATE),
            AllowanceBalance(max_state_bytes=2, exceeded=AllowanceKind.STATE),
        ),
        (
            AllowanceGrant(clones="+1", hops="+0"),
            AllowanceBalance(hops_left=0, clones_left=0, exceeded=AllowanceKind.HOPS),
            AllowanceBalance(hops_left=0, clones_left=1, exceeded=AllowanceKind.HOPS),
        ),
    ],
)
def test_what_a_grant_changes(grant: AllowanceGrant, before: AllowanceBalance, after: AllowanceBalance) -> None:
    assert grant.applied(before, 100.0) == after
    assert grant_of(grant.to_wire()) == grant


@pytest.mark.parametrize(
    "parts",
    [{}, {"hops": "many"}, {"hops": "--1"}, {"hops": "1.5"}, {"clones": ""}, {"state": -1}, {"hops": True},
     {"lifetime": "soon"}, {"lifetime": float("nan")}, {"hops": "9" * 30}, {"lifetime": "inf"}],
)  # fmt: skip
def test_a_grant_that_is_none(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|nothing is granted"):
        AllowanceGrant(**parts)


def test_the_error_crosses_hosts() -> None:
    error = AllowanceExcess(AllowanceKind.HOPS, 3, 3).error("p")
    again = error_from_wire(error_to_wire(error, table=HTTP_ERRORS), unknown=RemoteHostError, table=HTTP_ERRORS)
    assert type(again) is AllowanceExceededError and str(again) == str(error)
    assert http_status(error) == 409
