"""The file with the keys of a host: read strictly, written whole, and for its owner's eyes alone."""

from __future__ import annotations

import math
import os
import stat
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from paglets.config.toml_text import toml_value
from paglets.core.errors import HostError
from paglets.persistence.atomic import make_directories, replacing
from paglets.persistence.filelock import exclusive_lock
from paglets.security.keys import KeyLimits, KeyRecord, checked_key_name
from paglets.security.roles import role_named

DEFAULT_KEY_FILE: Final = Path("~/.paglets/keys.toml").expanduser()
KEY_FILE_NAME: Final = "keys.toml"
MAX_KEYS: Final = 10_000
MAX_FILE_BYTES: Final = 16 * 1024 * 1024

_LIMITS: Final = tuple(each.name for each in fields(KeyLimits))
_FIELDS: Final = ("id", "name", "role", "salt", "sha256", "created", "expires", "revoked", "hosts", *_LIMITS)
_HEAD: Final = "# The keys of paglets hosts. Written by `paglets keys`; running hosts take up changes within seconds.\n"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The content of a key file."""

    keys: tuple[KeyRecord, ...] = ()
    revoked_certificates: tuple[str, ...] = ()
    """Serial numbers, in lower-case hexadecimal digits."""


def load_key_file(path: Path) -> KeyFile:
    """Read a key file; an absent one has no keys.

    :raises HostError: others may read it, it cannot be read, or it is malformed; the text has the path, never a value.
    """
    try:
        with path.open("rb") as stream:
            _check_private(path, os.fstat(stream.fileno()))
            content = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return KeyFile()
    except OSError as exc:
        raise HostError(f"the key file {path} cannot be read: {exc.strerror or exc}") from exc
    if len(content) > MAX_FILE_BYTES:
        raise HostError(f"the key file {path} is larger than {MAX_FILE_BYTES} bytes")
    return parse_key_file(content, str(path))


def _check_private(path: Path, status: os.stat_result) -> None:
    if os.name != "posix":
        return
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise HostError(f"the key file {path} may be read or written by others: chmod 600 {path}")
    if status.st_uid not in (os.getuid(), 0):
        raise HostError(f"the key file {path} belongs to another user")


def parse_key_file(content: bytes, where: str) -> KeyFile:
    """Return the keys that the content of a key file has.

    :param where: what the text of an error calls the file.
    :raises HostError: it is malformed; the text says where, and quotes no value.
    """
    try:
        data = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, ValueError):
        # Without the parser's text, which may quote a line.
        raise HostError(f"the key file {where} is no valid TOML") from None
    try:
        _only(data, ("keys", "revoked_certificates"))
        tables = data.get("keys", [])
        if not isinstance(tables, list) or len(tables) > MAX_KEYS:
            raise _MalformedError(f"'keys' must be a list of at most {MAX_KEYS} tables: [[keys]]")
        keys = tuple(_record(table, number) for number, table in enumerate(tables, start=1))
        if len({record.key_id for record in keys}) != len(keys):
            raise _MalformedError("two keys have the same id")
        serials = data.get("revoked_certificates", [])
        if not isinstance(serials, list) or not all(isinstance(serial, str) for serial in serials):
            raise _MalformedError("'revoked_certificates' must be a list of serial numbers")
    except _MalformedError as exc:
        raise HostError(f"the key file {where}: {exc}") from None
    return KeyFile(keys, tuple(serial.lower() for serial in serials))


class _MalformedError(Exception):
    """Says what is wrong with a key file, without its path."""


def _only(table: Mapping[str, Any], allowed: Sequence[str], what: str = "the file") -> None:
    if table.keys() - set(allowed):
        # Unknown names are not quoted: one of them may be a key that somebody put in the wrong place.
        raise _MalformedError(f"{what} has an unknown name; allowed are {', '.join(allowed)}")


def _record(table: Any, number: int) -> KeyRecord:
    what = f"[[keys]] number {number}"
    if not isinstance(table, dict):
        raise _MalformedError(f"{what} must be a table")
    _only(table, _FIELDS, what)
    key_id, salt, digest = _hex(table, "id", 12, what), _hex(table, "salt", 32, what), _hex(table, "sha256", 64, what)
    hosts = table.get("hosts", [])
    if not isinstance(hosts, list) or not all(isinstance(host, str) and host for host in hosts):
        raise _MalformedError(f"{what}: 'hosts' must be a list of addresses")
    created = _moment(table, "created", what)
    if created is None:
        raise _MalformedError(f"{what}: 'created' is missing")
    try:
        return KeyRecord(
            key_id,
            checked_key_name(_text(table, "name", what)),
            role_named(table.get("role")),
            salt,
            digest,
            created,
            _moment(table, "expires", what),
            _moment(table, "revoked", what),
            KeyLimits(**{name: _number(table, name, what) for name in _LIMITS if name in table}),
            tuple(hosts),
        )
    except ValueError as exc:
        raise _MalformedError(f"{what}: {exc}") from None


def _text(table: Mapping[str, Any], name: str, what: str) -> str:
    value = table.get(name)
    if not isinstance(value, str):
        raise _MalformedError(f"{what}: {name!r} must be a text")
    return value


def _hex(table: Mapping[str, Any], name: str, length: int, what: str) -> str:
    value = table.get(name)
    if not isinstance(value, str) or len(value) != length or set(value) - set("0123456789abcdef"):
        raise _MalformedError(f"{what}: {name!r} must be {length} hexadecimal digits")
    return value


def _moment(table: Mapping[str, Any], name: str, what: str) -> float | None:
    value = table.get(name)
    if value is None:
        return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise _MalformedError(f"{what}: {name!r} must be a date and time with a zone")
    try:
        return value.timestamp()
    except (OverflowError, ValueError):
        raise _MalformedError(f"{what}: {name!r} is out of range") from None


def _number(table: Mapping[str, Any], name: str, what: str) -> Any:
    value = table[name]
    wanted = (int, float) if name == "requests_per_second" else (int,)
    if isinstance(value, bool) or not isinstance(value, wanted) or not math.isfinite(value):
        raise _MalformedError(f"{what}: {name!r} must be a number")
    return value


# --- writing ----------------------------------------------------------------------------------------------------------


def key_file_text(content: KeyFile) -> str:
    """Return the text of a key file."""
    parts = [_HEAD]
    if content.revoked_certificates:
        parts.append(f"revoked_certificates = {toml_value(list(content.revoked_certificates))}\n")
    for record in content.keys:
        values: dict[str, Any] = {
            "id": record.key_id,
            "name": record.name,
            "role": str(record.role),
            "salt": record.salt,
            "sha256": record.digest,
            "created": _datetime(record.created),
            "expires": _datetime(record.expires),
            "revoked": _datetime(record.revoked),
            "hosts": list(record.hosts) or None,
            **{name: getattr(record.limits, name) for name in _LIMITS},
        }
        lines = [f"{name} = {toml_value(value)}" for name, value in values.items() if value is not None]
        parts.append("\n".join(["[[keys]]", *lines, ""]))
    return "\n".join(parts)


def _datetime(moment: float | None) -> datetime | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC)


def change_key_file(path: Path, change: Callable[[KeyFile], KeyFile]) -> KeyFile:
    """Replace the content of a key file by what ``change`` makes of it, atomically; return the new content.

    Two programs that change it at the same time do so one after the other.

    :raises HostError: it cannot be read or written, is malformed, or would hold too many keys.
    """
    try:
        make_directories(path.parent)
        with exclusive_lock(path.with_name(f".{path.name}.lock")):
            content = change(load_key_file(path))
            if len(content.keys) > MAX_KEYS:
                raise HostError(f"the key file {path} has {MAX_KEYS} keys already; remove some that were revoked")
            with replacing(path) as stream:
                with suppress(AttributeError):  # where permissions are of another kind
                    os.fchmod(stream.fileno(), 0o600)
                stream.write(key_file_text(content).encode())
    except OSError as exc:
        raise HostError(f"the key file {path} cannot be written: {exc.strerror or exc}") from exc
    return content
