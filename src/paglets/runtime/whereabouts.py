"""Where the paglets are that left this host, or were created here: forwarders, news for home hosts, messages sent after
them.

Every host that had a paglet keeps a forwarder to the next; the host that created it, its *home*, is told by each later
host. So a message finds its way along the chain, and around a part of it that is gone.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from dataclasses import replace
from functools import partial
from typing import Any

from paglets.core.errors import (
    ConnectionLostError,
    HostUnreachableError,
    InvalidAgentError,
    PagletError,
    RemoteHostError,
    RemoteTimeoutError,
)
from paglets.core.terms import MAX_HOPS
from paglets.persistence.rows import DepartedRow, HomeRow, NoticeRow
from paglets.persistence.tables import places
from paglets.protocol.delivery import forwarding, routing
from paglets.remote import requests
from paglets.remote.aio import AsyncHostClient
from paglets.runtime.attachment import Attachment
from paglets.runtime.kernel import Kernel
from paglets.runtime.pauses import rest
from paglets.runtime.place import packed
from paglets.runtime.post import permanent
from paglets.runtime.posting import Posting
from paglets.runtime.sleep import Dormitory

#: How long a forwarded message may take to be handled where its sender named no limit.
FORWARD_SECONDS = 600.0
#: How long a home host may take to say where a paglet is.
ASK_SECONDS = 5.0
FIRST_PAUSE_SECONDS = 0.1
#: News are told to so many home hosts at the same time.
TELLERS = 8


class Whereabouts:
    """Know what left one host, and send messages after it; runs on the host's loop."""

    def __init__(self, kernel: Kernel, dormitory: Dormitory, words: AsyncHostClient) -> None:
        self._kernel = kernel
        self._dormitory = dormitory
        self._words = words
        self._telling: set[str] = set()
        self._tellers = asyncio.Semaphore(TELLERS)

    # --- what is known ------------------------------------------------------------------------------------------------

    async def _rows(self, agent_id: str) -> tuple[DepartedRow | None, HomeRow | None]:
        def read(connection: sqlite3.Connection) -> tuple[DepartedRow | None, HomeRow | None]:
            left, home = places.departed_get(connection, agent_id), places.home_get(connection, agent_id)
            news = places.notice_get(connection, agent_id)
            ended = news is not None and news.host_url is None and (left is None or left.epoch < news.epoch)
            if home is None and news is not None and ended:
                # It ended here, and its home has not heard of that yet.
                home = HomeRow(agent_id, news.epoch, None, 0.0)
            return left, home

        found = self._kernel.journal.glance(read)
        return found[0] if found is not None else await self._kernel.on_disk(self._kernel.journal.read, read)

    async def departed(self, agent_id: str) -> DepartedRow | None:
        """Return the forwarder of a paglet."""
        return (await self._rows(agent_id))[0]

    async def knowledge(self, agent_id: str) -> routing.Knowledge:
        """Return what is known of a paglet that is not here."""
        left, home = await self._rows(agent_id)
        is_own = self._kernel.address.is_own
        if home is not None and home.host_url is None:
            return routing.Ended()
        departed = None
        if left is not None and not is_own(left.target):
            departed = routing.Departed(left.epoch, left.target, "" if is_own(left.home) else left.home)
        elsewhere = None
        if home is not None and home.host_url is not None and not is_own(home.host_url):
            elsewhere = routing.Elsewhere(home.epoch, home.host_url)
        return routing.newest(departed, elsewhere)

    async def locate(self, agent_id: str) -> dict[str, Any]:
        """Tell where a paglet is, as far as this host knows.

        :raises InvalidAgentError: it has never heard of it.
        """
        here = self._kernel.address()
        entry = self._kernel.agents.get(agent_id)
        summary = self._dormitory.summary(agent_id)
        left, home = await self._rows(agent_id)
        answer: dict[str, Any] = {"agent_id": agent_id, "here": False, "ended": False, "home": ""}
        if left is not None:
            answer["home"] = left.home
        if home is not None and home.told_at:
            answer["home"] = here
        if entry is not None or summary is not None:
            epoch = entry.epoch if entry is not None else summary.epoch if summary is not None else 0
            if entry is not None and entry.home:
                answer["home"] = entry.home
            return answer | {"host_url": here, "epoch": epoch, "here": True}
        match await self.knowledge(agent_id):
            case routing.Ended():
                return answer | {"host_url": None, "epoch": 0 if home is None else home.epoch, "ended": True}
            case routing.Departed(epoch, url) | routing.Elsewhere(epoch, url):
                return answer | {"host_url": url, "epoch": epoch}
        raise InvalidAgentError(f"host {self._kernel.config.name} has never heard of paglet {agent_id}")

    async def hear_of(self, agent_id: str, epoch: int, host_url: str | None) -> bool:
        """Take the news of a later host about a paglet that was created here; return whether it was news."""
        row = HomeRow(agent_id, epoch, host_url, time.time())
        return await self._kernel.journal.write(lambda connection: places.home_put(connection, row))

    # --- sending after ------------------------------------------------------------------------------------------------

    async def forward(self, agent_id: str, posting: Posting, way: routing.Forward) -> Attachment | None:
        """Deliver a message to where its receiver went and return the packed reply.

        :raises InvalidAgentError: it has ended, or nobody knows it.
        :raises HostUnreachableError: the host that has it cannot be reached; the message was not sent.
        :raises ConnectionLostError: it may have arrived.
        :raises PagletError: what the delivery or the handler ended in.
        """
        terms = posting.terms
        loop = self._kernel.loop
        end = loop.time() + (FORWARD_SECONDS if terms.timeout is None else terms.timeout)
        action: forwarding.ForwardAction
        state, action = forwarding.Forwarding.start(way, terms.attempt)
        reply: Attachment | None = None
        error: Exception | None = None
        pause = 0.05
        while True:
            match action:
                case forwarding.Send(url, attempt):
                    if state.repeats:
                        await asyncio.sleep(min(pause, max(0.0, end - loop.time())))
                        pause *= 2
                    reply, error = None, None
                    try:
                        answer = await self._send(url, agent_id, posting, attempt, end - loop.time())
                    except HostUnreachableError as exc:
                        error = exc
                        state, action = state.unreachable()
                    except ConnectionLostError as exc:
                        error = exc
                        state, action = state.broken()
                    except InvalidAgentError as exc:
                        error = exc
                        state, action = await self._stranger(state, url, agent_id, end - loop.time())
                    except PagletError as exc:
                        error = exc
                        state, action = state.answered()
                    else:
                        reply = None if posting.oneway else packed(answer["result"])
                        state, action = state.answered(str(answer.get("location") or ""))
                case forwarding.AskHome(url):
                    try:
                        knowledge = await self._ask(url, agent_id, min(ASK_SECONDS, end - loop.time()))
                    except (PagletError, OSError):
                        state, action = state.home_unreachable()
                    else:
                        state, action = state.home_says(knowledge)
                case forwarding.Finish(location):
                    if posting.found is not None:
                        posting.found["location"] = location
                        if way.home:
                            posting.found["home"] = way.home
                    if error is not None:
                        raise error
                    return reply
                case forwarding.Fail(reason):
                    raise _failure(agent_id, state.url, reason, error)

    async def _send(self, url: str, agent_id: str, posting: Posting, attempt: int, seconds: float) -> dict[str, Any]:
        if seconds <= 0:
            raise RemoteTimeoutError(f"paglet {agent_id} did not answer in time")
        terms = replace(posting.terms, attempt=attempt, hops=posting.terms.hops + 1)
        return await self._words.deliver_at(url, agent_id, posting.parcel(), terms, seconds)

    async def _stranger(
        self, state: forwarding.Forwarding, url: str, agent_id: str, seconds: float
    ) -> tuple[forwarding.Forwarding, forwarding.ForwardAction]:
        """Go on from a host that does not know the paglet, unless its handler raised the error that says so."""
        epoch = -1
        for _ in range(MAX_HOPS):
            try:
                knowledge = await self._ask(url, agent_id, min(ASK_SECONDS, max(0.1, seconds)))
            except (PagletError, OSError):
                break
            match knowledge:
                case routing.Live():
                    return state.answered(url)
                case routing.Ended():
                    return state.gone()
                case routing.Elsewhere(newer, there) if newer > epoch:
                    # It was passed on from there, so it may have been handled.
                    state = replace(state, attempt=max(2, state.attempt))
                    epoch, url = newer, there
                case _:
                    break
        return state.unknown()

    async def _ask(self, url: str, agent_id: str, seconds: float) -> routing.Knowledge:
        """Ask a host where a paglet is."""
        try:
            answer = await self._words.get_json(requests.agent_url(url, agent_id, "location"), timeout=seconds)
        except InvalidAgentError:
            return routing.UNKNOWN
        if not isinstance(answer, dict):
            raise RemoteHostError(f"malformed answer from {url}")
        if answer.get("ended") is True:
            return routing.Ended()
        if answer.get("here") is True:
            return routing.Live()
        host_url, epoch = answer.get("host_url"), answer.get("epoch")
        if isinstance(host_url, str) and isinstance(epoch, int):
            return routing.Elsewhere(epoch, host_url)
        raise RemoteHostError(f"malformed answer from {url}")

    # --- telling home hosts -------------------------------------------------------------------------------------------

    async def tell_everything(self) -> None:
        """Tell what home hosts have not acknowledged yet."""
        for notice in await self._kernel.on_disk(self._kernel.journal.read, places.notices):
            self.tell(notice.agent_id)

    def tell(self, agent_id: str, *, home: str | None = None) -> None:
        """Tell the home host of a paglet where it is, soon and until it has acknowledged that.

        :param home: that host, where it is known; this one need not be told.
        """
        if home is not None and (not home or self._kernel.address.is_own(home)):
            return
        if agent_id not in self._telling:
            self._telling.add(agent_id)
            self._kernel.background(self._tell(agent_id))

    async def _tell(self, agent_id: str) -> None:
        try:
            pause = FIRST_PAUSE_SECONDS
            while (notice := await self._notice(agent_id)) is not None:
                async with self._tellers:
                    told = await self._told(notice)
                if told:
                    await self._kernel.journal.write(partial(places.notice_done, agent_id=agent_id, epoch=notice.epoch))
                else:
                    pause = await rest(pause)
        finally:
            self._telling.discard(agent_id)

    async def _notice(self, agent_id: str) -> NoticeRow | None:
        def read(connection: sqlite3.Connection) -> NoticeRow | None:
            return places.notice_get(connection, agent_id)

        return await self._kernel.on_disk(self._kernel.journal.read, read)

    async def _told(self, notice: NoticeRow) -> bool:
        body = {"epoch": notice.epoch, "host_url": notice.host_url}
        url = f"{notice.home.rstrip('/')}/homes/{requests.agent_url('', notice.agent_id).rpartition('/')[2]}"
        try:
            await self._words.post_json(url, body, timeout=ASK_SECONDS)
        except OSError:
            return False
        except PagletError as exc:
            if not permanent(exc):
                return False
            # It answers and does not want to know: telling it again changes nothing.
            self._kernel.emit("home-refused", agent_id=notice.agent_id, data={"home": notice.home}, error=str(exc))
        return True


def _failure(agent_id: str, url: str, reason: forwarding.FailReason, error: Exception | None) -> PagletError:
    match reason:
        case forwarding.FailReason.GONE:
            return InvalidAgentError(f"paglet {agent_id} has ended")
        case forwarding.FailReason.UNKNOWN:
            return InvalidAgentError(f"paglet {agent_id} went to {url}, where it is not known, nor at its home")
        case forwarding.FailReason.UNCERTAIN:
            return ConnectionLostError(f"the connection to {url}, where paglet {agent_id} went, broke: {error}")
        case forwarding.FailReason.LOST_WAY:
            return HostUnreachableError(f"paglet {agent_id} was not found on any of {forwarding.MOST_PLACES} hosts")
    if isinstance(error, InvalidAgentError):
        return HostUnreachableError(f"paglet {agent_id} was last heard of at {url}, which does not know it now")
    return HostUnreachableError(f"paglet {agent_id} is at {url}, which cannot be reached: {error}")
