"""The reference has every public module, and names none that is not there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
_ENTRY = re.compile(r"^::: (?P<module>[\w.]+)$(?P<options>(?:\n    .*)*)", re.MULTILINE)

# What programs may import, whatever else moves: modules that are not there yet are passed over until they are.
PUBLIC = [
    "paglets.artifacts",
    "paglets.config.env",
    "paglets.config.startup",
    "paglets.core.agent",
    "paglets.core.context_events",
    "paglets.core.errors",
    "paglets.core.events",
    "paglets.core.itinerary",
    "paglets.core.messages",
    "paglets.core.policies",
    "paglets.core.runtime_values",
    "paglets.core.wire",
    "paglets.examples.analysis_jobs.agent",
    "paglets.examples.analysis_jobs.cli",
    "paglets.examples.compute.agent",
    "paglets.examples.compute.chudnovsky",
    "paglets.examples.compute.models",
    "paglets.examples.file_grabber.agent",
    "paglets.examples.file_grabber.cli",
    "paglets.examples.mesh_benchmark.agent",
    "paglets.examples.mesh_benchmark.analysis",
    "paglets.examples.mesh_benchmark.models",
    "paglets.examples.performance.agent",
    "paglets.examples.performance.kernels",
    "paglets.examples.performance.models",
    "paglets.examples.search.agent",
    "paglets.examples.search.local_search",
    "paglets.examples.search.models",
    "paglets.patterns",
    "paglets.patterns.coordination",
    "paglets.patterns.file_mobility",
    "paglets.patterns.notifications",
    "paglets.patterns.operations",
    "paglets.patterns.tasks",
    "paglets.persistence.persistency",
    "paglets.persistence.storage",
    "paglets.remote.admin",
    "paglets.remote.aio",
    "paglets.remote.client",
    "paglets.remote.mesh",
    "paglets.remote.proxy",
    "paglets.remote.references",
    "paglets.remote.transfer",
    "paglets.remote.transport",
    "paglets.runtime.envelope",
    "paglets.runtime.host",
    "paglets.runtime.http_api",
    "paglets.runtime.mailbox",
    "paglets.runtime.relay",
    "paglets.runtime.resources",
    "paglets.security.policy",
    "paglets.security.tls",
    "paglets.serialization.codec",
    "paglets.services.contracts",
    "paglets.services.resident",
    "paglets.system.artifacts_cli",
    "paglets.system.compute_slots",
    "paglets.system.compute_slots.agent",
    "paglets.system.compute_slots.groups",
    "paglets.system.compute_slots.job",
    "paglets.system.mesh_info.agent",
    "paglets.system.server_info.agent",
    "paglets.system.user_info.agent",
    "paglets.tooling.cli",
    "paglets.tooling.discovery",
    "paglets.tooling.git_update",
]


def is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def entries() -> dict[str, bool]:
    """The modules of the reference, and whether what is below them is listed too."""
    return {
        match["module"]: "show_submodules: true" in match["options"]
        for page in PAGES
        for match in _ENTRY.finditer(page.read_text(encoding="utf-8"))
    }


def is_listed(module: str) -> bool:
    listed = entries()
    parts = module.split(".")
    above = [".".join(parts[:count]) for count in range(1, len(parts))]
    return module in listed or any(listed.get(package, False) for package in above)


@pytest.mark.parametrize("module", [module for module in PUBLIC if is_there(module)])
def test_a_public_module_is_in_the_reference(module: str) -> None:
    assert is_listed(module), module


def imported_by_pages() -> list[str]:
    """The modules of paglets that the code of the pages imports."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    found = re.findall(
        r"^(?:from|import) (paglets[\w.]*)", "\n".join(page.read_text(encoding="utf-8") for page in pages), re.MULTILINE
    )
    return sorted(set(found))


@pytest.mark.parametrize("module", imported_by_pages())
def test_what_the_pages_import_is_in_the_reference(module: str) -> None:
    assert is_listed(module), module


def test_the_reference_names_modules_that_are_there() -> None:
    listed = entries()
    assert len(listed) > 30
    assert [module for module in listed if not is_there(module)] == []


def test_a_module_is_listed_once() -> None:
    listed = [match["module"] for page in PAGES for match in _ENTRY.finditer(page.read_text(encoding="utf-8"))]
    assert sorted(set(listed)) == sorted(listed)


def test_every_page_is_in_the_navigation_once_and_the_map_has_it() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    named = re.findall(r"([\w/-]+\.md)$", navigation, re.MULTILINE)
    there = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(named) == sorted(there)
    # The first page says what each page is for, those of a kind aside.
    start = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    guides = [page for page in there if "/" not in page and page != "index.md"]
    assert [page for page in guides if f"({page})" not in start] == []


def test_docstrings_of_the_reference_are_markdown() -> None:
    roles = []
    for module, below in entries().items():
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None
        source = Path(spec.origin)
        for path in source.parent.rglob("*.py") if below else [source]:
            roles += re.findall(r":(?:func|class|mod|meth|attr|data):`[^`]+`", path.read_text(encoding="utf-8"))
    assert roles == [], "write a name in plain backticks"
