"""What a host is told to listen on, and what that comes to as the address of its machine changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paglets.runtime import options
from paglets.runtime.host import NETWORK_BIND_WATCH_INTERVAL_SECONDS, Host
from paglets.runtime.options import Binding

HOME, OFFICE, LOOPBACK = "192.168.1.20", "10.0.0.7", "127.0.0.1"
ANY = "0.0.0.0"

Lan = Callable[[str], None]


@pytest.fixture
def lan(monkeypatch: pytest.MonkeyPatch) -> Lan:
    """Give what sets the address of this machine; until then asking for it fails."""

    def never() -> str:
        raise AssertionError("nobody needs the address")

    monkeypatch.setattr(options, "lan_address", never)
    return lambda address: monkeypatch.setattr(options, "lan_address", lambda: address)


def test_auto_is_the_address_of_the_machine(lan: Lan) -> None:
    lan(HOME)
    for spec in ("auto", " AUTO ", ["Auto", "auto", ""]):
        binding = Binding.of(spec)
        assert (binding.hosts, binding.public_host, binding.follows) == ((HOME,), HOME, True)
    assert Binding.of([HOME, "auto", LOOPBACK]).hosts == (HOME, LOOPBACK)


def test_what_names_its_addresses_depends_on_nothing(lan: Lan) -> None:
    for spec in (LOOPBACK, [HOME, ANY]):
        binding = Binding.of(spec)
        assert not binding.follows
        assert binding.now() is binding
        assert binding.followed() is None
    lan(OFFICE)
    assert Binding.of([HOME, ANY]).public_host == HOME


@pytest.mark.parametrize("spec", [ANY, "", "::"])
def test_a_wildcard_is_announced_by_the_address_of_the_machine(lan: Lan, spec: str) -> None:
    lan(HOME)
    binding = Binding.of(spec)
    assert binding.follows
    assert binding.public_host == HOME
    lan(OFFICE)
    assert binding.public_host == HOME  # until the host is moved there, as a whole
    moved = binding.followed()
    assert moved is not None
    assert (moved.hosts, moved.public_host) == (binding.hosts, OFFICE)


def test_a_change_is_followed(lan: Lan) -> None:
    lan(HOME)
    binding = Binding.of(["auto", LOOPBACK])
    assert binding.followed() is None
    lan(OFFICE)
    moved = binding.followed()
    assert moved is not None
    assert (moved.specs, moved.hosts, moved.public_host) == (("auto", LOOPBACK), (OFFICE, LOOPBACK), OFFICE)
    assert moved.followed() is None
    lan(HOME)
    assert moved.followed() == binding


def test_a_machine_without_a_network_keeps_its_address(lan: Lan) -> None:
    lan(HOME)
    binding = Binding.of("auto")
    lan(LOOPBACK)
    assert binding.followed() is None
    assert binding.now().hosts == (LOOPBACK,)  # for a host that is about to start there is nothing better
    lan(OFFICE)
    moved = binding.followed()
    assert moved is not None
    assert moved.hosts == (OFFICE,)


def test_a_network_that_appears_is_taken(lan: Lan) -> None:
    lan(LOOPBACK)
    binding = Binding.of("auto")
    assert binding.follows
    lan(HOME)
    moved = binding.followed()
    assert moved is not None
    assert moved.hosts == (HOME,)


def host(directory: Path, **given: Any) -> Host:
    return Host("alpha", mesh_version="v", persistence_dir=directory, **given)


def test_the_interval_has_a_least_value(tmp_path: Path) -> None:
    assert host(tmp_path).bind_watch_interval == NETWORK_BIND_WATCH_INTERVAL_SECONDS == 5.0
    for given, taken in ((2.5, 2.5), (0.01, 0.1), (0, 0.1), (-1, 0.1)):
        assert host(tmp_path, bind_watch_interval=given).bind_watch_interval == taken
    for nonsense in (math.nan, math.inf):
        with pytest.raises(ValueError, match="bind_watch_interval must be a finite number"):
            host(tmp_path, bind_watch_interval=nonsense)


def test_a_host_that_is_not_started_shows_its_address(lan: Lan, tmp_path: Path) -> None:
    lan(HOME)
    made = host(tmp_path, host="auto", port=8765)
    assert (made.bind_hosts, made.bind_host, made.public_host) == ([HOME], HOME, HOME)
    assert made.address == f"http://{HOME}:8765"
