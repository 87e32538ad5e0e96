"""Values as TOML text."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any


def toml_value(value: Any) -> str:
    """Return the text of a value as it comes from `tomllib`.

    :raises TypeError: TOML has no such value.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return toml_string(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, list):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, dict):
        pairs = (f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    raise TypeError(f"TOML has no {type(value).__name__}")


def toml_key(key: str) -> str:
    """Return a key, quoted where it must be."""
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else toml_string(key)


def toml_string(text: str) -> str:
    """Return a basic string; its escapes are those of JSON, and DEL needs one more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
