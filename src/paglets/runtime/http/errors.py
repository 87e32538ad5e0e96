"""How an error becomes an answer: its status and its body."""

from __future__ import annotations

import logging
from typing import Final

from paglets.artifacts.errors import NoRoomError, NotStoredError, TooLargeError, UploadConflictError
from paglets.core.error_wire import HTTP_ERRORS, error_to_wire, forget_frames, http_status
from paglets.core.errors import HostError, StorageUnavailableError

logger = logging.getLogger("paglets.http")
# A library does not print; the program that runs the host decides who hears of its failures.
logger.addHandler(logging.NullHandler())


class MethodNotAllowedError(HostError):
    """The path exists, the method does not.

    :param allowed: the methods that exist, as the Allow header lists them.
    """

    def __init__(self, text: str, allowed: str = "") -> None:
        super().__init__(text)
        self.allowed = allowed


class ClientGoneError(Exception):
    """The client left before its request was complete; nobody waits for an answer."""


class SlowClientError(HostError):
    """The client stopped in the middle of a body, or is slower than is allowed."""


# Classes of parts above the errors of the core; they travel as those that they derive from.
_STATUS: Final[tuple[tuple[type[Exception], int], ...]] = (
    (MethodNotAllowedError, 405),
    (SlowClientError, 408),
    (NotStoredError, 404),
    (UploadConflictError, 409),
    (TooLargeError, 413),
    (NoRoomError, 507),
)


def described(exc: BaseException) -> tuple[int, dict[str, str]]:
    """Return the status and the body that answer a request which ended in this error, and let go of its frames."""
    status = next((status for cls, status in _STATUS if isinstance(exc, cls)), None) or http_status(exc)
    if status >= 500 and not isinstance(exc, NoRoomError | StorageUnavailableError):
        logger.error("a request ended in an unexpected error", exc_info=exc)
    wire = error_to_wire(exc, table=HTTP_ERRORS)
    forget_frames(exc)
    # Half of a surrogate pair is replaced: this is a text for people and logs, and JSON proper has no such thing.
    return status, {**wire, "error": wire["error"].encode(errors="replace").decode()}
