"""Packages that only some parts of this one need, imported where they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from paglets.core.errors import HostError

__all__ = ["needing"]


@contextmanager
def needing(package: str, purpose: str) -> Iterator[None]:
    """Say what to install when an import inside finds that a package is missing.

    :param purpose: what needs it, as the beginning of a sentence.
    :raises HostError: the package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != package:
            raise  # it is there, and itself lacks something
        raise HostError(
            f"{purpose} needs the package {package}, which is not installed here: pip install {package}"
        ) from None
