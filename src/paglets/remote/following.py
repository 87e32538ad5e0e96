"""The part of the client that talks to paglets, and follows them to where they have gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from paglets.core.errors import InvalidAgentError, PagletError
from paglets.core.messages import Message
from paglets.remote import requests
from paglets.remote.inquiries import Inquiries
from paglets.remote.pursuit import (
    ASTRAY,
    Ask,
    Found,
    Locate,
    Patience,
    Pause,
    Pursuit,
    connecting_seconds,
    first_connecting,
    follow,
)
from paglets.remote.routes import RouteTable
from paglets.remote.whereabouts import learn_move, learn_reply, place_in
from paglets.remote.withdrawal import Resting

__all__ = ["Following"]

_WITHDRAWAL_SECONDS: Final = 2.0
_JSON: Final = "application/json"


class Following(Inquiries):
    """Send messages and operations to paglets; mixed into the client, which says how a request travels.

    Each request goes to where its paglet was found last. When that fails, a `Pursuit` says where it goes next.
    """

    timeout: float

    def __init__(self) -> None:
        self.routes = RouteTable()
        """Where paglets were found; may be looked at and told more."""
        self._resting: dict[str, Resting] = {}

    def get_json(self, url: str, *, timeout: float | None = None) -> Any:
        """Get a URL and return the decoded JSON."""
        raise NotImplementedError

    def post_json(self, url: str, payload: dict[str, Any], *, timeout: float | None = None) -> Any:
        """Post a dict as JSON and return the decoded answer."""
        raise NotImplementedError

    def _call(
        self,
        method: str,
        url: str,
        body: bytes | Iterable[bytes | memoryview],
        content_type: str,
        timeout: float | None,
        *,
        length: int | None = None,
        connecting: float | None = None,
    ) -> Any:
        """Make one request and return its decoded answer.

        :param connecting: seconds after which there must be a connection.
        """
        raise NotImplementedError

    def deliver(
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
        """Deliver a message to a paglet and return the reply of its handler, None if `oneway`.

        Proxies send through this method; a client that knows a shorter way to a host overrides it. A message whose
        arrival is in doubt is sent again with the same id until the time is over.

        :param host_url: where the paglet was known to be when the proxy was made.
        :param patience: how long hosts that cannot be reached are waited for; by default as long as for the reply. For
            callers who know somebody else to ask.
        :raises RemoteTimeoutError: the paglet did not answer in time; it may still handle the message.
        :raises HostUnreachableError: the message was never sent, because no host of the paglet can be reached.
        :raises PagletError: what the delivery or the handler ended in.
        """
        parcel = requests.Parcel(message, oneway, activate_if_inactive, no_delay)
        seconds = self.timeout if timeout is None else timeout
        end = time.monotonic() + seconds
        place, others = self.routes.best(agent_id, host_url)
        try:
            connecting = first_connecting(seconds, others=others, patience=patience)
            answer = self._deliver_at(place, agent_id, parcel, 1, seconds, connecting)
        except ASTRAY as exc:
            place, answer = self._deliver_astray(host_url, agent_id, parcel, end, place, exc, patience)
        learn_reply(self.routes, agent_id, host_url, place, answer)
        return answer["result"]

    def _deliver_at(
        self,
        place: str,
        agent_id: str,
        parcel: requests.Parcel,
        attempt: int,
        seconds: float,
        connecting: float | None,
    ) -> dict[str, Any]:
        """Deliver a message at one place, once, and return the whole answer, in which there is a `result`."""
        url = requests.agent_url(place, agent_id, "messages")
        body = requests.encode_json(requests.delivery(parcel, requests.terms_of(parcel, seconds, attempt)))
        answer = self._call("POST", url, body, _JSON, seconds, connecting=connecting)
        requests.field_of(answer, "result", url)
        return requests.dict_of(answer, url)

    def _deliver_astray(
        self,
        host_url: str,
        agent_id: str,
        parcel: requests.Parcel,
        end: float,
        place: str,
        failure: PagletError,
        patience: Patience | None,
    ) -> Found:
        message_id = parcel.message.message_id
        resting = Resting(f"message {message_id} was withdrawn")

        def ask(step: Ask) -> dict[str, Any]:
            return self._deliver_at(step.place, agent_id, parcel, step.attempt, step.seconds, step.connecting)

        pursuit = Pursuit(
            self.routes,
            agent_id,
            host_url,
            end=end,
            repeatable=True,
            passed_on=True,
            lasting=self._lasting(place),
            patience=patience,
        )
        self._resting[message_id] = resting
        try:
            return self._follow(
                pursuit,
                host_url,
                agent_id,
                place,
                failure,
                ask,
                lambda step: resting.rest(step.seconds, unsent=step.unsent),
            )
        finally:
            self._resting.pop(message_id, None)

    def _lasting(self, place: str) -> bool:
        """Tell whether a host that cannot be reached is worth waiting for."""
        del place
        return True

    def withdraw(self, host_url: str, agent_id: str, message_id: str) -> bool:
        """Withdraw a message that was sent through this client and waits for its handler; return whether it was.

        What sent it raises `MessageCancelledError` then. Never raises; takes a few seconds at most.
        """
        resting = self._resting.get(message_id)
        if resting is not None and resting.withdraw():
            return True
        place, _ = self.routes.best(agent_id, host_url)
        end = time.monotonic() + min(self.timeout, _WITHDRAWAL_SECONDS)
        asked: set[str] = set()
        try:
            while place and place not in asked and (seconds := end - time.monotonic()) > 0:
                asked.add(place)
                with suppress(InvalidAgentError):
                    if self.cancel_message(place, agent_id, message_id, timeout=seconds):
                        return True
                # It may have been passed on to where the paglet went.
                place = place_in(self.locate(place, agent_id, timeout=seconds), "host_url")
        except PagletError:
            return False
        return False

    def operate(
        self, host_url: str, agent_id: str, operation: str, payload: dict[str, Any], *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Ask a host for an operation on a paglet: dispatch, clone, retract, deactivate, activate or dispose.

        Only an activation is repeated where it may have been carried out already.

        :param timeout: seconds; by default the client's, and for a move at least what its ticket allows.
        :raises ConnectionLostError: the host may have carried it out.
        :raises PagletError: what the operation ended in.
        """
        if timeout is None:
            timeout = requests.operation_timeout(operation, payload, self.timeout)

        def ask(place: str, seconds: float, connecting: float | None) -> dict[str, Any]:
            return self._operate_at(place, agent_id, operation, payload, seconds, connecting)

        place, answer = self._ask_anywhere(host_url, agent_id, timeout, ask, repeatable=operation == "activate")
        if operation == "dispose":
            self.routes.forget(agent_id, host_url)
        else:
            learn_move(self.routes, agent_id, host_url, place, answer)
        return answer

    def _operate_at(
        self,
        place: str,
        agent_id: str,
        operation: str,
        payload: dict[str, Any],
        seconds: float,
        connecting: float | None,
    ) -> dict[str, Any]:
        """Ask one host for an operation."""
        url = requests.agent_url(place, agent_id, operation)
        body = requests.encode_json(payload)
        return requests.dict_of(self._call("POST", url, body, _JSON, seconds, connecting=connecting), url)

    def agent_info(self, host_url: str, agent_id: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Return the summary of a paglet.

        :param timeout: seconds, the client's by default.
        :raises InvalidAgentError: no host that could be asked knows it.
        """

        def ask(place: str, seconds: float, connecting: float | None) -> dict[str, Any]:
            return self._info_at(place, agent_id, seconds, connecting)

        seconds = self.timeout if timeout is None else timeout
        place, answer = self._ask_anywhere(host_url, agent_id, seconds, ask, repeatable=False)
        self.routes.learn(agent_id, host_url, place)
        return answer

    def _info_at(self, place: str, agent_id: str, seconds: float, connecting: float | None) -> dict[str, Any]:
        """Ask one host for the summary of a paglet."""
        url = requests.agent_url(place, agent_id)
        return requests.dict_of(self._call("GET", url, b"", "", seconds, connecting=connecting), url)

    def _ask_anywhere(
        self,
        host_url: str,
        agent_id: str,
        seconds: float,
        ask: Callable[[str, float, float | None], dict[str, Any]],
        *,
        repeatable: bool,
    ) -> Found:
        """Ask the places of a paglet, each once, until one answers."""
        end = time.monotonic() + seconds
        place, others = self.routes.best(agent_id, host_url)
        try:
            return place, ask(place, seconds, connecting_seconds(seconds) if others else None)
        except ASTRAY as exc:
            pursuit = Pursuit(self.routes, agent_id, host_url, end=end, repeatable=repeatable)
            return self._follow(
                pursuit,
                host_url,
                agent_id,
                place,
                exc,
                lambda step: ask(step.place, step.seconds, step.connecting),
                lambda step: time.sleep(step.seconds),
            )

    def _follow(
        self,
        pursuit: Pursuit,
        host_url: str,
        agent_id: str,
        place: str,
        failure: PagletError,
        ask: Callable[[Ask], Any],
        pause: Callable[[Pause], None],
    ) -> Found:
        def locate(step: Locate) -> Any:
            return self.locate(step.place, agent_id, timeout=step.seconds)

        try:
            return follow(pursuit.steps(place, failure), ask=ask, locate=locate, pause=pause)
        except InvalidAgentError:
            self.routes.forget(agent_id, host_url)
            raise
