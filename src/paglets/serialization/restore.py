"""Tagged wire values back to what they stand for, where no declared type says it."""

from __future__ import annotations

from typing import Any

from paglets.serialization.arrays import decode_array, decode_ndarray, is_array_tag, is_ndarray_tag
from paglets.serialization.kinds import (
    LEAVES,
    VALUE_TAG,
    MisfitError,
    is_binary_tag,
    is_value_tag,
    key_part,
    untag_binary,
    untag_value,
)


def restore(value: Any) -> Any:
    """Return a wire value as it is, with everything that is tagged in it restored."""
    kind = type(value)
    if kind in LEAVES:
        return value
    if kind is list:
        if set(map(type, value)) <= LEAVES:
            return value[:]
        items: list[Any] = []
        try:
            for item in value:
                items.append(restore(item))
        except MisfitError as misfit:
            misfit.parts.append(f"[{len(items)}]")
            raise
        return items
    if isinstance(value, dict):
        return restore_dict(value)
    if kind is memoryview:
        return bytes(value)
    return value


def restore_dict(value: dict[Any, Any]) -> Any:
    """Return what a tagged dict stands for, or the dict with its values restored."""
    if len(value) == 2:
        if is_binary_tag(value):
            return untag_binary(value)
        if is_value_tag(value):
            return untag_value(value[VALUE_TAG], value["value"])
        if is_ndarray_tag(value):
            return decode_ndarray(value)
        if is_array_tag(value):
            return decode_array(value)
    entries: dict[Any, Any] = {}
    for key, item in value.items():
        try:
            entries[key] = restore(item)
        except MisfitError as misfit:
            misfit.parts.append(key_part(key))
            raise
    return entries
