"""Values that are understood without pydantic are what Typer would make of them."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.cli.host_options import LogLevel
from paglets.cli.launcher import command_of
from paglets.cli.plain_values import UnclearError, plain_value
from tests.effort import thorough

app = typer.Typer(add_completion=False)


@app.command()
def everything(
    text: Annotated[str | None, typer.Option()] = None,
    whole: Annotated[int, typer.Option(min=-3, max=9)] = 1,
    clamped: Annotated[int, typer.Option(min=0, max=9, clamp=True)] = 1,
    number: Annotated[float, typer.Option(min=0.5)] = 1,
    free: Annotated[float | None, typer.Option()] = None,
    path: Annotated[Path | None, typer.Option()] = None,
    there: Annotated[Path | None, typer.Option(exists=True)] = None,
    level: Annotated[LogLevel, typer.Option()] = LogLevel.INFO,
    words: Annotated[list[str] | None, typer.Option()] = None,
    paths: Annotated[list[Path] | None, typer.Option()] = None,
    shouted: Annotated[str, typer.Option(parser=str.upper)] = "a",
) -> None:
    seen.append([text, whole, clamped, number, free, path, there, level, words, paths, shouted])


seen: list[list[Any]] = []
USUAL = typer.main.get_command(app)
PLAIN = command_of(app)
OPTIONS = ["text", "whole", "clamped", "number", "free", "path", "there", "level", "words", "paths", "shouted"]
NUMBERS = [
    "0",
    "-1",
    "9",
    "10",
    "1.5",
    "-0",
    "007",
    "1e3",
    "1_0",
    " 1",
    "nan",
    "inf",
    "0.50",
    "9" * 30,
    "0x1",
    "+1",
    "",
]
WORDS = [
    *(str(each.value) for each in LogLevel),
    "INFO",
    "Debug",
    "nothing",
    ".",
    "/",
    "/no/such/place",
    "-",
    "a\0b",
    "long" * 2000,
]
VALUES = st.sampled_from(NUMBERS + WORDS) | st.text(max_size=6)


def outcome(command: Any, arguments: list[str]) -> Any:
    seen.clear()
    try:
        command(args=arguments, prog_name="everything", standalone_mode=False)
    except Exception as exc:
        describe = getattr(exc, "format_message", None)
        return type(exc), describe() if describe is not None else str(exc)
    return [(type(each), repr(each)) for each in seen[0]]  # by their texts, since nan is not equal to nan


@settings(max_examples=thorough(150, 2000), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(OPTIONS), VALUES), max_size=3))
def test_plain_values_are_what_typer_makes_of_them(chosen: list[tuple[str, str]]) -> None:
    arguments = [f"--{name}={value}" for name, value in chosen]
    assert outcome(PLAIN, arguments) == outcome(USUAL, arguments)


def test_a_file_that_cannot_be_read_is_refused_as_usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_text("")
    monkeypatch.setattr("os.access", lambda *_: False)
    found = outcome(PLAIN, [f"--path={secret}"])
    assert found == outcome(USUAL, [f"--path={secret}"])
    assert "is not readable" in found[1]


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "annotation"), [(True, int), (b"x", str), ("RED", Colour), ("x", bool), (1, float), (None, str)]
)
def test_what_may_be_another_value_goes_the_usual_way(value: Any, annotation: Any) -> None:
    with pytest.raises(UnclearError):
        plain_value(value, annotation, typer.Option())
