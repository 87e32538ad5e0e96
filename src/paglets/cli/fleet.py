"""The hosts that a command works with, and the paglet that somebody means by the first characters of its id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, Any, Final, TypeVar

import typer

from paglets.cli.console import note, print_error, print_json, print_shown
from paglets.cli.options import FAILURE_EXIT, Where
from paglets.config.env import resolve_api_key
from paglets.core.errors import ConflictError, InvalidAgentError, PagletError, RemoteHostError
from paglets.protocol.membership import HostRef
from paglets.remote.admin import PagletsAdminClient, ServerRef, entry_server, normalize_server_url
from paglets.remote.client import HostClient
from paglets.remote.requests import agent_url, dict_of

if TYPE_CHECKING:
    from rich.table import Table

SHORTEST_PREFIX: Final = 4
_HOSTS_AT_ONCE: Final = 16
_MOST_LISTED: Final = 10
_SHORT_ID: Final = 8
_LONGEST_WHOLE: Final = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """A paglet, and the host that has it."""

    server: ServerRef
    summary: dict[str, Any]

    @property
    def agent_id(self) -> str:
        """Its id."""
        return str(self.summary["agent_id"])

    @property
    def label(self) -> str:
        """Id, class and host, for people."""
        return f"{self.agent_id} ({class_text(self.summary)} on {self.server.name})"


@dataclass(slots=True)
class Answers:
    """What the hosts said, and why some said nothing."""

    given: list[tuple[ServerRef, Any]] = field(default_factory=list)
    missing: list[tuple[ServerRef, Exception]] = field(default_factory=list)

    @property
    def failures(self) -> list[str]:
        """A line for each host that did not answer."""
        return [f"{server.name}: {error}" for server, error in self.missing]

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The same for programs."""
        return [{"host": server.name, "error": str(error)} for server, error in self.missing]


class Fleet:
    """Some hosts and a client to reach them.

    :param offline: names of hosts of the mesh that are known and not asked.
    :param entry: the host through which the others were found; None where only certain ones are meant.
    """

    def __init__(
        self,
        client: HostClient,
        servers: Sequence[ServerRef],
        offline: Sequence[str] = (),
        *,
        entry: ServerRef | None = None,
    ) -> None:
        self.client = client
        self.entry = entry
        self.servers = list(servers)
        self.offline = list(offline)
        self.admin = PagletsAdminClient(self.servers, client=client)

    @classmethod
    def open(cls, client: HostClient, where: Where) -> Fleet:
        """Find the hosts that a command is about.

        :raises RemoteHostError: none answers, or the named one is not there.
        """
        if where.host is not None and "://" in where.host:
            return cls(client, [_entry(client, where.host, where.timeout)])
        entry = _entry(client, where.entry, where.timeout)
        refs = PagletsAdminClient([entry], client=client).list_hosts(entry)
        known = servers_of(refs, entry)
        offline = [ref.name for ref in refs if not ref.online and ref.name != entry.name]
        if where.host is None:
            return cls(client, known, offline, entry=entry)
        named = [server for server in known if server.name == where.host]
        if not named:
            state = "is offline" if where.host in offline else "is not known"
            raise RemoteHostError(
                f"host {where.host!r} {state} to {entry.name}; it knows {', '.join(server.name for server in known)}"
            )
        return cls(client, named)

    # --- asking -------------------------------------------------------------------------------------------------------

    def ask(self, question: Callable[[ServerRef], Any]) -> Answers:
        """Ask all hosts at once."""
        answers = Answers()
        with ThreadPoolExecutor(max(1, min(len(self.servers), _HOSTS_AT_ONCE)), "paglets-cli") as threads:
            asked = [(server, threads.submit(question, server)) for server in self.servers]
            for server, future in asked:
                try:
                    answers.given.append((server, future.result()))
                except PagletError as exc:
                    answers.missing.append((server, exc))
        return answers

    def listing(self, name: str, found: Sequence[Any], answers: Answers) -> dict[str, Any]:
        """Return what was found, under its name, with who was not asked and who did not answer, for programs."""
        return {name: list(found), "offline": self.offline, "errors": answers.errors}

    def paglets(self) -> tuple[list[Found], Answers]:
        """Return the paglets of all hosts, active and inactive, and what could not be asked."""
        answers = self.ask(self.admin.list_agent_payloads)
        return [Found(server, summary) for server, summaries in answers.given for summary in summaries], answers

    # --- finding one paglet -------------------------------------------------------------------------------------------

    def find(self, text: str) -> Found:
        """Return the paglet with this id, or the only one whose id begins so.

        :raises ConflictError: several are meant; the text lists them.
        :raises InvalidAgentError: none is.
        """
        exact = self.ask(lambda server: self._summary(server, text))
        found = [Found(server, summary) for server, summary in exact.given if summary is not None]
        answers = exact
        if not found and len(text) >= SHORTEST_PREFIX:
            everyone, answers = self.paglets()
            found = [each for each in everyone if each.agent_id.startswith(text)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConflictError(f"{text!r} may be {_listed([each.label for each in found])}; {_advice(found)}")
        raise InvalidAgentError(self._nobody(text, answers))

    def _summary(self, server: ServerRef, agent_id: str) -> dict[str, Any] | None:
        # Not agent_info, which would ask on where the paglet is: the question is whether this host has it.
        url = agent_url(normalize_server_url(server.url), agent_id)
        try:
            return dict_of(self.client.get_json(url), url)
        except InvalidAgentError:
            return None

    def _nobody(self, text: str, answers: Answers) -> str:
        names = ", ".join(server.name for server, _ in answers.given) or "any host"
        said = f"no paglet {text!r} on {names}"
        if len(text) < SHORTEST_PREFIX:
            said += f"; the beginning of an id must have at least {SHORTEST_PREFIX} characters"
        unasked = [server.name for server, _ in answers.missing] + self.offline
        return f"{said}; not asked, because they do not answer: {', '.join(unasked)}" if unasked else said


@contextmanager
def fleet_of(where: Where) -> Iterator[Fleet]:
    """Give the hosts that a command is about, and close the connections to them afterwards.

    :raises ValueError: the named variable holds no key.
    """
    with HostClient(where.timeout, api_key=resolve_api_key(where.api_key_env)) as client:
        yield Fleet.open(client, where)


def _entry(client: HostClient, name: str | None, timeout: float) -> ServerRef:
    try:
        return entry_server(name, client, timeout)
    except ValueError as exc:
        raise RemoteHostError(f"{exc}. Start a host with 'paglets host', or name one with --entry URL") from exc


def servers_of(refs: Iterable[HostRef], entry: ServerRef) -> list[ServerRef]:
    """Return the hosts to ask out of those that the entry host knows: itself, and all that are online."""
    online = [ref for ref in refs if ref.online or ref.name == entry.name]
    return [entry if ref.name == entry.name else ServerRef(ref.name, ref.url) for ref in online] or [entry]


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:_MOST_LISTED])
    return f"{shown} and {len(labels) - _MOST_LISTED} more" if len(labels) > _MOST_LISTED else shown


def _advice(found: Sequence[Found]) -> str:
    if len({each.agent_id for each in found}) == 1:
        return "choose one with --host"
    return "write more of the id"


# --- output -----------------------------------------------------------------------------------------------------------


def print_listing(listing: dict[str, Any], draw: Callable[[], Table], *, json: bool, wide: bool) -> None:
    """Print what `Fleet.listing` returned as JSON, or as a table and, on standard error, who was not asked.

    :param draw: makes the table.
    """
    if json:
        print_json(listing)
        return
    print_shown(draw(), whole=wide)
    if listing["offline"]:
        note(f"offline, and not asked: {', '.join(listing['offline'])}")


def report_missing(command: str, answers: Answers) -> None:
    """Write a line to standard error for each host that did not answer, and end the command if there is one."""
    for failure in answers.failures:
        print_error(command, failure)
    if answers.missing:
        raise typer.Exit(FAILURE_EXIT)


# --- for people -------------------------------------------------------------------------------------------------------


def class_text(summary: dict[str, Any]) -> str:
    """Return the name of a paglet's class without its module."""
    return str(summary.get("class_name") or "?").rpartition(":")[2]


def state_text(summary: dict[str, Any]) -> str:
    """Return how a paglet is: active, asleep or crashed."""
    if summary.get("crashed"):
        return "crashed"
    return "active" if summary.get("active") else "asleep"


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """Return the shortest beginnings, of at least 8 characters, that tell ids apart; short ids stay whole."""
    ordered = sorted(set(ids))
    lengths = {each: _SHORT_ID if len(each) > _LONGEST_WHOLE else len(each) for each in ordered}
    for first, second in pairwise(ordered):
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
        for each in (first, second):
            lengths[each] = max(lengths[each], same + 1)
    return {each: each[:length] for each, length in lengths.items()}
