"""Nothing that a run leaves behind has a key in it: files, logs, events, answers, titles, texts of errors, reprs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from paglets.cli.host_options import HostOptions
from paglets.core.errors import PagletError
from paglets.remote.client import HostClient
from paglets.runtime.http.guards import GuardPolicy
from paglets.runtime.http.keyring import Keyring
from paglets.security.caller import Caller
from paglets.security.roles import Role
from tests.cli.processes import Program
from tests.security.support import TALKER, add_key, audited, look_again
from tests.support import HostFactory, eventually, http_server_of

CLASSIC = "classic-key-that-nobody-may-read-7b1f"


def secrets_of(*keys: str) -> list[bytes]:
    """Return what must be found nowhere: whole keys, and the part of each that is secret, in which `_` may be."""
    return [part.encode() for key in keys for part in (key, key.split("_", 2)[-1])]


def files_with(directory: Path, secrets: list[bytes]) -> list[str]:
    found = []
    for path in directory.rglob("*"):
        if path.is_file() and any(secret in path.read_bytes() for secret in secrets):
            found.append(str(path))
    return found


def misuse(address: str, key: str) -> list[str]:
    """Do what people do with a key, right and wrong; return all that they are told."""
    told: list[str] = []
    with HostClient(api_key=key) as client:

        def ask(method: str, path: str, body: dict[str, Any] | None = None) -> None:
            try:
                url = f"{address}{path}"
                told.append(repr(client.get_json(url) if body is None else client.post_json(url, body)))
            except (PagletError, ValueError) as exc:
                told.append(f"{exc!r} {exc.__cause__!r}")

        ask("GET", "/health")
        ask("GET", "/hosts")
        ask("POST", "/agents", {"agent_class_name": TALKER, "agent_id": "one"})
        ask("POST", "/agents/one/messages", {"message": {"kind": "raise", "args": {"error": "RuntimeError"}}})
        ask("POST", "/agents/one/messages", {"message": {"kind": "count", "args": {}}})
        ask("POST", "/agents/one/dispatch", {"target": "http://127.0.0.1:9"})
        ask("POST", "/agents/one/retract", {"target": "http://127.0.0.1:9"})
        ask("POST", "/agents", {"agent_class_name": "no.such:Thing"})
        ask("POST", "/hosts/join", {"name": "x", "url": "http://127.0.0.1:9"})
        ask("POST", "/agents/one/deactivate", {})
        ask("GET", "/events?limit=1000")
        ask("GET", "/agents?state=all&include_state=1")
        ask("GET", "/agents/one/journey")
        ask("GET", "/schema/openapi.json")
        told.append(repr(client))
        client.api_key = key[:-1] + "\n"
        ask("GET", "/health")
        client.api_key = key[:-1] + "x"
        ask("GET", "/health")
    return told


def test_nothing_that_a_host_process_leaves_has_a_key_in_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    key = add_key(path, "admin", Role.ADMIN)
    secrets = secrets_of(key, CLASSIC)
    given = ["--name", "closed", "--port", "0", "--mesh-version", "test", "--no-sync-launch-config", "--json"]
    given += ["--persistence-dir", str(tmp_path / "closed"), "--launch-config", str(tmp_path / "launch.toml")]
    program = Program("host", *given, "--log-level", "debug", "--keys", str(path), PAGLETS_API_KEY=CLASSIC)
    try:
        address = program.json_line()["address"]
        told = misuse(address, key) + misuse(address, CLASSIC)
        processes = [psutil.Process(program.process.pid), *program.children()]
        told += [" ".join(process.cmdline()) for process in processes]
        program.process.terminate()
        assert program.wait() == 0
    finally:
        program.close()
    told += program.out + program.err
    assert len(told) > 30
    assert [text for text in told if any(secret in text.encode() for secret in secrets)] == []
    assert files_with(tmp_path, secrets) == []


def test_nothing_that_a_host_object_has_shows_a_key(hosts: HostFactory, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    key = add_key(path, "admin", Role.ADMIN)
    secrets = secrets_of(key, CLASSIC)
    host = hosts("closed", keys=path, api_key=CLASSIC)
    misuse(host.address, key)
    path.write_text(f"{key}\n")
    look_again(host)
    eventually(lambda: audited(host), "the audit log")
    assembly = host._running()
    shown = [
        repr(each)
        for each in (
            host,
            host.client,
            assembly._entrance,
            assembly._inlet,
            http_server_of(host),
            assembly.node.kernel.config,
            GuardPolicy(CLASSIC, frozenset()),
            Keyring(CLASSIC, []),
            Caller("a", Role.ADMIN),
            host.policy,
            host.list_events(limit=10_000),
            json.dumps(host.health()),
        )
    ]
    path.unlink()
    assert [text for text in shown if any(secret in text.encode() for secret in secrets)] == []
    assert files_with(host.persistence_dir, secrets) == []


def test_options_of_a_host_do_not_show_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGLETS_API_KEY", CLASSIC)
    options = HostOptions(name="a")
    assert CLASSIC not in repr(options)
    assert options.check()["api_key"] == CLASSIC
