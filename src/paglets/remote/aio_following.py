"""The part of the asynchronous client that talks to paglets: `paglets.remote.following` with coroutines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from paglets.core.errors import InvalidAgentError, PagletError, SerializationError, UnsupportedMediaError
from paglets.core.messages import Message
from paglets.core.terms import FIRST_ATTEMPT, DeliveryTerms
from paglets.remote import requests
from paglets.remote.inquiries import AsyncInquiries
from paglets.remote.packed import MESSAGE_CONTENT_TYPE, Understood, decode_answer, encode_delivery, is_packed
from paglets.remote.pursuit import (
    ASTRAY,
    Ask,
    Found,
    Locate,
    Patience,
    Pursuit,
    connecting_seconds,
    first_connecting,
    follow_async,
)
from paglets.remote.routes import RouteTable
from paglets.remote.whereabouts import learn_move, learn_reply, place_in

__all__ = ["AsyncFollowing"]

_WITHDRAWAL_SECONDS: Final = 2.0
# Messages that are being withdrawn at the same time; the wish to withdraw a further one is dropped.
_MAX_WITHDRAWALS: Final = 64
_JSON: Final = {"Content-Type": "application/json"}
_PACKED: Final = {"Content-Type": MESSAGE_CONTENT_TYPE, "Accept": MESSAGE_CONTENT_TYPE}
_JSON_OR_PACKED: Final = {**_JSON, "Accept": f"{MESSAGE_CONTENT_TYPE}, application/json"}


class AsyncFollowing(AsyncInquiries):
    """Send messages and operations to paglets; mixed into the client, which says how a request travels."""

    timeout: float

    def __init__(self) -> None:
        self.routes = RouteTable()
        """Where paglets were found; may be looked at and told more."""
        self._withdrawals: set[asyncio.Task[None]] = set()
        self._understood = Understood()

    async def get_json(self, url: str, *, timeout: float | None = None) -> Any:
        """Get a URL and return the decoded JSON."""
        raise NotImplementedError

    async def post_json(self, url: str, payload: dict[str, Any], *, timeout: float | None = None) -> Any:
        """Post a dict as JSON and return the decoded answer."""
        raise NotImplementedError

    async def _call(
        self,
        method: str,
        url: str,
        body: bytes | Iterable[bytes | memoryview] | None,
        headers: dict[str, str],
        timeout: float | None,
        *,
        connecting: float | None = None,
        decode: Callable[[bytes, str], Any] | None = None,
    ) -> Any:
        """Make one request and return its decoded answer.

        :param decode: reads the body of a good answer, in place of JSON.
        """
        raise NotImplementedError

    @property
    def _open(self) -> bool:
        """Tell whether there are connections."""
        raise NotImplementedError

    async def deliver(
        self,
        host_url: str,
        agent_id: str,
        message: Message,
        *,
        oneway: bool = False,
        activate_if_inactive: bool = True,
        no_delay: bool = False,
        timeout: float | None = None,
        patience: Patience | None = None,
    ) -> Any:
        """Deliver a message to a paglet and return the reply of its handler; see `HostClient.deliver`.

        Cancelling it withdraws the message in the background, where its handler has not begun.
        """
        parcel = requests.Parcel(message, oneway, activate_if_inactive, no_delay)
        answer = await self.deliver_parcel(host_url, agent_id, parcel, timeout=timeout, patience=patience)
        return answer["result"]

    async def deliver_parcel(
        self,
        host_url: str,
        agent_id: str,
        parcel: requests.Parcel,
        terms: DeliveryTerms = FIRST_ATTEMPT,
        *,
        timeout: float | None = None,
        patience: Patience | None = None,
    ) -> dict[str, Any]:
        """Do what `deliver` does and return the whole answer: `result`, and what the host says of the paglet's place.

        :param terms: for a host that delivers on behalf of somebody: the attempt to begin with, the chain and the hops.
            The time that travels is what is left of `timeout`.
        """
        seconds = self.timeout if timeout is None else timeout
        end = time.monotonic() + seconds
        place, others = self.routes.best(agent_id, host_url)
        connecting = first_connecting(seconds, others=others, patience=patience)
        try:
            try:
                answer = await self.deliver_at(place, agent_id, parcel, terms, seconds, connecting=connecting)
            except ASTRAY as exc:

                async def ask(step: Ask) -> dict[str, Any]:
                    again = replace(terms, attempt=step.attempt)
                    return await self.deliver_at(
                        step.place, agent_id, parcel, again, step.seconds, connecting=step.connecting
                    )

                pursuit = Pursuit(
                    self.routes,
                    agent_id,
                    host_url,
                    end=end,
                    repeatable=True,
                    passed_on=True,
                    lasting=True,
                    patience=patience,
                    attempt=terms.attempt,
                )
                place, answer = await self._follow(pursuit, host_url, agent_id, place, exc, ask)
        except asyncio.CancelledError:
            if not parcel.oneway:
                self._withdraw_soon(host_url, agent_id, parcel.message_id)
            raise
        learn_reply(self.routes, agent_id, host_url, place, answer)
        return answer

    async def deliver_at(
        self,
        place: str,
        agent_id: str,
        parcel: requests.Parcel,
        terms: DeliveryTerms,
        seconds: float,
        *,
        connecting: float | None = None,
    ) -> dict[str, Any]:
        """Deliver a message at one place, once, and return the whole answer, in which there is a `result`.

        The result of a packed message is packed, as `msgspec.Raw`, if the host understands that.

        :param connecting: seconds after which there must be a connection.
        :raises NotConnectedError: it was not sent.
        :raises ConnectionLostError: it may have arrived.
        :raises PagletError: what the host answered.
        """
        url = requests.agent_url(place, agent_id, "messages")
        terms = requests.terms_of(parcel, seconds, terms.attempt, terms)
        if parcel.packed and place in self._understood:
            try:
                return await self._deliver_packed(url, parcel, terms, seconds, connecting)
            except UnsupportedMediaError as exc:
                if not exc.refused:
                    raise  # it is what the handler raised
                self._understood.discard(place)  # another host is there now
        try:
            body = requests.encode_json(requests.delivery(parcel, terms), strict=bool(parcel.packed))
        except SerializationError:
            if not parcel.packed:
                raise
            # There is nothing to lose: what JSON proper cannot express may well be understood so.
            try:
                return await self._deliver_packed(url, parcel, terms, seconds, connecting)
            except UnsupportedMediaError as exc:
                if not exc.refused:
                    raise
            body = requests.encode_json(requests.delivery(parcel, terms))
        headers, decode = (_JSON_OR_PACKED, self._decoder(place)) if parcel.packed else (_JSON, None)
        answer = await self._call("POST", url, body, headers, seconds, connecting=connecting, decode=decode)
        requests.field_of(answer, "result", url)
        return requests.dict_of(answer, url)

    async def _deliver_packed(
        self, url: str, parcel: requests.Parcel, terms: DeliveryTerms, seconds: float, connecting: float | None
    ) -> dict[str, Any]:
        body = encode_delivery(
            parcel.packed,
            terms,
            oneway=parcel.oneway,
            activate_if_inactive=parcel.activate_if_inactive,
            no_delay=parcel.no_delay,
        )
        answer: dict[str, Any] = await self._call(
            "POST", url, body, _PACKED, seconds, connecting=connecting, decode=decode_answer
        )
        return answer

    def _decoder(self, place: str) -> Callable[[bytes, str], Any]:
        def decode(body: bytes, url: str) -> Any:
            if not is_packed(body):
                return requests.decode_answer(body, url)
            answer = decode_answer(body, url)
            self._understood.add(place)
            return answer

        return decode

    async def withdraw(self, host_url: str, agent_id: str, message_id: str) -> bool:
        """Withdraw a message that waits for its handler; see `HostClient.withdraw`."""
        place, _ = self.routes.best(agent_id, host_url)
        end = time.monotonic() + min(self.timeout, _WITHDRAWAL_SECONDS)
        asked: set[str] = set()
        try:
            while place and place not in asked and (seconds := end - time.monotonic()) > 0:
                asked.add(place)
                with suppress(InvalidAgentError):
                    if await self.cancel_message(place, agent_id, message_id, timeout=seconds):
                        return True
                # It may have been passed on to where the paglet went.
                place = place_in(await self.locate(place, agent_id, timeout=seconds), "host_url")
        except PagletError:
            return False
        return False

    def _withdraw_soon(self, host_url: str, agent_id: str, message_id: str) -> None:
        if not self._open or len(self._withdrawals) >= _MAX_WITHDRAWALS:
            return

        async def withdraw() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_WITHDRAWAL_SECONDS):
                    await self.withdraw(host_url, agent_id, message_id)

        task = asyncio.get_running_loop().create_task(withdraw(), name=f"paglets-withdraw-{message_id}")
        self._withdrawals.add(task)
        task.add_done_callback(self._withdrawals.discard)

    async def _end_withdrawals(self) -> None:
        """Wait for the withdrawals under way; what takes longer than it may ends."""
        if self._withdrawals:
            _, late = await asyncio.wait(self._withdrawals, timeout=_WITHDRAWAL_SECONDS)
            for task in late:
                task.cancel()

    async def operate(
        self, host_url: str, agent_id: str, operation: str, payload: dict[str, Any], *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Ask a host for an operation on a paglet; see `HostClient.operate`."""
        if timeout is None:
            timeout = requests.operation_timeout(operation, payload, self.timeout)
        body = requests.encode_json(payload)

        async def ask(place: str, seconds: float, connecting: float | None) -> dict[str, Any]:
            url = requests.agent_url(place, agent_id, operation)
            return requests.dict_of(await self._call("POST", url, body, _JSON, seconds, connecting=connecting), url)

        place, answer = await self._ask_anywhere(host_url, agent_id, timeout, ask, repeatable=operation == "activate")
        if operation == "dispose":
            self.routes.forget(agent_id, host_url)
        else:
            learn_move(self.routes, agent_id, host_url, place, answer)
        return answer

    async def agent_info(self, host_url: str, agent_id: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Return the summary of a paglet; see `HostClient.agent_info`."""

        async def ask(place: str, seconds: float, connecting: float | None) -> dict[str, Any]:
            url = requests.agent_url(place, agent_id)
            return requests.dict_of(await self._call("GET", url, None, {}, seconds, connecting=connecting), url)

        seconds = self.timeout if timeout is None else timeout
        place, answer = await self._ask_anywhere(host_url, agent_id, seconds, ask, repeatable=False)
        self.routes.learn(agent_id, host_url, place)
        return answer

    async def _ask_anywhere(
        self,
        host_url: str,
        agent_id: str,
        seconds: float,
        ask: Callable[[str, float, float | None], Awaitable[dict[str, Any]]],
        *,
        repeatable: bool,
    ) -> Found:
        """Ask the places of a paglet, each once, until one answers."""
        end = time.monotonic() + seconds
        place, others = self.routes.best(agent_id, host_url)
        try:
            return place, await ask(place, seconds, connecting_seconds(seconds) if others else None)
        except ASTRAY as exc:
            pursuit = Pursuit(self.routes, agent_id, host_url, end=end, repeatable=repeatable)
            return await self._follow(
                pursuit,
                host_url,
                agent_id,
                place,
                exc,
                lambda step: ask(step.place, step.seconds, step.connecting),
            )

    async def _follow(
        self,
        pursuit: Pursuit,
        host_url: str,
        agent_id: str,
        place: str,
        failure: PagletError,
        ask: Callable[[Ask], Awaitable[dict[str, Any]]],
    ) -> Found:
        async def locate(step: Locate) -> Any:
            return await self.locate(step.place, agent_id, timeout=step.seconds)

        try:
            return await follow_async(
                pursuit.steps(place, failure), ask=ask, locate=locate, pause=lambda step: asyncio.sleep(step.seconds)
            )
        except InvalidAgentError:
            self.routes.forget(agent_id, host_url)
            raise
