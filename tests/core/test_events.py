"""Lifecycle events: their fields in order, their defaults, and that they cannot be changed."""

from __future__ import annotations

import time
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from paglets.core.events import CloneEvent, CreationEvent, MobilityEvent, PagletEvent, PersistencyEvent

BASE = ["agent_id", "host_name", "host_address", "timestamp"]
HOSTS = ["source_host_name", "source_host_address", "target_host_name", "target_host_address"]


@pytest.mark.parametrize(
    ("cls", "own"),
    [
        (PagletEvent, []),
        (CreationEvent, ["init"]),
        (MobilityEvent, [*HOSTS, "reason"]),
        (CloneEvent, ["source_agent_id", "clone_agent_id", *HOSTS]),
        (PersistencyEvent, ["reason", "request", "policy"]),
    ],
)
def test_fields_are_those_of_the_base_then_its_own(cls: type[PagletEvent], own: list[str]) -> None:
    assert [field.name for field in fields(cls)] == BASE + own
    before = time.time()
    event: Any = cls("id", "alpha", "http://alpha")
    assert before <= event.timestamp <= time.time()
    assert not hasattr(event, "__dict__")
    with pytest.raises(FrozenInstanceError):
        event.agent_id = "other"


def test_defaults() -> None:
    assert CreationEvent("id", "a", "u").init is None
    assert MobilityEvent("id", "a", "u").reason == "dispatch"
    assert CloneEvent("id", "a", "u").clone_agent_id == ""
    sleep = PersistencyEvent("id", "a", "u")
    assert (sleep.reason, sleep.request, sleep.policy) == ("deactivate", None, None)
