"""The directory of one host: names that are safe in it, and the lock that keeps a second host out."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from paglets.core.errors import HostError
from paglets.persistence.filelock import lock_file, unlock_file

LOCK_FILE_NAME = "host.lock"
MAX_AGENT_ID_LENGTH = 128
MAX_NAME_BYTES = 200

_AGENT_ID = re.compile(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{MAX_AGENT_ID_LENGTH - 1}}}", re.ASCII)
_DEVICE_NAMES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{device}{digit}" for device in ("com", "lpt") for digit in "0123456789¹²³"}
)


def is_device_name(name: str) -> bool:
    """Return whether some operating system takes a file of this name for a device, such as `NUL` or `con.txt`."""
    return name.partition(".")[0].rstrip(" ").casefold() in _DEVICE_NAMES


def validate_agent_id(agent_id: Any) -> str:
    """Return the id of a paglet unchanged; it can name a file, a table row and a URL segment as it is.

    :raises HostError: it is not a string of 1 to 128 characters of `A-Z a-z 0-9 . _ -`, or starts with a dot.
    """
    if not isinstance(agent_id, str) or _AGENT_ID.fullmatch(agent_id) is None:
        raise HostError(
            f"Invalid agent id {agent_id!r}: use 1 to {MAX_AGENT_ID_LENGTH} of the characters A-Z a-z 0-9 . _ - "
            "and no dot at the start"
        )
    return agent_id


def safe_agent_dir(agent_id: str) -> str:
    """Return the directory name of a paglet: its id, marked with `~` where an operating system reserves that name.

    :raises HostError: the id is invalid.
    """
    validate_agent_id(agent_id)
    if is_device_name(agent_id) or agent_id.endswith("."):
        return f"~{agent_id}~"  # no other id maps here, because "~" is no character of an id
    return agent_id


def safe_host_name(name: str) -> str:
    """Return the directory name of a host: letters, digits and `._-` stay, others become `_`, nothing gives `host`."""
    return _safe_name(name) or "host"


def safe_class_key(class_name: str) -> str:
    """Return the directory name of a paglet class given as `module:Qual.Name`."""
    return _safe_name(class_name.replace(":", ".")) or "class"


def _safe_name(name: str) -> str:
    safe = "".join(character if character.isalnum() or character in "._-" else "_" for character in name)
    if safe and (not safe.strip(".") or is_device_name(safe)):
        safe = f"_{safe}"  # ".", ".." and devices are no names of directories
    encoded = safe.encode()
    if len(encoded) <= MAX_NAME_BYTES:
        return safe
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
    kept = encoded[: MAX_NAME_BYTES - len(digest) - 1].decode(errors="ignore")
    return f"{kept}-{digest}"


class DirectoryLock:
    """The right to use a host directory, held by at most one host among all processes.

    The lock belongs to the open file and ends with the process that holds it, however that dies. Usable as a context
    manager.
    """

    def __init__(self, path: Path | str) -> None:
        """Name the directory; it is created by `acquire`."""
        self.directory = Path(path).expanduser().absolute()
        self.path = self.directory / LOCK_FILE_NAME
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock without waiting; a second call does nothing.

        :raises HostError: another process, or another lock object, has it; the text names the process.
        """
        if self._descriptor is not None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        try:
            descriptor = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise HostError(f"Cannot open the host lock {self.path}: {error.strerror}") from error
        try:
            if not lock_file(descriptor, blocking=False):
                raise HostError(
                    f"Host directory {self.directory} is in use by {_holder(descriptor)}; "
                    "stop that host or use another persistence directory"
                )
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
            unlock_file(descriptor)
        finally:
            os.close(descriptor)

    def __enter__(self) -> DirectoryLock:
        self.acquire()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _holder(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = os.read(descriptor, 32).decode(errors="replace").strip()
    return f"process {text}" if text.isdecimal() else "another process"
