"""Reading typed fields out of a payload that somebody else wrote."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from paglets.core.errors import SerializationError


class WireFields:
    """Read the fields of one payload, naming payload and field when one is missing or of the wrong type.

    A field that is absent or null counts as missing. Every method raises `SerializationError`.

    :param payload: what was received, of whatever type.
    :param what: the noun for error texts, such as ``"message"``.
    """

    __slots__ = ("_payload", "_what")

    def __init__(self, payload: object, what: str) -> None:
        if not isinstance(payload, dict):
            raise SerializationError(f"{what} must be an object, not {type(payload).__name__}")
        self._payload: dict[str, Any] = payload
        self._what = what

    def get(self, key: str) -> Any:
        """Return the field as it is, or None."""
        return self._payload.get(key)

    def required(self, key: str) -> Any:
        """Return the field as it is."""
        value = self._payload.get(key)
        if value is None:
            raise SerializationError(f"{self._what} has no {key!r}")
        return value

    def text(self, key: str) -> str:
        """Return a string."""
        return self._text(key, self.required(key))

    def text_or_none(self, key: str) -> str | None:
        """Return a string, or None when the field is missing."""
        value = self._payload.get(key)
        return None if value is None else self._text(key, value)

    def text_or(self, key: str, default: str) -> str:
        """Return a string, or the default when the field is missing or empty."""
        return self.text_or_none(key) or default

    def integer(self, key: str) -> int:
        """Return an int; other numbers and digits in a string are converted."""
        return self._integer(key, self.required(key))

    def integer_or(self, key: str, default: int) -> int:
        """Return an int, or the default when the field is missing."""
        value = self._payload.get(key)
        return default if value is None else self._integer(key, value)

    def number_or(self, key: str, default: float) -> float:
        """Return a float, or the default when the field is missing."""
        value = self._payload.get(key)
        return default if value is None else self._number(key, value)

    def number_or_none(self, key: str) -> float | None:
        """Return a float, or None when the field is missing."""
        value = self._payload.get(key)
        return None if value is None else self._number(key, value)

    def flag_or(self, key: str, default: bool) -> bool:
        """Return a bool, or the default when the field is missing."""
        value = self._payload.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """Return a fresh dict with string keys."""
        return self._mapping(key, self.required(key))

    def mapping_or_empty(self, key: str) -> dict[str, Any]:
        """Return a fresh dict with string keys, empty when the field is missing."""
        value = self._payload.get(key)
        return {} if value is None else self._mapping(key, value)

    def items_or_empty(self, key: str) -> list[Any]:
        """Return a fresh list, empty when the field is missing."""
        value = self._payload.get(key)
        if value is None:
            return []
        if not isinstance(value, (list, tuple)):
            raise self._wrong(key, "a list", value)
        return list(value)

    def texts_or_empty(self, key: str) -> tuple[str, ...]:
        """Return a tuple of strings, empty when the field is missing."""
        items: Iterable[Any] = self.items_or_empty(key)
        return tuple(self._text(key, item) for item in items)

    def _text(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            raise self._wrong(key, "a string", value)
        return value

    def _integer(self, key: str, value: Any) -> int:
        if isinstance(value, bool):
            raise self._wrong(key, "a whole number", value)
        try:
            return int(value)
        except (TypeError, ValueError, OverflowError):
            raise self._wrong(key, "a whole number", value) from None

    def _number(self, key: str, value: Any) -> float:
        if isinstance(value, bool):
            raise self._wrong(key, "a number", value)
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise self._wrong(key, "a number", value) from None
        # NaN compares false with everything, so a deadline made of it would never pass.
        if math.isnan(number):
            raise self._wrong(key, "a number", value)
        return number

    def _mapping(self, key: str, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        for name in value:
            if not isinstance(name, str):
                raise self._wrong(key, "an object with string keys", name)
        return dict(value)

    def _wrong(self, key: str, expected: str, value: object) -> SerializationError:
        return SerializationError(f"{self._what} field {key!r} must be {expected}, not {type(value).__name__}")
