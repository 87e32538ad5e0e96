"""What the mesh says of itself, where the environment wants that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paglets.remote import mesh_debug
from paglets.remote.mesh_debug import MESH_DEBUG_ENV, say_if_wanted
from tests.cli.processes import Program
from tests.support import eventually

MESH = logging.getLogger("paglets.remote.mesh")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Take away what is added to the loggers of this process."""
    yield
    for name in mesh_debug._LOGGERS:
        logger = logging.getLogger(name)
        logger.filters.clear()
        logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("value", ["", "0", "off", " No ", "false"])
def test_nothing_is_said_unless_it_is_wanted(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MESH_DEBUG_ENV, value)
    say_if_wanted()
    MESH.debug("quiet")
    assert capsys.readouterr().err == ""
    assert not MESH.isEnabledFor(logging.DEBUG)


def test_every_record_is_a_line_with_a_prefix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MESH_DEBUG_ENV, "1")
    say_if_wanted()
    say_if_wanted()  # a second host of the program
    MESH.debug("mesh: %s is online", "a\nb\x1b[2J")
    try:
        raise OSError("no route")
    except OSError:
        logging.getLogger("paglets.remote.visits").debug("mesh contact with %s failed", "http://x", exc_info=True)
    assert capsys.readouterr().err.splitlines() == [
        "[paglets mesh] a?b?[2J is online",
        "[paglets mesh] mesh contact with http://x failed: no route",
    ]


def test_the_log_of_the_program_has_what_it_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(MESH_DEBUG_ENV, "yes")
    say_if_wanted()
    caplog.set_level(logging.INFO, logger="paglets")
    MESH.debug("detail")
    MESH.info("news")
    assert caplog.messages == ["news"]
    assert capsys.readouterr().err.count("[paglets mesh] ") == 2


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Give what starts a host as a program; it is gone after the test."""
    programs: list[Program] = []

    def begin(name: str, *options: str, **environment: str) -> Program:
        given = ["--name", name, "--port", "0", "--persistence-dir", str(tmp_path / name), "--mesh-version", "test"]
        given += ["--launch-config", str(tmp_path / "launch.toml"), "--no-sync-launch-config", "--json"]
        programs.append(Program("host", *given, "--log-level", "error", *options, **environment))
        return programs[-1]

    yield begin
    for program in programs:
        program.close()


def test_a_host_says_whom_it_meets(start: Callable[..., Program]) -> None:
    alpha = start("alpha")
    address = alpha.json_line()["address"]
    beta = start("beta", "--peer", address, **{MESH_DEBUG_ENV: "1"})
    beta.json_line()
    eventually(lambda: f"[paglets mesh] alpha at {address} is online" in beta.err, "news of alpha")
    assert f"[paglets mesh] {address} is to be asked for others" in beta.err
    assert not [line for line in beta.err if not line.startswith("[paglets mesh] ")]
    assert alpha.err == []
