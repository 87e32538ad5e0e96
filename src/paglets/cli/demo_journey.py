"""The moves of the demonstration, put together from what the hosts say happened on them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from paglets.cli.demo_hosts import DemoHosts

JOURNEY_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Move:
    """One journey of a paglet from host to host."""

    paglet: str
    """Id of the paglet, for a clone that of the clone."""
    kind: str
    """`clone` or `dispatch`."""
    source: str
    target: str
    milliseconds: float
    state_bytes: int
    files: int
    file_bytes: int

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Move:
        """Return the move that an event of its source tells of."""
        data = event["data"]
        target = data["target"]
        return cls(
            paglet=data.get("clone_agent_id") or event["agent_id"],
            kind=event["kind"],
            source=event["host_name"],
            target=target["name"],
            milliseconds=round(target["seconds"] * 1000, 1),
            state_bytes=target["state_bytes"],
            files=target["files"],
            file_bytes=target["file_bytes"],
        )


def complete_journey(events: list[Event], hosts: DemoHosts) -> list[Move]:
    """Return all moves in order; a source tells of one a moment after the paglet has begun to live elsewhere."""
    deadline = time.monotonic() + JOURNEY_SECONDS
    while True:
        moves = moves_of(events)
        if len(moves) >= len(route(hosts.names)) or time.monotonic() > deadline:
            return moves
        time.sleep(_POLL_SECONDS)
        events += hosts.new_events()


def moves_of(events: Sequence[Event]) -> list[Move]:
    """Return the moves that events tell of, in the order in which the paglets arrived."""
    arrivals: dict[tuple[str, str], float] = {}
    for event in events:
        if event["kind"] in ("arrival", "clone") and "target" not in event["data"]:
            arrivals.setdefault((event["agent_id"], event["host_name"]), event["timestamp"])
    moves = [Move.of(event) for event in events if event["kind"] in ("clone", "dispatch") and "target" in event["data"]]
    return sorted(moves, key=lambda move: arrivals.get((move.paglet, move.target), float("inf")))


def route(hosts: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return kind, source and target of every move there has to be."""
    home, *others = hosts
    sent = [("clone", home, host) for host in others]
    carried = [("dispatch", host, home) for host in others]
    return sent + carried + [("dispatch", *step) for step in _tour(hosts)]


def _tour(hosts: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(hosts, [*hosts[1:], hosts[0]], strict=True))


def journey_differences(journey: Sequence[Move], survey: str, hosts: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the moves.

    :param survey: id of the original paglet.
    """
    made = sorted((move.kind, move.source, move.target) for move in journey)
    if made != sorted(route(hosts)):
        yield f"the moves were {made}"
    tour = [(move.source, move.target) for move in journey if move.paglet == survey]
    if tour != _tour(hosts):
        yield f"the result travelled {tour}"
    for move in journey:
        if move.kind == "dispatch" and (move.files != 1 or not move.file_bytes):
            yield f"paglet {move.paglet} went from {move.source} to {move.target} without its file"


def visit_differences(result: Path, hosts: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with the signatures in a result."""
    with closing(sqlite3.connect(result)) as connection:
        files = connection.execute("SELECT count(*) FROM files").fetchone()[0]
        visits = connection.execute("SELECT host, files, sound FROM visits ORDER BY at").fetchall()
    wanted = [(target, files, 1) for _, target in _tour(hosts)]
    if visits != wanted:
        yield f"the result was signed {visits}, not {wanted}"
