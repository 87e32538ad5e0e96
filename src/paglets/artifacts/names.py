"""File names for logical names: such as every system accepts, and all different."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from paglets.persistence.directory import is_device_name

_MAX_TARGET_NAME_BYTES = 200
_MAX_SUFFIX_BYTES = 32


def safe_target_filename(name: str) -> str:
    """Return a file name for a logical name that every operating system accepts, of at most 200 bytes.

    Characters other than letters, digits and `._-` become `_`; `.` and `_` are stripped at both ends; nothing gives
    `artifact`; a device name such as `NUL` gets the prefix `_`.
    """
    safe = "".join(character if character.isalnum() or character in "._-" else "_" for character in name)
    safe = safe.strip("._") or "artifact"
    return _shortened(f"_{safe}" if is_device_name(safe) else safe)


def unique_target_names(names: Sequence[str]) -> list[str]:
    """Return one file name per logical name, all different also where upper and lower case are the same.

    Names that would meet get `-2`, `-3`, … before their extension, in the given order; a later name never changes the
    target of an earlier one.
    """
    taken: set[str] = set()
    targets: list[str] = []
    for name in names:
        safe = safe_target_filename(name)
        target, number = safe, 1
        while _file_key(target) in taken:
            number += 1
            target = _shortened(safe, marker=f"-{number}")
        taken.add(_file_key(target))
        targets.append(target)
    return targets


def _file_key(name: str) -> str:
    # File systems that fold case usually fold the Unicode composition as well.
    return unicodedata.normalize("NFC", name).casefold()


def _shortened(name: str, *, marker: str = "") -> str:
    stem, suffix = _split_suffix(name)
    room = _MAX_TARGET_NAME_BYTES - len((marker + suffix).encode())
    if len(stem.encode()) > room:
        stem = stem.encode()[:room].decode(errors="ignore").rstrip("._")
    return f"{stem}{marker}{suffix}"


def _split_suffix(name: str) -> tuple[str, str]:
    stem, dot, extension = name.rpartition(".")
    suffix = dot + extension
    return (stem, suffix) if stem and len(suffix.encode()) <= _MAX_SUFFIX_BYTES else (name, "")
