"""Records of sleeping paglets and the messages that wait for them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from paglets.core import policies
from paglets.core.errors import SerializationError
from paglets.core.messages import Message
from paglets.core.runtime_values import EnvelopeKind
from paglets.persistence.persistency import (
    DeactivationPolicy,
    DeactivationRequest,
    InactiveRecord,
    QueuedMessage,
)
from paglets.runtime.envelope import PagletEnvelope

ENVELOPE = PagletEnvelope(
    EnvelopeKind.ACTIVATION, "agent", "m:A", "m:S", {"n": 1, "blob": b"\x00"}, "a", "http://a", "a", "http://a"
)


def record() -> InactiveRecord:
    return InactiveRecord(
        ENVELOPE,
        DeactivationPolicy(activate_on_message=False, activate_at=5.0),
        DeactivationRequest("shutdown", "host", DeactivationPolicy(activate_on_startup=True), {"k": 1}),
        deactivated_at=3.5,
        queued_messages=[QueuedMessage(Message("one")), QueuedMessage(Message("two"), oneway=True, queued_at=4.0)],
    )


def test_the_record_round_trips() -> None:
    original = record()
    wire = original.to_wire()
    assert list(wire) == ["schema_version", "envelope", "policy", "request", "deactivated_at", "queued_messages"]
    assert wire["schema_version"] == 1
    assert InactiveRecord.from_wire(wire) == original


def test_the_record_has_the_id_of_its_envelope() -> None:
    assert record().agent_id == "agent"


@pytest.mark.parametrize("version", [{}, {"schema_version": None}, {"schema_version": 1}])
def test_everything_but_the_envelope_may_be_missing(version: dict[str, Any]) -> None:
    before = time.time()
    restored = InactiveRecord.from_wire({"envelope": ENVELOPE.to_wire(), **version})
    assert before <= restored.deactivated_at <= time.time()
    assert restored == InactiveRecord(
        ENVELOPE, DeactivationPolicy(), DeactivationRequest(), deactivated_at=restored.deactivated_at
    )


@pytest.mark.parametrize("version", [0, 2, 99])
def test_an_unknown_schema_version_is_refused(version: int) -> None:
    with pytest.raises(SerializationError, match=f"schema version {version}"):
        InactiveRecord.from_wire({**record().to_wire(), "schema_version": version})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"envelope": None}, "inactive record has no 'envelope'"),
        ({"envelope": "agent"}, "paglet envelope must be an object"),
        ({"policy": []}, "deactivation policy must be an object"),
        ({"schema_version": "new"}, "'schema_version' must be a whole number"),
        ({"queued_messages": {}}, "'queued_messages' must be a list"),
        ({"queued_messages": [{"oneway": True}]}, "queued message has no 'message'"),
    ],
)
def test_a_damaged_record_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(SerializationError, match=text):
        InactiveRecord.from_wire({**record().to_wire(), **change})


def test_queued_message_round_trips() -> None:
    entry = QueuedMessage(Message("one", {"a": b"x"}), oneway=True, queued_at=2.0)
    assert list(entry.to_wire()) == ["message", "oneway", "queued_at"]
    assert QueuedMessage.from_wire(entry.to_wire()) == entry


def test_policy_and_request_are_those_of_the_core() -> None:
    assert DeactivationPolicy is policies.DeactivationPolicy
    assert DeactivationRequest is policies.DeactivationRequest
