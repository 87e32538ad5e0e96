"""How exceptions cross a process or host boundary: by class name, and only as classes this package knows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from paglets.core import errors
from paglets.core.errors import PagletError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ErrorTable:
    """The exceptions that keep their class across one kind of boundary."""

    classes: Mapping[str, type[Exception]]
    """Class to re-create, by the name on the wire."""
    foreign: str
    """Name given to an exception that does not derive from `PagletError` and is not in the table."""
    refusals: bool = False
    """Whether it travels that a message was refused. What a handler lets through, it was told about another message."""


_NAMED: tuple[type[Exception], ...] = (
    errors.AllowanceExceededError,
    errors.AuthenticationError,
    errors.CallCycleError,
    errors.ConflictError,
    errors.ForbiddenError,
    errors.HostError,
    errors.InsufficientStorageError,
    errors.InvalidAgentError,
    errors.LifecycleError,
    errors.MessageCancelledError,
    errors.NotFoundError,
    errors.NotHandledError,
    errors.OutcomeUnknownError,
    errors.OverloadedError,
    errors.PagletCrashedError,
    errors.PagletInactiveError,
    errors.PayloadTooLargeError,
    errors.RemoteHostError,
    errors.RemoteTimeoutError,
    errors.SerializationError,
    errors.ServiceContractError,
    errors.ServiceNotFoundError,
    errors.StorageQuotaError,
    errors.StorageUnavailableError,
    errors.StreamInterruptedError,
    errors.TransferError,
    errors.UnsupportedMediaError,
)
_SHARED: dict[str, type[Exception]] = {cls.__name__: cls for cls in _NAMED}
_SHARED["ResourceCleanupError"] = errors.LifecycleError

PROCESS_ERRORS = ErrorTable(MappingProxyType({**_SHARED, "ValueError": ValueError}), foreign="HostError")
"""Between a host and the processes of its paglets."""

# Over HTTP they say that the host asked could not pass a message on, or does not know whether it did. Between processes
# they are left out: a handler that cannot reach a host of its own choice says nothing about the way to its paglet.
HTTP_ERRORS = ErrorTable(
    MappingProxyType(
        {
            **_SHARED,
            "ConnectionLostError": errors.ConnectionLostError,
            "HostUnreachableError": errors.HostUnreachableError,
        }
    ),
    foreign="RemoteHostError",
    refusals=True,
)
"""Between a host and whoever talks to it over HTTP or a link."""

CALL_ERRORS = ErrorTable(
    MappingProxyType({**PROCESS_ERRORS.classes, **HTTP_ERRORS.classes}), foreign="HostError", refusals=True
)
"""What a host answers to a call of one of its paglets, which may have been about another host."""

_REFUSALS = (errors.OverloadedError, errors.PagletCrashedError, errors.UnsupportedMediaError)

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (errors.AuthenticationError, 401),
    (errors.ForbiddenError, 403),
    (errors.InvalidAgentError, 404),
    (errors.NotFoundError, 404),
    (errors.AllowanceExceededError, 409),
    (errors.ConflictError, 409),
    (errors.MessageCancelledError, 409),
    (errors.PayloadTooLargeError, 413),
    (errors.UnsupportedMediaError, 415),
    (errors.NotHandledError, 422),
    (errors.OverloadedError, 429),
    (errors.StorageUnavailableError, 503),
    (errors.InsufficientStorageError, 507),
    (PagletError, 400),
    (ValueError, 400),
    (TypeError, 400),
    (KeyError, 400),
)


def error_to_wire(exc: BaseException, *, table: ErrorTable = PROCESS_ERRORS) -> dict[str, str]:
    """Describe an exception as ``{"error_type", "error"}``.

    A subclass of one of this package's exceptions travels as its nearest ancestor in the table, so that an ``except``
    clause means the same on both sides; any other unknown class takes the table's foreign name. The text falls back to
    the class name.
    """
    wire = {"error_type": _wire_name(type(exc), table), "error": _text(exc) or type(exc).__name__}
    if table.refusals and isinstance(exc, _REFUSALS) and exc.refused:
        wire["refused"] = "true"
    return wire


def forget_frames(exc: BaseException) -> None:
    """Let go of the frames that an exception came through, and those that led to it; for one that was answered.

    Whatever waited for it, such as a future, is often a local of such a frame and leads back to the exception. Without
    this the locals, bodies of requests and states among them, would wait for the garbage collector.
    """
    pending: list[BaseException | None] = [exc]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            pending += (each.__cause__, each.__context__)


def error_from_wire(payload: Any, *, unknown: type[PagletError], table: ErrorTable = PROCESS_ERRORS) -> Exception:
    """Create the exception that an error payload describes.

    Never raises: a class that is not in the table, and a payload that is no error at all, give `unknown`.

    :param unknown: class for everything that cannot be named.
    """
    if not isinstance(payload, Mapping):
        return unknown(f"unreadable error reply of type {type(payload).__name__}")
    name = payload.get("error_type")
    text = payload.get("error")
    cls = table.classes.get(name, unknown) if isinstance(name, str) else unknown
    error = cls(str(text or name or "unknown error"))
    if table.refusals and isinstance(error, _REFUSALS):
        error.refused = payload.get("refused") == "true"
    return error


def http_status(exc: BaseException) -> int:
    """Return the HTTP status code that answers a request which ended in this exception."""
    return next((status for cls, status in _STATUS if isinstance(exc, cls)), 500)


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:
        # The class may be an author's, and a caller waits for this reply.
        logger.debug("%s has no readable text", type(exc).__name__, exc_info=True)
        return ""


def _wire_name(cls: type[BaseException], table: ErrorTable) -> str:
    if not issubclass(cls, PagletError):
        return cls.__name__ if table.classes.get(cls.__name__) is cls else table.foreign
    for ancestor in cls.__mro__:
        if table.classes.get(ancestor.__name__) is ancestor:
            return ancestor.__name__
    return errors.HostError.__name__
