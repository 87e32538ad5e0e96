"""Ask every host what became of the paglets and messages, and say what is wrong with it.

The verdict rests on what senders were told (:mod:`tests.faults.workload`) and on what the books of the paglets
(:mod:`tests.agents.ledger_agent`) say once nothing moves any more:

- *one owner*: every paglet is on exactly one host, awake or asleep;
- *nothing lost*: what was acknowledged is in the book, and not in the dead letters, which are for receivers that are
  gone: no receiver ends in these tests;
- *nothing doubled*: no book names a message twice;
- *nothing made up*: no book names what nobody sent;
- *nothing stale*: the count that a sender was told is the place of its message in the book, so no reply was computed
  from a state that was rolled back afterwards;
- *in order*: each book names the messages of one sender in the order in which they were sent.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from paglets.core.errors import PagletError
from paglets.persistence.rows import Status
from tests.faults.cluster import Cluster, HostProcess
from tests.faults.workload import Notes, Told

QUIET_SECONDS = 60.0
#: Tables of the journal that are empty, or hold only finished rows, when nothing is under way.
_BUSY = {
    "queued": "SELECT count(*) FROM queued WHERE agent_id NOT IN (SELECT agent_id FROM paglets WHERE status = 0)",
    "outbox": "SELECT count(*) FROM outbox",
    "transfers": "SELECT count(*) FROM transfers WHERE role != 'activated'",
}


@dataclass(frozen=True, slots=True)
class Found:
    """One paglet as one host describes it."""

    host: str
    active: bool
    crashed: bool
    state: dict[str, Any]
    busy: int
    """Messages that it has not handled yet."""

    @property
    def entries(self) -> list[str]:
        """What its book says."""
        return list(self.state.get("entries", ()))


@dataclass
class Verdict:
    """What is wrong; nothing, where the list is empty."""

    problems: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        shown = self.problems[:40]
        more = [f"… and {len(self.problems) - len(shown)} more"] if len(self.problems) > len(shown) else []
        return "\n".join([f"{len(self.problems)} problems:", *shown, *more])

    def say(self, problem: str) -> None:
        """Note a problem."""
        self.problems.append(problem)


def assert_good(verdict: Verdict, more: str = "") -> None:
    """Fail the test where something is wrong."""
    if not verdict:
        pytest.fail(f"{verdict}\n{more}", pytrace=False)


def paglets_of(cluster: Cluster, host: HostProcess) -> dict[str, Found]:
    """Return what a host says of its paglets.

    :raises PagletError: it cannot be asked.
    """
    reply = cluster.client.get_json(f"{host.direct_url}/agents?state=all&include_state=1")
    return {
        item["agent_id"]: Found(
            host.name,
            bool(item.get("active")),
            bool(item.get("crashed")),
            item.get("state") or {},
            sum(int((item.get("mailbox") or {}).get(key, 0)) for key in ("queued_count", "in_flight_count"))
            + int(item.get("queued_message_count") or 0),
        )
        for item in reply["agents"]
    }


def quiet(cluster: Cluster) -> dict[str, list[Found]]:
    """Wait until every host runs and nothing is under way; return where each paglet was found."""
    last: list[str] = []
    calm: dict[str, list[Found]] = {}

    def look() -> bool:
        nonlocal last, calm
        try:
            last, calm = _look_around(cluster)
        except PagletError as exc:
            last = [str(exc)]
        return not last

    try:
        # Twice in a row, since what left one host may not have reached the other when that was asked.
        cluster.until(lambda: look() and look(), "everything to come to rest", QUIET_SECONDS)
    except AssertionError as exc:
        raise AssertionError(f"{exc}; still under way: {'; '.join(last)}") from None
    return calm


def _look_around(cluster: Cluster) -> tuple[list[str], dict[str, list[Found]]]:
    under_way: list[str] = []
    found: dict[str, list[Found]] = {}
    for host in cluster.hosts.values():
        for table, count in journal_counts(host.directory).items():
            if count:
                under_way.append(f"{count} rows in {table} of {host.name}")
                if table == "queued":
                    under_way[-1] += f" (to, message, bytes: {queued_messages(host.directory)})"
        there = paglets_of(cluster, host)
        for agent_id in owned_by(host.directory) - there.keys():
            under_way.append(f"{agent_id}, which {host.name} owns and does not show")
        for agent_id, item in there.items():
            found.setdefault(agent_id, []).append(item)
            if item.busy:
                under_way.append(f"{item.busy} messages of {agent_id} on {host.name}")
        if under_way and (crashed := [agent_id for agent_id, item in there.items() if item.crashed]):
            under_way.append(f"crashed on {host.name}: {crashed}")
    return under_way, found


def owned_by(directory: Path) -> set[str]:
    """Return the paglets that are a host's, according to its journal."""
    path = directory / "journal.db"
    if not path.exists():
        return set()
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT agent_id FROM paglets WHERE status != ?", (int(Status.DEPARTING),))
        return {row[0] for row in rows}


def journal_counts(directory: Path) -> dict[str, int]:
    """Return how many rows that say that something is under way are in a host's journal, by table."""
    path = directory / "journal.db"
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return {table: int(connection.execute(query).fetchone()[0]) for table, query in _BUSY.items()}


def queued_messages(directory: Path) -> list[tuple[str, str, int]]:
    """Return the receivers, ids and sizes of some accepted messages that are in a host's journal."""
    with closing(sqlite3.connect(f"file:{directory / 'journal.db'}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT agent_id, message_id, size FROM queued LIMIT 5").fetchall()


def stored_state(directory: Path, agent_id: str) -> bytes:
    """Return the state of a paglet that its host would bring back, as it lies in the journal."""
    with closing(sqlite3.connect(f"file:{directory / 'journal.db'}?mode=ro", uri=True)) as connection:
        query = "SELECT inline FROM states JOIN paglets USING (id) WHERE agent_id = ?"
        row = connection.execute(query, (agent_id,)).fetchone()
    return bytes(row[0]) if row else b""


def dead_letters(directory: Path) -> dict[tuple[str, str], str]:
    """Return why each dead letter of a host is one, by receiver and entry."""
    path = directory / "journal.db"
    if not path.exists():
        return {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT agent_id, body, reason FROM dead_letters").fetchall()
    return {(agent_id, _entry_of(msgspec.msgpack.decode(body))): reason for agent_id, body, reason in rows}


def _entry_of(wire: Any) -> str:
    """Return the entry that a message would have made, however deep it is wrapped."""
    while isinstance(wire, dict):
        args = wire.get("args")
        if isinstance(args, dict) and "sender" in args:
            return f"{args['sender']}:{args['number']}"
        wire = wire.get("message")
    return ""


def judge(
    cluster: Cluster, notes: Notes, agent_ids: Collection[str], found: dict[str, list[Found]] | None = None
) -> Verdict:
    """Judge a cluster in which nothing is under way any more.

    :param agent_ids: the paglets that must exist.
    :param found: what :func:`quiet` returned; it is called where this is missing.
    """
    verdict = Verdict()
    found = quiet(cluster) if found is None else found
    dead = {key: why for host in cluster.hosts.values() for key, why in dead_letters(host.directory).items()}
    for text in notes.given_up:
        verdict.say(f"never acknowledged: {text}")
    books: dict[str, list[str]] = {}
    for agent_id in agent_ids:
        places = found.get(agent_id, [])
        if len(places) != 1:
            where = ", ".join(f"{place.host} ({'active' if place.active else 'inactive'})" for place in places)
            verdict.say(f"paglet {agent_id} is on {len(places)} hosts: {where or 'none'}")
        for place in places:
            if place.crashed:
                verdict.say(f"paglet {agent_id} lies crashed on {place.host}")
        if places:
            books[agent_id] = places[0].entries
    for agent_id, book in books.items():
        of_it = {entry: why for (receiver, entry), why in dead.items() if receiver == agent_id}
        judge_book(verdict, agent_id, book, notes.told, of_it)
    return verdict


def judge_book(
    verdict: Verdict, agent_id: str, book: Sequence[str], told: Iterable[Told], dead: Mapping[str, str]
) -> None:
    """Compare the book of one paglet with what senders were told.

    :param dead: why messages to it are dead letters, by entry.
    """
    expected: dict[str, Told | None] = {}
    begun: set[str] = set()
    for item in told:
        begun.add(item.sender)
        if item.agent_id == agent_id:
            expected[item.entry] = item
            if item.kind == "alarm":
                begun.add(f"{item.sender}!")
                expected[f"{item.sender}!:{item.number}"] = None
        if item.relayed_to == agent_id:
            begun.add(f"{item.sender}>")
            expected[item.relayed_entry] = None
    counts = Counter(book)
    for entry, count in counts.items():
        if count > 1:
            verdict.say(f"doubled: {entry} is {count} times in the book of {agent_id}")
        if entry in dead:
            verdict.say(f"doubled: {entry} is in the book of {agent_id} and in the dead letters")
        if entry not in expected and entry.rpartition(":")[0] not in begun:
            verdict.say(f"made up: {entry} in the book of {agent_id}")
    for entry, expectation in expected.items():
        if entry in counts:
            _judge_reply(verdict, agent_id, book.index(entry) + 1, expectation)
        elif entry in dead:
            verdict.say(f"dead: {entry} is in the dead letters, although {agent_id} lives: {dead[entry]}")
        else:
            how = "passed on" if expectation is None else "one-way" if expectation.oneway else "answered"
            verdict.say(f"lost: {entry} ({how}) is not in the book of {agent_id}")
    latest: dict[str, int] = {}
    for entry in dict.fromkeys(book):
        sender, _, number = entry.rpartition(":")
        # What is passed on by several paglets comes over several ways.
        if latest.get(sender, 0) > int(number) and not sender.endswith(">"):
            verdict.say(f"out of order: {entry} after {sender}:{latest[sender]} in the book of {agent_id}")
        latest[sender] = max(latest.get(sender, 0), int(number))


def _judge_reply(verdict: Verdict, agent_id: str, place: int, told: Told | None) -> None:
    """Compare the count that a sender was told with the place of its message in the book."""
    if told is None or told.oneway or type(told.reply) is not int:
        return
    if place != told.reply:
        verdict.say(f"stale: {told.entry} was told {told.reply} and is number {place} in the book of {agent_id}")
