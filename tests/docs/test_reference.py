"""What the documentation lists is complete, and what it links to is there."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer.main

from paglets.cli.app import app
from paglets.core.error_wire import http_status
from paglets.core.errors import PagletError
from paglets.runtime.http.routes import ROUTES
from tests.docs.code_blocks import blocks_of

ROOT = Path(__file__).resolve().parents[2]
HOSTS = (ROOT / "docs" / "hosts.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def host_options() -> list[str]:
    command = typer.main.get_command(app).commands["host"]  # type: ignore[attr-defined]
    return [
        option
        for parameter in command.params
        if not getattr(parameter, "hidden", False)
        for option in (*parameter.opts, *parameter.secondary_opts)
        if option != "--help"
    ]


def test_every_option_of_a_host_is_in_the_table() -> None:
    table = {
        name for line in HOSTS.splitlines() if line.startswith("| `-") for name in re.findall(r"`(-[\w-]+)`", line)
    }
    assert table == set(host_options())


def test_every_route_is_in_the_table() -> None:
    for route in ROUTES:
        for path in route.paths:
            last = re.sub(r"{\w+:\w+}", "{id}", path)
            assert last in HOSTS or f"/{last.rsplit('/', 1)[-1]}`" in HOSTS, path


def errors() -> list[type[PagletError]]:
    found = PagletError.__subclasses__()
    for error in found:
        found += error.__subclasses__()
    return [error for error in found if error.__module__ == "paglets.core.errors"]


@pytest.mark.parametrize("error", errors(), ids=lambda error: error.__name__)
def test_every_status_of_an_error_is_in_the_table(error: type[PagletError]) -> None:
    assert f"| {http_status(error(''))} |" in HOSTS


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGES.md"])
def test_links_of_pages_outside_the_site_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in blocks_of(text):
        text = text.replace(block.source, "")
    for target in LINK.findall(text):
        if not target.startswith(("http:", "https:", "#")):
            assert (ROOT / unquote(target.partition("#")[0])).exists(), target
