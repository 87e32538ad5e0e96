"""The pytest plugin, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src"

TESTS = """
from dataclasses import dataclass
from paglets.core.agent import Paglet, handler

@dataclass
class S:
    n: int = 0

class Tally(Paglet):
    State = S

    @handler
    def add(self) -> int:
        self.state.n += 1
        return self.state.n

def test_fixture(paglet_mesh, record_property):
    mesh = paglet_mesh()
    assert mesh.names == ["alpha", "beta"]
    assert mesh.create("alpha", Tally).call(Tally.add) == 1
    assert paglet_mesh("one").names == ["one"]

def test_fails(paglet_mesh):
    paglet_mesh("alpha")
    assert False

def test_without():
    import sys
    assert "pytest_timeout" not in sys.modules
"""


def test_the_fixture_and_what_a_failure_says(tmp_path: Path) -> None:
    (tmp_path / "test_tally.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-p", "paglets.testing.plugin", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=80,
    )
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "run it again with --paglet-seed=" in done.stdout


def test_loading_the_plugin_loads_nothing_else() -> None:
    program = "import sys, pytest\nbefore = set(sys.modules)\nimport paglets.testing.plugin\n"
    program += "print(sorted(name for name in set(sys.modules) - before if name.startswith('paglets')))"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "['paglets', 'paglets.testing', 'paglets.testing.plugin']", done.stderr
