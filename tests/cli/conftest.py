"""Two hosts that know each other, as processes, for the tests of one module of commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from paglets.cli.app import main
from paglets.cli.options import ENTRY_VARIABLE
from paglets.config.env import DEFAULT_API_KEY_ENV
from paglets.core.errors import PagletError
from paglets.remote.client import HostClient
from tests.cli.processes import Program
from tests.preload import Preloaded
from tests.support import eventually

Run = Callable[..., tuple[int, str, str]]
ACTOR = "tests.agents.actor:Actor"
TALKER = "tests.agents.http_agents:Talker"


@dataclass
class Pair:
    """Two hosts of one mesh."""

    alpha: str
    beta: str
    client: HostClient

    def create(self, host: str, agent_id: str, class_name: str = TALKER) -> str:
        """Create a paglet on a host, ended after the test, and return its id."""
        body = {"agent_class_name": class_name, "agent_id": agent_id}
        return str(self.client.post_json(f"{getattr(self, host)}/agents", body)["proxy"]["agent_id"])

    def send(self, host: str, agent_id: str, kind: str, **args: Any) -> Any:
        """Send a message and return the reply."""
        url = f"{getattr(self, host)}/agents/{agent_id}/messages"
        return self.client.post_json(url, {"message": {"kind": kind, "args": args}})["result"]

    def where(self, agent_id: str) -> list[str]:
        """Return the hosts that have a paglet."""
        return [host for host in ("alpha", "beta") if agent_id in self.ids(host)]

    def ids(self, host: str) -> list[str]:
        """Return the ids of a host's paglets."""
        agents = self.client.get_json(f"{getattr(self, host)}/agents?state=all")["agents"]
        return [summary["agent_id"] for summary in agents]

    def clear(self) -> None:
        """End every paglet."""
        for host in ("alpha", "beta"):
            for agent_id in self.ids(host):
                try:
                    self.client.post_json(f"{getattr(self, host)}/agents/{agent_id}/dispose", {})
                except PagletError:
                    if agent_id in self.ids(host):
                        raise


@pytest.fixture(scope="module")
def two_hosts(tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded) -> Iterator[Pair]:
    """Give two hosts that know each other."""
    directory = tmp_path_factory.mktemp("hosts")
    programs: list[Program] = []

    def begin(name: str, *options: str) -> str:
        given = ["--name", name, "--port", "0", "--persistence-dir", str(directory / name), "--mesh-version", "test"]
        given += ["--launch-config", str(directory / "launch.toml"), "--no-sync-launch-config", "--json"]
        program = Program("host", *given, "--log-level", "error", *options, preloaded=preloaded)
        programs.append(program)
        return str(program.json_line()["address"])

    try:
        alpha = begin("alpha")
        beta = begin("beta", "--peer", alpha)
        with HostClient() as client:
            for address in (alpha, beta):
                eventually(lambda address=address: online(client, address) == ["alpha", "beta"], "a mesh of two")
            yield Pair(alpha, beta, client)
    finally:
        for program in programs:
            program.close()


def online(client: HostClient, address: str) -> list[str]:
    """Return the names of the hosts that a host knows to be online."""
    return [ref["name"] for ref in client.get_json(f"{address}/hosts")["hosts"] if ref["online"]]


@pytest.fixture
def pair(two_hosts: Pair) -> Iterator[Pair]:
    """Give two hosts without paglets."""
    yield two_hosts
    two_hosts.clear()


@pytest.fixture
def run(two_hosts: Pair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Give what runs a command in this process and returns exit code, output and errors."""
    monkeypatch.delenv(DEFAULT_API_KEY_ENV, raising=False)
    monkeypatch.delenv(ENTRY_VARIABLE, raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def begin(*arguments: str, entry: bool = True) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*arguments, *(["--entry", two_hosts.alpha] if entry else [])])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return begin
