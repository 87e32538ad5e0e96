"""`paglets relay`, with a hub in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paglets.cli.app import main
from paglets.config.env import DEFAULT_API_KEY_ENV
from tests.runtime.relay.conftest import KEY
from tests.runtime.relay.scripted import ScriptedHost
from tests.support import HostFactory, eventually, free_port


def test_names_are_listed_and_released(
    hosts: HostFactory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(DEFAULT_API_KEY_ENV, KEY)
    port = free_port()
    hub = hosts("hub", port=port, public_url=f"http://127.0.0.1:{port}", api_key=KEY)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["relay", *arguments, "--host", hub.address])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    with ScriptedHost(hub.address, "far/7"):
        eventually(lambda: json.loads(run("names", "--json")[1])["names"][0]["online"], "the host to be connected")
        code, _, err = run("release", "far/7")
        assert code == 1 and "stop it first" in err
    eventually(lambda: not json.loads(run("names", "--json")[1])["names"][0]["online"], "the host to be gone")
    code, out, _ = run("names")
    assert code == 0 and "far/7" in out and "no" in out
    assert run("release", "far/7")[:2] == (0, "far/7 belongs to nobody now\n")
    assert json.loads(run("names", "--json")[1]) == {"names": []}
    assert run("release", "far/7", "--json")[0] == 1
    assert main(["relay", "--help"]) == 0
    del tmp_path
