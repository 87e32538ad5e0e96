"""Fixtures for tests that run hosts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from paglets.remote.discovery import DISCOVERY_ENV
from tests.support import Gate, HostFactory

# Consoles take their width from the environment when they are made, which no test may have changed by then.
os.environ.pop("COLUMNS", None)
import paglets.cli.console  # noqa: F401

# Tests that run side by side must not find each other's hosts; those of discovery itself switch it on for themselves.
os.environ[DISCOVERY_ENV] = "off"


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[HostFactory]:
    """Give a factory of started hosts, which stops them and checks that no process or thread of theirs is left."""
    factory = HostFactory(tmp_path)
    try:
        yield factory
    finally:
        factory.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Give a gate that is open for good after the test."""
    made = Gate(tmp_path)
    yield made
    made.open()
