"""The exception hierarchy, its wire form and its HTTP status codes."""

from __future__ import annotations

from typing import Any

import pytest

from paglets.core import errors
from paglets.core.error_wire import (
    CALL_ERRORS,
    HTTP_ERRORS,
    PROCESS_ERRORS,
    error_from_wire,
    error_to_wire,
    http_status,
)
from paglets.core.resources import ResourceCleanupError

BASES = [
    (errors.SerializationError, errors.PagletError),
    (errors.HostError, errors.PagletError),
    (errors.AuthenticationError, errors.PagletError),
    (errors.ForbiddenError, errors.PagletError),
    (errors.ServiceContractError, errors.HostError),
    (errors.ServiceNotFoundError, errors.ServiceContractError),
    (errors.RemoteHostError, errors.PagletError),
    (errors.InvalidAgentError, errors.PagletError),
    (errors.PagletInactiveError, errors.PagletError),
    (errors.PagletCrashedError, errors.PagletError),
    (errors.NotHandledError, errors.PagletError),
    (errors.LifecycleError, errors.PagletError),
    (errors.TransferError, errors.PagletError),
    (errors.StorageQuotaError, errors.PagletError),
    (errors.StorageUnavailableError, errors.HostError),
    (errors.HostUnreachableError, errors.RemoteHostError),
    (errors.ConnectionLostError, errors.RemoteHostError),
    (errors.RemoteTimeoutError, errors.RemoteHostError),
    (errors.RemoteTimeoutError, TimeoutError),
    (errors.ConflictError, errors.HostError),
    (errors.OverloadedError, errors.HostError),
    (errors.PayloadTooLargeError, errors.HostError),
    (errors.UnsupportedMediaError, errors.HostError),
    (errors.NotFoundError, errors.HostError),
    (ResourceCleanupError, errors.LifecycleError),
]

# What a client says of its own connections means nothing to who hears of it from somebody else.
LOCAL = {ResourceCleanupError, errors.HostUnreachableError, errors.ConnectionLostError}
NAMED = sorted({cls for cls, _ in BASES} - LOCAL, key=lambda cls: cls.__name__)


class DoorShutError(errors.TransferError):
    """An author's own kind of transfer error."""


class HomemadeError(errors.PagletError):
    """An author's own kind of error without a named ancestor."""


class TransferError(Exception):
    """Has a known name but is not the known class."""


class UnreadableError(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(("cls", "base"), BASES)
def test_every_error_derives_from_its_documented_base(cls: type[Exception], base: type[Exception]) -> None:
    assert issubclass(cls, base)
    assert issubclass(cls, errors.PagletError)


@pytest.mark.parametrize("cls", NAMED)
@pytest.mark.parametrize("table", [PROCESS_ERRORS, HTTP_ERRORS], ids=["process", "http"])
def test_a_named_error_keeps_class_and_text(cls: type[Exception], table: Any) -> None:
    wire = error_to_wire(cls("what went wrong"), table=table)
    assert wire == {"error_type": cls.__name__, "error": "what went wrong"}

    restored = error_from_wire(wire, unknown=errors.PagletError, table=table)
    assert type(restored) is cls
    assert str(restored) == "what went wrong"


def test_an_unreachable_host_keeps_its_name_only_between_hosts() -> None:
    exc = errors.HostUnreachableError("refused")
    assert error_to_wire(exc, table=HTTP_ERRORS)["error_type"] == "HostUnreachableError"
    assert error_to_wire(exc, table=PROCESS_ERRORS)["error_type"] == "RemoteHostError"
    restored = error_from_wire(error_to_wire(exc, table=HTTP_ERRORS), unknown=errors.HostError, table=HTTP_ERRORS)
    assert type(restored) is errors.HostUnreachableError


def test_a_lost_connection_keeps_its_name_only_between_hosts() -> None:
    exc = errors.ConnectionLostError("reset")
    assert error_to_wire(exc, table=HTTP_ERRORS)["error_type"] == "ConnectionLostError"
    assert error_to_wire(exc, table=PROCESS_ERRORS)["error_type"] == "RemoteHostError"


def test_a_resource_failure_travels_as_lifecycle_error() -> None:
    wire = error_to_wire(ResourceCleanupError({"db": OSError("disk gone")}))
    assert wire["error_type"] == "LifecycleError"
    assert "db: disk gone" in wire["error"]

    by_name = error_from_wire({"error_type": "ResourceCleanupError", "error": "x"}, unknown=errors.HostError)
    assert type(by_name) is errors.LifecycleError


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (RuntimeError("boom"), {"error_type": "HostError", "error": "boom"}),
        (RuntimeError(), {"error_type": "HostError", "error": "RuntimeError"}),
        (SystemExit(3), {"error_type": "HostError", "error": "3"}),
        (UnicodeError("a subclass"), {"error_type": "HostError", "error": "a subclass"}),
        (TransferError("a namesake"), {"error_type": "HostError", "error": "a namesake"}),
        (HomemadeError("mine"), {"error_type": "HostError", "error": "mine"}),
        (DoorShutError("shut"), {"error_type": "TransferError", "error": "shut"}),
        (UnreadableError(), {"error_type": "HostError", "error": "UnreadableError"}),
    ],
)
def test_an_unnamed_error_travels_as_host_error_or_named_ancestor(exc: BaseException, expected: dict[str, str]) -> None:
    assert error_to_wire(exc) == expected


def test_value_error_crosses_a_process_boundary_but_not_http() -> None:
    wire = error_to_wire(ValueError("bad number"))
    assert wire == {"error_type": "ValueError", "error": "bad number"}
    assert type(error_from_wire(wire, unknown=errors.HostError)) is ValueError

    over_http = error_from_wire(wire, unknown=errors.RemoteHostError, table=HTTP_ERRORS)
    assert type(over_http) is errors.RemoteHostError
    assert str(over_http) == "bad number"
    assert error_to_wire(ValueError("bad number"), table=HTTP_ERRORS)["error_type"] == "RemoteHostError"


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (None, "unreadable error reply of type NoneType"),
        ("<html>", "unreadable error reply of type str"),
        ({}, "unknown error"),
        ({"error_type": "Nonsense"}, "Nonsense"),
        ({"error_type": ["TransferError"], "error": "listed"}, "listed"),
        ({"error_type": "SystemExit", "error": "0"}, "0"),
    ],
)
def test_a_payload_that_names_no_known_error_gives_the_unknown_class(payload: Any, text: str) -> None:
    error = error_from_wire(payload, unknown=errors.RemoteHostError)
    assert type(error) is errors.RemoteHostError
    assert str(error) == text


@pytest.mark.parametrize(
    ("exc", "status"),
    [
        (errors.AuthenticationError("x"), 401),
        (errors.ForbiddenError("x"), 403),
        (errors.InvalidAgentError("x"), 404),
        (errors.NotFoundError("x"), 404),
        (errors.ConflictError("x"), 409),
        (errors.PayloadTooLargeError("x"), 413),
        (errors.UnsupportedMediaError("x"), 415),
        (errors.NotHandledError("x"), 422),
        (errors.OverloadedError("x"), 429),
        (errors.StorageUnavailableError("x"), 503),
        (errors.HostError("x"), 400),
        (errors.RemoteTimeoutError("x"), 400),
        (ResourceCleanupError({}), 400),
        (ValueError("x"), 400),
        (TypeError("x"), 400),
        (KeyError("x"), 400),
        (RuntimeError("x"), 500),
        (TimeoutError("x"), 500),
    ],
)
def test_http_status(exc: BaseException, status: int) -> None:
    assert http_status(exc) == status


@pytest.mark.parametrize("cls", [errors.PagletCrashedError, errors.OverloadedError])
def test_a_refusal_travels_to_whoever_sent_the_message_and_not_out_of_a_handler(
    cls: type[errors.PagletCrashedError | errors.OverloadedError],
) -> None:
    refused = cls("not accepted")
    refused.refused = True
    for table in (HTTP_ERRORS, CALL_ERRORS):
        restored = error_from_wire(error_to_wire(refused, table=table), unknown=errors.HostError, table=table)
        assert isinstance(restored, cls)
        assert restored.refused
        assert error_to_wire(cls("x"), table=table) == {"error_type": cls.__name__, "error": "x"}
    assert error_to_wire(refused) == {"error_type": cls.__name__, "error": "not accepted"}
    told = error_from_wire(error_to_wire(refused, table=HTTP_ERRORS), unknown=errors.HostError)
    assert isinstance(told, cls)
    assert not told.refused
