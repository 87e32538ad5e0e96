"""The closed sets of words the runtime understands, and how raw strings become members of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, TypeVar

EnumT = TypeVar("EnumT", bound=StrEnum)


class ServiceScope(StrEnum):
    """Where an advertised service can be found."""

    LOCAL = "local"
    MESH = "mesh"


class ResidentLifecycle(StrEnum):
    """When a resident service is started: at its first call, or with the host."""

    LAZY = "lazy"
    EAGER = "eager"


class ArrivalMode(StrEnum):
    """Whether an arriving paglet is started or stored inactive."""

    ACTIVATE = "activate"
    INACTIVE = "inactive"


class EnvelopeKind(StrEnum):
    """Why an envelope was made."""

    DISPATCH = "dispatch"
    CLONE = "clone"
    RETRACT = "retract"
    ACTIVATION = "activation"


class LaunchConfigSyncAction(StrEnum):
    """What became of the launch configuration file at host start."""

    COPIED = "copied"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    UPDATE_AVAILABLE = "update-available"


class Durability(StrEnum):
    """What of an active paglet survives the death of its host.

    `NONE`: nothing. `CHECKPOINT`: the last checkpoint, taken at every lifecycle step and in the background after
    changes. `MESSAGE`: every handled message with its reply and the messages it sent.
    """

    NONE = "none"
    CHECKPOINT = "checkpoint"
    MESSAGE = "message"


def require_enum(value: Any, enum_cls: type[EnumT], field_name: str) -> EnumT:
    """Return the value if it is a member of the enum class.

    A raw string is refused even when it equals a member's value.

    :raises TypeError: the value is anything else; the text names field and class.
    """
    if not isinstance(value, enum_cls):
        raise TypeError(f"{field_name} must be a {enum_cls.__name__} member, not {type(value).__name__}")
    return value


def enum_from_wire(value: Any, enum_cls: type[EnumT], field_name: str) -> EnumT:
    """Return the member whose value is the given string.

    :raises TypeError: the value is not a string.
    :raises ValueError: no member has that value; the text lists the allowed ones.
    """
    if not isinstance(value, str):
        raise TypeError(f"{field_name} must be a string")
    try:
        return enum_cls(value)
    except ValueError:
        allowed = ", ".join(member.value for member in enum_cls)
        raise ValueError(f"{field_name} must be one of: {allowed}") from None
