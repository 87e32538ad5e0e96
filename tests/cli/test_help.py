"""Every command explains itself."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
import typer.main

from paglets.cli.app import app, main
from paglets.tooling import cli as older


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*path, name))


PATHS = sorted(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "--help"]) == 0
    assert "Usage:" in capsys.readouterr().out


def test_the_help_of_a_host_shows_how_a_place_of_artifacts_is_written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert older.main(["--help"]) == 0
    assert "s3://BUCKET[/PREFIX][?endpoint=URL][&region=NAME]" in capsys.readouterr().out
