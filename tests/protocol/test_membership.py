from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from paglets.core.errors import SerializationError
from paglets.protocol import membership
from paglets.protocol.membership import STALE_ERROR, Admission, HostRef, Membership, normalize_host_url, normalize_tags

OWN = "http://own:1"


def host(name: str = "beta", **changes: Any) -> HostRef:
    values: dict[str, Any] = {
        "name": name,
        "url": f"http://{name}:1",
        "code_version": "v1",
        "online": True,
        "last_seen": 100.0,
        "active_count": 1,
        "inactive_count": 2,
    }
    return HostRef(**{**values, **changes})


class Table:
    """A membership with defaults for what most tests do not care about."""

    def __init__(self, **options: Any) -> None:
        self.core = Membership(**{"code_version": "v1", "offline_after": 10.0, "retry_interval": 1.0, **options})

    def tell(self, ref: HostRef, now: float = 0.0, *, direct: bool = True, keep: bool = False) -> Admission:
        return self.core.observe(ref, own_url=OWN, now=now, direct=direct, keep_other_version=keep)

    def get(self, name: str = "beta") -> HostRef:
        ref = self.core.get(f"http://{name}:1")
        assert ref is not None
        return ref


@pytest.fixture
def table() -> Table:
    return Table()


# values


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h:1/", "http://h:1"),
        (" h:8765 ", "http://h:8765"),
        ("https://h/prefix//", "https://h/prefix"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("beta", "http://beta"),
    ],
)
def test_normalize_host_url(url: str, expected: str) -> None:
    assert normalize_host_url(url) == expected


@pytest.mark.parametrize("url", ["", "  ", "/", "http://", " // "])
def test_empty_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="Not a host URL"):
        normalize_host_url(url)


@given(st.text(max_size=30))
@example("h\r/")
@example("h/ /")
def test_normalizing_twice_changes_nothing(url: str) -> None:
    try:
        once = normalize_host_url(url)
    except ValueError:
        return
    assert normalize_host_url(once) == once


def test_tags_are_folded_sorted_and_unique() -> None:
    assert normalize_tags([" GPU", "gpu", "", "  ", "Big"]) == ("big", "gpu")


def test_ref_round_trip() -> None:
    ref = host(tags=("a", "b"), properties={"k": "v"}, error="boom", online=False)
    assert HostRef.from_wire(ref.to_wire()) == ref


def test_ref_wire_keys() -> None:
    keys = [
        "name",
        "url",
        "code_version",
        "online",
        "last_seen",
        "active_count",
        "inactive_count",
        "tags",
        "properties",
    ]
    wire = host(url="http://beta:1/").to_wire()
    assert list(wire) == keys
    assert wire["url"] == "http://beta:1"
    assert list(host(error="x").to_wire()) == [*keys, "error"]


def test_ref_from_health() -> None:
    ref = HostRef.from_wire(
        {
            "name": "b",
            "address": "b:1/",
            "code_version": "v",
            "tags": [" X", "x"],
            "properties": {"n": 1},
            "capabilities": [],
        }
    )
    assert ref == HostRef("b", "http://b:1", "v", True, 0.0, 0, 0, ("x",), {"n": "1"})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": None}, "name"),
        ({"code_version": None}, "code_version"),
        ({"url": None}, "address"),
        ({"url": "  "}, "url"),
        ({"url": "file:///etc/passwd"}, "HTTP"),
        ({"url": "gopher://h"}, "HTTP"),
        ({"last_seen": "soon"}, "last_seen"),
        ({"last_seen": float("inf")}, "last_seen"),
        ({"online": "yes"}, "online"),
        ({"tags": "a"}, "tags"),
        ({"properties": []}, "properties"),
    ],
)
def test_unreadable_refs_name_the_field(change: dict[str, Any], text: str) -> None:
    with pytest.raises(SerializationError, match=text):
        HostRef.from_wire({**host().to_wire(), **change})


# being told


def test_a_host_about_itself_is_admitted(table: Table) -> None:
    assert table.tell(host()) is Admission.ACCEPTED
    assert table.core.peers() == [host()]


def test_this_host_is_no_peer(table: Table) -> None:
    assert table.tell(host(url=OWN)) is Admission.SELF
    assert table.core.peers() == []


def test_hearsay_makes_known_but_not_of_offline_hosts(table: Table) -> None:
    assert table.tell(host("beta"), direct=False) is Admission.ACCEPTED
    assert table.tell(host("gamma", online=False), direct=False) is Admission.UNCHANGED
    assert table.tell(host("delta", online=False), direct=True) is Admission.ACCEPTED
    assert {ref.name for ref in table.core.peers()} == {"beta", "delta"}


def test_an_online_claim_of_the_host_itself_always_wins(table: Table) -> None:
    table.tell(host(last_seen=100.0))
    table.core.fail("http://beta:1", "refused", now=1.0)
    table.tell(host(last_seen=50.0, active_count=7), now=2.0)
    assert table.get() == host(last_seen=50.0, active_count=7)


def test_a_host_that_leaves(table: Table) -> None:
    table.tell(host(last_seen=100.0))
    assert table.tell(host(last_seen=99.0, online=False, error="late")) is Admission.UNCHANGED
    assert table.get().online
    table.tell(host(last_seen=101.0, online=False, error="bye"))
    assert (table.get().online, table.get().error) == (False, "bye")


def test_an_echo_is_no_news(table: Table) -> None:
    table.tell(host(last_seen=100.0), now=0.0)
    assert table.tell(host(last_seen=100.0), now=9.0, direct=False) is Admission.UNCHANGED
    table.core.age(now=10.0)
    assert (table.get().online, table.get().error) == (False, STALE_ERROR)


def test_hearsay_with_a_newer_stamp_keeps_a_peer_online(table: Table) -> None:
    table.tell(host(last_seen=100.0), now=0.0)
    table.tell(host(last_seen=101.0), now=9.0, direct=False)
    table.core.age(now=18.9)
    assert table.get().online
    table.core.age(now=19.0)
    assert not table.get().online
    table.tell(host(last_seen=102.0), now=20.0, direct=False)
    assert table.get() == host(last_seen=102.0)


def test_hearsay_does_not_overrule_a_failure_seen_here_but_hastens_a_visit(table: Table) -> None:
    url = host().url
    table.tell(host(last_seen=100.0))
    for now in range(5):
        table.core.fail(url, "refused", now=float(now))
    assert table.core.due([url], now=5.0, limit=9) == []
    assert table.tell(host(last_seen=105.0), now=5.0, direct=False) is Admission.UNCHANGED
    assert (table.get().online, table.get().error, table.get().last_seen) == (False, "refused", 100.0)
    assert table.core.due([url], now=5.0, limit=9) == [url]


def test_hearsay_cannot_take_a_peer_offline(table: Table) -> None:
    table.tell(host(last_seen=100.0))
    table.tell(host(last_seen=200.0, online=False, error="rumour"), direct=False)
    assert table.get() == host(last_seen=100.0)


def test_clocks_of_other_hosts_do_not_matter(table: Table) -> None:
    table.tell(host("past", last_seen=1.0), now=1000.0)
    table.tell(host("future", last_seen=1e12), now=1000.0)
    table.core.age(now=1009.9)
    assert all(ref.online for ref in table.core.peers())
    table.core.age(now=1010.0)
    assert not any(ref.online for ref in table.core.peers())


# code versions


def test_a_host_of_another_version_is_not_admitted(table: Table) -> None:
    assert table.tell(host(code_version="v2")) is Admission.OTHER_VERSION
    assert table.core.peers() == []


def test_a_peer_that_changed_its_version_goes_offline(table: Table) -> None:
    table.tell(host())
    assert table.tell(host(code_version="v2")) is Admission.OTHER_VERSION
    assert (table.get().online, table.get().error) == (False, "code version 'v2' != 'v1'")
    assert table.get().code_version == "v1"


def test_in_relay_mode_it_is_shown_offline(table: Table) -> None:
    assert table.tell(host(code_version="v2"), keep=True) is Admission.OTHER_VERSION
    assert table.get() == host(code_version="v2", online=False, error="code version 'v2' != 'v1'")
    table.tell(host(code_version="v1"))
    assert table.get().online


# failures and contacts


def test_a_failure_keeps_last_seen(table: Table) -> None:
    table.tell(host(last_seen=42.0))
    assert table.core.fail("http://beta:1", "refused", now=1.0)
    assert (table.get().online, table.get().error, table.get().last_seen) == (False, "refused", 42.0)
    assert table.core.failure("http://beta:1") == "refused"


def test_a_failing_seed_is_no_member(table: Table) -> None:
    assert not table.core.fail("http://seed:1", "refused", now=1.0)
    assert table.core.peers() == []
    assert table.core.failure("http://seed:1") == "refused"
    assert table.core.failure("http://other:1") is None


def test_failed_contacts_back_off(table: Table) -> None:
    url = "http://seed:1"
    pauses = []
    now = 0.0
    for _ in range(8):
        table.core.fail(url, "refused", now=now)
        start = now
        while not table.core.due([url], now=now, limit=1):
            now += 1.0
        pauses.append(now - start)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    table.core.reached(url, now=now)
    assert table.core.due([url], now=now, limit=1) == [url]


def test_a_peer_that_speaks_up_is_due_again(table: Table) -> None:
    url = host().url
    table.tell(host())
    for _ in range(9):
        table.core.fail(url, "refused", now=0.0)
    table.tell(host(), now=1.0)
    assert table.core.due([url], now=1.0, limit=1) == [url]
    assert table.core.failure(url) is None


def test_rounds_go_round(table: Table) -> None:
    urls = [f"http://h{number}:1" for number in range(5)]
    visited = []
    for now in range(5):
        for delay, url in enumerate(table.core.due(urls, now=float(now), limit=2)):
            visited.append(url)
            table.core.reached(url, now=now + delay / 10)
    assert visited == [*urls, *urls]


def test_nothing_is_kept_of_urls_that_are_no_longer_wanted(table: Table) -> None:
    table.core.fail("http://seed:1", "refused", now=0.0)
    assert table.core.due([], now=0.0, limit=1) == []
    assert table.core.failure("http://seed:1") is None


# names, bounds


def test_find_prefers_who_is_online_and_heard_last(table: Table) -> None:
    table.tell(host("a", url="http://a1:1"), now=1.0)
    table.tell(host("a", url="http://a2:1"), now=2.0)
    table.tell(host("a", url="http://a3:1"), now=3.0)
    table.core.fail("http://a3:1", "moved", now=4.0)
    found = table.core.find("a")
    assert found is not None
    assert found.url == "http://a2:1"
    assert table.core.find("b") is None


def test_very_old_offline_peers_are_forgotten(table: Table) -> None:
    table.tell(host(), now=0.0)
    table.core.age(now=10.0)
    table.core.age(now=membership.FORGET_AFTER_SECONDS)
    assert len(table.core.peers()) == 1
    table.core.age(now=membership.FORGET_AFTER_SECONDS + 1)
    assert table.core.peers() == []


def test_the_table_is_bounded(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "MAX_MEMBERS", 3)
    for number, name in enumerate(["a", "b", "c"]):
        table.tell(host(name), now=float(number))
    assert table.tell(host("d"), now=3.0) is Admission.FULL
    assert table.tell(host("d", code_version="v2"), now=3.0, keep=True) is Admission.OTHER_VERSION
    table.core.fail("http://b:1", "gone", now=4.0)
    table.core.fail("http://c:1", "gone", now=4.0)
    assert table.tell(host("d"), now=5.0) is Admission.ACCEPTED
    assert sorted(ref.name for ref in table.core.peers()) == ["a", "c", "d"]


def test_remove(table: Table) -> None:
    table.tell(host())
    table.core.remove(host().url)
    table.core.remove(host().url)
    assert table.core.peers() == []


class MembershipMachine(RuleBasedStateMachine):
    """Whatever is told in whatever order: online means fresh evidence, and errors belong to offline peers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table()
        self.now = 0.0
        self.evidence: dict[str, float] = {}
        self.stamps: dict[str, float] = {}

    @rule(step=st.floats(0, 15))
    def wait(self, step: float) -> None:
        self.now += step

    @rule(name=st.sampled_from("ab"), stamp=st.integers(0, 9), online=st.booleans(), direct=st.booleans())
    def tell(self, name: str, stamp: int, online: bool, direct: bool) -> None:
        known = self.table.core.get(f"http://{name}:1")
        news = known is None or stamp > known.last_seen
        if online and (direct or news):
            self.evidence[name] = self.now
        self.table.tell(host(name, last_seen=float(stamp), online=online), self.now, direct=direct)

    @rule(name=st.sampled_from("ab"))
    def fail(self, name: str) -> None:
        self.table.core.fail(f"http://{name}:1", "refused", now=self.now)

    @rule(name=st.sampled_from("ab"))
    def other_version(self, name: str) -> None:
        self.table.tell(host(name, code_version="v2"), self.now)

    @invariant()
    def online_means_fresh(self) -> None:
        self.table.core.age(now=self.now)
        for ref in self.table.core.peers():
            assert ref.code_version == "v1"
            if ref.online:
                assert ref.error is None
                assert self.now - self.evidence[ref.name] < 10.0


test_membership_machine = MembershipMachine.TestCase


def test_two_hosts_do_not_keep_a_third_alive_by_gossip() -> None:
    """A and B tell each other of C, which is gone, for ever; both must notice."""
    first, second = Table(), Table()
    gone = host("gone", last_seen=100.0)
    first.tell(gone)
    second.tell(replace(gone, last_seen=99.5))
    for now in range(30):
        for table, other in ((first, second), (second, first)):
            table.core.age(now=float(now))
            for ref in other.core.peers():
                table.tell(ref, float(now), direct=False)
    assert not first.get("gone").online
    assert not second.get("gone").online


# doubts


def test_a_late_peer_stays_online_until_it_was_late_too_often(table: Table) -> None:
    table.tell(host())
    for turn in range(membership.DOUBTS - 1):
        assert not table.core.doubt(host().url, "late", now=float(turn))
        assert table.get().online
        assert table.core.due([host().url], now=float(turn), limit=1) == [host().url]
    assert table.core.doubt(host().url, "late", now=3.0)
    assert (table.get().online, table.get().error) == (False, "late")


def test_an_answer_ends_all_doubts(table: Table) -> None:
    table.tell(host())
    for turn in range(3 * membership.DOUBTS):
        table.core.doubt(host().url, "late", now=float(turn))
        table.tell(host(last_seen=101.0 + turn), now=float(turn))
    assert table.get().online


def test_a_doubted_peer_that_is_silent_grows_stale(table: Table) -> None:
    table.tell(host(), now=0.0)
    table.core.doubt(host().url, "late", now=3.0)
    table.core.age(now=10.0)
    assert table.get().error == STALE_ERROR
    pauses = []
    now = 10.0
    for _ in range(3):
        assert table.core.doubt(host().url, "late", now=now)
        start = now
        while not table.core.due([host().url], now=now, limit=1):
            now += 1.0
        pauses.append(now - start)
    assert pauses == [2.0, 4.0, 8.0]
    assert table.get().error == STALE_ERROR
    table.tell(host(last_seen=200.0), now=now, direct=False)
    assert table.get().online


def test_who_is_reached_by_others_only_is_asked_less_and_less(table: Table) -> None:
    table.tell(host())
    table.core.fail(host().url, "unreachable", now=0.0)
    visits = 0
    for second in range(1, 120):
        table.tell(host(last_seen=100.0 + second), now=float(second), direct=False)
        assert not table.get().online
        if table.core.due([host().url], now=float(second), limit=1):
            visits += 1
            table.core.fail(host().url, "unreachable", now=float(second))
    assert 5 <= visits <= 10


# a round


def test_those_in_question_come_first_and_the_dead_do_not_crowd_out_the_living(table: Table) -> None:
    names = [f"h{number}" for number in range(10)]
    for name in names:
        table.tell(host(name), now=0.0)
    urls = [host(name).url for name in names]
    for url in urls:
        table.core.reached(url, now=0.0)
    for name in names[:4]:
        table.core.fail(host(name).url, "refused", now=0.0)
    for name in names[5:]:
        table.tell(host(name), now=5.0)
    found = table.core.due(urls, now=6.0, limit=4)
    assert found[0] == host("h4").url  # silent for six seconds
    assert set(found[1:3]) <= {host(name).url for name in names[5:]}
    assert found[3] in {host(name).url for name in names[:4]}
    assert set(table.core.due(urls[:4], now=6.0, limit=4)) == set(urls[:4])
    assert not set(table.core.due(urls, now=6.0, limit=10, busy=urls[:5])) & set(urls[:5])


def test_a_pause_of_this_host_is_nobodys_silence(table: Table) -> None:
    table.tell(host(), now=0.0)
    table.core.excuse(60.0)
    table.core.age(now=69.9)
    assert table.get().online
    table.core.age(now=70.0)
    assert not table.get().online


def test_hearsay_is_as_old_as_it_says(table: Table) -> None:
    """A host that is gone is not kept alive by hosts that are new and hear of it from each other."""
    gone = host("gone")
    for age in (0.0, 4.0, 8.0, 9.9):
        newcomer = Table()
        admitted = newcomer.core.observe(gone, own_url=OWN, now=100.0, direct=False, keep_other_version=False, age=age)
        assert admitted is Admission.ACCEPTED
        newcomer.core.age(now=110.0 - age)
        assert not newcomer.get("gone").online
    assert table.core.observe(gone, own_url=OWN, now=1.0, direct=False, keep_other_version=False, age=10.0) is (
        Admission.UNCHANGED
    )
