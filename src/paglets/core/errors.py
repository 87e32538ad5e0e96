"""The exceptions a paglet, a client or an operator can meet.

Every class is named after the condition, takes one message string and derives from `PagletError`. How they travel
between processes and hosts is in `paglets.core.error_wire`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paglets.core.allowance import AllowanceExcess


class PagletError(Exception):
    """The root of every exception this package raises on purpose."""


class SerializationError(PagletError):
    """A value or class name cannot be turned into wire form or restored from it."""


class HostError(PagletError):
    """A host could not do what it was asked; also stands for an unknown exception raised inside a paglet."""


class AuthenticationError(PagletError):
    """The request carries no valid bearer credentials."""


class ForbiddenError(PagletError):
    """The caller is known, but policy does not allow the request."""


class ServiceContractError(HostError):
    """A typed service contract is invalid or was misused."""


class ServiceNotFoundError(ServiceContractError):
    """No provider of a required service contract was found."""


class RemoteHostError(PagletError):
    """Another host could not be reached, or answered with an error of unknown type."""


class RemoteTimeoutError(RemoteHostError, TimeoutError):
    """Another host was reached but did not answer in time; it may still carry out the request."""


class HostUnreachableError(RemoteHostError):
    """No connection to the host that is asked, or to the one behind it, could be made; the request was not sent."""


class ConnectionLostError(RemoteHostError):
    """The connection to another host broke while its answer was due; it may have carried out the request."""


class OutcomeUnknownError(RemoteHostError):
    """The provider of a service was lost in the middle of a call: the operation may have been carried out, or not."""


class StreamInterruptedError(RemoteHostError):
    """A stream ended early, because its provider moved, slept, ended or was lost, or nobody asked for items in time."""


class InvalidAgentError(PagletError):
    """The agent id is unknown on this host."""


class PagletInactiveError(PagletError):
    """The paglet is inactive and this call may neither wake it nor wait for it."""


class PagletCrashedError(PagletError):
    """The process of the paglet died or does not run."""

    refused: bool = False
    """Whether the process did not run when the message came, so that certainly nobody handled it."""


class NotHandledError(PagletError):
    """The paglet declined the message."""


class LifecycleError(PagletError):
    """A step of a lifecycle operation failed, notably the clean-up of resources."""


class AllowanceExceededError(LifecycleError):
    """The paglet would go beyond what it was allowed: moves, clones, time or the size of its state."""

    excess: AllowanceExcess | None = None
    """Which part, its limit and how much was used; None where the error came from another process or host."""


class CallCycleError(LifecycleError):
    """The paglet called waits, directly or through others, for the very handler that calls it."""


class TransferError(PagletError):
    """A paglet or an artifact could not be moved."""


class StorageQuotaError(PagletError):
    """The write would exceed the quota of the managed storage."""


class ConflictError(HostError):
    """The id is already in use, or another operation on the paglet is in progress."""


class OverloadedError(HostError):
    """A bounded queue is full; the request was not accepted and may be sent again later."""

    refused: bool = False
    """Whether it was the mailbox of the receiver that was full, so that certainly nobody handled the message."""


class InsufficientStorageError(HostError):
    """The disk does not take what must be durable; nothing was changed, and nothing acknowledged is lost."""


class StorageUnavailableError(HostError):
    """The place where a host keeps artifacts cannot be reached, or refuses the host; nothing was acknowledged."""


class MessageCancelledError(HostError):
    """The message was withdrawn before its handler began."""


class PayloadTooLargeError(HostError):
    """The request is larger than the host accepts."""


class UnsupportedMediaError(HostError):
    """The host does not accept this content type."""

    refused: bool = False
    """Whether the host has not looked at the body, so that certainly nobody handled it."""


class NotFoundError(HostError):
    """The host has no such route or resource."""
