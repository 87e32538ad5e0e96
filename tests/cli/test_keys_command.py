"""`paglets keys` and `paglets audit`, with the hosts that they are for."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paglets.cli.app import main
from paglets.config.env import DEFAULT_API_KEY_ENV
from paglets.security import certificates, key_file
from paglets.security.key_file import load_key_file
from paglets.security.roles import Role
from tests.cli.processes import Program
from tests.runtime.http.wire import ask
from tests.security.support import add_key, bearer, look_again
from tests.support import HostFactory, eventually

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Give what runs a command, with its files in the test's directory, and returns exit code, output and errors."""
    monkeypatch.setattr(key_file, "DEFAULT_KEY_FILE", tmp_path / "home" / "keys.toml")
    monkeypatch.setattr(certificates, "DEFAULT_TLS_DIRECTORY", tmp_path / "home" / "tls")
    monkeypatch.delenv(DEFAULT_API_KEY_ENV, raising=False)

    def begin(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return begin


def test_a_key_from_its_beginning_to_its_end(run: Run, hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "home" / "keys.toml"
    code, out, err = run("keys", "new", "laptop", "--role", "observe", "--expires", "30d")
    assert code == 0
    key = out.strip()
    assert out == f"{key}\n"  # and nothing else, to be read into a variable
    assert "not shown again" in err
    assert key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    host = hosts("keyed", keys=path)
    assert ask(host.address, "GET", "/health", headers=bearer(key)).status == 200

    code, out, _ = run("keys", "list")
    assert code == 0
    assert all(word in out for word in ("laptop", "observe", "valid"))
    assert key.split("_", 2)[2] not in out
    listed = json.loads(run("keys", "list", "--json")[1])
    assert [(each["name"], each["role"], each["state"]) for each in listed["keys"]] == [("laptop", "observe", "valid")]

    assert run("keys", "revoke", "laptop")[0] == 0
    look_again(host)
    assert ask(host.address, "GET", "/health", headers=bearer(key)).status == 401
    assert json.loads(run("keys", "list", "--json")[1])["keys"][0]["state"] == "revoked"
    code, _, err = run("keys", "revoke", "laptop")
    assert code == 1
    assert "no valid key 'laptop'" in err


def test_one_of_two_keys_of_a_name_is_revoked_by_its_id(run: Run) -> None:
    made = [json.loads(run("keys", "new", "laptop", "--role", "message", "--json")[1]) for _ in range(2)]
    assert made[0]["key"].startswith(f"pgl_{made[0]['id']}_")
    code, out, _ = run("keys", "revoke", made[0]["id"], "--json")
    assert (code, json.loads(out)) == (0, {"revoked": [made[0]["id"]], "certificate": None})
    listed = json.loads(run("keys", "list", "--json")[1])["keys"]
    assert [each["state"] for each in listed] == ["revoked", "valid"]


def test_limits_are_kept(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    options = ["--requests-per-second", "5", "--connections", "3", "--bytes-in-flight", "64M", "--max-paglets", "7"]
    code, _, _ = run("keys", "new", "b", "--role", "operate", *options, "--from", "http://10.*", "--keys", str(path))
    assert code == 0
    (record,) = load_key_file(path).keys
    limits = record.limits
    assert (limits.requests_per_second, limits.connections, limits.bytes_in_flight) == (5.0, 3, 64 * 1024**2)
    assert (limits.max_paglets, record.hosts, record.role) == (7, ("http://10.*",), Role.OPERATE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["new", "a b", "--role", "admin"], "1 to 64"),
        (["new", "a", "--role", "root"], "observe, message, operate, admin"),
        (["new", "a", "--role", "admin", "--expires", "soon"], "--expires"),
        (["new", "a", "--role", "admin", "--connections", "0"], "connections"),
        (["new", "a", "--role", "admin", "--bytes-in-flight", "much"], "--bytes-in-flight"),
        (["new", "a"], "--role"),
        (["host", "a/b"], "1 to 64"),
        (["host", "ca"], "name"),
    ],
)
def test_mistakes_are_one_line_and_2(run: Run, tmp_path: Path, arguments: list[str], words: str) -> None:
    code, out, err = run("keys", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert not (tmp_path / "home" / "keys.toml").exists()


def test_a_file_that_others_may_read_is_one_line_and_1(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "home" / "keys.toml"
    add_key(path, "a", Role.ADMIN)
    path.chmod(0o644)
    for arguments in (["list"], ["new", "b", "--role", "admin"], ["revoke", "a"]):
        code, out, err = run("keys", *arguments)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "chmod 600" in err


def test_without_the_library_certificates_say_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    code, _, err = run("keys", "ca")
    assert code == 1
    assert 'pip install "paglets[tls]"' in err


def test_a_mesh_with_tls_in_two_commands(run: Run, tmp_path: Path) -> None:
    assert run("keys", "host", "alpha")[0] == 1  # there is no CA yet
    assert run("keys", "ca")[0] == 0
    assert run("keys", "ca")[0] == 1
    issued = {
        name: json.loads(run("keys", "host", name, "--address", "127.0.0.1", "--json")[1]) for name in ("alpha", "beta")
    }
    me = json.loads(run("keys", "host", "me", "--role", "observe", "--json")[1])
    programs: list[Program] = []

    def begin(name: str, *more: str) -> str:
        tls = ["--tls-cert", issued[name]["certificate"], "--tls-key", issued[name]["key"]]
        given = ["--name", name, "--port", "0", "--mesh-version", "test", "--no-sync-launch-config", "--json"]
        given += ["--persistence-dir", str(tmp_path / name), "--launch-config", str(tmp_path / "launch.toml")]
        given += ["--keys", str(tmp_path / "home" / "keys.toml"), "--tls-client-ca", issued[name]["ca"]]
        programs.append(Program("host", *given, *tls, *more, "--log-level", "error"))
        return str(programs[-1].json_line()["address"])

    try:
        alpha = begin("alpha")
        assert alpha.startswith("https://")
        begin("beta", "--peer", alpha)
        trust = {"PAGLETS_CA_FILE": me["ca"], "PAGLETS_CLIENT_CERT": me["certificate"], "PAGLETS_CLIENT_KEY": me["key"]}

        # Each of the two has taken the other for who it is, and me for somebody who may look.
        eventually(lambda: _online(alpha, trust) == ["alpha", "beta"], "a mesh of two")
        me_again = Program("ps", "--entry", alpha, "--json", **trust)
        assert me_again.wait() == 0, me_again.err
        stranger = Program("ps", "--entry", alpha, PAGLETS_CA_FILE=me["ca"])
        assert stranger.wait() == 1
        assert "PAGLETS_API_KEY" in " ".join(stranger.err)
    finally:
        for program in programs:
            program.close()


def _online(address: str, trust: dict[str, str]) -> list[str]:
    from paglets.remote.client import HostClient
    from paglets.security.tls import client_context

    context = client_context(*(Path(trust[f"PAGLETS_{name}"]) for name in ("CA_FILE", "CLIENT_CERT", "CLIENT_KEY")))
    with HostClient(ssl_context=context) as client:
        hosts: list[dict[str, Any]] = client.get_json(f"{address}/hosts")["hosts"]
    return sorted(ref["name"] for ref in hosts if ref["online"])


def test_a_host_takes_its_keys_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    key = add_key(path, "watcher", Role.OBSERVE)
    given = ["--name", "filed", "--host", "0.0.0.0", "--port", "0", "--mesh-version", "test", "--no-sync-launch-config"]
    given += ["--persistence-dir", str(tmp_path), "--launch-config", str(tmp_path / "launch.toml"), "--json"]
    # Without being named: it is the one in the host's directory.
    program = Program("host", *given, HOME=str(tmp_path / "nobody"))
    try:
        address = f"http://127.0.0.1:{program.json_line()['address'].rpartition(':')[2]}"
        assert ask(address, "GET", "/health").status == 401
        assert ask(address, "GET", "/health", headers=bearer(key)).status == 200
    finally:
        program.close()
    assert "unencrypted" in " ".join(program.err)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tls-cert", "x"], "--tls-key"),
        (["--tls-client-ca", "x"], "--tls-cert"),
        (["--host", "0.0.0.0"], "paglets keys new"),
    ],
)
def test_options_of_a_host_that_make_no_sense(run: Run, tmp_path: Path, options: list[str], words: str) -> None:
    given = ["--name", "alpha", "--persistence-dir", str(tmp_path / "alpha"), "--keys", str(tmp_path / "none.toml")]
    code, out, err = run("host", *given, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


# --- audit ------------------------------------------------------------------------------------------------------------


def test_the_audit_log_of_a_host_is_shown(run: Run, hosts: HostFactory) -> None:
    host = hosts("audited", api_key="secret")
    for _ in range(3):
        ask(host.address, "POST", "/agents/some-id/dispose", headers=bearer("secret"))
    ask(host.address, "GET", "/health")
    directory = str(host.persistence_dir)
    eventually(lambda: run("audit", "--persistence-dir", directory, "--json")[1].count("\n") == 4, "four lines")
    code, out, _ = run("audit", "--persistence-dir", directory)
    assert code == 0
    assert out.count("some-id") == 3
    # A narrow terminal wraps the rest of the route.
    assert [word for word in ("api-key", "/agents/{}/d", "404", "401", "127.0.0.1") if word not in out] == [], out
    newest = json.loads(run("audit", "--persistence-dir", directory, "--json", "--limit", "1")[1])
    assert (newest["route"], newest["status"], newest["key"]) == ("/health", 401, "")


def test_the_audit_log_is_followed_over_its_end(hosts: HostFactory) -> None:
    host = hosts("followed", api_key="secret")
    path = host.persistence_dir / "audit.log"
    program = Program("audit", "--persistence-dir", str(host.persistence_dir), "--follow", "--json")
    try:
        ask(host.address, "GET", "/health")
        assert program.json_line()["status"] == 401
        path.replace(path.with_name("audit.log.1"))
        ask(host.address, "POST", "/agents/x/dispose", headers=bearer("secret"))
        assert program.json_line()["target"] == "x"
    finally:
        program.close()


def test_an_audit_log_that_is_not_there(run: Run, tmp_path: Path) -> None:
    assert run("audit")[0] == 2
    code, _, err = run("audit", "--persistence-dir", str(tmp_path))
    assert code == 1
    assert "no audit log" in err
