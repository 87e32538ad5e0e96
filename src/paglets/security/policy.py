"""What others may bring to a host: which classes, from where, how many, how large.

It is asked before anything is imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from paglets.core.allowance import LONGEST_LIFETIME, NO_LIMITS, Allowance
from paglets.core.errors import ForbiddenError, PayloadTooLargeError
from paglets.security.addresses import fits
from paglets.security.caller import Caller
from paglets.serialization.names import ClassPolicy

POLICY_KEYS: Final = (
    "allow",
    "hosts",
    "max_paglets",
    "max_paglets_per_key",
    "max_state_size",
    "max_file_size",
    "max_hops",
    "allowance",
    "keys",
)
ALLOWANCE_KEYS: Final = ("max_hops", "max_clones", "lifetime", "max_state_size")
KEY_POLICY_KEYS: Final = ("allow", "max_paglets", "allowance")
Wrong: TypeAlias = Callable[[tuple[str, ...], str], None]
"""Takes the way to a mistake in a table, and what it is."""
_SIZE = re.compile(r"(\d{1,18})\s*([bkmgt]?)b?", re.IGNORECASE)
_TIME = re.compile(r"(\d{1,12})\s*([smhd]?)", re.IGNORECASE)
_SPANS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_POWERS: Final = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True, slots=True)
class KeyPolicy:
    """What holds for one key beside what holds for all."""

    classes: ClassPolicy | None = None
    max_paglets: int | None = None
    allowance: Allowance = NO_LIMITS
    """The most that a paglet has left which comes with the key."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a host accepts. The default is what a host without any configuration does."""

    classes: ClassPolicy = field(default_factory=ClassPolicy)
    """Classes that may be created or may arrive."""
    hosts: tuple[str, ...] = ()
    """Patterns of the hosts from which paglets may arrive, and to which this host shows its key, like
    `https://10.0.0.*:8765`; empty for any."""
    max_paglets: int | None = None
    """Paglets with a process."""
    max_paglets_per_key: int | None = None
    """Paglets that one key created or brought."""
    max_state_bytes: int | None = None
    """State of a paglet that is created or arrives."""
    max_file_bytes: int | None = None
    """Each file that a paglet brings."""
    max_hops: int | None = None
    """Moves of a paglet before it arrives here."""
    keys: Mapping[str, KeyPolicy] = field(default_factory=dict)
    """By the name of the key."""
    allowance: Allowance = NO_LIMITS
    """The most that a paglet has left which others create or bring here, whatever it says itself."""

    def allowing(self, allow: tuple[str, ...] | None) -> Policy:
        """Return this policy with further patterns of classes that are allowed.

        :raises ValueError: one is no pattern.
        """
        if allow is None:
            return self
        return replace(self, classes=ClassPolicy((*(self.classes.allow or ()), *allow)))

    def check_class(self, class_name: str, caller: Caller | None = None) -> None:
        """Check the name of a class that somebody wants to create or to bring.

        :raises ForbiddenError: it is not allowed here, or not to this caller; nothing was imported.
        :raises SerializationError: it is malformed.
        """
        self.classes.check(class_name)
        own = self._of(caller).classes
        if caller is not None and own is not None and not own.allows(class_name):
            raise ForbiddenError(f"class {class_name!r} may not be used here by {caller.name!r}")

    def check_state_class(self, class_name: str, caller: Caller | None = None) -> bool:
        """Check the name of a state class that somebody names beside the class of a paglet.

        :return: whether it may be imported because of its name. Otherwise it may only be what the class of the paglet
            declares as its state, which importing that class has imported already.
        :raises ForbiddenError: it is in ``__main__`` or the standard library, and not allowed by its name.
        :raises SerializationError: it is malformed.
        """
        own = self._of(caller).classes
        if self.classes.allows(class_name) and (own is None or own.allows(class_name)):
            return True
        _ANYTHING.check(class_name)
        return False

    def check_source(self, source: str, caller: Caller) -> None:
        """Check the address from which a paglet says that it comes.

        :raises ForbiddenError: it is none of the host's, or none of the caller's.
        """
        if self.hosts and not fits(self.hosts, source):
            raise ForbiddenError(f"paglets from {source[:200]!r} are not taken here")
        if caller.hosts and not fits(caller.hosts, source):
            raise ForbiddenError(f"{caller.name!r} may not bring paglets from {source[:200]!r}")
        if caller.names and not _issued_for(caller.names, source):
            raise ForbiddenError(f"the certificate of {caller.name!r} was not issued for {source[:200]!r}")

    def check_state(self, nbytes: int) -> None:
        """Check the size of a state.

        :raises PayloadTooLargeError: it is larger than allowed.
        """
        if self.max_state_bytes is not None and nbytes > self.max_state_bytes:
            raise PayloadTooLargeError(f"a state of {nbytes} bytes is larger than the {self.max_state_bytes} allowed")

    def check_file(self, name: str, nbytes: int) -> None:
        """Check the size of a file that a paglet brings.

        :raises PayloadTooLargeError: it is larger than allowed.
        """
        if self.max_file_bytes is not None and nbytes > self.max_file_bytes:
            raise PayloadTooLargeError(
                f"file {name[:200]!r} of {nbytes} bytes is larger than the {self.max_file_bytes} allowed"
            )

    def check_hops(self, hops: int) -> None:
        """Check how often a paglet has moved.

        :raises ForbiddenError: too often.
        """
        if self.max_hops is not None and hops > self.max_hops:
            raise ForbiddenError(
                f"a paglet that has moved {hops} times is not taken; at most {self.max_hops} are allowed"
            )

    def most_paglets_of(self, caller: Caller) -> int | None:
        """Return how many paglets a caller may have here, None for any number."""
        bounds = [self.max_paglets_per_key, caller.limits.max_paglets, self._of(caller).max_paglets]
        return min((bound for bound in bounds if bound is not None), default=None)

    def allowance_of(self, caller: Caller) -> Allowance:
        """Return the most that a paglet has left which a caller creates or brings here."""
        return self.allowance.within(self._of(caller).allowance)

    def _of(self, caller: Caller | None) -> KeyPolicy:
        return self.keys.get(caller.name, _NOTHING_MORE) if caller is not None else _NOTHING_MORE


_NOTHING_MORE: Final = KeyPolicy()
_ANYTHING: Final = ClassPolicy()


def _issued_for(names: tuple[str, ...], source: str) -> bool:
    try:
        host = (urlsplit(source).hostname or "").lower()
    except ValueError:
        return False
    return bool(host) and _plain(host) in {_plain(name.lower()) for name in names}


def _plain(host: str) -> str:
    # Certificates spell addresses of the newer protocol out in full.
    try:
        return ip_address(host).compressed
    except ValueError:
        return host


# --- from a file ------------------------------------------------------------------------------------------------------


def policy_from(table: Any, error: Callable[[str], Exception]) -> Policy:
    """Return what a `[policy]` table says.

    :param error: makes the exception for a text.
    :raises Exception: what ``error`` makes: an unknown name, or a value of the wrong kind.
    """

    def wrong(_: tuple[str, ...], text: str) -> None:
        raise error(text)

    return read_policy(table, wrong)


def read_policy(table: Any, wrong: Wrong) -> Policy:
    """Return what a `[policy]` table says; what is wrong with a value is told, and the value taken as absent.

    :param wrong: is told the keys that lead to a mistake, and what it is.
    """
    if not isinstance(table, dict):
        wrong((), "must be a table")
        return Policy()
    reader = _Reader(table, (), wrong, POLICY_KEYS)
    keys = table.get("keys", {})
    if not isinstance(keys, dict) or not all(isinstance(each, dict) for each in keys.values()):
        wrong(("keys",), "'keys' must be tables: [policy.keys.NAME]")
        keys = {}
    return Policy(
        reader.classes() or ClassPolicy(),
        reader.texts("hosts") or (),
        reader.count("max_paglets"),
        reader.count("max_paglets_per_key"),
        reader.size("max_state_size"),
        reader.size("max_file_size"),
        reader.count("max_hops"),
        {name: _key_policy(own, ("keys", name), wrong) for name, own in keys.items()},
        read_allowance(table.get("allowance", {}), ("allowance",), wrong),
    )


def _key_policy(table: Mapping[str, Any], keys: tuple[str, ...], wrong: Wrong) -> KeyPolicy:
    reader = _Reader(table, keys, wrong, KEY_POLICY_KEYS)
    allowance = read_allowance(table.get("allowance", {}), (*keys, "allowance"), wrong)
    return KeyPolicy(reader.classes(), reader.count("max_paglets"), allowance)


def read_allowance(table: Any, keys: tuple[str, ...], wrong: Wrong) -> Allowance:
    """Return what an `allowance` table says; what is wrong with a value is told, and the value taken as absent.

    :param keys: the way to the table, for `wrong`.
    :param wrong: is told the keys that lead to a mistake, and what it is.
    """
    if not isinstance(table, dict):
        wrong(keys, f"{'.'.join(keys)}: must be a table with {', '.join(ALLOWANCE_KEYS)}")
        return NO_LIMITS
    reader = _Reader(table, keys, wrong, ALLOWANCE_KEYS)
    return Allowance(
        reader.count("max_hops"), reader.count("max_clones"), reader.seconds("lifetime"), reader.size("max_state_size")
    )


class _Reader:
    """Read one table."""

    def __init__(
        self,
        table: Mapping[str, Any],
        keys: tuple[str, ...],
        wrong: Wrong,
        allowed: tuple[str, ...],
    ) -> None:
        self._table = table
        self._keys = keys
        self._tell = wrong
        for name in sorted(table.keys() - set(allowed)):
            self._wrong(name, f"unknown key {name!r}; allowed are {', '.join(allowed)}")

    def _wrong(self, key: str, text: str) -> None:
        where = f"{'.'.join(self._keys)}: " if self._keys else ""
        self._tell((*self._keys, key), where + text)

    def classes(self) -> ClassPolicy | None:
        try:
            listed = self.texts("allow")
            return None if listed is None else ClassPolicy(listed)
        except ValueError as exc:
            self._wrong("allow", str(exc))
            return None

    def texts(self, key: str) -> tuple[str, ...] | None:
        value = self._table.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
            self._wrong(key, f"{key!r} must be a list of texts")
            return None
        return tuple(value)

    def count(self, key: str) -> int | None:
        value: Any = self._table.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
            self._wrong(key, f"{key!r} must be a whole number, 0 or more")
            return None
        return int(value)

    def size(self, key: str) -> int | None:
        value: Any = self._table.get(key)
        if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())) is not None:
            return int(match[1]) * int(1024 ** _POWERS[match[2].lower()])
        if isinstance(value, str):
            self._wrong(key, f"{key!r} must be a size like 64M, 1G or a number of bytes, not {value!r}")
            return None
        return self.count(key)

    def seconds(self, key: str) -> float | None:
        value: Any = self._table.get(key)
        if isinstance(value, str) and (match := _TIME.fullmatch(value.strip())) is not None:
            value = int(match[1]) * _SPANS[match[2].lower()]
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LONGEST_LIFETIME:
            return float(value)
        self._wrong(key, f"{key!r} must be a time like 90s, 10m, 2h, 7d or a number of seconds, not {value!r}")
        return None
