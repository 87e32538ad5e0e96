"""What can go wrong with stored content, each a `TransferError` that a caller can tell from the others."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from paglets.core.errors import TransferError

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


class NotStoredError(TransferError):
    """The content or the artifact is not here, or no longer what it was."""


class FileChangedError(TransferError):
    """A file is no longer what it was when it was looked at; whoever reads it begins again."""


class UploadConflictError(TransferError):
    """The upload is under way already, or goes on at another place or with another content than it began with."""


class TooLargeError(TransferError):
    """The content is larger than what is accepted."""


class NoRoomError(TransferError):
    """The disk or the quota does not take the content; nothing of it is left."""


class WrongContentError(TransferError):
    """What was received is not what was announced: its length or its checksum differs."""


def io_error(what: str, path: Path, error: OSError) -> TransferError:
    """Return the error for a failed call to the system: `NoRoomError` where the disk takes no more.

    :param what: what was not possible, as the beginning of a sentence.
    """
    reason = error.strerror or str(error)
    if is_no_room(error):
        return NoRoomError(f"{what}: {reason} ({path}); free some space or take away limits on it, then try again")
    return TransferError(f"{what}: {reason} ({path})")


def is_no_room(error: OSError) -> bool:
    """Return whether the system refused a write because of a full disk, a quota or a limit."""
    return error.errno in _NO_ROOM
