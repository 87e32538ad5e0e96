"""The files of the page about deployment do what the page says: unit, container, nginx, and the figures it cites."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from paglets.cli.app import app
from paglets.remote.client import HostClient
from paglets.remote.proxy import PagletProxy
from paglets.runtime.host import Host
from tests.agents.actor import Actor
from tests.docs.code_blocks import blocks_of
from tests.faults import nginx
from tests.support import free_port

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
FILES = {block.title: block.source for block in blocks_of(PAGE) if block.title}
UNIT = FILES["paglets.service"]
ANALYZE = shutil.which("systemd-analyze")
# Of systemd's own scale: 10 is a service with no protection, and this one is at 1.9.
MOST_EXPOSURE = 2.0
KEY = "deployment-key"


def settings(unit: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    return dict(pairs)  # type: ignore[arg-type]


def command_of_the_unit() -> list[str]:
    return shlex.split(settings(UNIT)["ExecStart"].replace("%l", "machine"))


def check_command(arguments: list[str]) -> None:
    """Parse a command as the program would, without doing anything."""
    program, name, *rest = arguments
    assert Path(program).name == "paglets"
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, rest, resilient_parsing=False)


# --- the unit --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(ANALYZE is None, reason="there is no systemd-analyze on this machine")
def test_systemd_understands_the_unit_and_calls_it_safe(tmp_path: Path) -> None:
    assert ANALYZE is not None
    unit = tmp_path / "paglets.service"
    # systemd looks whether the program is there.
    unit.write_text(UNIT.replace("/opt/paglets/bin/paglets", sys.executable))
    verified = subprocess.run([ANALYZE, "verify", "--man=no", str(unit)], capture_output=True, text=True)
    about_it = [line for line in verified.stderr.splitlines() if "paglets" in line]
    assert (verified.returncode, about_it) == (0, []), verified.stderr
    security = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True
    )
    exposure = re.search(r"Overall exposure level for paglets.service: ([\d.]+)", security.stdout)
    assert exposure is not None, security.stdout + security.stderr
    assert float(exposure[1]) <= MOST_EXPOSURE, security.stdout


def test_the_unit_gives_the_host_time_and_lets_it_end_its_paglets_itself() -> None:
    said = settings(UNIT)
    assert said["KillMode"] == "mixed"
    assert said["OOMPolicy"] == "continue"
    assert int(said["TimeoutStopSec"]) > 60
    assert said["User"] not in ("", "root")


def test_the_command_of_the_unit_runs_and_ends_well_on_sigterm(tmp_path: Path) -> None:
    _, *arguments = command_of_the_unit()
    directory = tmp_path / "host"
    swapped = [str(directory) if each == "/var/lib/paglets/host" else each for each in arguments]
    command = [sys.executable, "-P", "-m", "paglets", *swapped]
    # Not to be found by other hosts of the network that the test runs in.
    command += ["--port", "0", "--json", "--no-mesh-multicast"]
    environment = {"HOME": str(tmp_path), "PAGLETS_API_KEY": KEY, "PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin"}
    with (tmp_path / "log").open("wb") as log:
        host = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
        )
    assert host.stdout is not None
    with host.stdout as lines:
        try:
            listening = json.loads(lines.readline() or "{}")
            assert listening.get("name") == "machine", (tmp_path / "log").read_text()
            assert Path(listening["persistence_dir"]) == directory
        finally:
            host.send_signal(signal.SIGTERM)
            assert host.wait(60) == 0


# --- the container ---------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    lines = FILES["Containerfile"].replace("\\\n", " ").splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines if line and not line.startswith("#")]


def test_the_container_runs_commands_that_there_are() -> None:
    said = dict(instructions())
    check_command(json.loads(said["ENTRYPOINT"]) + json.loads(said["CMD"]))
    check_command(json.loads(said["HEALTHCHECK"].partition("CMD ")[2]))


def test_the_container_is_built_from_known_instructions_and_extras() -> None:
    before = {"FROM", "RUN", "COPY", "USER", "WORKDIR", "VOLUME", "EXPOSE"}
    at_run_time = {"STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    names = [name for name, _ in instructions()]
    assert names[0] == "FROM"
    assert set(names) == before | at_run_time
    # Nothing after it is done as root, and what is installed is installed before.
    assert names.index("USER") > max(index for index, name in enumerate(names) if name == "RUN")
    said = dict(instructions())
    assert getattr(signal, said["STOPSIGNAL"]) is signal.SIGTERM
    extras = re.search(r"paglets\[([\w,]+)\]", FILES["Containerfile"])
    assert extras is not None
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in extras[1].split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


# --- nginx -----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(nginx.BINARY is None, reason="there is no nginx on this machine")
def test_a_host_is_reached_through_the_documented_nginx(tmp_path: Path) -> None:
    port = free_port()
    proxy = nginx.Nginx(tmp_path / "nginx", port)
    host = Host("alpha", port=port, public_url=proxy.url, api_key=KEY, persistence_dir=tmp_path / "host", mesh=False)
    proxy.start()
    try:
        host.start_background()
        context = ssl.create_default_context(cafile=str(proxy.authority))
        with HostClient(10.0, api_key=KEY, ssl_context=context) as client:
            made = client.post_json(f"{proxy.url}/agents", {"agent_class_name": "tests.agents.actor:Actor"})
            assert made["proxy"]["host_url"] == proxy.url
            assert PagletProxy.from_wire(made["proxy"], client).call(Actor.add) == 1
    finally:
        host.stop()
        proxy.stop()


# --- what the page cites ---------------------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_result_that_is_named() -> None:
    named = re.search(r"`(bench/results/[\w-]+\.json)`", PAGE)
    assert named is not None
    measured = json.loads((ROOT / named[1]).read_text(encoding="utf-8"))
    rows = {row["name"]: f"{row['value']} {row['unit']}" for row in measured["rows"]}
    table = PAGE.partition("| what | measured |\n| --- | --- |\n")[2].partition("\n\n")[0]
    cited = dict(re.findall(r"^\| (.+) \| (.+) \|$", table, re.MULTILINE))
    assert len(cited) >= 8
    assert cited == {name: rows.get(name) for name in cited}


def test_the_events_to_watch_for_are_events_that_there_are() -> None:
    watching = PAGE.partition("## Watching")[2].partition("## Sizing")[0]
    kinds = set(re.findall(r"`([a-z]+-[a-z-]+)`", watching))
    assert len(kinds) >= 10
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "paglets").rglob("*.py"))
    assert [kind for kind in sorted(kinds) if f'"{kind}"' not in sources] == []
