"""Journeys are put together from pieces: each host asked once, gaps reported, the order that of the epochs."""

from __future__ import annotations

from typing import Any

import pytest

from paglets.core.errors import InvalidAgentError, RemoteHostError
from paglets.remote.client import HostClient
from paglets.remote.journey import Stage, follow_journey

A, B, C, D = (f"http://{name}:1" for name in "abcd")


def entry(host: str, event: str, epoch: int, at: float, peer: str = "") -> dict[str, Any]:
    return {"at": at, "event": event, "epoch": epoch, "host": host[7], "host_url": host, "peer": peer}


def piece(*entries: dict[str, Any], previous: str = "", following: str = "") -> dict[str, Any]:
    def link(url: str) -> dict[str, Any] | None:
        return {"host_url": url, "name": url[7], "epoch": 1} if url else None

    return {"agent_id": "w", "entries": list(entries), "previous": link(previous), "next": link(following)}


class Hosts(HostClient):
    """A client whose hosts are dictionaries."""

    def __init__(self, pieces: dict[str, Any], places: dict[str, dict[str, Any]] | None = None) -> None:
        super().__init__()
        self.pieces = pieces
        self.places = places or {}
        self.asked: list[str] = []

    def journey(self, host_url: str, agent_id: str, *, timeout: float | None = None) -> Any:
        self.asked.append(host_url)
        if host_url not in self.pieces:
            raise RemoteHostError(f"could not reach {host_url}")
        return self.pieces[host_url]

    def locate(self, host_url: str, agent_id: str, *, timeout: float | None = None) -> dict[str, Any]:
        if host_url not in self.places:
            raise InvalidAgentError("never heard of it")
        return self.places[host_url]


LEFT = piece(entry(A, "created", 1, 100.0), entry(A, "departed", 1, 101.0, B), following=B)
# The clock of the host in the middle is far behind.
MIDDLE = piece(entry(B, "arrived", 2, 5.0, A), entry(B, "slept", 2, 6.0), entry(B, "departed", 2, 7.0, C), following=C)
RIGHT = piece(entry(C, "arrived", 3, 102.0, B), previous=B)


@pytest.mark.parametrize("begin", [A, B, f"{C}/"])
def test_the_whole_way_is_found_from_every_host(begin: str) -> None:
    hosts = Hosts({A: LEFT, B: MIDDLE, C: RIGHT})
    journey = follow_journey(hosts, begin, "w")
    assert [(stage.host, stage.event) for stage in journey.stages] == [
        ("a", "created"), ("a", "departed"), ("b", "arrived"), ("b", "slept"), ("b", "departed"), ("c", "arrived"),
    ]  # fmt: skip
    assert sorted(hosts.asked) == [A, B, C]
    assert (journey.complete, journey.gaps, journey.host_url) == (True, [], C)


def test_a_host_that_is_down_is_a_gap() -> None:
    journey = follow_journey(Hosts({A: LEFT, C: RIGHT}), A, "w")
    assert [(gap.host_url, gap.error) for gap in journey.gaps] == [(B, f"could not reach {B}")]
    assert [stage.host for stage in journey.stages] == ["a", "a"]
    assert (journey.complete, journey.asked, journey.host_url) == (False, [A], B)


def test_the_home_leads_past_a_gap() -> None:
    home = {"agent_id": "w", "host_url": C, "epoch": 3, "home": A, "here": False, "ended": False}
    there = {"agent_id": "w", "host_url": C, "epoch": 3, "home": A, "here": True, "ended": False}
    for begin in (A, C):
        journey = follow_journey(Hosts({A: LEFT, C: RIGHT}, {A: home, C: there}), begin, "w")
        assert [(stage.host, stage.event) for stage in journey.stages] == [
            ("a", "created"), ("a", "departed"), ("c", "arrived"),
        ]  # fmt: skip
        assert [gap.host_url for gap in journey.gaps] == [B]
        assert (journey.complete, journey.host_url) == (False, C)


def test_the_first_host_must_answer() -> None:
    with pytest.raises(RemoteHostError, match="could not reach"):
        follow_journey(Hosts({B: MIDDLE}), A, "w")


def test_a_paglet_that_nobody_had_is_an_error() -> None:
    with pytest.raises(InvalidAgentError, match="knows nothing of a paglet w"):
        follow_journey(Hosts({A: piece()}), A, "w")


def test_only_so_many_hosts_are_asked() -> None:
    def url(number: int) -> str:
        return f"http://host-{number}:1"

    endless = {url(n): piece(entry(url(n), "departed", n, n, url(n + 1)), following=url(n + 1)) for n in range(50)}
    hosts = Hosts(endless)
    journey = follow_journey(hosts, url(0), "w", max_hosts=7)
    assert len(hosts.asked) == 7
    assert (len(journey.stages), journey.complete) == (7, False)


def test_the_host_of_an_original_is_not_asked_about_its_copy() -> None:
    hosts = Hosts({B: piece(entry(B, "cloned", 0, 1.0, A))})
    journey = follow_journey(hosts, B, "w")
    assert (hosts.asked, journey.complete, journey.host_url) == ([B], True, B)


def test_the_end_of_a_paglet_is_nowhere() -> None:
    journey = follow_journey(Hosts({A: piece(entry(A, "created", 1, 2.0), entry(A, "ended", 1, 1.0))}), A, "w")
    assert [stage.event for stage in journey.stages] == ["created", "ended"]
    assert journey.host_url is None
    assert journey.to_wire()["host_url"] is None
    assert journey.to_wire()["stages"][0] == {
        "at": 2.0, "event": "created", "epoch": 1, "host": "a", "host_url": A, "peer": "", "peer_name": "",
        "cause": "", "size_bytes": 0, "seconds": 0.0, "transfer_id": "", "class_name": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    "unreadable",
    [
        [],
        {"entries": 5},
        {"entries": [5]},
        {"entries": [{"event": "created"}]},
        {"entries": [], "next": {"name": "b"}},
        {"entries": [], "next": {"host_url": " "}},
    ],
)
def test_an_unreadable_piece_is_the_fault_of_its_host(unreadable: Any) -> None:
    with pytest.raises(RemoteHostError, match="unreadable"):
        follow_journey(Hosts({A: unreadable}), A, "w")
    journey = follow_journey(Hosts({A: LEFT, B: unreadable}), A, "w")
    assert [gap.host_url for gap in journey.gaps] == [B]


def test_a_stage_has_defaults_for_what_is_not_said() -> None:
    stage = Stage.from_wire({"event": "woke", "epoch": 4, "host": "a", "host_url": A})
    assert (stage.at, stage.peer, stage.seconds, stage.class_name) == (0.0, "", 0.0, "")
