"""Deactivation policies and requests."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import SerializationError
from paglets.core.policies import DeactivationPolicy, DeactivationRequest

POLICIES = st.builds(
    DeactivationPolicy,
    activate_on_message=st.booleans(),
    queue_messages_when_inactive=st.booleans(),
    activate_on_startup=st.booleans(),
    activate_at=st.none() | st.floats(allow_nan=False),
)
REQUESTS = st.builds(
    DeactivationRequest,
    reason=st.text(min_size=1),
    source=st.text(min_size=1),
    policy=st.none() | POLICIES,
    metadata=st.dictionaries(st.text(), st.integers(), max_size=3),
)


@given(POLICIES)
def test_policy_round_trips(policy: DeactivationPolicy) -> None:
    wire = policy.to_wire()
    assert list(wire) == [
        "activate_on_message",
        "queue_messages_when_inactive",
        "activate_on_startup",
        "activate_at",
    ]
    assert DeactivationPolicy.from_wire(wire) == policy


@given(REQUESTS)
def test_request_round_trips(request_: DeactivationRequest) -> None:
    wire = request_.to_wire()
    assert list(wire) == ["reason", "source", "policy", "metadata"]
    assert DeactivationRequest.from_wire(wire) == request_


@pytest.mark.parametrize("payload", [None, {}])
def test_nothing_gives_the_defaults(payload: dict[str, Any] | None) -> None:
    assert DeactivationPolicy.from_wire(payload) == DeactivationPolicy(True, True, False, None)
    assert DeactivationRequest.from_wire(payload) == DeactivationRequest("deactivate", "external", None, {})


def test_empty_texts_fall_back_to_the_defaults() -> None:
    assert DeactivationRequest.from_wire({"reason": "", "source": ""}) == DeactivationRequest()


def test_after_counts_from_now() -> None:
    before = time.time()
    policy = DeactivationPolicy.after(60, activate_on_message=False)
    assert policy.activate_at is not None
    assert before + 60 <= policy.activate_at <= time.time() + 60
    assert policy.activate_on_message is False


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"activate_on_message": "yes"}, "activate_on_message"),
        ({"activate_at": "soon"}, "activate_at"),
        ("policy", "deactivation policy must be an object"),
    ],
)
def test_wrong_policy_fields_are_named(payload: Any, text: str) -> None:
    with pytest.raises(SerializationError, match=text):
        DeactivationPolicy.from_wire(payload)
    with pytest.raises(SerializationError, match=text):
        DeactivationRequest.from_wire({"policy": payload})
