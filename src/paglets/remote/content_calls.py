"""Exchanges that carry the content of artifacts and blobs: their terms, and what happens when they break."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

from paglets.core.chance import CHANCE
from paglets.core.errors import (
    ConnectionLostError,
    HostUnreachableError,
    PagletError,
    RemoteHostError,
    RemoteTimeoutError,
)
from paglets.remote.connections import Deadline
from paglets.remote.content import Progress
from paglets.remote.exchanges import FAILURES, Body, call, exchange, failure, request_of
from paglets.remote.fabric import Answer, Fabric
from paglets.remote.requests import decode_reply
from paglets.remote.sockets import Stop

__all__ = ["BROKEN", "OCTETS", "Breaks", "ContentCalls", "Terms"]

OCTETS: Final = "application/octet-stream"
BROKEN: Final = (ConnectionLostError, RemoteTimeoutError, HostUnreachableError)
"""What a transfer may survive."""

# How often a transfer goes on after a break in all, and without a byte of progress in between.
_MOST_BREAKS: Final = 16
_MOST_IN_VAIN: Final = 6
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0
_DISCARD_SECONDS: Final = 2.0


@dataclass(slots=True)
class Terms:
    """On which terms a transfer is made."""

    seconds: float
    """How long the host may stall."""
    api_key: str | None = None
    progress: Progress | None = None
    stop: Stop | None = None

    def deadline(self, *, whole: bool = False) -> Deadline:
        """Return the limit of one exchange, `whole` for one that is short."""
        return Deadline(self.seconds, whole=whole, stop=self.stop)


@dataclass(slots=True)
class Breaks:
    """Decide how often to go on after a break, and wait before that."""

    terms: Terms
    count: int = 0
    """Breaks up to now."""
    in_vain: int = 0
    """Those since something was transferred."""
    furthest: int = 0
    """Most bytes that were ever transferred."""
    _pauses: threading.Event = field(default_factory=threading.Event)

    def survive(self, error: RemoteHostError, done: int) -> None:
        """Wait a while after a break; raise the error when it is one too many.

        :param done: how many bytes had been transferred by then.
        """
        self.count += 1
        self.in_vain += 1
        self.advance(done)
        # A host that is silent is given less patience than one that is away: every silence takes its whole time.
        most = 1 if isinstance(error, RemoteTimeoutError) else _MOST_IN_VAIN
        if self.count > _MOST_BREAKS or self.in_vain > most:
            raise error
        pause = min(_FIRST_PAUSE_SECONDS * 2.0**self.in_vain, _LONGEST_PAUSE_SECONDS)
        pause *= CHANCE.uniform(0.8, 1.2)
        if self.terms.stop is None:
            self._pauses.wait(pause)  # that nobody ends early
        elif self.terms.stop.wait(pause):
            raise error

    def advance(self, done: int) -> None:
        """Know how much has been transferred."""
        if done > self.furthest:
            self.furthest, self.in_vain = done, 0


class ContentCalls:
    """Exchange content with hosts over a fabric. Thread-safe.

    :param max_response_bytes: largest JSON answer, and the most that is read into memory.
    """

    def __init__(self, fabric: Fabric, max_response_bytes: int) -> None:
        self._fabric = fabric
        self.max_response_bytes = max_response_bytes

    def call(
        self,
        method: str,
        url: str,
        body: Body,
        terms: Terms,
        length: int | None = None,
        *,
        headers: dict[str, str] | None = None,
    ) -> object:
        """Send a request and return its decoded JSON answer.

        :param length: of the body; None has an iterable one sent in chunks.
        :raises PagletError: what the host answered, or what became of the connection.
        """
        short = isinstance(body, bytes)
        content_type = "" if method in ("GET", "DELETE") else OCTETS
        request = request_of(method, url, body, content_type, terms.api_key, length, headers)
        try:
            return call(
                self._fabric,
                request,
                url,
                terms.deadline(whole=short),
                max_response_bytes=self.max_response_bytes,
                has_key=bool(terms.api_key),
            )
        finally:
            if terms.stop is not None:
                terms.stop.detach()

    def discard(self, url: str, terms: Terms) -> None:
        """Have something deleted that is of no use to anybody."""
        try:
            self.call("DELETE", url, b"", Terms(min(terms.seconds, _DISCARD_SECONDS), terms.api_key), 0)
        except PagletError:
            # The caller is about to hear the reason for deleting it, which matters more; it expires.
            return

    def close(self, response: Answer, terms: Terms) -> None:
        """Let go of a response, whose connection may serve somebody else then."""
        if terms.stop is not None:
            terms.stop.detach()
        response.close()

    def answer(self, url: str, headers: dict[str, str], terms: Terms, *, good: tuple[int, ...] = (200, 206)) -> Answer:
        """Ask for content and return the answer; the caller closes it.

        :raises PagletError: the host answered with an error.
        """
        deadline = terms.deadline()
        request = request_of("GET", url, b"", "", terms.api_key, None, headers)
        response = exchange(self._fabric, request, url, deadline)
        if response.status in good:
            return response
        try:
            data = response.read(self.max_response_bytes)
            decode_reply(response.status, data, url, has_key=bool(terms.api_key))
            raise RemoteHostError(f"{url} answered HTTP {response.status} instead of the artifact")
        except FAILURES as exc:
            raise failure(exc, url, deadline.seconds) from exc
        finally:
            self.close(response, terms)
