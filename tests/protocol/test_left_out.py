"""Hosts of other code versions: what is news of them, how long they are shown, and how many are remembered."""

from __future__ import annotations

from paglets.protocol.host_ref import HostRef
from paglets.protocol.left_out import MAX_LEFT_OUT, SHOWN_SECONDS, LeftOut


def host(name: str = "beta", version: str = "v2") -> HostRef:
    return HostRef(name, f"http://{name}:1", version, True, 0.0, 0, 0)


def test_each_version_of_a_host_is_news_once() -> None:
    left_out = LeftOut()
    assert left_out.note(host(), now=0.0)
    assert not left_out.note(host(), now=1.0)
    assert left_out.note(host("gamma"), now=1.0)
    assert left_out.note(host(version="v3"), now=2.0)
    assert not left_out.note(host(version="v3"), now=SHOWN_SECONDS * 10)


def test_who_is_not_heard_of_is_not_shown() -> None:
    left_out = LeftOut()
    left_out.note(host("gamma"), now=0.0)
    left_out.note(host(), now=0.0)
    assert left_out.hosts(now=1.0) == [host(), host("gamma")]
    left_out.note(host(), now=10.0)
    assert left_out.hosts(now=SHOWN_SECONDS) == [host()]
    assert left_out.hosts(now=SHOWN_SECONDS + 10.0) == []


def test_who_announces_itself_is_shown_until_it_stops() -> None:
    left_out = LeftOut()
    assert left_out.note(host(), now=0.0, announced=True)
    assert not left_out.note(host(), now=1.0)
    assert left_out.hosts(now=SHOWN_SECONDS * 100) == [host()]
    left_out.withdrawn(host().url)
    left_out.withdrawn("http://unknown:1")
    assert left_out.hosts(now=2.0) == []
    assert not left_out.note(host(), now=3.0)
    left_out.withdrawn(host().url)
    assert left_out.hosts(now=3.0) == [host()]


def test_a_member_is_not_left_out() -> None:
    left_out = LeftOut()
    left_out.note(host(), now=0.0)
    left_out.admitted(host().url)
    left_out.admitted("http://unknown:1")
    assert left_out.hosts(now=0.0) == []
    assert left_out.note(host(), now=1.0)


def test_the_one_heard_of_longest_ago_makes_room() -> None:
    left_out = LeftOut()
    for number in range(MAX_LEFT_OUT):
        left_out.note(host(f"h{number}"), now=0.0)
    left_out.note(host("h0"), now=1.0)
    left_out.note(host("last"), now=1.0)
    shown = {ref.name for ref in left_out.hosts(now=1.0)}
    assert len(shown) == MAX_LEFT_OUT
    assert "h1" not in shown
    assert {"h0", "h2", "last"} <= shown
