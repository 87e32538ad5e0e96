"""Where hosts and classes are looked for: the order of places, and the forms of URLs and paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paglets.core.errors import AuthenticationError, RemoteHostError
from paglets.remote import admin
from paglets.remote.admin import (
    ServerRef,
    default_agent_discovery_config,
    entry_server,
    normalize_discovery_path,
    normalize_server_url,
    select_reachable_entry_server,
)
from paglets.remote.client import HostClient
from paglets.remote.lan import lan_address

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = "http://127.0.0.1:8765"
LAN = "http://192.0.2.7:8765"
FOUND = "http://192.0.2.8:9000"
PROBED = "http://192.0.2.9:8765"


class Network(HostClient):
    """A client of hosts that are not there; it notes which health was asked for."""

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__()
        self.answers = answers
        self.asked: list[str] = []
        self.looked: list[tuple[str, dict[str, Any]]] = []

    def get_json(self, url: str, *, timeout: float | None = None) -> Any:
        assert timeout == 0.5
        self.asked.append(url.removesuffix("/health"))
        answer = self.answers.get(self.asked[-1], RemoteHostError(f"Could not reach {url}"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def select(self, entry_name: str | None = None) -> ServerRef:
        return select_reachable_entry_server(entry_name=entry_name, client=self, timeout=0.5)


def network(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], *, lan: str = "192.0.2.7") -> Network:
    """Return a client, with places to look that it notes as well."""
    made = Network(answers)

    def place(name: str, found: Any) -> None:
        def look(**options: Any) -> Any:
            made.looked.append((name, options))
            return found

        monkeypatch.setattr(admin, name, look)

    place("detect_lan_host", lan)
    place("discover_mesh_entry_servers", [ServerRef("found", FOUND), ServerRef("again", LOOPBACK)])
    place("discover_lan_entry_servers", [ServerRef("probed", PROBED)])
    return made


def health(name: str, address: str) -> dict[str, Any]:
    return {"name": name, "address": address, "active_count": 0}


# --- the order of places ----------------------------------------------------------------------------------------------


def test_a_host_on_this_machine_is_found_without_looking_further(monkeypatch: pytest.MonkeyPatch) -> None:
    client = network(monkeypatch, {LOOPBACK: health("local", LAN), LAN: health("local", LAN)})
    assert client.select() == ServerRef("local", LAN, enabled=True, local_start=False)
    assert (client.asked, client.looked) == ([LOOPBACK], [])


def test_the_address_in_the_local_network_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    client = network(monkeypatch, {LAN: health("lan", LAN), FOUND: health("found", FOUND)})
    assert client.select() == ServerRef("lan", LAN, enabled=True, local_start=False)
    assert client.asked == [LOOPBACK, LAN]
    assert [name for name, _ in client.looked] == ["detect_lan_host"]


def test_hosts_that_announce_themselves_come_third(monkeypatch: pytest.MonkeyPatch) -> None:
    client = network(monkeypatch, {FOUND: health("found", FOUND), PROBED: health("probed", PROBED)})
    assert client.select() == ServerRef("found", FOUND)
    assert client.asked == [LOOPBACK, LAN, FOUND]
    assert client.looked[1:] == [("discover_mesh_entry_servers", {"timeout": 0.75})]


def test_other_hosts_of_the_local_network_come_last_and_no_url_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    client = network(monkeypatch, {PROBED: health("probed", PROBED)})
    assert client.select() == ServerRef("probed", PROBED)
    assert client.asked == [LOOPBACK, LAN, FOUND, PROBED]
    assert client.looked[2:] == [("discover_lan_entry_servers", {"ports": {8765}})]


@pytest.mark.parametrize("lan", ["127.0.0.1", "127.0.1.1", "localhost", "::1"])
def test_a_machine_without_a_network_is_asked_once(monkeypatch: pytest.MonkeyPatch, lan: str) -> None:
    client = network(monkeypatch, {FOUND: health("found", FOUND)}, lan=lan)
    client.select()
    assert client.asked == [LOOPBACK, FOUND]


def test_a_name_chooses_among_hosts_that_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    client = network(monkeypatch, {LOOPBACK: health("local", LOOPBACK), FOUND: health("found", FOUND)})
    assert client.select("found") == ServerRef("found", FOUND)
    assert client.select("") == ServerRef("local", LOOPBACK)
    with pytest.raises(ValueError, match="No paglets host named 'other' answered") as caught:
        client.select("other")
    assert f"{LOOPBACK} (is 'local')" in str(caught.value)


def test_a_url_is_the_only_place(monkeypatch: pytest.MonkeyPatch) -> None:
    client = network(monkeypatch, {LOOPBACK: health("local", LOOPBACK), FOUND: health("any", "")})
    assert client.select(f"{FOUND}/") == ServerRef("any", FOUND)
    with pytest.raises(ValueError, match=r"192\.0\.2\.1:1") as caught:
        client.select("http://192.0.2.1:1")
    assert LOOPBACK not in str(caught.value)
    assert (client.asked, client.looked) == ([FOUND, "http://192.0.2.1:1"], [])


def test_a_host_is_reached_as_it_was_found_by_its_url(monkeypatch: pytest.MonkeyPatch) -> None:
    client = network(monkeypatch, {LOOPBACK: health("local", LAN), FOUND: health("hidden", LAN)})
    assert entry_server(f"{FOUND}/", client, 0.5) == ServerRef("hidden", FOUND)
    assert entry_server("local", client, 0.5) == entry_server(None, client, 0.5) == ServerRef("local", LAN)


# --- nobody -----------------------------------------------------------------------------------------------------------


def test_the_error_lists_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    client = network(monkeypatch, {LAN: ["no", "host"]})
    with pytest.raises(ValueError, match="No paglets host answered") as caught:
        client.select()
    for url in (LOOPBACK, LAN, FOUND, PROBED):
        assert str(caught.value).count(f"{url} (") == 1
    assert "must be an object" in str(caught.value)


def test_a_missing_key_is_named_as_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {LOOPBACK: AuthenticationError("no"), FOUND: health("found", FOUND)}
    assert network(monkeypatch, answers).select() == ServerRef("found", FOUND)
    del answers[FOUND]
    with pytest.raises(ValueError, match=r"PAGLETS_API_KEY.*--api-key-env") as caught:
        network(monkeypatch, answers).select()
    assert f"{LOOPBACK} (wants an API key)" in str(caught.value)


# --- what finds hosts -------------------------------------------------------------------------------------------------


def test_a_stand_in_for_a_client_needs_no_more_than_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = network(monkeypatch, {LAN: health("alpha", LAN)})

    class StandIn:
        def get_json(self, url: str, *, timeout: float | None = None) -> Any:
            return answers.get_json(url, timeout=timeout)

    stand_in: Any = StandIn()
    found = select_reachable_entry_server(entry_name=None, client=stand_in, timeout=0.5)
    assert found == ServerRef("alpha", LAN)


def test_nothing_is_discovered_where_that_is_switched_off() -> None:
    assert admin.discover_mesh_entry_servers(timeout=60) == []
    assert admin.discover_lan_entry_servers(ports=[1], timeout=60, workers=1) == []
    assert (admin.DEFAULT_LAN_DISCOVERY_TIMEOUT_SECONDS, admin.DEFAULT_LAN_DISCOVERY_WORKERS) == (0.25, 64)


def test_the_address_in_the_local_network_is_that_of_hosts() -> None:
    assert admin.detect_lan_host() == lan_address()


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "url"),
    [("alpha:8765", "http://alpha:8765"), (" https://alpha/ ", "https://alpha"), ("http://a:1//", "http://a:1")],
)
def test_a_server_url_has_a_scheme_and_no_slash_at_its_end(given: str, url: str) -> None:
    assert normalize_server_url(given) == url


def test_a_server_url_is_not_empty() -> None:
    with pytest.raises(ValueError, match="Not a host URL"):
        normalize_server_url(" / ")


def test_classes_are_looked_for_in_the_demos_of_a_checkout() -> None:
    config = default_agent_discovery_config()
    assert (config.paths, config.modules) == ([str(ROOT / "demos")], [])


def test_outside_of_a_checkout_they_are_looked_for_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from paglets.remote import entry_hosts

    monkeypatch.setattr(entry_hosts, "__file__", str(tmp_path / "lib" / "paglets" / "remote" / "entry_hosts.py"))
    assert default_agent_discovery_config().paths == []


def test_a_discovery_path_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = tmp_path.resolve()
    assert normalize_discovery_path(" demos ", base_path=tmp_path) == str(real / "demos")
    assert normalize_discovery_path("a/../b", base_path=str(tmp_path)) == str(real / "b")
    assert normalize_discovery_path(str(real / "x"), base_path="/elsewhere") == str(real / "x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(real / "home"))
    assert normalize_discovery_path("demos") == str(real / "demos")
    assert normalize_discovery_path("~/demos", base_path="/elsewhere") == str(real / "home" / "demos")


@pytest.mark.parametrize("path", ["", "  "])
def test_a_discovery_path_is_not_empty(path: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        normalize_discovery_path(path)
