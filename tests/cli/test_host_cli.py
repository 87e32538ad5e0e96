"""The program that runs a host, as a process like its users start it."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paglets.cli import host_run
from paglets.cli.app import main
from paglets.cli.host_log import describe, level_of
from paglets.cli.host_options import HostOptions, properties_of
from paglets.config.env import DEFAULT_API_KEY_ENV
from paglets.core.context_events import ContextEvent
from paglets.persistence.directory import DirectoryLock
from paglets.remote.client import HostClient
from paglets.runtime.host import Host
from paglets.tooling import cli as older
from tests.cli.processes import Program, all_gone

Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give what starts a host as a process; it is gone after the test."""
    programs: list[Program] = []

    def begin(*options: str, module: str = "paglets", name: str = "alpha", **more: Any) -> Program:
        command = ["host"] if module == "paglets" else []
        given = ["--name", name, "--port", "0", "--persistence-dir", str(tmp_path / name)]
        given += ["--launch-config", str(tmp_path / "launch.toml"), "--mesh-version", "test"]
        program = Program(*command, *given, *options, module=module, **more)
        programs.append(program)
        return program

    yield begin
    for program in programs:
        program.close()


def create_quiet(address: str) -> str:
    """Create a paglet on a host and return its id."""
    with HostClient() as client:
        reply = client.post_json(f"{address}/agents", {"agent_class_name": "tests.agents.actor:Quiet"})
    return str(reply["proxy"]["agent_id"])


def test_a_host_stops_in_order_and_its_paglets_wake_up_with_the_next_start(start: Start, tmp_path: Path) -> None:
    # Given a host with a paglet
    first = start("--log-level", "info")
    line = first.line()
    address = line.split()[5]
    assert line == f"paglets host 'alpha' listening at {address} (mesh on, version test)"
    agent_id = create_quiet(address)
    children = first.children()
    assert len(children) >= 2  # the fork server, the paglet, and processes kept ready

    # When it is told to stop
    first.process.send_signal(signal.SIGTERM)

    # Then it does, and has said what happened
    assert first.wait() == 0
    all_gone(children)
    assert first.out == [line]
    logged = "\n".join(first.err)
    assert "copied the bundled launch config" in logged
    assert (tmp_path / "launch.toml").exists()
    for words in (" create ", "Quiet", "deactivate"):
        assert words in logged
    # Of a service that is busy for longer than a stop waits for, a message may fail.
    assert not any("message-" in line for line in first.err if agent_id in line)

    # And its next start, here by the older front, has the paglet again
    second = start("--json", "--stop-on-eof", module="paglets.tooling.cli", stdin=subprocess.PIPE)
    with HostClient() as client:
        assert client.agent_info(second.json_line()["address"], agent_id)["active"] is True
    assert second.process.stdin is not None
    second.process.stdin.close()
    assert second.json_line() == {"event": "stopped"}
    assert second.wait() == 0


def test_json_lines_and_interrupt(start: Start) -> None:
    program = start("--json", "--no-mesh", "--no-sync-launch-config", "--log-level", "error")
    listening = program.json_line()
    assert listening.pop("address").startswith("http://127.0.0.1:")
    assert Path(listening.pop("persistence_dir")).is_dir()
    assert listening == {
        "event": "listening",
        "name": "alpha",
        "pid": program.process.pid,
        "mesh": False,
        "version": "test",
    }
    children = program.children()

    program.process.send_signal(signal.SIGINT)

    assert program.json_line() == {"event": "stopped"}
    assert program.wait() == 0
    assert program.err == []
    all_gone(children)


def test_a_second_signal_ends_it_at_once(start: Start, tmp_path: Path) -> None:
    # Given a paglet that holds the shutdown up, because it hangs in a handler
    fifo = tmp_path / "gate"
    os.mkfifo(fifo)
    program = start("--json", "--no-sync-launch-config")
    address = program.json_line()["address"]
    with HostClient() as client:
        reply = client.post_json(f"{address}/agents", {"agent_class_name": "tests.agents.actor:Actor"})
        url = f"{address}/agents/{reply['proxy']['agent_id']}/messages"
        client.post_json(url, {"message": {"kind": "do", "args": {"steps": f"gate {fifo}"}}, "oneway": True})
    with fifo.open("wb"):  # opens when the paglet is in there
        children = program.children()

        # When it is told to stop twice
        program.process.send_signal(signal.SIGTERM)
        while program.process.poll() is None:
            program.process.send_signal(signal.SIGTERM)

        # Then nothing is waited for
        assert program.wait() == 128 + signal.SIGTERM
        all_gone(children)


ASKED_FROM_ELSEWHERE = """
import signal, threading
from paglets.cli.host_run import StopRequests

with StopRequests() as requests:
    # Taken by another thread, a signal does not interrupt what this one waits in; no more does one that comes an
    # instant before that.
    threading.Timer(0.1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM)).start()
    requests.wait()
print("asked")
"""


def test_a_signal_that_interrupts_nothing_is_heard_as_well() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ASKED_FROM_ELSEWHERE], capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "asked\n"), ended.stderr


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the key of whoever runs the tests away."""
    monkeypatch.delenv(DEFAULT_API_KEY_ENV, raising=False)


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], no_key: None) -> Iterator[Callable[..., str]]:
    """Give what runs a host that does not start, in this process, and returns the one line it says."""
    package = logging.getLogger("paglets")
    before = package.level, package.propagate, list(package.handlers)

    def run(*options: str) -> str:
        given = ["--name", "alpha", "--persistence-dir", str(tmp_path / "alpha"), "--mesh-version", "test"]
        given += ["--launch-config", str(tmp_path / "launch.toml"), "--no-sync-launch-config"]
        assert main(["host", *given, *options]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        return captured.err

    yield run
    level, package.propagate, package.handlers[:] = before
    package.setLevel(level)


def test_a_port_in_use_is_one_line_and_1(refused: Callable[..., str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"address 127.0.0.1:{port} is in use" in refused("--port", str(port))


def test_a_directory_in_use_is_one_line_and_1(refused: Callable[..., str], tmp_path: Path) -> None:
    with DirectoryLock(tmp_path / "alpha"):
        assert f"is in use by process {os.getpid()}" in refused("--port", "0")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="nothing here refuses new directories to everybody")
def test_a_directory_that_cannot_be_made_is_one_line_and_1(refused: Callable[..., str]) -> None:
    said = refused("--port", "0", "--persistence-dir", "/proc/paglets/alpha")
    assert re.fullmatch(
        "paglets host: /proc/paglets/alpha cannot be made: [A-Z][a-z ]+; name another with --persistence-dir\n", said
    )


def test_a_broken_launch_config_is_one_line_and_1(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "launch.toml").write_text("[launch\n")
    assert "launch.toml" in refused("--port", "0")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--property", "x"], ["--property", "KEY=VALUE", "'x'"]),
        (["--property", "=x"], ["--property", "KEY=VALUE"]),
        (["--api-key-env", "PAGLETS_NO_SUCH"], ["--api-key-env 'PAGLETS_NO_SUCH'", "not set or is empty"]),
        (["--public-url", "https://x.example"], ["--public-url", DEFAULT_API_KEY_ENV, "--api-key-env"]),
        (["--host", "0.0.0.0"], ["without an API key", DEFAULT_API_KEY_ENV, "--api-key-env", "--insecure"]),
        (["--bind-public", "192.0.2.7"], ["192.0.2.7", "without an API key"]),
        (["--bind-public", "--insecure"], ["--bind-public needs an address", "--insecure"]),
        (["--bind-public", "--port", "17451"], ["--bind-public needs an address, or auto, before --port (see"]),
        (["--persistence-dir", __file__], ["--persistence-dir must be a directory, and ", __file__, " is none"]),
        (["--persistence-dir", "/" + "x" * 300], ["--persistence-dir cannot be /xxx", ": File name too long"]),
        (
            ["--persistence-dir", f"{__file__}/x/y"],
            ["--persistence-dir must be a directory, and ", f"{__file__} is none"],
        ),
        (["--port", "70000"], ["--port", "70000"]),
        (["--checkpoint-interval", "0"], ["--checkpoint-interval", "above 0", "not 0"]),
        (["--checkpoint-interval", "inf"], ["--checkpoint-interval", "above 0", "not inf"]),
        (["--checkpoint-interval", "nan"], ["--checkpoint-interval", "above 0", "not nan"]),
        (["--persistent-storage-quota", "lots"], ["--persistent-storage-quota", "'lots'"]),
        (["--allow", "not a pattern"], ["not a pattern"]),
        (["--connect-to", "http://x"], ["--connect-to needs an API key", DEFAULT_API_KEY_ENV]),
        (["--relay-queue-limit", "0"], ["--relay-queue-limit must be at least 1, not 0"]),
        (["--relay-offline-after", "0"], ["--relay-offline-after", "above 0, not 0"]),
        (["--relay-delivery-timeout", "nan"], ["--relay-delivery-timeout", "above 0, not nan"]),
        (["--artifact-spool-ttl", "-5"], ["--artifact-spool-ttl", "seconds above 0, not -5"]),
        (["--artifact-spool-ttl", "nan"], ["--artifact-spool-ttl", "seconds above 0, not nan"]),
        (["--auto-update-from-git"], ["--auto-update-from-git is not available in this version"]),
        (["--log-level", "loud"], ["--log-level"]),
    ],
)
@pytest.mark.usefixtures("no_key")
def test_a_wrong_option_is_one_line_and_2(
    options: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["host", "--name", "alpha", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("paglets host: ")
    for word in words:
        assert word in captured.err


def test_a_host_is_a_hub_or_connected_to_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(DEFAULT_API_KEY_ENV, "secret")
    both = ["--public-url", "http://here.example", "--connect-to", "http://there.example"]
    assert main(["host", "--name", "alpha", *both]) == 2
    assert "--public-url or --connect-to" in capsys.readouterr().err


def test_a_connected_host_says_through_whom_it_is_reached(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    host = Host("laptop", connect_to="http://hub.example/x", mesh_version="v", persistence_dir=tmp_path)
    host_run._announce(host, HostOptions(name="laptop"))
    assert capsys.readouterr().out == "paglets host 'laptop' connected via http://hub.example/x (mesh on, version v)\n"


def test_the_options_of_the_relay_reach_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DEFAULT_API_KEY_ENV, "secret")
    hosts: list[Host] = []

    def serve(_: HostOptions, arguments: dict[str, Any], command: str) -> int:
        hosts.append(Host(**arguments))
        return 0

    monkeypatch.setattr(host_run, "serve", serve)
    options = ["--relay-offline-after", "9", "--relay-delivery-timeout", "7", "--relay-queue-limit", "5"]
    assert main(["host", "--name", "alpha", "--connect-to", "https://hub.example/paglets/", *options]) == 0
    (host,) = hosts
    assert (host.connect_to, host.relay_mode) == ("https://hub.example/paglets", True)
    assert host.address == "https://hub.example/paglets/relay/hosts/alpha"
    settings = host.relay_settings
    assert (settings.offline_after, settings.delivery_timeout, settings.queue_limit) == (9, 7, 5)
    assert not settings.accepts


@pytest.mark.usefixtures("no_key")
@pytest.mark.parametrize(("options", "seconds"), [([], 1.0), (["--checkpoint-interval", "0.25"], 0.25)])
def test_the_checkpoint_interval_reaches_the_host(
    options: list[str], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts: list[Host] = []

    def serve(_: HostOptions, arguments: dict[str, Any], command: str) -> int:
        hosts.append(Host(**arguments))
        return 0

    monkeypatch.setattr(host_run, "serve", serve)
    assert main(["host", "--name", "alpha", *options]) == 0
    assert [host.checkpoint_interval for host in hosts] == [seconds]


@pytest.mark.usefixtures("no_key")
def test_the_older_front_takes_a_bare_bind_public(capsys: pytest.CaptureFixture[str]) -> None:
    assert older.with_values(["--bind-public", "--name", "a"]) == ["--bind-public=auto", "--name", "a"]
    assert older.with_values(["--bind-public", "192.0.2.7"]) == ["--bind-public", "192.0.2.7"]
    assert older.with_values(["--name", "a", "--bind-public"]) == ["--name", "a", "--bind-public=auto"]
    assert older.main(["--name", "a", "--property", "x"]) == 2
    assert capsys.readouterr().err.startswith("paglets-host: --property must be KEY=VALUE")


@pytest.mark.usefixtures("no_key")
def test_a_key_or_insecure_opens_the_host() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOME_KEY", "secret")
        assert HostOptions(name="a", host="0.0.0.0", api_key_env="SOME_KEY").check()["api_key"] == "secret"
    assert HostOptions(name="a", host="0.0.0.0", insecure=True).check()["api_key"] is None
    assert HostOptions(name="a").check()["allow"] is None


def test_properties_may_hold_equal_signs() -> None:
    assert properties_of(["a=b=c", " d =", "a=e"]) == {"a": "e", "d": ""}


def event(kind: str, **fields: Any) -> ContextEvent:
    """Return an event of a host."""
    return ContextEvent(1, kind, "alpha", "http://x", **fields)


def test_events_are_logged_for_people() -> None:
    target = {
        "name": "beta",
        "address": "http://y",
        "seconds": 0.0123,
        "state_bytes": 1536,
        "files": 1,
        "file_bytes": 5,
    }
    moved = event("dispatch", agent_id="0123456789ab", class_name="m:Some.Agent", data={"target": target})
    assert re.sub(" +", " ", describe(moved)) == (
        "dispatch 01234567 Some.Agent to beta in 12 ms (1.5 KB state, 1 file of 5 B)"
    )
    crashed = event("paglet-crashed", agent_id="0123456789ab", class_name="m:A", data={"pid": 7}, error="a\n\x1b[31mb")
    data = {"destination": "http://beta:1", "transfer_id": "t", "bytes_done": 300 * 1024, "bytes_total": 1024**2}
    sending = event("transfer-progress", agent_id="0123456789ab", class_name="m:A", data=data)
    assert re.sub(" +", " ", describe(sending)) == (
        "transfer-progress 01234567 A to http://beta:1: 300.0 KB of 1.0 MB of files (29%)"
    )
    failed = event("resident-service-failed", data={"class": "x.y:Z", "use": ""}, error="Cannot load 'x.y:Z'")
    assert describe(failed) == "resident-service-failed: Cannot load 'x.y:Z'"
    offered = event("service-advertise", agent_id="service.x", service_name="x", data={"scope": "mesh", "name": "x"})
    assert describe(offered) == "service-advertise service.x service x scope=mesh"
    assert describe(crashed).split() == ["paglet-crashed", "01234567", "A", "pid=7:", "a", "?[31mb"]
    assert "\x1b" not in describe(crashed)


@pytest.mark.parametrize(
    ("kind", "error", "level"),
    [
        ("message-delivered", None, 10),
        ("transfer-progress", None, 10),
        ("resident-service-failed", "no such module", 30),
        ("resident-service-declare", None, 10),
        ("create", None, 20),
        ("message-failed", "no", 30),
        ("paglet-crashed", "no", 40),
    ],
)
def test_events_have_levels(kind: str, error: str | None, level: int) -> None:
    assert level_of(event(kind, error=error)) == level


@pytest.mark.parametrize("place", ["s3://bucket/prefix?endpoint=http://127.0.0.1:9000", "/srv/artifacts"])
def test_artifacts_may_be_kept_elsewhere(place: str) -> None:
    assert HostOptions(name="x", artifact_store=place).check()["artifact_store"] == place


@pytest.mark.parametrize("place", ["", "ftp://host", "s3://key:hunter2@bucket", "s3://bucket?secret=hunter2"])
def test_a_place_of_artifacts_that_is_none_is_told_by_its_option(place: str) -> None:
    with pytest.raises(ValueError, match="--artifact-store: ") as caught:
        HostOptions(name="x", artifact_store=place).check()
    assert "hunter2" not in str(caught.value)
