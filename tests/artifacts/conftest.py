"""Fixtures for tests that keep artifacts in object storage."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.artifacts.s3_server import CREDENTIALS, S3Server, require_swift


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give a running server with a bucket."""
    require_swift()
    running = S3Server(tmp_path_factory.mktemp("s3") / "swift")
    running.start()
    try:
        running.make_bucket()
        yield running
    finally:
        running.close()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have the environment name the server's user, and nothing else of AWS."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


@pytest.fixture
def mortal(server: S3Server) -> Iterator[S3Server]:
    """Give the server to a test that kills or pauses it."""
    try:
        yield server
    finally:
        server.revive()
