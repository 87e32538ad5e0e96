"""How much somebody may do on a host."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Role(IntEnum):
    """What a key may be used for; each role may do what those before it may."""

    OBSERVE = 1
    """See which paglets, services, hosts, events and letters there are, but not what is in them."""
    MESSAGE = 2
    """Speak with paglets: send messages, read their state, bring and fetch artifacts."""
    OPERATE = 3
    """Create, move, store and end paglets, and be a host among hosts."""
    ADMIN = 4
    """Change the host itself."""

    def __str__(self) -> str:
        return self.name.lower()


ROLE_NAMES: Final = tuple(str(role) for role in Role)


def role_named(name: object) -> Role:
    """Return the role of a name.

    :raises ValueError: there is none.
    """
    if isinstance(name, str) and name in ROLE_NAMES:
        return Role[name.upper()]
    raise ValueError(f"a role is one of {', '.join(ROLE_NAMES)}, not {name!r}")
