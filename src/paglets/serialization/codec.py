"""Dataclass state to wire form and back, driven by type hints.

Unknown fields are ignored and missing ones take their defaults, so a state class may grow. When that is not enough it
declares `STATE_VERSION: ClassVar[int]` and a classmethod `upgrade_state(cls, data, from_version)`, which gets the wire
form of data of another version and returns it in the form of this one.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from paglets.core.errors import SerializationError
from paglets.core.wire import WirePayload
from paglets.serialization.decode import decoder_of
from paglets.serialization.encode import encode_any, encoder_of
from paglets.serialization.kinds import ALLOWED_KINDS, MisfitError, type_name
from paglets.serialization.names import qualified_name, resolve_qualified_name
from paglets.serialization.packing import TOO_DEEP

__all__ = [
    "dataclass_from_wire",
    "dataclass_to_wire",
    "from_wire",
    "qualified_name",
    "resolve_qualified_name",
    "state_version",
    "to_wire",
    "upgraded",
]


def dataclass_to_wire(instance: Any) -> WirePayload:
    """Return the fields of a dataclass instance as wire values.

    :raises SerializationError: no dataclass instance, or a value that cannot travel; the text has its path.
    """
    if not dataclasses.is_dataclass(instance) or isinstance(instance, type):
        raise SerializationError(
            f"expected a dataclass instance, got {type_name(instance)}; allowed are {ALLOWED_KINDS}"
        )
    wire: WirePayload = to_wire(instance, path="state")
    return wire


def dataclass_from_wire(cls: type, payload: WirePayload, version: int | None = None, *, path: str = "state") -> Any:
    """Return an instance of a dataclass from the wire values of its fields.

    :param version: the `STATE_VERSION` the payload was written with; None takes it to be the present one.
    :param path: what error texts call the instance.
    :raises SerializationError: no dataclass, no dict, a missing or wrong field; the text has the path of the field.
    """
    if not dataclasses.is_dataclass(cls):
        raise SerializationError(f"{getattr(cls, '__name__', cls)!r} is no dataclass")
    if not isinstance(payload, dict):
        raise SerializationError(f"expected a dict with the fields of {cls.__qualname__}, got {type_name(payload)}")
    if version is not None:
        payload = upgraded(cls, payload, version)
    return from_wire(cls, payload, path)


def to_wire(value: Any, hint: Any = Any, path: str = "") -> Any:
    """Return any value that can travel as a fresh wire value.

    :param hint: the declared type; scalars that JSON lacks are tagged where it is `Any` or a union.
    :param path: what error texts call the value.
    :raises SerializationError: the value, or something in it, cannot travel.
    """
    try:
        return (encode_any if hint is Any else encoder_of(hint))(value, None)
    except MisfitError as misfit:
        raise SerializationError(misfit.at(path)) from misfit.__cause__
    except RecursionError:
        raise SerializationError(_at(path, TOO_DEEP)) from None


def from_wire(hint: Any, value: Any, path: str = "state") -> Any:
    """Return a wire value as a value of the declared type.

    :param path: what error texts call the value.
    :raises SerializationError: the value does not fit the type.
    """
    try:
        return decoder_of(hint)(value)
    except MisfitError as misfit:
        raise SerializationError(misfit.at(path)) from misfit.__cause__
    except RecursionError:
        raise SerializationError(_at(path, TOO_DEEP)) from None


def state_version(cls: type) -> int:
    """Return the `STATE_VERSION` of a state class, 1 when it declares none.

    :raises SerializationError: it is no whole number from 1 to 2**63 - 1.
    """
    version = getattr(cls, "STATE_VERSION", 1)
    if type(version) is not int or not 0 < version < 2**63:
        raise SerializationError(f"STATE_VERSION of {cls.__qualname__} is a whole number from 1, not {version!r}")
    return version


def upgraded(cls: type, payload: WirePayload, from_version: int) -> WirePayload:
    """Return wire data of another state version in the form of the class at hand.

    :raises SerializationError: the data is newer and the class has no `upgrade_state`, or that hook failed.
    """
    current = state_version(cls)
    if from_version == current:
        return payload
    hook = getattr(cls, "upgrade_state", None)
    if hook is None:
        if from_version > current:
            raise SerializationError(
                f"state of {cls.__qualname__} has version {from_version}, this process knows {current}; "
                "update the code here or give the class an upgrade_state()"
            )
        return payload
    try:
        result = hook(dict(payload), from_version)
    except Exception as error:
        raise SerializationError(
            f"{cls.__qualname__}.upgrade_state failed from version {from_version}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(result, dict):
        raise SerializationError(f"{cls.__qualname__}.upgrade_state returned {type_name(result)}, not a dict")
    return result


def _at(path: str, text: str) -> str:
    return f"{path}: {text}" if path else text
