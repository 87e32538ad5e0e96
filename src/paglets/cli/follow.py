"""Follow the events of several hosts at once, through their ends and returns, until Ctrl-C."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from paglets.cli.console import print_error
from paglets.cli.fleet import servers_of
from paglets.core.context_events import ContextEvent
from paglets.core.errors import AuthenticationError, PagletError
from paglets.protocol.membership import HostRef
from paglets.remote.admin import ServerRef
from paglets.remote.aio import AsyncHostClient

if TYPE_CHECKING:
    from paglets.cli.events import Printer, Selection
    from paglets.cli.fleet import Fleet

WAIT_SECONDS: Final = 20.0
PAGE: Final = 1000
# A busy host is asked a few times a second, and then has many events to tell.
PACE_SECONDS: Final = 0.1
FIRST_RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 15.0
NEW_HOSTS_SECONDS: Final = 5.0


@dataclass(slots=True)
class Bookmark:
    """How far the events of one host were read."""

    event_id: int = 0
    timestamp: float = 0.0

    def advance(self, events: list[ContextEvent]) -> list[ContextEvent]:
        """Return those of some events that are new, and put the mark behind them."""
        fresh = [event for event in events if self.event_id or event.timestamp > self.timestamp]
        if events:
            self.event_id = events[-1].event_id
            self.timestamp = max(self.timestamp, events[-1].timestamp)
        return fresh

    def restart(self) -> None:
        """Begin with the first event again; those that were read are told by their time."""
        self.event_id = 0


def follow_events(fleet: Fleet, chosen: Selection, printer: Printer, *, latest: int | None, command: str) -> None:
    """Print events as they happen until Ctrl-C.

    :param latest: 0 begins with the next event, None with all that the hosts still have.
    """
    try:
        asyncio.run(_follow_all(fleet, chosen, printer, latest=latest, command=command))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    except KeyboardInterrupt:
        return  # the way to end it


async def _follow_all(fleet: Fleet, chosen: Selection, printer: Printer, *, latest: int | None, command: str) -> None:
    async with (
        AsyncHostClient(fleet.client.timeout, api_key=fleet.client.api_key) as client,
        asyncio.TaskGroup() as followers,
    ):
        followed: set[str] = set()
        servers, from_now = fleet.servers, latest is not None
        while True:
            for server in servers:
                if server.name not in followed:
                    followed.add(server.name)
                    follower = Follower(client, server, chosen, printer, command)
                    followers.create_task(follower.run(from_now=from_now))
            if fleet.entry is None:
                return
            await asyncio.sleep(NEW_HOSTS_SECONDS)
            # What a host did before it was found belongs to what happens.
            servers, from_now = await _servers(client, fleet.entry), False


async def _servers(client: AsyncHostClient, entry: ServerRef) -> list[ServerRef]:
    try:
        reply = await client.get_json(f"{entry.url.rstrip('/')}/hosts")
        return servers_of([HostRef.from_wire(wire) for wire in reply["hosts"]], entry)
    except (PagletError, KeyError, TypeError):
        return []  # its own follower says that it does not answer


class Follower:
    """Read and print the events of one host."""

    def __init__(
        self, client: AsyncHostClient, server: ServerRef, chosen: Selection, printer: Printer, command: str
    ) -> None:
        self._client = client
        self._server = server
        self._chosen = chosen
        self._printer = printer
        self._command = command
        self._read = Bookmark()

    async def run(self, *, from_now: bool) -> None:
        """Follow until cancelled.

        :raises AuthenticationError: the host does not accept the key.
        """
        lost, pause = False, FIRST_RETRY_SECONDS
        while True:
            try:
                if from_now:
                    await self._skip()
                    from_now = False
                if lost:
                    await self._check_numbers()
                await self._next()
            except AuthenticationError:
                raise
            except PagletError as exc:
                if not lost:
                    print_error(self._command, f"{self._server.name}: {exc}; trying on")
                lost = True
                await asyncio.sleep(pause)
                pause = min(LONGEST_RETRY_SECONDS, pause * 2)
                continue
            if lost:
                self._printer.note(f"{self._server.name} answers again")
                lost, pause = False, FIRST_RETRY_SECONDS
            await asyncio.sleep(PACE_SECONDS)

    async def _skip(self) -> None:
        """Put the mark behind everything that has happened."""
        began = time.time()
        while events := await self._client.events(self._server.url, since=self._read.event_id, limit=PAGE):
            self._read.advance(events)
            if events[-1].timestamp > began:
                break

    async def _next(self) -> None:
        before = self._read.event_id
        events = await self._client.events(self._server.url, since=before, limit=PAGE, wait=WAIT_SECONDS)
        if not events:
            await self._check_numbers()
            return
        missed = events[0].event_id - before - 1
        fresh = self._read.advance(events)
        if before and missed > 0:
            self._printer.note(f"{self._server.name}: {missed} events were dropped before they could be read")
        if events[-1].kind == "context-shutdown":
            self._read.restart()  # what comes next has new numbers
        self._printer.show([event for event in fresh if event in self._chosen])

    async def _check_numbers(self) -> None:
        """Notice a host that was started again, also so fast that nobody saw it away: its numbers begin anew."""
        read = self._read
        if read.event_id:
            same = await self._client.events(self._server.url, since=read.event_id - 1, limit=1)
            if not same or (same[0].event_id, same[0].timestamp) != (read.event_id, read.timestamp):
                read.restart()
