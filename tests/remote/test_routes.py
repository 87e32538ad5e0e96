"""What is remembered of where paglets are."""

from __future__ import annotations

import threading
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from paglets.remote.routes import BLOCKED_SECONDS, MAX_EARLIER, Route, RouteTable
from paglets.remote.whereabouts import Whereabouts, learn_creation, learn_move, learn_reply

A, B, C, D, HOME = "http://a:1", "http://b:1", "http://c:1", "http://d:1", "http://home:1"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_unknown_paglet_is_where_its_proxy_says() -> None:
    table = RouteTable()
    assert table.find("p", A) is None
    assert table.best("p", A + "/") == (A, False)
    assert table.places("p", A) == [A]


def test_a_paglet_is_where_it_was_found_last() -> None:
    table = RouteTable()
    table.learn("p", A, B, HOME)
    assert table.find("p", A + "/") == Route(B, HOME, (A,))
    assert table.best("p", A) == (B, True)
    assert table.places("p", A) == [B, A, HOME]
    table.learn("p", A, C)
    # What one proxy learns serves all that are known to stand for the same paglet.
    assert {table.best("p", place)[0] for place in (A, B, C, HOME)} == {C}
    assert table.places("p", HOME) == [C, HOME, A, B]
    assert table.find("p", D) is None


def test_namesakes_on_other_hosts_are_left_alone() -> None:
    table = RouteTable()
    table.learn("echo", A, A)
    table.learn("echo", B, B)
    table.learn("echo", B, C)
    assert table.places("echo", A) == [A]
    assert table.places("echo", B) == [C, B]


def test_what_is_said_of_one_paglet_joins_what_is_known_of_its_places() -> None:
    table = RouteTable()
    table.learn("p", A, B)
    table.learn("p", C, D, HOME)
    table.learn("p", A, D)
    assert {table.best("p", place)[0] for place in (A, B, C, D, HOME)} == {D}
    assert sorted(table.places("p", B)) == sorted((A, B, C, D, HOME))


def test_what_is_said_of_a_paglet_joins_what_is_known_of_its_home() -> None:
    table = RouteTable()
    table.learn("p", A, HOME)
    table.learn("p", B, B, HOME)
    assert {table.best("p", place)[0] for place in (A, B, HOME)} == {B}
    table.learn("p", A, HOME)
    assert {table.best("p", place)[0] for place in (A, B, HOME)} == {HOME}


def test_a_place_that_was_forgotten_is_known_again_when_its_paglet_is_found_there() -> None:
    table = RouteTable(max_routes=2)
    table.learn("p", A, B)
    table.learn("p", A, B)
    table.learn("q", A, A)
    assert table.find("p", B) is None
    table.learn("p", A, B)
    assert table.find("p", B) == Route(B, "", (A,))


def test_the_places_of_a_traveller_are_bounded() -> None:
    table = RouteTable()
    for number in range(100):
        table.learn("p", f"http://h{number}:1", f"http://h{number + 1}:1", HOME)
    route = table.find("p", "http://h100:1")
    assert route is not None
    assert len(route.earlier) == MAX_EARLIER
    assert route.earlier[0] == "http://h99:1"
    assert table.statistics().routes == MAX_EARLIER + 2


def test_the_routes_used_last_are_kept() -> None:
    table = RouteTable(max_routes=4)
    for name in "abcd":
        table.learn(name, A, A)
    table.learn("a", A, A)
    table.learn("e", A, A)
    assert [name for name in "abcde" if table.find(name, A)] == ["a", "c", "d", "e"]


def test_a_paglet_that_ended_is_forgotten_by_every_place() -> None:
    table = RouteTable()
    table.learn("p", A, B, HOME)
    table.learn("q", A, A)
    table.forget("p", HOME)
    assert [table.find("p", place) for place in (A, B, HOME)] == [None] * 3
    assert table.find("q", A) is not None
    table.forget("p", HOME)


def test_a_host_that_cannot_be_reached_comes_last_for_a_while() -> None:
    clock = Clock()
    table = RouteTable(clock=clock)
    table.learn("p", A, B, HOME)
    table.block(B + "/")
    assert table.places("p", A) == [A, HOME, B]
    assert table.best("p", A) == (A, True)
    assert table.best("other", B) == (B, False)
    clock.now += BLOCKED_SECONDS
    assert table.best("p", A) == (B, True)
    table.block(B)
    clock.now += BLOCKED_SECONDS
    assert table.best("p", A) == (A, True), "the second time takes twice as long"
    table.unblock(B)
    assert table.best("p", A) == (B, True)
    assert table.statistics().blocked == 0


def test_blocking_again_at_once_counts_once() -> None:
    clock = Clock()
    table = RouteTable(clock=clock)
    table.learn("p", A, B)
    for _ in range(10):
        table.block(B)
    clock.now += BLOCKED_SECONDS
    assert table.best("p", A)[0] == B


URLS = st.sampled_from([A, B, C, D, HOME])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("learn"), st.sampled_from("pqr"), URLS, URLS, st.sampled_from(["", HOME, A])),
        st.tuples(st.just("forget"), st.sampled_from("pqr"), URLS),
        st.tuples(st.just("block"), URLS),
        st.tuples(st.just("unblock"), URLS),
        st.tuples(st.just("wait"), st.floats(0, 20)),
    ),
    max_size=40,
)


@given(STEPS, st.integers(1, 12))
def test_whatever_is_learned_the_table_stays_sound(steps: list[tuple[Any, ...]], max_routes: int) -> None:
    clock = Clock()
    table = RouteTable(max_routes=max_routes, clock=clock)
    for step in steps:
        match step:
            case ("learn", agent_id, asked, place, home):
                table.learn(agent_id, asked, place, home)
                route = table.find(agent_id, place)
                assert route is not None, "what was learned last is kept"
                assert route.url == place
                assert not home or route.home == home
            case ("forget", agent_id, url):
                table.forget(agent_id, url)
                assert table.find(agent_id, url) is None
            case ("block", url):
                table.block(url)
            case ("unblock", url):
                table.unblock(url)
            case ("wait", seconds):
                clock.now += seconds
        assert table.statistics().routes <= max_routes
        for agent_id in "pqr":
            for url in (A, B, C, D, HOME):
                places = table.places(agent_id, url)
                route = table.find(agent_id, url)
                assert url in places
                assert len(places) == len(set(places))
                assert places[0] == table.best(agent_id, url)[0]
                assert table.best(agent_id, url)[1] is (len(places) > 1)
                if route is not None:
                    assert len(route.earlier) <= MAX_EARLIER
                    assert route.url not in route.earlier


def test_many_threads_may_learn_at_once() -> None:
    table = RouteTable(max_routes=50)
    start = threading.Barrier(8, timeout=10)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            start.wait()
            for step in range(500):
                table.learn(f"p{step % 40}", f"http://h{number}:1", f"http://h{step % 7}:1", HOME)
                table.places(f"p{step % 40}", HOME)
                table.block(f"http://h{step % 7}:1")
                table.forget(f"p{(step * 3) % 40}", HOME)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    assert table.statistics().routes <= 50


# --- what answers say -------------------------------------------------------------------------------------------------


def test_answers_to_messages_name_place_and_home() -> None:
    table = RouteTable()
    learn_reply(table, "p", A, A, {"result": 1})
    assert table.find("p", A) == Route(A)
    learn_reply(table, "p", A, A, {"result": 1, "location": B + "/", "home": HOME})
    assert table.find("p", A) == Route(B, HOME, (A,))
    learn_reply(table, "p", A, B, {"result": 1, "location": 5, "home": "ftp://x"})
    assert table.find("p", A) == Route(B, HOME, (A,))


def test_answers_to_operations_name_the_paglet_or_its_copy() -> None:
    table = RouteTable()
    learn_move(table, "p", A, A, {"proxy": {"host_url": B, "agent_id": "p"}})
    assert table.best("p", A)[0] == B
    learn_move(table, "p", A, B, {"proxy": {"host_url": C, "agent_id": "copy"}})
    assert (table.best("p", A)[0], table.find("copy", C)) == (B, Route(C))
    for odd in ({}, {"proxy": None}, {"proxy": {"host_url": 5, "agent_id": "p"}}, {"proxy": {"host_url": C}}):
        learn_move(table, "p", A, B, odd)
        assert table.best("p", A)[0] == B


def test_answers_to_creations_name_the_new_paglet() -> None:
    table = RouteTable()
    learn_creation(table, A + "/agents", {"proxy": {"host_url": A, "agent_id": "p"}})
    assert table.find("p", A) == Route(A)
    learn_creation(table, A + "/other", {"proxy": {"host_url": A, "agent_id": "q"}})
    learn_creation(table, A + "/agents", [1])
    learn_creation(table, A + "/agents", {"proxy": [1]})
    assert table.statistics().routes == 1


def test_unreadable_whereabouts_say_nothing() -> None:
    answer = {"agent_id": "p", "host_url": B, "epoch": 3, "home": HOME, "here": False, "ended": False}
    assert Whereabouts.of(answer) == Whereabouts(url=B, home=HOME, epoch=3)
    odd: Any
    for odd in (None, [], {}, {"host_url": 3, "epoch": "x", "here": 1, "home": None}):
        assert Whereabouts.of(odd) == Whereabouts()
