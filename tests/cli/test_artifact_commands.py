"""The commands for artifacts, with two hosts that really run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paglets.artifacts import ArtifactRef
from paglets.cli import artifact_files, artifact_ids
from tests.cli.conftest import Pair, Run


@pytest.fixture(autouse=True)
def _nothing_left(two_hosts: Pair) -> Iterator[None]:
    yield
    for address in (two_hosts.alpha, two_hosts.beta):
        for ref in two_hosts.client.list_artifacts(address):
            two_hosts.client.delete_artifact(ref)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the current directory."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(3000))
    return path


def put(pair: Pair, host: str, content: bytes, tmp_path: Path, **more: Any) -> ArtifactRef:
    (tmp_path / "content").write_bytes(content)
    return pair.client.upload_artifact(getattr(pair, host), tmp_path / "content", **more)


# --- put --------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the name of a file is always text")
def test_a_file_whose_name_is_no_text_needs_another(run: Run, two_hosts: Pair, source: Path) -> None:
    odd = source.with_name("caf\udce9.bin")
    source.rename(odd)
    code, out, err = run("artifacts", "put", str(odd))
    assert (code, out) == (1, "")
    assert (
        err
        == r"paglets artifacts put: the name 'caf\udce9.bin' of an artifact is no text in UTF-8; give another name"
        + "\n"
    )
    assert two_hosts.client.list_artifacts(two_hosts.alpha) == []
    assert run("artifacts", "put", str(odd), "--name", "caf\u00e9.bin")[0] == 0
    assert [ref.name for ref in two_hosts.client.list_artifacts(two_hosts.alpha)] == ["caf\u00e9.bin"]


def test_put_stores_on_the_entry_host_or_the_named_one(run: Run, two_hosts: Pair, source: Path) -> None:
    code, out, err = run("artifacts", "put", str(source))
    assert code == 0
    (ref,) = two_hosts.client.list_artifacts(two_hosts.alpha)
    assert out == f"{ref.artifact_id}\n"
    assert err == "2.9 KB on alpha\n"
    assert (ref.name, ref.size_bytes, ref.owner_agent_id, ref.expires_at) == ("source.bin", 3000, "", 0.0)
    before = time.time()
    options = [
        "--host",
        "beta",
        "--name",
        "named",
        "--owner",
        "me",
        "--expires",
        "1h",
        "--json",
        "--compress",
        "always",
    ]
    code, out, err = run("artifacts", "put", str(source), *options)
    assert (code, err) == (0, "")
    (ref,) = two_hosts.client.list_artifacts(two_hosts.beta)
    assert json.loads(out) == {"artifact": ref.to_wire()}
    assert (ref.name, ref.owner_agent_id) == ("named", "me")
    assert before + 3600 <= ref.expires_at <= time.time() + 3600


def test_put_can_be_quiet_and_verified(run: Run, two_hosts: Pair, source: Path) -> None:
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    assert run("artifacts", "put", str(source), "--sha256", sha256, "--quiet") == (0, "", "")
    code, out, err = run("artifacts", "put", str(source), "--sha256", "0" * 64)
    assert (code, out) == (1, "")
    assert err.startswith("paglets artifacts put: ")
    assert "checksum" in err
    assert len(two_hosts.client.list_artifacts(two_hosts.alpha)) == 1


def test_put_of_what_is_not_there(run: Run, tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        code, out, err = run("artifacts", "put", str(path))
        assert (code, out) == (1, "")
        assert err == f"paglets artifacts put: Not a file: {path}\n"
    code, out, err = run("artifacts", "put", str(tmp_path), "--expires", "soon")
    assert code == 2
    assert "--expires must be a time span" in err


# --- list and info ----------------------------------------------------------------------------------------------------


def test_artifacts_of_all_hosts_are_listed(run: Run, two_hosts: Pair, tmp_path: Path) -> None:
    assert run("artifacts", "list") == (0, "No artifacts.\n", "")
    one = put(two_hosts, "alpha", b"7 bytes", tmp_path, name="first", owner_agent_id="me")
    two = put(two_hosts, "beta", bytes(1536), tmp_path, name="s\x1b[1md", expires_at=4e9)
    code, out, err = run("artifacts", "list")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if " KB " in line or " B " in line}
    stored = rows[one.artifact_id[:8]]
    assert stored[1:5] == ["7", "B", "me", "alpha"]
    assert stored[-2:] == ["never", "first"]
    stored = rows[two.artifact_id[:8]]
    assert stored[1:5] == ["1.5", "KB", "-", "beta"]
    assert stored[-1] == "s\\x1b[1md"
    payload = json.loads(run("artifacts", "list", "--json")[1])
    assert payload == {"artifacts": [one.to_wire(), two.to_wire()], "errors": []}
    assert json.loads(run("artifacts", "list", "--json", "--owner", "me")[1])["artifacts"] == [one.to_wire()]
    assert json.loads(run("artifacts", "list", "--json", "--host", "beta")[1])["artifacts"] == [two.to_wire()]
    _, out, _ = run("artifacts", "list", "--wide")
    assert one.artifact_id in out
    assert two.sha256 in out


def test_one_is_described(run: Run, two_hosts: Pair, tmp_path: Path) -> None:
    ref = put(two_hosts, "beta", b"content", tmp_path, name="../a name")
    code, out, err = run("artifacts", "info", ref.artifact_id[:6])
    assert (code, err) == (0, "")
    for text in (ref.artifact_id, ref.sha256, "../a name", "7 B (7 bytes)", f"beta at {two_hosts.beta}", "never"):
        assert text in out
    assert json.loads(run("artifacts", "info", ref.artifact_id, "--json")[1]) == {"artifact": ref.to_wire()}


@pytest.mark.parametrize("text", ["../x", "0" * 32, "xyz", "abc", "", "a/b", "\x00", "x" * 300])
def test_one_that_is_not_there(run: Run, text: str) -> None:
    for command in ("info", "get", "rm"):
        code, out, err = run("artifacts", command, text)
        assert (code, out) == (1, "")
        assert err.startswith(f"paglets artifacts {command}: no artifact ")


def test_an_id_that_begins_like_another_is_refused(
    run: Run, two_hosts: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifact_ids, "SHORTEST_PREFIX", 1)
    first: dict[str, ArtifactRef] = {}
    for number in range(17):
        ref = put(two_hosts, ("alpha", "beta")[number % 2], b"x", tmp_path, name=str(number))
        if (other := first.setdefault(ref.artifact_id[0], ref)) is not ref:
            break
    code, out, err = run("artifacts", "rm", ref.artifact_id[0], "--force")
    assert (code, out) == (1, "")
    assert ref.artifact_id in err
    assert other.artifact_id in err


# --- get --------------------------------------------------------------------------------------------------------------


def test_get_writes_to_the_name_of_the_artifact_or_where_it_is_told(
    run: Run, two_hosts: Pair, tmp_path: Path, here: Path
) -> None:
    ref = put(two_hosts, "beta", b"content", tmp_path, name="report.txt")
    assert run("artifacts", "get", ref.artifact_id[:8]) == (0, "report.txt\n", "")
    assert (here / "report.txt").read_bytes() == b"content"
    (here / "sub").mkdir()
    assert run("artifacts", "get", ref.artifact_id[:8], "sub") == (0, "sub/report.txt\n", "")
    assert run("artifacts", "get", ref.artifact_id[:8], "new/") == (0, "new/report.txt\n", "")
    assert run("artifacts", "get", ref.artifact_id[:8], "other/name", "--quiet") == (0, "", "")
    code, out, _ = run("artifacts", "get", ref.artifact_id, "last", "--move", "--json")
    assert code == 0
    assert json.loads(out) == {"artifact": ref.to_wire(), "output": "last"}
    for path in ("sub/report.txt", "new/report.txt", "other/name", "last"):
        assert (here / path).read_bytes() == b"content"
    assert two_hosts.client.list_artifacts(two_hosts.beta) == []


def test_get_replaces_nothing_unless_told(run: Run, two_hosts: Pair, tmp_path: Path, here: Path) -> None:
    ref = put(two_hosts, "alpha", b"content", tmp_path, name="report.txt")
    (here / "report.txt").write_bytes(b"mine")
    code, out, err = run("artifacts", "get", ref.artifact_id)
    assert (code, out) == (1, "")
    assert err == "paglets artifacts get: report.txt is there already; --force replaces it\n"
    assert (here / "report.txt").read_bytes() == b"mine"
    assert run("artifacts", "get", ref.artifact_id, "--force")[0] == 0
    assert (here / "report.txt").read_bytes() == b"content"


def test_get_replaces_nothing_but_files(run: Run, two_hosts: Pair, tmp_path: Path, here: Path) -> None:
    ref = put(two_hosts, "alpha", b"content", tmp_path, name="report.txt")
    os.mkfifo(here / "pipe")
    (here / "report.txt").mkdir()
    for output, said in (
        ("pipe", "pipe is no regular file, and is not replaced; name a file"),
        (".", "is a directory"),
    ):
        for options in ([], ["--force"]):
            code, out, err = run("artifacts", "get", ref.artifact_id, output, "--move", *options)
            assert (code, out) == (1, "")
            assert err.startswith(f"paglets artifacts get: Artifact {ref.artifact_id} cannot be written: ")
            assert said in err
    assert (here / "pipe").is_fifo()
    assert two_hosts.client.list_artifacts(two_hosts.alpha) == [ref]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("../../x", "x"),
        ("/etc/passwd", "etc_passwd"),
        ("..", "artifact"),
        ("a\x00b", "a_b"),
        ("NUL", "_NUL"),
        ("con.txt", "_con.txt"),
        ("-rf", "-rf"),
        ("\u202egpj.exe", "gpj.exe"),
        ("．．／x", "x"),
    ],
)
def test_a_hostile_name_stays_in_the_directory(
    run: Run, two_hosts: Pair, tmp_path: Path, here: Path, name: str, written: str
) -> None:
    ref = put(two_hosts, "alpha", b"content", tmp_path, name=name)
    outside = {path for path in tmp_path.rglob("*") if not path.is_relative_to(here)}
    assert run("artifacts", "get", ref.artifact_id)[0] == 0
    assert [path.name for path in here.iterdir()] == [written]
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(here)} == outside


def test_a_long_name_is_shortened(run: Run, two_hosts: Pair, tmp_path: Path, here: Path) -> None:
    ref = put(two_hosts, "alpha", b"content", tmp_path, name="ä" * 300 + ".txt")
    assert run("artifacts", "get", ref.artifact_id)[0] == 0
    (path,) = here.iterdir()
    assert len(path.name.encode()) <= 200
    assert path.suffix == ".txt"


# --- rm ---------------------------------------------------------------------------------------------------------------


def test_rm_asks(run: Run, two_hosts: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = put(two_hosts, "alpha", b"one", tmp_path)
    two = put(two_hosts, "beta", b"two", tmp_path)
    answers = iter([False, True])
    monkeypatch.setattr("typer.confirm", lambda _question: next(answers))
    ids = [one.artifact_id[:10], two.artifact_id]
    code, out, err = run("artifacts", "rm", *ids)
    assert (code, err) == (1, "")
    assert one.artifact_id in out
    assert len(two_hosts.client.list_artifacts(two_hosts.alpha)) == 1
    code, out, err = run("artifacts", "rm", *ids)
    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == [f"Deleted {one.artifact_id}", f"Deleted {two.artifact_id}"]
    assert two_hosts.client.list_artifacts(two_hosts.alpha) == two_hosts.client.list_artifacts(two_hosts.beta) == []


def test_rm_without_an_answer_deletes_nothing(
    run: Run, two_hosts: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = put(two_hosts, "alpha", b"one", tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    code, out, err = run("artifacts", "rm", ref.artifact_id)
    assert (code, err) == (1, "paglets artifacts rm: not confirmed; use --force where nobody can be asked\n")
    assert out.endswith(": \n")

    class Interrupted(io.StringIO):
        def readline(self, size: int | None = -1, /) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Interrupted())
    assert run("artifacts", "rm", ref.artifact_id)[0] == 130
    assert len(two_hosts.client.list_artifacts(two_hosts.alpha)) == 1


def test_rm_need_not_ask(run: Run, two_hosts: Pair, tmp_path: Path) -> None:
    ref = put(two_hosts, "alpha", b"one", tmp_path)
    code, _, err = run("artifacts", "rm", ref.artifact_id, "--json")
    assert code == 2
    assert "--force" in err
    code, out, _ = run("artifacts", "rm", ref.artifact_id, "--json", "--force")
    assert (code, json.loads(out)) == (0, {"deleted": [ref.artifact_id], "failed": []})
    ref = put(two_hosts, "alpha", b"one", tmp_path)
    assert run("artifacts", "rm", ref.artifact_id, "--force", "--quiet") == (0, "", "")


# --- on a terminal ----------------------------------------------------------------------------------------------------


def test_a_terminal_shows_how_far_it_is(
    run: Run, source: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(artifact_files.err_console, "_force_terminal", True)
    monkeypatch.setenv("TERM", "xterm")
    code, out, err = run("artifacts", "put", str(source))
    assert code == 0
    assert "put source.bin" in err
    assert "\x1b[" in err
    code, _, err = run("artifacts", "get", out.strip())
    assert code == 0
    assert "get source.bin" in err
    assert "\x1b[" not in run("artifacts", "put", str(source), "--json")[2]
