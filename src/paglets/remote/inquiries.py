"""What clients ask hosts about paglets on the way: where they were and are, what happened, and what was not delivered.

Both clients have these methods. How a question is put and what an answer means is written once, at the end.
"""

from __future__ import annotations

from typing import Any, Protocol
from urllib.parse import quote, urlencode

from paglets.core.allowance import AllowanceBalance, AllowanceGrant
from paglets.core.context_events import ContextEvent
from paglets.core.errors import RemoteHostError, SerializationError
from paglets.remote.requests import agent_url, dict_of, field_of

__all__ = ["AsyncInquiries", "Inquiries"]

_WAIT_SLACK_SECONDS = 5.0


class _Caller(Protocol):
    timeout: float

    def get_json(self, url: str, *, timeout: float | None = None) -> Any: ...

    def post_json(self, url: str, payload: dict[str, Any], *, timeout: float | None = None) -> Any: ...


class Inquiries:
    """Ask hosts; mixed into the client, which says how a request travels."""

    def journey(self: _Caller, host_url: str, agent_id: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Return one host's piece of a paglet's journey: `entries`, oldest first, `previous` and `next`.

        A host on which the paglet never was has no entries. `paglets.remote.journey` puts the pieces together.
        """
        url = agent_url(host_url, agent_id, "journey")
        return dict_of(self.get_json(url, timeout=timeout), url)

    def locate(self: _Caller, host_url: str, agent_id: str, *, timeout: float | None = None) -> dict[str, Any]:
        """Return where a paglet is as far as a host knows: `host_url`, `epoch`, `home`, `here` and `ended`.

        :raises InvalidAgentError: the host never heard of it.
        """
        url = agent_url(host_url, agent_id, "location")
        return dict_of(self.get_json(url, timeout=timeout), url)

    def allowance(self: _Caller, host_url: str, agent_id: str, *, timeout: float | None = None) -> AllowanceBalance:
        """Return what a paglet of a host has used of its allowance, and what is left.

        :raises InvalidAgentError: it is not there.
        """
        url = agent_url(host_url, agent_id, "allowance")
        return _balance(self.get_json(url, timeout=timeout), url)

    def grant_allowance(
        self: _Caller, host_url: str, agent_id: str, grant: AllowanceGrant, *, timeout: float | None = None
    ) -> AllowanceBalance:
        """Change what a paglet of a host has left, and return that; needs the role `admin` there.

        :raises InvalidAgentError: it is not there.
        :raises ConflictError: it is on its way there; ask again.
        """
        url = agent_url(host_url, agent_id, "allowance")
        return _balance(self.post_json(url, grant.to_wire(), timeout=timeout), url)

    def events(
        self: _Caller,
        host_url: str,
        *,
        since: int = 0,
        limit: int = 100,
        wait: float = 0.0,
        timeout: float | None = None,
    ) -> list[ContextEvent]:
        """Return what happened on a host, oldest first.

        :param since: only events with a greater id.
        :param wait: seconds that the host waits for an event while there is none, at most 30.
        :param timeout: seconds for the whole call, by default the client's beside `wait`.
        :raises OverloadedError: too many wait already.
        """
        url = _events_url(host_url, since, limit, wait)
        seconds = max(self.timeout, wait + _WAIT_SLACK_SECONDS) if timeout is None else timeout
        return _events(self.get_json(url, timeout=seconds), url)

    def cancel_message(
        self: _Caller, host_url: str, agent_id: str, message_id: str, *, timeout: float | None = None
    ) -> bool:
        """Withdraw a message that waits for its handler, and return whether it was.

        False means that its handler had begun, or that the host does not have the message.

        :raises NotFoundError: the id has a slash in it, which no URL of a message can have.
        """
        url = _message_url(host_url, agent_id, message_id)
        return bool(field_of(self.post_json(url, {}, timeout=timeout), "cancelled", url))

    def dead_letters(
        self: _Caller,
        host_url: str,
        *,
        since: int = 0,
        limit: int = 100,
        agent_id: str | None = None,
        timeout: float | None = None,
    ) -> list[dict[str, Any]]:
        """Return the messages that a host could not deliver, oldest first and without their content.

        :param since: only letters with a greater id.
        :param agent_id: only those to this paglet.
        """
        url = _letters_url(host_url, since, limit, agent_id)
        return _objects(self.get_json(url, timeout=timeout), "dead_letters", url)

    def dead_letter(self: _Caller, host_url: str, letter_id: int, *, timeout: float | None = None) -> dict[str, Any]:
        """Return a dead letter with its message.

        :raises NotFoundError: there is no such letter.
        """
        url = _letter_url(host_url, letter_id)
        return dict_of(self.get_json(url, timeout=timeout), url)

    def retry_dead_letter(self: _Caller, host_url: str, letter_id: int, *, timeout: float | None = None) -> None:
        """Have a dead letter delivered again; it is gone when it was accepted.

        :raises NotFoundError: there is no such letter.
        :raises PagletError: why it was not accepted.
        """
        dict_of(self.post_json(_letter_url(host_url, letter_id, "retry"), {}, timeout=timeout), host_url)

    def retry_dead_letters(
        self: _Caller, host_url: str, *, agent_id: str | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Have the dead letters of a host, or those to one paglet, delivered again.

        :return: `accepted` with the ids of those that are gone now, `failed` with `letter_id`, `error_type` and `error`
            of the others, and `untried` with how many were left for another call.
        """
        url = f"{host_url.rstrip('/')}/dead-letters/retry"
        seconds = max(self.timeout, _RETRY_SECONDS) if timeout is None else timeout
        return dict_of(self.post_json(url, {"agent_id": agent_id}, timeout=seconds), url)

    def clear_dead_letter(self: _Caller, host_url: str, letter_id: int, *, timeout: float | None = None) -> None:
        """Have a host forget a dead letter.

        :raises NotFoundError: there is no such letter.
        """
        dict_of(self.post_json(_letter_url(host_url, letter_id, "clear"), {}, timeout=timeout), host_url)

    def clear_dead_letters(
        self: _Caller, host_url: str, *, agent_id: str | None = None, timeout: float | None = None
    ) -> int:
        """Have a host forget its dead letters, or those to one paglet, and return how many there were."""
        url = f"{host_url.rstrip('/')}/dead-letters/clear"
        return _number(self.post_json(url, {"agent_id": agent_id}, timeout=timeout), "cleared", url)


class _AsyncCaller(Protocol):
    timeout: float

    async def get_json(self, url: str, *, timeout: float | None = None) -> Any: ...

    async def post_json(self, url: str, payload: dict[str, Any], *, timeout: float | None = None) -> Any: ...


class AsyncInquiries:
    """`Inquiries` with every method a coroutine."""

    async def journey(
        self: _AsyncCaller, host_url: str, agent_id: str, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return one host's piece of a paglet's journey; see `Inquiries.journey`."""
        url = agent_url(host_url, agent_id, "journey")
        return dict_of(await self.get_json(url, timeout=timeout), url)

    async def locate(
        self: _AsyncCaller, host_url: str, agent_id: str, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return where a paglet is as far as a host knows; see `Inquiries.locate`."""
        url = agent_url(host_url, agent_id, "location")
        return dict_of(await self.get_json(url, timeout=timeout), url)

    async def allowance(
        self: _AsyncCaller, host_url: str, agent_id: str, *, timeout: float | None = None
    ) -> AllowanceBalance:
        """Return what a paglet has left of its allowance; see `Inquiries.allowance`."""
        url = agent_url(host_url, agent_id, "allowance")
        return _balance(await self.get_json(url, timeout=timeout), url)

    async def grant_allowance(
        self: _AsyncCaller, host_url: str, agent_id: str, grant: AllowanceGrant, *, timeout: float | None = None
    ) -> AllowanceBalance:
        """Change what a paglet has left; see `Inquiries.grant_allowance`."""
        url = agent_url(host_url, agent_id, "allowance")
        return _balance(await self.post_json(url, grant.to_wire(), timeout=timeout), url)

    async def events(
        self: _AsyncCaller,
        host_url: str,
        *,
        since: int = 0,
        limit: int = 100,
        wait: float = 0.0,
        timeout: float | None = None,
    ) -> list[ContextEvent]:
        """Return what happened on a host; see `Inquiries.events`."""
        url = _events_url(host_url, since, limit, wait)
        seconds = max(self.timeout, wait + _WAIT_SLACK_SECONDS) if timeout is None else timeout
        return _events(await self.get_json(url, timeout=seconds), url)

    async def cancel_message(
        self: _AsyncCaller, host_url: str, agent_id: str, message_id: str, *, timeout: float | None = None
    ) -> bool:
        """Withdraw a message that waits for its handler; see `Inquiries.cancel_message`."""
        url = _message_url(host_url, agent_id, message_id)
        return bool(field_of(await self.post_json(url, {}, timeout=timeout), "cancelled", url))

    async def dead_letters(
        self: _AsyncCaller,
        host_url: str,
        *,
        since: int = 0,
        limit: int = 100,
        agent_id: str | None = None,
        timeout: float | None = None,
    ) -> list[dict[str, Any]]:
        """Return the messages that a host could not deliver; see `Inquiries.dead_letters`."""
        url = _letters_url(host_url, since, limit, agent_id)
        return _objects(await self.get_json(url, timeout=timeout), "dead_letters", url)

    async def dead_letter(
        self: _AsyncCaller, host_url: str, letter_id: int, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Return a dead letter with its message; see `Inquiries.dead_letter`."""
        url = _letter_url(host_url, letter_id)
        return dict_of(await self.get_json(url, timeout=timeout), url)

    async def retry_dead_letter(
        self: _AsyncCaller, host_url: str, letter_id: int, *, timeout: float | None = None
    ) -> None:
        """Have a dead letter delivered again; see `Inquiries.retry_dead_letter`."""
        dict_of(await self.post_json(_letter_url(host_url, letter_id, "retry"), {}, timeout=timeout), host_url)

    async def retry_dead_letters(
        self: _AsyncCaller, host_url: str, *, agent_id: str | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Have the dead letters of a host delivered again; see `Inquiries.retry_dead_letters`."""
        url = f"{host_url.rstrip('/')}/dead-letters/retry"
        seconds = max(self.timeout, _RETRY_SECONDS) if timeout is None else timeout
        return dict_of(await self.post_json(url, {"agent_id": agent_id}, timeout=seconds), url)

    async def clear_dead_letter(
        self: _AsyncCaller, host_url: str, letter_id: int, *, timeout: float | None = None
    ) -> None:
        """Have a host forget a dead letter; see `Inquiries.clear_dead_letter`."""
        dict_of(await self.post_json(_letter_url(host_url, letter_id, "clear"), {}, timeout=timeout), host_url)

    async def clear_dead_letters(
        self: _AsyncCaller, host_url: str, *, agent_id: str | None = None, timeout: float | None = None
    ) -> int:
        """Have a host forget its dead letters; see `Inquiries.clear_dead_letters`."""
        url = f"{host_url.rstrip('/')}/dead-letters/clear"
        return _number(await self.post_json(url, {"agent_id": agent_id}, timeout=timeout), "cleared", url)


# --- questions and answers --------------------------------------------------------------------------------------------

# A host begins deliveries for 20 s; the last one has its own time on top.
_RETRY_SECONDS = 60.0


def _events_url(host_url: str, since: int, limit: int, wait: float) -> str:
    query: dict[str, Any] = {"since": since, "limit": limit}
    if wait:
        query["wait"] = wait
    return f"{host_url.rstrip('/')}/events?{urlencode(query)}"


def _message_url(host_url: str, agent_id: str, message_id: str) -> str:
    return agent_url(host_url, agent_id, f"messages/{quote(message_id, safe='')}/cancel")


def _letters_url(host_url: str, since: int, limit: int, agent_id: str | None) -> str:
    query: dict[str, Any] = {"since": since, "limit": limit}
    if agent_id is not None:
        query["agent"] = agent_id
    return f"{host_url.rstrip('/')}/dead-letters?{urlencode(query)}"


def _letter_url(host_url: str, letter_id: int, operation: str = "") -> str:
    base = f"{host_url.rstrip('/')}/dead-letters/{int(letter_id)}"
    return f"{base}/{operation}" if operation else base


def _objects(reply: Any, field: str, url: str) -> list[dict[str, Any]]:
    items = field_of(reply, field, url)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise RemoteHostError(f"{url} answered with {field} that are no list of objects")
    return items


def _events(reply: Any, url: str) -> list[ContextEvent]:
    try:
        return [ContextEvent.from_wire(item) for item in _objects(reply, "events", url)]
    except SerializationError as exc:
        raise RemoteHostError(f"{url} answered with an unreadable event: {exc}") from exc


def _number(reply: Any, field: str, url: str) -> int:
    value = field_of(reply, field, url)
    if not isinstance(value, int):
        raise RemoteHostError(f"{url} answered with {field} that is no number")
    return value


def _balance(reply: Any, url: str) -> AllowanceBalance:
    try:
        return AllowanceBalance.from_wire(field_of(reply, "allowance", url))
    except SerializationError as exc:
        raise RemoteHostError(f"{url} answered with something unreadable: {exc}") from exc
