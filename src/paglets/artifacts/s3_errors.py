"""What the errors of botocore mean to whoever stores or reads a blob.

No text of a server is repeated: one that answers a wrong signature may quote what was signed.
"""

from __future__ import annotations

import logging
from typing import Final

from botocore import exceptions as foreign
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as LateError

from paglets.artifacts.errors import NotStoredError, WrongContentError
from paglets.core.errors import InsufficientStorageError, PagletError, StorageUnavailableError

__all__ = ["FOREIGN_ERRORS", "keep_secrets_out_of_logs", "meaning"]

FOREIGN_ERRORS: Final = (foreign.BotoCoreError, foreign.ClientError, HTTPError, OSError)

_ABSENT: Final = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchUpload"})
_REFUSED: Final = frozenset(
    {
        "401",
        "403",
        "AccessDenied",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
_NO_ROOM: Final = frozenset({"507", "EntityTooLarge", "InsufficientStorage", "QuotaExceeded", "XMinioStorageFull"})
_SHORT: Final = frozenset({"416", "InvalidRange"})


def meaning(error: Exception, doing: str, place: str) -> PagletError:
    """Return what an error of `FOREIGN_ERRORS` means.

    :param doing: what was tried, as in "store a blob".
    :param place: where, without credentials.
    """
    match error:
        case foreign.ClientError():
            return _answered(str(error.response.get("Error", {}).get("Code", "")), doing, place)
        case (
            foreign.NoCredentialsError()
            | foreign.PartialCredentialsError()
            | foreign.CredentialRetrievalError()
            | foreign.ProfileNotFound()
            | foreign.ConfigNotFound()
            | foreign.ConfigParseError()
        ):
            why = (
                f"there are no credentials ({type(error).__name__}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or use another of the usual places"
            )
        case foreign.ConnectTimeoutError() | foreign.ReadTimeoutError() | LateError() | TimeoutError():
            why = "it does not answer in time; try again later"
        case foreign.SSLError():
            why = "its certificate is not trusted; AWS_CA_BUNDLE names further authorities"
        case foreign.EndpointConnectionError() | foreign.ConnectionClosedError() | foreign.HTTPClientError():
            why = "it cannot be reached; try again later"
        case _:
            why = f"the request failed ({type(error).__name__}); try again later"
    return StorageUnavailableError(f"Could not {doing} in {place}: {why}")


def keep_secrets_out_of_logs() -> None:
    """Have botocore log no request: a session token is one of its headers."""
    library = logging.getLogger("botocore")
    if library.level < logging.INFO:
        library.setLevel(logging.INFO)


def _answered(code: str, doing: str, place: str) -> PagletError:
    if code in _ABSENT:
        return NotStoredError(f"Could not {doing} in {place}: there is nothing under its checksum")
    if code in _NO_ROOM:
        return InsufficientStorageError(f"Could not {doing} in {place}: it has no room ({code})")
    if code in _SHORT:
        return WrongContentError(f"Could not {doing} in {place}: the object is shorter than the blob")
    if code == "NoSuchBucket":
        why = "there is no such bucket; create it first"
    elif code in _REFUSED:
        why = f"it refuses the credentials ({code})"
    else:
        why = f"it answered {code or 'with an error'}; try again later"
    return StorageUnavailableError(f"Could not {doing} in {place}: {why}")
