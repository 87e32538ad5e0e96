"""The commands that show machines and mesh, of both generations, with two hosts that really run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from paglets.cli import rounds
from paglets.cli.console import console
from paglets.core.errors import RemoteHostError
from paglets.system.mesh_info import LandscapeReply, MeshHostSnapshot, TargetCandidate, TargetSelectionReply
from paglets.system.mesh_info import cli as mesh_cli
from paglets.system.server_info import cli as server_cli
from paglets.system.server_info.reports import report_of
from paglets.system.sizes import parse_size, size_text
from tests.cli.conftest import Pair, Run
from tests.support import eventually

MESH = "paglets.system.mesh_info.agent:MeshInfoAgent"
SERVER = "paglets.system.server_info.agent:ServerInfoAgent"

OldMain = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def services(two_hosts: Pair) -> Iterator[Pair]:
    """Give two hosts with the services that tell about machines."""
    for host in ("alpha", "beta"):
        two_hosts.create(host, "service.server-info", SERVER)
        two_hosts.create(host, "service.mesh-info", MESH)
    for address in (two_hosts.alpha, two_hosts.beta):
        eventually(lambda address=address: known(two_hosts, address) == ["alpha", "beta"], "a landscape of two hosts")
    yield two_hosts
    two_hosts.clear()


def known(pair: Pair, address: str) -> list[str]:
    url = f"{address}/agents/service.mesh-info/messages"
    reply = pair.client.post_json(url, {"message": {"kind": "landscape", "args": {}}})["result"]
    return [host["host_name"] for host in reply["hosts"]]


@pytest.fixture
def old(services: Pair, run: Run, capsys: pytest.CaptureFixture[str]) -> OldMain:
    """Give what runs an older program in this process."""

    def begin(module: Any, *arguments: str, entry: bool = True) -> tuple[int, str, str]:
        capsys.readouterr()
        code = module.main([*(["--entry", services.alpha] if entry else []), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return begin


def rows(out: str, *hosts: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines() if line.split()[:1] and line.split()[0] in hosts]


# --- machines ---------------------------------------------------------------------------------------------------------


def test_load_of_all_hosts(services: Pair, run: Run) -> None:
    code, out, err = run("sys", "load", "--no-gpu")
    assert (code, err) == (0, "")
    assert out.startswith("Load")
    assert [row[0] for row in rows(out, "alpha", "beta")] == ["alpha", "beta"]
    code, out, err = run("sys", "load", "--no-gpu", "--interval", "0.1", "--json")
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert (summary["operation"], summary["errors"], summary["pending_hosts"]) == ("load", {}, [])
    assert list(summary["results"]) == ["alpha", "beta"]
    assert out == json.dumps(summary, indent=2, sort_keys=True) + "\n"
    # The paglets that asked are gone.
    for host in ("alpha", "beta"):
        eventually(lambda host=host: len(services.ids(host)) == 2, f"the end of the clones on {host}")


def test_disks_and_what_cannot_be_read(services: Pair, run: Run) -> None:
    code, out, _ = run("sys", "df", "/", "/nowhere")
    assert code == 0
    assert [row[1] for row in rows(out, "alpha")] == ["/", "/nowhere"]
    assert "error: No such file or directory" in out


def test_processes_under_both_names(services: Pair, run: Run) -> None:
    for name in ("ps", "plist"):
        code, out, _ = run("sys", name, "python", "--limit", "1")
        assert code == 0
        assert len(rows(out, "alpha")) == 1
    out = run("sys", "ps", "paglets", "--args", "--json")[1]
    assert any(process["cmdline"] for process in json.loads(out)["results"]["alpha"]["result"]["processes"])


def test_summary_of_machines(services: Pair, run: Run) -> None:
    code, out, _ = run("sys", "summary")
    assert code == 0
    assert len(rows(out, "alpha", "beta")) == 2


def test_a_host_that_cannot_tell_is_an_error(services: Pair, run: Run, old: OldMain) -> None:
    services.client.post_json(f"{services.beta}/agents/service.server-info/dispose", {})
    try:
        code, out, _ = run("sys", "load", "--no-gpu")
        assert code == 1
        assert len(rows(out, "alpha")) == 1
        assert "Errors\n- beta: " in out
        code, out, _ = old(server_cli, "load", "--no-gpu")
        assert code == 1
        assert "errors:\n  beta: " in out
    finally:
        services.create("beta", "service.server-info", SERVER)


def test_nobody_to_ask(run: Run) -> None:
    for command in (("sys", "load"), ("mesh", "summary")):
        code, out, err = run(*command, "--entry", "http://127.0.0.1:9", "--timeout", "0.5", entry=False)
        assert (code, out) == (2, "")
        assert err.startswith(f"paglets {' '.join(command)}: ")


# --- the mesh ---------------------------------------------------------------------------------------------------------


def test_all_hosts_of_the_mesh(services: Pair, run: Run) -> None:
    code, out, err = run("mesh", "summary")
    assert (code, err) == (0, "")
    assert [row[0] for row in rows(out, "alpha", "beta")] == ["alpha", "beta"]
    reply = json.loads(run("mesh", "summary", "--limit", "1", "--json")[1])
    assert [host["host_name"] for host in reply["hosts"]] == ["alpha"]


def test_targets(services: Pair, run: Run) -> None:
    code, out, _ = run("mesh", "targets", "--exclude-self", "--mem", "1M", "--disk", "1K")
    assert code == 0
    assert [row[0] for row in rows(out, "alpha", "beta")] == ["beta"]
    assert "Rejected\n- alpha: self excluded" in out
    code, out, _ = run("mesh", "targets", "--min-memory", "1000T")
    assert code == 0
    assert "fallback: available memory below minimum" in out
    assert "no host is eligible" in out
    code, out, _ = run("mesh", "targets", "--min-memory", "1000T", "--no-fallback", "--json")
    assert code == 1
    assert (json.loads(out)["targets"], len(json.loads(out)["rejected"])) == ([], 2)
    code, out, err = run("mesh", "targets", "--mem", "huge")
    assert (code, out) == (2, "")
    assert err.startswith("paglets mesh targets: a size is")


def test_a_host_without_the_service(services: Pair, run: Run, old: OldMain) -> None:
    services.client.post_json(f"{services.alpha}/agents/service.mesh-info/dispose", {})
    try:
        said = "No 'mesh-info' service advertised on alpha\n"
        assert run("mesh", "summary") == (2, "", f"paglets mesh summary: {said}")
        assert old(mesh_cli, "targets") == (2, "", f"paglets-mesh-info: {said}")
    finally:
        services.create("alpha", "service.mesh-info", MESH)
        eventually(lambda: known(services, services.alpha) == ["alpha", "beta"], "a landscape of two hosts")


# --- the older programs -----------------------------------------------------------------------------------------------


def test_the_older_program_for_machines(services: Pair, old: OldMain) -> None:
    code, out, err = old(server_cli, "--json", "df")
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert (summary["operation"], summary["errors"], list(summary["results"])) == ("df", {}, ["alpha", "beta"])
    assert out == json.dumps(summary, indent=2, sort_keys=True) + "\n"
    code, out, err = old(server_cli, "load", "--no-gpu", "--entry", services.beta, entry=False)
    assert (code, err) == (0, "")
    assert out.split("\n")[0].split() == ["host", "cpu%", "mem%", "swap%", "load", "gpu"]
    assert old(server_cli, "plist", "python", "--limit", "1")[0] == 0
    assert old(server_cli, "summary")[0] == 0


@pytest.mark.parametrize("arguments", [["reboot"], ["load", "--interval", "-1"], ["--timeout", "0", "load"], []])
def test_wrong_command_lines(old: OldMain, arguments: list[str]) -> None:
    code, out, err = old(server_cli, *arguments)
    assert (code, out) == (2, "")
    assert "usage: paglets-sysinfo" in err


@pytest.mark.parametrize(
    ("module", "arguments", "what"),
    [
        (server_cli, ["load", "--interval", "20"], "at most 10 seconds"),
        (server_cli, ["--timeout", "0", "load"], "seconds are a number above 0"),
        (mesh_cli, ["summary", "--max-age", "nan"], "seconds are 0 or a number above it"),
        (mesh_cli, ["targets", "--min-memory", "-5"], "a size is a number with B, K, M or G behind it"),
    ],
)
def test_wrong_values_are_named_with_what_is_right(old: OldMain, module: Any, arguments: list[str], what: str) -> None:
    code, _, err = old(module, *arguments)
    assert code == 2
    assert what in err
    assert "_" not in err.replace("\n", " ").partition("error:")[2].partition("'")[0]


def test_an_interrupted_program_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch, old: OldMain) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(server_cli, "collect", interrupted)
    assert old(server_cli, "load") == (130, "", "")


def test_measuring_longer_than_answers_may_take_is_waited_for(services: Pair, old: OldMain) -> None:
    code, out, err = old(server_cli, "--timeout", "3", "load", "--interval", "3.5", "--no-gpu")
    assert (code, err) == (0, "")
    assert [row[0] for row in rows(out, "alpha", "beta")] == ["alpha", "beta"]


def test_the_older_program_for_the_mesh(services: Pair, old: OldMain) -> None:
    code, out, err = old(mesh_cli, "summary")
    assert (code, err) == (0, "")
    assert len(rows(out, "alpha", "beta")) == 2
    reply = json.loads(old(mesh_cli, "targets", "--json", "--exclude-self")[1])
    assert [target["snapshot"]["host_name"] for target in reply["targets"]] == ["beta"]
    assert old(mesh_cli, "targets", "--min-memory", "x")[0] == 2
    assert "no host is eligible" in old(mesh_cli, "targets", "--min-work-free", "100000T")[1]


def test_counts_stand_below_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    host = MeshHostSnapshot("alpha", "http://a", "v", 90.0, active_count=7, inactive_count=12)
    mesh_cli._print_summary(LandscapeReply(100.0, [host], {"beta": "gone\nfor good"}))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1][lines[0].index("active") :][:6] == "     7"
    assert lines[1][lines[0].index("inactive") :][:8] == "      12"
    assert lines[2:] == ["errors:", "  beta: gone for good"]
    mesh_cli._print_targets(TargetSelectionReply(100.0, [TargetCandidate(host, 1.5, ["fresh", "eligible"])]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1][lines[0].index("inactive") :][:8] == "      12"
    assert len(lines) == 2


def test_a_landscape_without_hosts_is_an_exit_code(monkeypatch: pytest.MonkeyPatch, old: OldMain) -> None:
    monkeypatch.setattr(mesh_cli, "_mesh_info_handle", lambda *_: LandscapeReply(1.0))
    assert old(mesh_cli, "summary")[0] == 1


# --- again and again --------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the pauses between rounds, which take no time; in the third one somebody presses Ctrl-C."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) % 3 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(rounds, "pause", pause)
    return pauses


def test_a_line_of_json_for_each_round(services: Pair, run: Run, interrupted: list[float]) -> None:
    for command in (["sys", "load", "--no-gpu"], ["mesh", "targets"]):
        code, out, err = run(*command, "--watch", "--json", "--every", "0.5")
        assert (code, err) == (0, "")
        assert [json.loads(line)["errors"] for line in out.splitlines()] == [{}] * 3
    assert interrupted == [0.5] * 6


def test_a_table_that_is_redrawn(
    services: Pair, run: Run, monkeypatch: pytest.MonkeyPatch, interrupted: list[float]
) -> None:
    code, out, err = run("mesh", "summary", "--watch")
    assert (code, out) == (2, "")
    assert "--watch draws on a terminal" in err
    monkeypatch.setattr(console, "_force_terminal", True)
    code, out, err = run("mesh", "summary", "--watch", "--every", "0.5")
    assert (code, err) == (0, "")
    assert "Mesh Summary" in out


def test_a_round_that_fails_is_shown_and_the_next_is_not_left_out(
    capsys: pytest.CaptureFixture[str], interrupted: list[float]
) -> None:
    answers = iter([RemoteHostError("gone"), {"a": 1}, RemoteHostError("gone")])

    def ask() -> dict[str, int]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    rounds.watch(ask, draw=lambda _: [], wire=dict, json=True, every=0.5)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"error": "gone"}, {"a": 1}, {"error": "gone"}]


# --- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("17", 17), ("17B", 17), ("64k", 65536), ("1.5G", 3 << 29), (" 2 MB ", 2 << 20), ("1t", 1 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "G", "1X", "nan", "1e3", "1 2", "BB"])
def test_what_are_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="a size is a number"):
        parse_size(text)


def test_size_texts() -> None:
    shown = [size_text(value) for value in (0, 17, 1023, 1024, 512 << 20, 1 << 40, 1 << 60)]
    assert shown == ["0B", "17B", "1023B", "1.0K", "512.0M", "1.0T", "1024.0P"]


def test_gpus_and_containers_in_tables() -> None:
    load = {
        "cpu_percent": 1.0,
        "memory_percent": 2.0,
        "swap_percent": 3.0,
        "load_average": [],
        "gpus": [
            {"utilization_percent": 37.0, "memory_used_mb": 1536.0, "memory_total_mb": 8192.0},
            {"utilization_percent": None, "memory_used_mb": None, "memory_total_mb": None},
        ],
    }
    machine = {
        "cpu_count_logical": 2,
        "cpu_limit": 1.5,
        "cpu_count_machine": 64,
        "memory_total_bytes": 1 << 30,
        "boot_time": 0.0,
        "platform": "Linux",
    }

    def row(operation: str, result: dict[str, Any]) -> list[str]:
        results = {"alpha": {"host_url": "u", "result": result}}
        (found,) = report_of({"operation": operation, "results": results, "errors": {}}, size_text).rows
        return found

    assert row("load", load) == ["alpha", "1.0", "2.0", "3.0", "-", "37% 1.5G/8.0G, ?"]
    assert row("summary", machine)[1:3] == ["1.5 of 64", "1.0G"]
