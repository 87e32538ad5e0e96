"""Which URLs name a host: the one it has, and those it had, as long as nobody else has them."""

from __future__ import annotations

from paglets.remote.idle import Origin
from paglets.runtime.own_url import MOST_FORMER, FormerAddresses, OwnUrl

FIRST, SECOND, THIRD = (f"http://192.168.1.{number}:8765" for number in (1, 2, 3))


class Place:
    """A host that moves."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.others: set[str] = set()
        self.own = OwnUrl(lambda: self.url, is_anothers=lambda url: url in self.others)

    def move(self, url: str) -> None:
        self.own.left(self.url)
        self.url = url


def test_a_host_that_never_moved_has_one_url() -> None:
    place = Place(FIRST)
    assert place.own() == FIRST
    assert place.own.is_own(FIRST + "/")
    assert not place.own.is_own(SECOND)
    assert not place.own.is_former(FIRST)
    assert (place.own.of(FIRST), place.own.of(SECOND), place.own.of("")) == (FIRST, SECOND, "")


def test_former_urls_stay_its_own() -> None:
    place = Place(FIRST)
    place.move(SECOND)
    place.move(THIRD)
    assert place.own() == THIRD
    assert place.own.former == (SECOND, FIRST)
    for url in (FIRST, SECOND, SECOND + "/", THIRD):
        assert place.own.is_own(url)
        assert place.own.of(url) == THIRD
    assert not place.own.is_former(THIRD)
    assert not place.own.is_own("http://192.168.1.1:80")


def test_there_and_back_again() -> None:
    place = Place(FIRST)
    for url in (SECOND, FIRST, SECOND):
        place.move(url)
        assert place.own() == url
        assert place.own.is_own(FIRST)
        assert place.own.is_own(SECOND)
        assert place.own.of(FIRST) == place.own.of(SECOND) == url


def test_an_address_that_another_host_has_now_is_not_its_own() -> None:
    place = Place(FIRST)
    place.others.add(FIRST)
    assert place.own.is_own(FIRST)  # nobody else can have the one it has
    place.move(SECOND)
    assert not place.own.is_own(FIRST)
    assert not place.own.is_own(FIRST + "/")
    assert place.own.of(FIRST) == FIRST
    place.others.clear()
    assert place.own.is_own(FIRST)


def test_the_oldest_are_forgotten() -> None:
    place = Place("http://h:1")
    for number in range(2, MOST_FORMER + 4):
        place.move(f"http://h:{number}")
    assert len(place.own.former) == MOST_FORMER
    assert not place.own.is_own("http://h:1")
    assert place.own.is_own("http://h:4")


def test_requests_to_former_addresses_go_where_the_host_is() -> None:
    place = Place(FIRST)
    place.move(SECOND)
    way = Origin("http", "192.168.1.2", 8765)
    detour = FormerAddresses(place.own, way)
    assert detour.way == way
    assert detour.covers(Origin("http", "192.168.1.1", 8765), "/health")
    assert not detour.covers(Origin("https", "192.168.1.1", 8765), "/health")
    assert not detour.covers(Origin("http", "192.168.1.1", 80), "/health")
    place.others.add(FIRST)
    assert not detour.covers(Origin("http", "192.168.1.1", 8765), "/health")
