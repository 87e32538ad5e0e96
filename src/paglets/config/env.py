"""Secrets that reach a program through its environment."""

from __future__ import annotations

import os
from typing import Final

DEFAULT_API_KEY_ENV: Final = "PAGLETS_API_KEY"


def resolve_api_key(api_key_env: str | None = None) -> str | None:
    """Return the API key in an environment variable.

    :param api_key_env: the variable that must hold it; None looks into `PAGLETS_API_KEY`, which may be unset or empty.
    :raises ValueError: the named variable is not set or is empty.
    """
    if api_key_env is None:
        return os.environ.get(DEFAULT_API_KEY_ENV) or None
    key = os.environ.get(api_key_env)
    if not key:
        raise ValueError(f"--api-key-env {api_key_env!r} is not set or is empty")
    return key
