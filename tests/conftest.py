"""Fixtures for tests that run hosts."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from paglets.remote.discovery import DISCOVERY_ENV
from tests.effort import THOROUGH, thorough
from tests.preload import Preloaded
from tests.support import Gate, HostFactory

# Consoles take their width from the environment when they are made, which no test may have changed by then.
os.environ.pop("COLUMNS", None)
import paglets.cli.console  # noqa: F401

# Hundreds of processes are started here. What they import is compiled once, even where Python was told to keep nothing.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long an example takes says how busy the machine is. The suite says the same of the same code; what no example has
# shown yet is for thorough runs to find, not for whoever changes something else.
settings.register_profile(
    "paglets",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=thorough(100, 500),
    derandomize=not THOROUGH,
)
settings.load_profile("paglets")

# Tests that run side by side must not find each other's hosts; those of discovery itself switch it on for themselves.
os.environ[DISCOVERY_ENV] = "off"


LONGEST = (
    "docs/test_code_blocks.py",
    "runtime/test_processes.py",
    "runtime/test_moves.py",
    "faults/test_kill_at_every_step.py",
    "faults/test_files.py",
    "artifacts/test_s3.py",
    "examples/search/test_agent.py",
    "faults/test_network.py",
    "runtime/test_service_handles.py",
    "cli/test_demo.py",
    "faults/test_pauses.py",
    "runtime/test_resident_services.py",
    "runtime/test_durability.py",
    "remote/test_discovery.py",
    "protocol/test_membership_simulation.py",
    "faults/test_namespaces.py",
    "patterns/test_file_crashes.py",
    "typing/test_typed_calls.py",
    "runtime/test_reminders.py",
    "runtime/http/test_openapi.py",
)
"""Files of tests that take longest. They come first, so that no worker is left with one of them at the end."""
_HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Have files handed out in the order of `LONGEST`, where the plugin would go by how many tests they have."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_sessionstart(session: pytest.Session) -> None:
    """Have each worker begin with other modules, so that each compiles a part of them and finds the rest compiled."""
    worker = getattr(session.config, "workerinput", None)
    if worker is None or session.config.args != session.config.getini("testpaths"):
        return
    number, count = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    for path in sorted(_HERE.rglob("test_*.py"))[number::count]:
        name = ".".join(path.relative_to(_HERE.parent).with_suffix("").parts)
        # What is wrong with a module is told when it is collected.
        with suppress(Exception):
            importlib.import_module(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests that take longest to the front; the rest keeps its order."""
    ranks = {_HERE / name: rank for rank, name in enumerate(LONGEST)}
    missing = [str(path) for path in ranks if not path.is_file()]
    if missing:
        raise pytest.UsageError(f"LONGEST in {__file__} has no such files: {', '.join(missing)}")
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def pytest_collection_finish() -> None:
    """Leave what was collected out of every search for garbage to come; it is most of what this process has."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[HostFactory]:
    """Give a factory of started hosts, which stops them and checks that no process or thread of theirs is left."""
    factory = HostFactory(tmp_path)
    try:
        yield factory
    finally:
        factory.close()


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preloaded]:
    """Give what runs programs of this package without their imports."""
    started = Preloaded(tmp_path_factory.mktemp("preloaded"))
    yield started
    started.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Give a gate that is open for good after the test."""
    made = Gate(tmp_path)
    yield made
    made.open()
