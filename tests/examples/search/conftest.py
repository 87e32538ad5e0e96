"""Two hosts for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from paglets.examples.search import agent
from paglets.runtime.host import Host
from tests.support import HostFactory


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    factory = HostFactory(tmp_path_factory.mktemp("pair"))
    try:
        alpha = factory("alpha", mesh=True, preload=[agent.__name__])
        beta = factory("beta", mesh=True, peers=[alpha.address], preload=[agent.__name__])
        alpha.mesh.wait_for_host("beta")
        yield alpha, beta
    finally:
        factory.close()
