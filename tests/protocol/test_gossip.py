from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.core.errors import SerializationError
from paglets.protocol import gossip
from paglets.protocol.gossip import BUCKETS, MOST_BEATS, Beat, Tidings, differing, digest_of, mark_of
from paglets.protocol.membership import HostRef, Membership

OWN = HostRef("own", "http://own:1", "v1", True, 1.0, 0, 0)


def ref(number: int, **changes: Any) -> HostRef:
    made = HostRef(f"h{number}", f"http://h{number}:1", "v1", True, 100.0 + number, 1, 2, ("a",), {"rack": "3"})
    return replace(made, **changes)


def knowing(*refs: HostRef, now: float = 0.0, **options: Any) -> Membership:
    core = Membership(**{"code_version": "v1", "offline_after": 10.0, **options})
    for known in refs:
        core.observe(known, own_url="", now=now, direct=True, keep_other_version=False)
    return core


# digests


def test_a_mark_changes_with_what_a_host_is_and_not_with_how_it_does() -> None:
    mark = mark_of(ref(1))
    assert mark == mark_of(ref(1, last_seen=7.0, active_count=9, inactive_count=9))
    for change in ({"name": "x"}, {"code_version": "v2"}, {"tags": ("b",)}, {"properties": {}}):
        changed = mark_of(ref(1, **change))
        assert changed.bucket == mark.bucket
        assert changed.number != mark.number


def test_digests_do_not_depend_on_the_order_and_tell_where_they_differ() -> None:
    marks = [mark_of(ref(number)) for number in range(50)]
    whole = digest_of(marks)
    assert whole == digest_of(reversed(marks))
    assert differing(whole, digest_of(marks[1:])) == {marks[0].bucket}
    assert differing(whole, whole) == frozenset()
    assert differing(whole, ()) == frozenset(range(BUCKETS))


def test_only_what_differs_is_handed_over() -> None:
    hosts = [ref(number) for number in range(40)]
    visited = knowing(*hosts)
    visitor = ref(99)
    visited.observe(visitor, own_url=OWN.url, now=0.0, direct=True, keep_other_version=False)
    same = visited.digest(OWN)
    assert visited.lacking(same, OWN, visitor=visitor.url, now=1.0) == []
    other = knowing(*hosts[1:], OWN).digest(visitor)
    found = visited.lacking(other, OWN, visitor=visitor.url, now=1.5)
    assert (hosts[0], 1.5) in found
    assert {mark_of(known).bucket for known, _ in found} == {mark_of(hosts[0]).bucket}
    assert {known.url for known, _ in visited.lacking((), OWN, visitor=visitor.url, now=1.0)} == {
        known.url for known in hosts
    }
    assert len(visited.lacking((), OWN, now=1.0, limit=7)) == 7


# beats


def test_an_inquiry_is_bounded_and_has_the_freshest_and_the_oldest() -> None:
    core = knowing(*(ref(number) for number in range(200)))
    fresh, old = [ref(number, last_seen=500.0) for number in range(8)], [ref(number) for number in range(180, 200)]
    for known in fresh:
        core.observe(known, own_url="", now=4.0, direct=True, keep_other_version=False)
    for number in range(8, 180):
        core.hear_beat(Beat(ref(number).url, 400.0, 0.0, 0, 0), now=3.0)
    beats = core.inquiry(OWN, now=5.0).beats
    assert len(beats) == MOST_BEATS
    assert {known.url for known in fresh + old} <= {beat.url for beat in beats}
    assert {beat.age for beat in beats} == {1.0, 2.0, 5.0}


def test_a_reply_has_newer_news_of_those_named_and_the_freshest_of_others() -> None:
    core = knowing(*(ref(number) for number in range(100)))
    core.fail(ref(4).url, "refused", now=0.0)
    core.observe(ref(77, last_seen=500.0), own_url="", now=1.0, direct=True, keep_other_version=False)
    named = [Beat(ref(1).url, 101.0, 0.0, 0, 0), Beat(ref(2).url, 50.0, 0.0, 0, 0), Beat(ref(4).url, 0.0, 0.0, 0, 0)]
    beats = core.reply(Tidings(tuple(named)), OWN, now=2.0).beats
    assert [beat.url for beat in beats[:2]] == [ref(2).url, ref(77).url]
    assert not {beat.url for beat in beats} & {ref(1).url, ref(4).url}
    assert len(beats) == 1 + MOST_BEATS // 4
    everybody = Tidings(tuple(Beat(ref(number).url, 9e9, 0.0, 0, 0) for number in range(100)))
    assert core.reply(everybody, OWN, now=2.0).beats == ()


def test_offline_hosts_are_not_passed_on() -> None:
    core = knowing(ref(1), ref(2))
    core.fail(ref(1).url, "refused", now=0.0)
    assert [beat.url for beat in core.inquiry(OWN, now=0.0).beats] == [ref(2).url]
    assert core.digest(OWN) == knowing(ref(2)).digest(OWN)
    assert [known for known, _ in core.lacking((), OWN, now=0.0)] == [ref(2)]


def test_a_beat_refreshes_what_is_known_and_nothing_else() -> None:
    core = knowing(ref(1))
    core.hear_beat(Beat(ref(1).url, 200.0, 2.0, 7, 8), now=9.0)
    core.hear_beat(Beat(ref(2).url, 200.0, 0.0, 0, 0), now=9.0)
    assert core.peers() == [ref(1, last_seen=200.0, active_count=7, inactive_count=8)]
    core.age(now=16.9)
    assert core.get(ref(1).url).online  # type: ignore[union-attr]
    core.age(now=17.0)
    assert not core.get(ref(1).url).online  # type: ignore[union-attr]


def test_news_that_are_too_old_bring_nobody_back() -> None:
    core = knowing(ref(1))
    core.age(now=10.0)
    core.hear_beat(Beat(ref(1).url, 200.0, 10.0, 0, 0), now=11.0)
    assert not core.get(ref(1).url).online  # type: ignore[union-attr]
    core.hear_beat(Beat(ref(1).url, 200.0, 9.0, 0, 0), now=11.0)
    assert core.get(ref(1).url).online  # type: ignore[union-attr]


# what somebody sent


def test_a_round_trip() -> None:
    said = knowing(ref(1), ref(2)).inquiry(OWN, now=0.25)
    assert Tidings.from_wire(msgspec.json.decode(msgspec.json.encode(said.to_wire()))) == said
    assert Tidings.from_wire({}) == Tidings()


BEAT = ["http://h:1", 1.0, 0.0, 1, 2]


@pytest.mark.parametrize(
    "payload",
    [
        [],
        {"beats": {}},
        {"beats": ["x"]},
        {"beats": [BEAT[:4]]},
        {"beats": [[*BEAT, 1]]},
        {"beats": [[7, *BEAT[1:]]]},
        {"beats": [["u", "soon", 0.0, 1, 2]]},
        {"beats": [["u", 1.0, float("nan"), 1, 2]]},
        {"beats": [["u", float("inf"), 0.0, 1, 2]]},
        {"beats": [["u", True, 0.0, 1, 2]]},
        {"beats": [["u", 1.0, 0.0, 1.5, 2]]},
        {"beats": [BEAT] * (MOST_BEATS + 1)},
        {"digest": "00"},
        {"digest": "g" * BUCKETS * 8},
        {"digest": 7},
    ],
    ids=repr,
)
def test_malformed_gossip_is_refused(payload: Any) -> None:
    with pytest.raises(SerializationError, match="gossip"):
        Tidings.from_wire(payload)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["beats", "digest"]), inner),
        max_leaves=20,
    )
)
def test_anything_is_read_or_refused(payload: Any) -> None:
    try:
        said = Tidings.from_wire(payload)
    except SerializationError:
        return
    assert len(said.beats) <= MOST_BEATS
    assert all(beat.age >= 0 for beat in said.beats)
    assert Tidings.from_wire(said.to_wire()) == said


def test_ages_of_the_future_are_none() -> None:
    assert Tidings.from_wire({"beats": [["u", 1, -5, 0, 0]]}).beats[0].age == 0.0


def test_the_size_of_an_exchange_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for count in (100, 1000):
        core = knowing(*(ref(number) for number in range(count)))
        sizes.append(len(msgspec.json.encode(core.inquiry(OWN, now=1.0).to_wire())))
    assert sizes[1] < sizes[0] * 1.1
    assert len(core.lacking((), OWN, now=0.0)) == gossip.MOST_RECORDS
