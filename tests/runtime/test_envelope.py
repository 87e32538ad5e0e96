"""The envelope of a paglet."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import SerializationError
from paglets.core.runtime_values import EnvelopeKind
from paglets.runtime.envelope import PagletEnvelope

VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
ENVELOPES = st.builds(
    PagletEnvelope,
    kind=st.sampled_from(EnvelopeKind),
    agent_id=st.text(),
    agent_class_name=st.text(),
    state_class_name=st.text(),
    state=st.dictionaries(st.text(), VALUES | st.lists(VALUES, max_size=3), max_size=4),
    source_host_name=st.text(),
    source_host_address=st.text(),
    target_host_name=st.text(),
    target_host_address=st.text(),
    clone_of=st.none() | st.text(),
    metadata=st.dictionaries(st.text(), VALUES, max_size=3),
)
REQUIRED = [
    "kind",
    "agent_id",
    "agent_class_name",
    "state_class_name",
    "state",
    "source_host_name",
    "source_host_address",
    "target_host_name",
    "target_host_address",
]


def wire() -> dict[str, Any]:
    names = dict.fromkeys(REQUIRED, "text")
    return {**names, "kind": "dispatch", "state": {"count": 1}}


@given(ENVELOPES)
def test_wire_form_round_trips(envelope: PagletEnvelope) -> None:
    payload = envelope.to_wire()
    assert list(payload) == [*REQUIRED, "clone_of", "metadata"]
    assert type(payload["kind"]) is str
    assert PagletEnvelope.from_wire(payload) == envelope


def test_only_clone_of_and_metadata_may_be_missing() -> None:
    envelope = PagletEnvelope.from_wire(wire())
    assert (envelope.clone_of, envelope.metadata) == (None, {})


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_field_is_named(name: str) -> None:
    payload = wire()
    del payload[name]
    with pytest.raises(SerializationError, match=f"paglet envelope has no '{name}'"):
        PagletEnvelope.from_wire(payload)


@pytest.mark.parametrize(("name", "value"), [("agent_id", 7), ("state", [1]), ("metadata", "x"), ("clone_of", 1)])
def test_a_field_of_the_wrong_type_is_named(name: str, value: Any) -> None:
    with pytest.raises(SerializationError, match=f"'{name}' must be"):
        PagletEnvelope.from_wire({**wire(), name: value})


def test_a_kind_that_is_no_string_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="kind must be a string"):
        PagletEnvelope.from_wire({**wire(), "kind": 5})
