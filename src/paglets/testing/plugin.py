"""The pytest plugin: the fixture `paglet_mesh`, and the option `--paglet-seed`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from paglets.testing.mesh import PagletMesh


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("paglets").addoption(
        "--paglet-seed",
        type=int,
        default=None,
        metavar="NUMBER",
        help="Seed of every paglet_mesh; by default each test has its own, the same every time.",
    )


class MeshFactory:
    """Open testing meshes that are closed after the test."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._open: list[PagletMesh] = []

    def __call__(self, *names: str, **options: Any) -> PagletMesh:
        """Open a mesh of hosts with these names; `alpha` and `beta` by default.

        :param options: those of `PagletMesh`.
        """
        from paglets.testing.mesh import PagletMesh

        self.close()
        mesh = PagletMesh(*(names or ("alpha", "beta")), **{"seed": self.seed, **options})
        self._open.append(mesh)
        return mesh

    def close(self) -> None:
        """Close the mesh that is open."""
        while self._open:
            self._open.pop().close()


@pytest.fixture
def paglet_mesh(request: pytest.FixtureRequest) -> Iterator[MeshFactory]:
    """Give what opens a testing mesh: `mesh = paglet_mesh("alpha", "beta")`."""
    given = request.config.getoption("--paglet-seed")
    seed = zlib.crc32(request.node.nodeid.encode()) if given is None else given
    factory = MeshFactory(seed)
    yield factory
    factory.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Say with a failure how to see it again."""
    outcome = yield
    report = outcome.get_result()
    factory = getattr(item, "funcargs", {}).get("paglet_mesh")
    if report.when == "call" and report.failed and isinstance(factory, MeshFactory):
        report.sections.append(("paglet mesh", f"seed {factory.seed}: run it again with --paglet-seed={factory.seed}"))
