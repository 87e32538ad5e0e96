"""Keys of many people and programs: what is known of each, and what is shown to prove it.

A key is `pgl_<id>_<secret>`. The id finds the record; the secret has 256 random bits. Of the secret only a salted
SHA-256 is kept: a slow hash would protect words that people choose, cannot make 256 random bits safer, and would let
strangers make a host compute for 60 ms per guess.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import Final, Self

from paglets.security.roles import Role

PREFIX: Final = "pgl"
_SECRET_BYTES: Final = 32
_KEY = re.compile(rb"pgl_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What the holder of a key may take of a host; None is bounded only by what the host has and by the others."""

    requests_per_second: float | None = None
    """On average; twice as many may come at once."""
    connections: int | None = None
    """Open at the same time."""
    bytes_in_flight: int | None = None
    """Bytes of the bodies of requests that are not answered yet."""
    max_paglets: int | None = None
    """Paglets created or brought by the key that live here."""

    def __post_init__(self) -> None:
        rate = self.requests_per_second
        if rate is not None and not 0 < rate < 1e9:
            raise ValueError(f"requests_per_second must be a number above 0, not {rate!r}")
        for name in ("connections", "bytes_in_flight", "max_paglets"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1 << 62:
                raise ValueError(f"{name} must be a whole number above 0, not {value!r}")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is known of a key; nothing in it lets anybody use the key."""

    key_id: str
    name: str
    role: Role
    salt: str = field(repr=False)
    digest: str = field(repr=False)
    created: float
    """Unix seconds."""
    expires: float | None = None
    """Unix seconds."""
    revoked: float | None = None
    """Unix seconds; the record stays, so that the key is known to be none any more."""
    limits: KeyLimits = field(default_factory=KeyLimits)
    hosts: tuple[str, ...] = ()
    """Patterns of the addresses from which paglets may arrive with it; empty for any."""

    def state(self, now: float) -> str:
        """Return `valid`, `expired` or `revoked`."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and now >= self.expires else "valid"

    def fits(self, secret: bytes) -> bool:
        """Tell, in constant time, whether this is the secret of the key."""
        return hmac.compare_digest(_digest(self.salt, secret).encode(), self.digest.encode())

    def ended(self, now: float) -> Self:
        """Return the record of the key after it was revoked."""
        return self if self.revoked is not None else replace(self, revoked=now)


def split_key(key: bytes) -> tuple[str, bytes] | None:
    """Return the id and the secret of a key, None where it has another form. It never fails, whatever the bytes."""
    match = _KEY.fullmatch(key)
    return None if match is None else (match[1].decode("ascii"), match[2])


def checked_key_name(name: str) -> str:
    """Return the name of a key's holder.

    :raises ValueError: it is not 1 to 64 letters, digits, dots, dashes, underscores and at signs.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"a key's name is 1 to 64 of the characters A-Z a-z 0-9 . _ @ -, not {name!r}")
    return name


def new_key(
    name: str,
    role: Role,
    *,
    expires: float | None = None,
    limits: KeyLimits | None = None,
    hosts: tuple[str, ...] = (),
    now: float | None = None,
) -> tuple[str, KeyRecord]:
    """Return a fresh key, which is to be shown once and never stored, and its record.

    :param expires: Unix seconds.
    :raises ValueError: the name is none.
    """
    checked_key_name(name)
    key_id, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(_SECRET_BYTES), secrets.token_hex(16)
    record = KeyRecord(
        key_id,
        name,
        role,
        salt,
        _digest(salt, secret.encode()),
        time.time() if now is None else now,
        expires,
        limits=limits or KeyLimits(),
        hosts=hosts,
    )
    return f"{PREFIX}_{key_id}_{secret}", record


def _digest(salt: str, secret: bytes) -> str:
    return hashlib.sha256(salt.encode() + secret).hexdigest()
