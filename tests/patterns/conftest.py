"""Two hosts for the tests of a module, and fixtures of those tests in which hosts die."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from paglets.core.agent import ACTIVE, INACTIVE
from paglets.runtime.host import Host
from tests.faults.conftest import cluster, nursery
from tests.support import HostFactory, eventually, leftovers

__all__ = ["cluster", "nursery"]


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    factory = HostFactory(tmp_path_factory.mktemp("pair"))
    try:
        alpha = factory("alpha", mesh=True)
        beta = factory("beta", mesh=True, peers=[alpha.address])
        alpha.mesh.wait_for_host("beta")
        yield alpha, beta
    finally:
        factory.close()


@pytest.fixture
def pair(standing: tuple[Host, Host]) -> Iterator[tuple[Host, Host]]:
    """Give two hosts of a mesh, `alpha` and `beta`; what is on them ends after the test."""
    yield standing
    for host in standing:
        for proxy in host.get_proxies(ACTIVE | INACTIVE):
            proxy.dispose()
        eventually(lambda host=host: leftovers(host) == [], "no file of the test to be left")
