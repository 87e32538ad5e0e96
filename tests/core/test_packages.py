"""Packages that are missing."""

from __future__ import annotations

import sys

import pytest

from paglets.core.errors import HostError
from paglets.core.packages import needing


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_what_is_missing_is_named_with_what_needs_it(module: str) -> None:
    said = "counting needs the package no_such_package, which is not installed here: pip install no_such_package"
    with pytest.raises(HostError, match=f"^{said}$"), needing("no_such_package", "counting"):
        __import__(module)


def test_what_is_there_is_imported() -> None:
    with needing("json", "counting"):
        import json
    assert json is sys.modules["json"]


def test_what_a_package_lacks_itself_is_another_matter() -> None:
    with pytest.raises(ModuleNotFoundError, match="other_package"), needing("no_such_package", "counting"):
        raise ModuleNotFoundError("No module named 'other_package'", name="other_package")
    with pytest.raises(ImportError, match="a name"), needing("no_such_package", "counting"):
        raise ImportError("a name")
