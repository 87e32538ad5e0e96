"""Who sent a request, as far as a host knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from paglets.security.keys import KeyLimits
from paglets.security.roles import Role


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of a key or of a certificate; it carries no secret."""

    name: str
    """The name of the key or certificate, for people and for limits; several keys of one name are one caller."""
    role: Role
    limits: KeyLimits = field(default_factory=KeyLimits)
    hosts: tuple[str, ...] = ()
    """Patterns of the addresses that it may name as the source of a paglet; empty for any."""
    names: tuple[str, ...] = ()
    """Names and addresses that its certificate was issued for; empty without one."""


#: Whoever asks a host that asks for nothing.
ANYBODY: Final = Caller("-", Role.ADMIN)
#: The name under which the holder of the one key of old appears.
CLASSIC_NAME: Final = "api-key"
