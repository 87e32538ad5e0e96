"""``paglets services``, with two hosts in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paglets.cli.app import main
from paglets.cli.options import ENTRY_VARIABLE
from paglets.config.env import DEFAULT_API_KEY_ENV
from paglets.core.runtime_values import ResidentLifecycle, ServiceScope
from paglets.runtime.host import Host
from tests.agents.actor import Actor
from tests.agents.residents import ID, REPORT, Fleeting, Resident
from tests.runtime.services import handle_of, launch, service
from tests.support import HostFactory, eventually, free_port

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    """Give a host with two managed services, one of which cannot start, and one with a plain service."""
    directory = tmp_path_factory.mktemp("hosts")
    (directory / "lock").touch()
    broken = {"fail_while": str(directory / "lock")}
    factory = HostFactory(directory)
    options: dict[str, Any] = {"mesh": True, "mesh_multicast": False, "mesh_lan_discovery": False}
    entries = (
        service(Resident, scope=ServiceScope.MESH),
        service(Fleeting, agent_id="broken", lifecycle=ResidentLifecycle.EAGER, state=broken),
    )
    try:
        alpha, beta = factory("alpha", launch_config=launch(*entries), **options), factory("beta", **options)
        beta.advertise_service(beta.create(Actor, agent_id="actor").agent_id, "plain", capabilities=["a", "b"])
        for host, other in ((alpha, beta), (beta, alpha)):
            host.mesh.register_wire(other.mesh.refresh_self().to_wire())
        yield alpha, beta
    finally:
        factory.close()


@pytest.fixture
def run(two: tuple[Host, Host], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Give what runs the command in this process and returns exit code, output and errors."""
    monkeypatch.delenv(DEFAULT_API_KEY_ENV, raising=False)
    monkeypatch.delenv(ENTRY_VARIABLE, raising=False)
    monkeypatch.setenv("COLUMNS", "220")

    def begin(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["services", *arguments, "--entry", two[0].address])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return begin


def lines(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines() if line.strip(" ─")]


def test_services_of_all_hosts(two: tuple[Host, Host], run: Run) -> None:
    alpha, _ = two
    code, out, err = run()
    assert (code, err) == (0, "")
    title, head, *rows = lines(out)
    assert title == ["Services"]
    # The one that cannot start is about to be tried again at some moments, and says why at all others.
    assert head[:8] == ["service", "provider", "host", "scope", "lifecycle", "state", "leases", "idle"]
    resident, broken, plain = rows
    assert resident == ["tests.resident", ID, "alpha", "mesh", "lazy", "declared", "0", "-"]
    assert broken[:5] == ["tests.resident", "broken", "alpha", "local", "eager"]
    assert plain == ["plain", "actor", "beta", "local", "-", "active", "-", "-"]

    with alpha.lease_service_handle(handle_of(alpha)) as held:
        held.call(REPORT)
        row = lines(run("tests.resident")[1])[2]
        assert row[3:7] == ["mesh", "lazy", "active", "1"]
        assert row[7].endswith("s")


def test_one_that_failed_says_why_and_when_it_is_tried_again(run: Run) -> None:
    def failed() -> list[str] | None:
        row = lines(run("--host", "alpha")[1])[3]
        return row if row[5] == "failed" else None

    text = " ".join(eventually(failed, "a failure, between two tries"))
    assert "tried again in" in text
    assert "not while this file is there" in text


def test_programs_get_everything(two: tuple[Host, Host], run: Run) -> None:
    code, out, err = run("--json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert (answer["errors"], answer["offline"]) == ([], [])
    first, _, plain = answer["services"]
    assert first["host"] == "alpha"
    assert first["resident"] == two[0].resident_services()[0] | {"idle_seconds": first["resident"]["idle_seconds"]}
    assert first["capabilities"] == ["report", "wait", "die"]
    assert (plain["host"], plain["resident"], plain["name"]) == ("beta", None, "plain")


def test_wide_shows_classes_and_operations(run: Run) -> None:
    out = run("plain", "--wide")[1]
    assert "a, b" in out
    assert "remark" not in out
    out = run("tests.resident", "-w")[1]
    assert "tests.agents.residents:Resident" in out
    assert "1.0m" in out


def test_a_service_that_nobody_offers_is_a_failure(run: Run) -> None:
    code, _, err = run("nothing-such")
    assert code == 1
    assert "nobody offers a service 'nothing-such'" in err


def test_a_host_that_does_not_answer_is_a_failure(run: Run, tmp_path: Path) -> None:
    code, _, err = run("--host", f"http://127.0.0.1:{free_port()}")
    assert code == 1
    assert err.count("\n") == 1
