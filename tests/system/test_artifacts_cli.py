"""The older command for artifacts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from paglets.artifacts import ArtifactRef
from paglets.config.env import DEFAULT_API_KEY_ENV
from paglets.runtime.host import Host
from paglets.system import artifacts_cli
from tests.support import HostFactory

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv(DEFAULT_API_KEY_ENV, raising=False)

    def begin(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = artifacts_cli.main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return begin


@pytest.fixture
def host(hosts: HostFactory) -> Host:
    return hosts()


@pytest.fixture
def stored(host: Host, tmp_path: Path) -> ArtifactRef:
    (tmp_path / "seven").write_bytes(b"7 bytes")
    return host.client.upload_artifact(host.address, tmp_path / "seven", owner_agent_id="me", name="a name")


def test_listing(run: Run, host: Host, stored: ArtifactRef, tmp_path: Path) -> None:
    assert run("--host", host.address, "list", "--json") == (
        0,
        json.dumps({"artifacts": [stored.to_wire()]}, indent=2) + "\n",
        "",
    )
    code, out, err = run("--entry", host.address, "list")
    assert (code, err) == (0, "")
    header, row = out.splitlines()
    assert header.split() == ["artifact", "size", "owner", "name"]
    assert row.split() == [stored.artifact_id[:12], "7", "B", "me", "a", "name"]
    assert run("--host", host.address, "list", "--owner", "you") == (0, "No artifacts.\n", "")
    assert run("--host", host.address, "list", "--owner", "you", "--json")[1] == '{\n  "artifacts": []\n}\n'
    (tmp_path / "large").write_bytes(bytes(1536))
    host.client.upload_artifact(host.address, tmp_path / "large", name="x\x1b[31m")
    _, out, _ = run("--host", host.address, "list")
    assert "1.5 KB" in out
    assert "\x1b" not in out


def test_metadata(run: Run, host: Host, stored: ArtifactRef) -> None:
    code, out, err = run("--host", host.address, "metadata", stored.artifact_id)
    assert (code, json.loads(out), err) == (0, {"artifact": stored.to_wire()}, "")


def test_fetching_and_deleting(run: Run, host: Host, stored: ArtifactRef, tmp_path: Path) -> None:
    target = tmp_path / "new" / "copy"
    assert run("--host", host.address, "download", stored.artifact_id, str(target)) == (0, f"{target}\n", "")
    assert target.read_bytes() == b"7 bytes"
    assert host.artifacts.list() == [stored]
    assert run("--host", host.address, "download", stored.artifact_id, str(target), "--move")[0] == 0
    assert host.artifacts.list() == []
    assert run("--host", host.address, "delete", stored.artifact_id) == (0, f"deleted {stored.artifact_id}\n", "")
    assert run("--host", host.address, "delete", stored.artifact_id, "--quiet") == (0, "", "")


def test_the_key_comes_from_the_usual_variable_or_another(
    run: Run, hosts: HostFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = hosts(api_key="secret")
    code, _, err = run("--host", host.address, "list")
    assert code == 1
    assert err.startswith("paglets-artifacts: ")
    assert "PAGLETS_API_KEY" in err
    monkeypatch.setenv("OTHER", "secret")
    assert run("--host", host.address, "--api-key-env", "OTHER", "list") == (0, "No artifacts.\n", "")
    monkeypatch.setenv(DEFAULT_API_KEY_ENV, "secret")
    assert run("--host", host.address, "list") == (0, "No artifacts.\n", "")
    code, _, err = run("--host", host.address, "--api-key-env", "UNSET_VARIABLE", "list")
    assert (code, err) == (1, "paglets-artifacts: --api-key-env 'UNSET_VARIABLE' is not set or is empty\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("metadata", "0" * 32),
        ("metadata", "../../etc/passwd"),
        ("metadata", ""),
        ("metadata", "metadata"),
        ("download", "", "{tmp}/x"),
        ("download", "{id}", "{tmp}"),
        ("delete", ""),
        ("download", "0" * 32, "{tmp}/x"),
        ("download", "{id}", "{tmp}/file/x"),
        ("delete", "../x"),
    ],
)
def test_what_goes_wrong_is_one_line(
    run: Run, host: Host, stored: ArtifactRef, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(
        "--host", host.address, *(each.format(tmp=tmp_path, id=stored.artifact_id) for each in arguments)
    )
    assert (code, out) == (1, "")
    assert err.startswith("paglets-artifacts: ")
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_an_id_that_is_none_is_named(run: Run, host: Host) -> None:
    for command in ("metadata", "download", "delete"):
        for text in ("", "../x", "metadata"):
            output = ["x"] if command == "download" else []
            code, _, err = run("--host", host.address, command, text, *output)
            assert (code, err) == (1, f"paglets-artifacts: invalid artifact id {text!r}\n")


def test_a_pipe_is_not_replaced(run: Run, host: Host, stored: ArtifactRef, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    code, _, err = run("--host", host.address, "download", stored.artifact_id, str(pipe), "--move")
    assert code == 1
    assert f"{pipe} is no regular file, and is not replaced; name a file" in err
    assert pipe.is_fifo()
    assert host.artifacts.list() == [stored]


def test_a_host_that_is_not_there(run: Run) -> None:
    code, out, err = run("--host", "http://127.0.0.1:1", "--timeout", "2", "list")
    assert (code, out) == (1, "")
    assert err.startswith("paglets-artifacts: Could not reach http://127.0.0.1:1/artifacts")


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("list", "--nonsense"), ("metadata",), ("--timeout", "0", "list")]
)
def test_wrong_command_lines(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "usage: paglets-artifacts" in err


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "soon"])
def test_a_timeout_that_is_none_is_explained(run: Run, text: str) -> None:
    code, _, err = run("--timeout", text, "list")
    assert code == 2
    assert f"argument --timeout: seconds are a number above 0, not {text!r}" in err


def test_an_output_without_a_name_is_explained(run: Run) -> None:
    code, _, err = run("download", "0" * 32, "")
    assert code == 2
    assert "argument OUTPUT: it is empty; name a file" in err


def test_help(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert "download" in out
