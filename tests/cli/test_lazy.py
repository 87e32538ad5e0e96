"""Commands are listed from a table and imported when they are called; both say the same."""

from __future__ import annotations

import gc
import sys

import pytest
import typer.main

from paglets.cli.app import app, main
from paglets.cli.launcher import command_of
from paglets.cli.lazy import LazyCommand, LazyGroup, lazy_group, uncollected

GROUP = typer.main.get_command(app)
assert isinstance(GROUP, LazyGroup)
ENTRIES = GROUP.ENTRIES


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_table_says_what_the_module_says(entry: LazyCommand) -> None:
    loaded = entry.load()
    assert loaded.name == entry.name
    assert (loaded.help or "").partition("\n")[0] == entry.help
    assert loaded.rich_help_panel == entry.panel
    assert "Examples:" in (loaded.epilog or "") or entry.name == "examples"
    assert entry.outline().help == entry.help


def test_help_lists_every_command_with_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["--help"]) == 0
    lines = [" ".join(line.strip("│ ").split()) for line in capsys.readouterr().out.splitlines()]
    for entry in ENTRIES:
        assert f"{entry.name} {entry.help}" in lines


def test_the_shell_is_offered_commands_with_their_help() -> None:
    context = GROUP.make_context("paglets", [], resilient_parsing=True)
    offered = {item.value: item.help for item in GROUP.shell_complete(context, "")}
    assert {entry.name for entry in ENTRIES} <= set(offered)
    assert [item.value for item in GROUP.shell_complete(context, "aud")] == ["audit"]


def test_a_wrong_command_is_told_what_may_be_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["artifcts"]) == 2
    assert "Did you mean 'artifacts'?" in capsys.readouterr().err


def test_only_the_command_that_is_called_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = (
        LazyCommand("audit", "paglets.cli.audit", "Audit.", "Watch"),
        LazyCommand("broken", "paglets.cli.no_such_module", "Broken.", "Watch"),
    )
    program = typer.Typer(cls=lazy_group(*entries), name="program")
    program.callback(invoke_without_command=True)(lambda: None)
    group = command_of(program)
    monkeypatch.delitem(sys.modules, "paglets.cli.audit", raising=False)
    assert list(group.commands) == ["audit", "broken"]
    assert "paglets.cli.audit" not in sys.modules
    assert group.get_command(None, "audit").name == "audit"
    assert group.get_command(None, "nothing") is None
    with pytest.raises(ModuleNotFoundError):
        group.get_command(None, "broken")


def test_garbage_is_looked_for_again_after_an_import_that_failed() -> None:
    assert gc.isenabled()
    with pytest.raises(RuntimeError), uncollected():
        assert not gc.isenabled()
        raise RuntimeError
    assert gc.isenabled()
