"""A host that the tests of one module share, and paglets on it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress

import pytest

from paglets.core.errors import InvalidAgentError
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.agents.http_agents import Parrot, Talker
from tests.support import HostFactory


@pytest.fixture(autouse=True)
def _no_failures(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Check that nothing went wrong in the host without anybody being told."""
    yield
    failures = [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    assert not failures, [record.getMessage() + str(record.exc_info) for record in failures]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Host]:
    """Give a started host."""
    factory = HostFactory(tmp_path_factory.mktemp("shared"))
    try:
        # Its processes are told from those of other tests by its name.
        yield factory(request.module.__name__.rpartition(".")[2].replace("_", "-"))
    finally:
        factory.close()


@pytest.fixture
def talker(host: Host) -> Iterator[PagletProxy]:
    """Give a paglet that answers, fails or waits as asked."""
    proxy = host.create(Talker, init={"why": "test"})
    yield proxy
    with suppress(InvalidAgentError):
        host.dispose(proxy.agent_id)


@pytest.fixture
def parrot(host: Host) -> Iterator[PagletProxy]:
    """Give a paglet that returns what it hears."""
    proxy = host.create(Parrot)
    yield proxy
    host.dispose(proxy.agent_id)
