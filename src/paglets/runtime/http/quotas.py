"""What each caller may take of a host at a time, so that one who floods it leaves the others answered."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from paglets.core.errors import OverloadedError, PayloadTooLargeError
from paglets.security.caller import Caller

#: Requests that are being answered; a caller gets a share of these, as of the memory for bodies.
MAX_REQUESTS: Final = 4096
#: Callers without anything under way that are remembered for their rates.
MAX_IDLE_CALLERS: Final = 1024
#: What bodies may take in memory, all together.
MAX_BUFFERED_BYTES: Final = 512 * 1024 * 1024
_PATIENCE_SECONDS: Final = 1.0


class TooManyError(OverloadedError):
    """The caller takes more than its share at present."""

    def __init__(self, text: str, retry_after: float = _PATIENCE_SECONDS) -> None:
        super().__init__(text)
        self.retry_after = retry_after
        """Seconds after which it may be let in."""


class _Account:
    """What one caller has taken."""

    __slots__ = ("bytes", "connections", "filled", "held", "requests", "tokens")

    def __init__(self, now: float, tokens: float) -> None:
        self.requests = self.bytes = self.held = self.connections = 0
        self.tokens = tokens
        self.filled = now

    @property
    def idle(self) -> bool:
        return not (self.requests or self.bytes or self.connections)


class Seat:
    """A connection, and the caller whose it is; a connection is nobody's before its first request was let in."""

    __slots__ = ("caller",)

    def __init__(self) -> None:
        self.caller: Caller | None = None


@dataclass(slots=True)
class Load:
    """What one request takes while it is under way."""

    nbytes: int = 0
    """Bytes of its body, announced or counted."""
    held: bool = False
    """Whether the body is held in memory as a whole."""


class Quotas:
    """Count what callers take; used from one event loop.

    :param clock: seconds.
    """

    def __init__(
        self,
        *,
        max_requests: int = MAX_REQUESTS,
        max_held_bytes: int = MAX_BUFFERED_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_requests = max_requests
        self._max_held_bytes = max_held_bytes
        self._clock = clock
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._active = 0

    def enter(self, caller: Caller, load: Load, seat: Seat | None = None) -> None:
        """Let a request in, or raise; :meth:`leave` when it is answered.

        A caller may have as many requests under way, and as many bytes in memory, as leave room for one more caller
        like it: half of all when it is alone, a third each when there are two.

        :param load: with the announced size of its body.
        :param seat: its connection, which is the caller's from now on.
        :raises TooManyError: the caller takes more than its limits or its share.
        :raises PayloadTooLargeError: the body is larger than the caller may have under way at all.
        """
        account = self._account(caller)
        share = 2 + self._active - (account.requests > 0)
        if account.requests >= max(1, self._max_requests // share):
            raise TooManyError(f"{caller.name!r} has {account.requests} requests under way; send this one again later")
        self._check_bytes(caller, account, load.nbytes, held=load.held)
        limit = caller.limits.connections
        new_seat = seat is not None and (seat.caller is None or seat.caller.name != caller.name)
        if new_seat and limit is not None and account.connections >= limit:
            raise TooManyError(f"{caller.name!r} has {account.connections} connections open, as many as it may")
        self._spend(caller, account)
        if seat is not None and new_seat:
            self.vacate(seat)
            seat.caller = caller
            account.connections += 1
        self._active += not account.requests
        account.requests += 1
        account.bytes += load.nbytes
        account.held += load.nbytes if load.held else 0

    def grow(self, caller: Caller, load: Load, nbytes: int) -> None:
        """Count further bytes of a body whose size was not announced.

        :raises TooManyError: the caller has sent more than it may.
        :raises PayloadTooLargeError: the body is larger than the caller may have under way at all.
        """
        account = self._account(caller)
        limit = caller.limits.bytes_in_flight
        if limit is not None and load.nbytes + nbytes > limit:
            raise PayloadTooLargeError(f"{caller.name!r} may send {limit} bytes at a time; this body is larger")
        self._check_bytes(caller, account, nbytes, held=load.held)
        load.nbytes += nbytes
        account.bytes += nbytes
        account.held += nbytes if load.held else 0

    def _check_bytes(self, caller: Caller, account: _Account, nbytes: int, *, held: bool) -> None:
        limit = caller.limits.bytes_in_flight
        if limit is not None and nbytes > limit:
            raise PayloadTooLargeError(f"{caller.name!r} may send {limit} bytes at a time; this body has {nbytes}")
        share = self._max_held_bytes // (2 + self._active - (account.requests > 0))
        full = limit is not None and account.bytes + nbytes > limit
        # One body alone is never more than a share: how large it may be is for the routes to say.
        if full or (held and account.held and account.held + nbytes > share):
            raise TooManyError(f"{caller.name!r} is sending {account.bytes} bytes; send the next {nbytes} later")

    def leave(self, caller: Caller, load: Load) -> None:
        """Count a request as answered."""
        account = self._accounts[caller.name]
        account.requests -= 1
        account.bytes -= load.nbytes
        account.held -= load.nbytes if load.held else 0
        self._active -= not account.requests

    def vacate(self, seat: Seat) -> None:
        """Count a connection as closed."""
        caller, seat.caller = seat.caller, None
        if caller is not None:
            self._accounts[caller.name].connections -= 1

    def _account(self, caller: Caller) -> _Account:
        account = self._accounts.get(caller.name)
        if account is None:
            rate = caller.limits.requests_per_second
            account = self._accounts[caller.name] = _Account(self._clock(), _burst(rate) if rate else 0.0)
            if len(self._accounts) > MAX_IDLE_CALLERS:
                self._forget_idle()
        return account

    def _forget_idle(self) -> None:
        # A caller that is forgotten begins with a full bucket: names come from the key file, not from strangers.
        for name in [name for name, account in self._accounts.items() if account.idle][:-1]:
            del self._accounts[name]

    def _spend(self, caller: Caller, account: _Account) -> None:
        rate = caller.limits.requests_per_second
        if rate is None:
            return
        now = self._clock()
        account.tokens = min(_burst(rate), account.tokens + (now - account.filled) * rate)
        account.filled = now
        if account.tokens < 1:
            raise TooManyError(
                f"{caller.name!r} may send {rate:g} requests a second; send this one again later",
                (1 - account.tokens) / rate,
            )
        account.tokens -= 1


def _burst(rate: float) -> float:
    return max(1.0, 2 * rate)


def retry_after(error: BaseException) -> bytes:
    """Return the value of a Retry-After header: whole seconds, at least one."""
    return b"%d" % max(1, math.ceil(getattr(error, "retry_after", _PATIENCE_SECONDS)))
