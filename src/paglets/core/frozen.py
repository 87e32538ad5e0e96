"""Frozen dataclasses with slots, as `dataclasses` means them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any, TypeVar

__all__ = ["stays_frozen"]

T = TypeVar("T")


def stays_frozen(cls: type[T]) -> type[T]:
    """Have every assignment to an instance of a ``@dataclass(frozen=True, slots=True)`` end in `FrozenInstanceError`.

    For a name that is no field it ends in `TypeError` otherwise, since what `dataclasses` writes there means the class
    as it was without slots (https://github.com/python/cpython/issues/105936). A generic class needs the right error,
    which is an `AttributeError`: `typing` sets ``__orig_class__`` on what ``Operation[A, B]("name")`` makes, and on
    Python 3.11 passes over no other (https://github.com/python/cpython/issues/116669).
    """
    names = frozenset(field.name for field in fields(cls))  # type: ignore[arg-type]  # it is a dataclass

    def refuses(self: Any, name: str) -> bool:
        # A subclass that is no dataclass may have attributes of its own.
        return type(self) is cls or name in names

    def set_attribute(self: Any, name: str, value: Any) -> None:
        if refuses(self, name):
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def delete_attribute(self: Any, name: str) -> None:
        if refuses(self, name):
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    for method, function in (("__setattr__", set_attribute), ("__delattr__", delete_attribute)):
        function.__name__, function.__qualname__ = method, f"{cls.__qualname__}.{method}"
        setattr(cls, method, function)
    return cls
