"""`paglets hosts`: which hosts there are, and how they do."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import Pair, Run
from tests.cli.processes import environment
from tests.support import HostFactory, eventually

ROOT = Path(__file__).resolve().parents[2]


def rows(out: str) -> list[list[str]]:
    """Return the words of each row of a table."""
    _, _, *lines = [line.split() for line in out.splitlines() if line.strip(" ─")]
    return lines


def test_hosts_of_the_mesh(pair: Pair, run: Run) -> None:
    pair.create("beta", "somebody")
    code, out, err = run("hosts", "--wide")
    assert (code, err) == (0, "")
    assert "as alpha knows them" in out.splitlines()[0]
    alpha, beta = rows(out)
    assert alpha[:4] == ["alpha", "online", "0", "0"] and pair.alpha in alpha
    assert beta[:4] == ["beta", "online", "1", "0"] and pair.beta in beta
    _, out, _ = run("hosts", "--json", "--entry", pair.beta, entry=False)
    found = json.loads(out)
    assert found["entry"] == "beta"
    assert [(each["name"], each["state"], each["error"]) for each in found["hosts"]] == [
        ("alpha", "online", None),
        ("beta", "online", None),
    ]
    assert all(each["latency_ms"] > 0 for each in found["hosts"])


def test_a_host_that_drains(pair: Pair, run: Run) -> None:
    pair.client.post_json(f"{pair.beta}/admin/drain", {})
    try:
        code, out, _ = run("hosts")
        assert code == 0
        assert [row[1] for row in rows(out)] == ["online", "draining"]
    finally:
        pair.client.post_json(f"{pair.beta}/admin/undrain", {})


def test_hosts_that_are_gone_are_named_and_fail_the_command(hosts: HostFactory, run: Run) -> None:
    alpha = hosts(mesh=True, mesh_multicast=False)
    beta = hosts("beta", mesh=True, mesh_multicast=False, peers=[alpha.address])
    eventually(lambda: alpha.mesh.is_online("beta"), "the mesh")
    beta.stop()
    # Alpha has not noticed yet, or has.
    code, out, err = run("hosts", "--json", "--entry", alpha.address, entry=False)
    states = {each["name"]: each["state"] for each in json.loads(out)["hosts"]}
    assert (code, err) == (1, "")
    assert states["alpha"] == "online" and states["beta"] in ("silent", "offline")
    alpha.mesh.mark_offline(beta.mesh.refresh_self().url, "unplugged")
    code, out, _ = run("hosts", "--entry", alpha.address, entry=False)
    assert code == 1
    assert "offline" in out and "unplugged" in " ".join(out.split())


def test_a_host_of_another_version_is_shown_as_left_out(hosts: HostFactory, run: Run) -> None:
    alpha = hosts(mesh=True, mesh_multicast=False)
    other = hosts("other", mesh=True, mesh_multicast=False, mesh_version="newer")
    alpha.mesh.join(other.address)
    code, out, err = run("hosts", "--json", "--entry", alpha.address, entry=False)
    assert (code, err) == (0, "")
    _, shown = json.loads(out)["hosts"]
    assert (shown["name"], shown["url"], shown["state"]) == ("other", other.address, "left out")
    assert shown["error"] == f"code version newer, not {alpha.mesh.code_version}"
    code, out, _ = run("hosts", "--wide", "--entry", alpha.address, entry=False)
    assert code == 0
    assert f"code version newer, not {alpha.mesh.code_version}" in out


def test_a_table_is_not_renewed_without_a_terminal(run: Run) -> None:
    code, out, err = run("hosts", "--watch")
    assert (code, out) == (2, "")
    assert err.startswith("paglets hosts: ") and "--watch draws on a terminal" in err


def test_watch_renews_the_table_until_interrupted(pair: Pair) -> None:
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "paglets", "hosts", "--watch", "--entry", pair.alpha],
        stdin=follower, stdout=follower, stderr=subprocess.PIPE, cwd=ROOT, env=environment(TERM="xterm"),
    )  # fmt: skip
    os.close(follower)
    shown = ""

    def sees(text: str) -> bool:
        nonlocal shown
        shown += os.read(leader, 65536).decode(errors="replace")
        return text in shown

    try:
        eventually(lambda: sees("beta"), "the first table", 30)
        pair.client.post_json(f"{pair.beta}/admin/drain", {})
        eventually(lambda: sees("draining"), "the change in a later table", 30)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, b"")
    finally:
        process.kill()
        process.communicate()
        os.close(leader)
        pair.client.post_json(f"{pair.beta}/admin/undrain", {})
