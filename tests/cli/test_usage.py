"""Wrong command lines are told of the command that they are meant for."""

from __future__ import annotations

import pytest

from paglets.cli.app import main
from paglets.tooling import cli as older


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["sys", "load", "--interval"], "paglets sys load: Option '--interval' requires an argument"),
        (["ps", "--entry"], "paglets ps: Option '--entry' requires an argument"),
        (["host", "--name"], "paglets host: Option '--name' requires an argument"),
        (["host", "--bind-public"], "paglets host: Option '--bind-public' requires an argument"),
        (["sys", "load", "--nosuch"], "paglets sys load: No such option: --nosuch"),
        (["sys", "--nosuch"], "paglets sys: No such option: --nosuch"),
        (["sys", "nosuch"], "paglets sys: No such command 'nosuch'"),
        (["--nosuch"], "paglets: No such option: --nosuch"),
    ],
)
def test_a_mistake_names_its_command(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(said)
    command = said.partition(":")[0]
    assert captured.err.endswith(f"(see {command} --help)\n")


def test_the_older_front_names_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert older.main(["--name"]) == 2
    assert capsys.readouterr().err.startswith("paglets-host: Option '--name' requires an argument")
