"""The terms of a move and their wire form."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import SerializationError
from paglets.core.runtime_values import ArrivalMode
from paglets.remote.transfer import TransferTicket

TICKETS = st.builds(
    TransferTicket,
    destination=st.text(),
    timeout=st.floats(min_value=0),
    retries=st.integers(min_value=0),
    retry_interval=st.floats(min_value=0),
    required_capabilities=st.lists(st.text(), max_size=3).map(tuple),
    expected_code_version=st.none() | st.text(),
    arrival_mode=st.sampled_from(ArrivalMode),
)


@given(TICKETS)
def test_wire_form_round_trips(ticket: TransferTicket) -> None:
    wire = ticket.to_wire()
    assert type(wire["required_capabilities"]) is list
    assert type(wire["arrival_mode"]) is str
    assert TransferTicket.from_wire(wire) == ticket


def test_only_the_destination_is_required() -> None:
    ticket = TransferTicket.from_wire({"destination": "beta"})
    assert ticket == TransferTicket("beta", 10.0, 0, 0.25, (), None, ArrivalMode.ACTIVATE)


def test_from_target_wraps_text_and_passes_tickets_through() -> None:
    ticket = TransferTicket("beta", retries=2)
    assert TransferTicket.from_target(ticket) is ticket
    assert TransferTicket.from_target("http://beta:1") == TransferTicket("http://beta:1")
    wrong: Any = None
    with pytest.raises(TypeError, match="NoneType"):
        TransferTicket.from_target(wrong)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({}, "transfer ticket has no 'destination'"),
        ({"destination": ["beta"]}, "'destination' must be a string"),
        ({"destination": "beta", "timeout": "long"}, "'timeout' must be a number"),
        ({"destination": "beta", "required_capabilities": "transfer"}, "'required_capabilities' must be a list"),
        ({"destination": "beta", "required_capabilities": [1]}, "'required_capabilities' must be a string"),
        ({"destination": "beta", "timeout": -1}, "negative"),
        ({"destination": "beta", "retries": -1}, "negative"),
        ({"destination": "beta", "retry_interval": -0.5}, "negative"),
    ],
)
def test_wrong_fields_are_named(payload: dict[str, Any], text: str) -> None:
    with pytest.raises(SerializationError, match=text):
        TransferTicket.from_wire(payload)
