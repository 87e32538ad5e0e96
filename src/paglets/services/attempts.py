"""Decide which provider is asked next when a call of a service fails; no input or output happens here.

`Attempts` is a generator, like a pursuit: it yields what to do (`Send` to a provider, `Look` whether it is there,
`Find` providers again), is sent what came of it, and returns who answered and the answer, or raises what the caller is
told:

- nobody has had the call (no connection; the provider is unknown, had crashed, has a full mailbox, or sleeps and may
  not be woken): another provider;
- it may have been carried out (the provider or its host died meanwhile): another provider where the operation is
  declared idempotent, else `OutcomeUnknownError`. To the same paglet a call is repeated by the delivery alone, which
  does it under the same message id, so that it is not carried out twice, and while the policy is patient;
- anything else, also what a handler raised, is the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from paglets.core.errors import (
    ConnectionLostError,
    HostUnreachableError,
    InvalidAgentError,
    OutcomeUnknownError,
    OverloadedError,
    PagletCrashedError,
    PagletError,
    PagletInactiveError,
    RemoteTimeoutError,
)
from paglets.remote.pursuit import Patience
from paglets.services.providers import Providers
from paglets.services.records import ServiceRecord

__all__ = ["Attempts", "Find", "Look", "RetryPolicy", "Send"]

_RECOVERABLE: Final = (
    ConnectionLostError,
    HostUnreachableError,
    InvalidAgentError,
    OverloadedError,
    PagletCrashedError,
    PagletInactiveError,
    RemoteTimeoutError,
)
_LAST_SECONDS: Final = 0.05


# An ``except`` clause for what the delivery raised goes on to mean that.
class _CrashedMeanwhileError(OutcomeUnknownError, PagletCrashedError):
    """The process of the provider died."""


class _LostMeanwhileError(OutcomeUnknownError, ConnectionLostError):
    """The host of the provider was lost."""


class _SilentMeanwhileError(OutcomeUnknownError, RemoteTimeoutError):
    """The host of the provider says nothing any more."""


_MEANWHILE: Final = (
    (PagletCrashedError, _CrashedMeanwhileError),
    (ConnectionLostError, _LostMeanwhileError),
    (RemoteTimeoutError, _SilentMeanwhileError),
)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often providers are tried for one call."""

    attempts: int = 3
    """Providers that are asked at most."""
    patience: float = 1.0
    """Seconds for which a provider whose host cannot be reached is waited for, also one that had the call and did not
    answer before the connection to it broke."""
    avoid_seconds: float = 10.0
    """Seconds for which a provider that failed is asked after all others; doubles with every further time, up to a
    minute."""


@dataclass(frozen=True, slots=True)
class Send:
    """Make the call there."""

    record: ServiceRecord
    seconds: float
    patience: Patience | None


@dataclass(frozen=True, slots=True)
class Look:
    """Ask whether the provider runs; a dict with ``active``."""

    record: ServiceRecord


@dataclass(frozen=True, slots=True)
class Find:
    """Look the providers up again."""


Step: TypeAlias = Send | Look | Find


class Attempts:
    """One call.

    :param providers: whom to ask, and who is told how it went.
    :param end: when the caller stops waiting, by ``clock``.
    :param idempotent: the operation may be carried out twice.
    """

    def __init__(
        self,
        providers: Providers,
        policy: RetryPolicy,
        *,
        end: float,
        idempotent: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._providers = providers
        self._policy = policy
        self._end = end
        self._idempotent = idempotent
        self._clock = clock
        self._tried: set[tuple[str, str]] = set()
        self._patience: Patience | None = Patience(policy.patience, policy.patience)

    def steps(self) -> Generator[Step, Any, tuple[ServiceRecord, Any]]:
        """Make the call; see the module."""
        record = self._providers.choose(self._tried, fresh_only=True)
        if record is None:
            record = (yield from self._look_up()) or self._providers.choose(self._tried)
        if record is None:
            raise self._providers.nobody()
        while True:
            left = max(0.0, self._end - self._clock())
            self._tried.add(self._providers.key(record))
            with self._providers.calling(record):
                outcome = yield Send(record, left, self._patience)
            if not isinstance(outcome, PagletError):
                self._providers.succeeded(record)
                return record, outcome
            if not isinstance(outcome, _RECOVERABLE):
                raise outcome
            yield from self._judge(record, outcome)
            if len(self._tried) >= self._policy.attempts or self._end - self._clock() <= _LAST_SECONDS:
                raise outcome
            other = self._providers.choose(self._tried, fresh_only=True) or (yield from self._look_up())
            if other is not None:
                record = other
            elif isinstance(outcome, HostUnreachableError) and self._patience is not None:
                self._patience = None  # there is nobody else: its host may come back
            else:
                raise outcome

    def _judge(self, record: ServiceRecord, failure: PagletError) -> Generator[Step, Any, None]:
        """Return if the call may be made again; raise what the caller is told otherwise."""
        match failure:
            case HostUnreachableError() | PagletCrashedError(refused=True) | OverloadedError(refused=True):
                self._providers.failed(record)
                return
            case InvalidAgentError() | PagletInactiveError():
                # A handler may have raised it, about another paglet.
                runs = yield from self._runs(record)
                if runs:
                    raise failure
                if runs is False:
                    self._providers.failed(record)
                    return
            case RemoteTimeoutError():
                if self._end - self._clock() <= _LAST_SECONDS:
                    self._providers.failed(record)
                    raise failure
                if (yield from self._runs(record)):
                    raise failure
        self._providers.failed(record)
        if self._idempotent:
            return
        if isinstance(failure, OverloadedError):
            raise failure
        cls = next((cls for cause, cls in _MEANWHILE if isinstance(failure, cause)), OutcomeUnknownError)
        error = cls(
            f"the call may have been carried out: the provider of {record.name!r} was lost meanwhile ({failure}); "
            "operations that may be carried out twice can be declared idempotent"
        )
        error.__cause__ = failure
        raise error

    def _runs(self, record: ServiceRecord) -> Generator[Step, Any, bool | None]:
        """Find out whether a provider runs; None where that cannot be found out."""
        said = yield Look(record)
        if isinstance(said, PagletError):
            return False if isinstance(said, InvalidAgentError) else None
        return isinstance(said, dict) and said.get("active") is True

    def _look_up(self) -> Generator[Step, Any, ServiceRecord | None]:
        found = yield Find()
        if isinstance(found, PagletError):
            return None
        self._providers.update(found)
        return self._providers.choose(self._tried)
