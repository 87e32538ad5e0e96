"""Enum fields accept members only; wire strings become members or are refused with the allowed values."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest

from paglets.core.runtime_values import (
    ArrivalMode,
    Durability,
    EnvelopeKind,
    LaunchConfigSyncAction,
    ResidentLifecycle,
    ServiceScope,
    enum_from_wire,
    require_enum,
)
from paglets.persistence.envelope import PagletEnvelope
from paglets.remote.transfer import TransferTicket

MEMBERS: dict[type[StrEnum], dict[str, str]] = {
    ServiceScope: {"LOCAL": "local", "MESH": "mesh"},
    ResidentLifecycle: {"LAZY": "lazy", "EAGER": "eager"},
    ArrivalMode: {"ACTIVATE": "activate", "INACTIVE": "inactive"},
    EnvelopeKind: {"DISPATCH": "dispatch", "CLONE": "clone", "RETRACT": "retract", "ACTIVATION": "activation"},
    LaunchConfigSyncAction: {
        "COPIED": "copied",
        "UPDATED": "updated",
        "UNCHANGED": "unchanged",
        "SKIPPED": "skipped",
        "UPDATE_AVAILABLE": "update-available",
    },
    Durability: {"NONE": "none", "CHECKPOINT": "checkpoint", "MESSAGE": "message"},
}


@pytest.mark.parametrize("enum_cls", MEMBERS, ids=lambda cls: cls.__name__)
def test_members_and_their_wire_values(enum_cls: type[StrEnum]) -> None:
    assert {member.name: member.value for member in enum_cls} == MEMBERS[enum_cls]


@pytest.mark.parametrize("member", [member for cls in MEMBERS for member in cls])
def test_a_member_is_required_and_its_value_parsed(member: StrEnum) -> None:
    assert require_enum(member, type(member), "field") is member
    assert enum_from_wire(member.value, type(member), "field") is member


@pytest.mark.parametrize("value", ["local", None, 1, ResidentLifecycle.LAZY])
def test_require_enum_names_field_and_class(value: Any) -> None:
    with pytest.raises(TypeError, match=r"service scope.*ServiceScope"):
        require_enum(value, ServiceScope, "service scope")


@pytest.mark.parametrize("value", [None, 1, ["local"]])
def test_enum_from_wire_refuses_what_is_not_a_string(value: Any) -> None:
    with pytest.raises(TypeError, match="scope must be a string"):
        enum_from_wire(value, ServiceScope, "scope")


def test_enum_from_wire_lists_the_allowed_values() -> None:
    with pytest.raises(ValueError, match="scope must be one of: local, mesh"):
        enum_from_wire("galaxy", ServiceScope, "scope")


def test_ticket_and_envelope_refuse_raw_strings() -> None:
    raw: Any = "inactive"
    with pytest.raises(TypeError, match=r"arrival_mode.*ArrivalMode"):
        TransferTicket("beta", arrival_mode=raw)
    kind: Any = "dispatch"
    with pytest.raises(TypeError, match=r"kind.*EnvelopeKind"):
        PagletEnvelope(kind, "id", "m:A", "m:S", {}, "a", "http://a", "b", "http://b")


def test_ticket_and_envelope_parse_and_write_strings() -> None:
    ticket = TransferTicket.from_wire({"destination": "beta", "arrival_mode": "inactive"})
    assert ticket.arrival_mode is ArrivalMode.INACTIVE
    assert type(ticket.to_wire()["arrival_mode"]) is str

    envelope = PagletEnvelope(EnvelopeKind.CLONE, "id", "m:A", "m:S", {}, "a", "http://a", "b", "http://b")
    assert type(envelope.to_wire()["kind"]) is str
    assert PagletEnvelope.from_wire(envelope.to_wire()).kind is EnvelopeKind.CLONE


def test_ticket_and_envelope_refuse_unknown_strings() -> None:
    with pytest.raises(ValueError, match="arrival_mode must be one of: activate, inactive"):
        TransferTicket.from_wire({"destination": "beta", "arrival_mode": "crash"})
    envelope = PagletEnvelope(EnvelopeKind.CLONE, "id", "m:A", "m:S", {}, "a", "http://a", "b", "http://b")
    with pytest.raises(ValueError, match="kind must be one of: dispatch, clone, retract, activation"):
        PagletEnvelope.from_wire({**envelope.to_wire(), "kind": "teleport"})
