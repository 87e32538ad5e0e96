"""What two ends of a link say to each other, message by message."""

from __future__ import annotations

import pytest

from paglets.protocol.link import (
    Credited,
    Ended,
    Greeted,
    Headed,
    Hello,
    Link,
    LinkError,
    LinkEvent,
    LinkFullError,
    LinkLimits,
    Opened,
    Received,
    ResetCode,
    WasReset,
    frames,
)
from paglets.protocol.link.frames import Kind

SMALL = LinkLimits(
    data_bytes=64,
    head_bytes=1024,
    first_window=100,
    largest_window=400,
    window_budget=600,
    streams=3,
    message_bytes=256,
    pending_bytes=4096,
    ping_after=10,
    dead_after=30,
)


def message(link: Link) -> bytes:
    return b"".join(link.take())


def pair(limits: LinkLimits = SMALL) -> tuple[Link, Link]:
    """Return two ends that know each other: the hub's, which asks, and the other."""
    hub = Link(Hello(name="hub"), first=False, now=0.0, limits=limits)
    host = Link(Hello(name="host"), first=True, now=0.0, limits=limits)
    assert hub.receive(message(host), 0.0) == [Greeted(Hello(name="host"))]
    assert host.receive(message(hub), 0.0) == [Greeted(Hello(name="hub"))]
    return hub, host


def pass_on(sender: Link, receiver: Link) -> list[LinkEvent]:
    events: list[LinkEvent] = []
    while said := message(sender):
        events += receiver.receive(said, 0.0)
    return events


def test_a_request_and_its_answer() -> None:
    hub, host = pair()
    stream = hub.ask("POST", "/agents?x=1", [(b"content-type", b"text/plain")])
    hub.send(stream, b"question")
    hub.end(stream)
    assert pass_on(hub, host) == [
        Opened(stream, "POST", "/agents?x=1", [(b"content-type", b"text/plain")]),
        Received(stream, b"question"),
        Ended(stream),
    ]
    host.answer(stream, 200, [(b"x", b"y")])
    host.send(stream, b"reply")
    host.end(stream)
    assert pass_on(host, hub) == [Headed(stream, 200, [(b"x", b"y")]), Received(stream, b"reply"), Ended(stream)]
    assert hub.statistics().asked == host.statistics().serving == 0


def test_several_answers_come_in_any_order() -> None:
    hub, host = pair()
    first, second = hub.ask("GET", "/a", []), hub.ask("GET", "/b", [])
    for stream in (first, second):
        hub.end(stream)
    pass_on(hub, host)
    for stream in (second, first):
        host.answer(stream, 200, [])
        host.end(stream)
    assert [event.stream for event in pass_on(host, hub) if isinstance(event, Headed)] == [second, first]


def test_both_ends_may_ask() -> None:
    hub, host = pair()
    assert hub.ask("GET", "/a", []) % 2 == 0
    assert host.ask("GET", "/a", []) % 2 == 1


def test_no_more_is_sent_than_the_reader_grants() -> None:
    hub, host = pair()
    stream = hub.ask("PUT", "/x", [])
    hub.send(stream, bytes(64))
    hub.send(stream, bytes(36))
    assert hub.room(stream) == 0
    with pytest.raises(ValueError, match="room"):
        hub.send(stream, b"x")
    pass_on(hub, host)
    host.consumed(stream, 40)
    assert message(host) == b""
    host.consumed(stream, 60)
    assert pass_on(host, hub) == [Credited(stream)]
    # The reader had nothing left: its window has doubled.
    assert hub.room(stream) == 64
    for size in (64, 64, 64, 8):
        hub.send(stream, bytes(size))
    assert hub.room(stream) == 0


def test_windows_grow_within_what_they_share() -> None:
    hub, host = pair()
    streams = [hub.ask("PUT", "/x", []) for _ in range(3)]
    for _ in range(40):
        for stream in streams:
            hub.send(stream, bytes(hub.room(stream)))
        for event in pass_on(hub, host):
            assert isinstance(event, Opened | Received)
            if isinstance(event, Received):
                host.consumed(event.stream, len(event.data))
        pass_on(host, hub)
    assert host.statistics().granted == SMALL.window_budget
    for stream in streams:
        host.reset(stream, ResetCode.FAILED, "")
    assert host.statistics().granted == 0


def test_more_than_granted_ends_the_link() -> None:
    hub, host = pair()
    stream = hub.ask("PUT", "/x", [])
    pass_on(hub, host)
    too_much = b"".join(frames.frame(Kind.DATA, stream, bytes(64)) for _ in range(2))
    with pytest.raises(LinkError, match="credit"):
        host.receive(too_much, 0.0)


def test_a_reset_stream_is_gone_and_what_is_on_its_way_is_dropped() -> None:
    hub, host = pair()
    stream = hub.ask("PUT", "/x", [])
    hub.send(stream, b"one")
    pass_on(hub, host)
    host.reset(stream, ResetCode.FAILED, "the disk is full")
    hub.send(stream, b"two")
    hub.end(stream)
    assert pass_on(hub, host) == []
    assert pass_on(host, hub) == [WasReset(stream, ResetCode.FAILED, "the disk is full")]
    assert hub.room(stream) == 0
    hub.consumed(stream, 5)
    hub.end(stream)
    hub.reset(stream, ResetCode.CANCELLED, "again")
    assert message(hub) == b""
    assert (hub.statistics().asked, host.statistics().serving, host.statistics().unread) == (0, 0, 0)


def test_streams_are_bounded_at_both_ends() -> None:
    hub, host = pair()
    for _ in range(3):
        hub.ask("GET", "/", [])
    with pytest.raises(LinkFullError):
        hub.ask("GET", "/", [])
    pass_on(hub, host)
    # An end that asks more all the same is told so, and the link goes on.
    assert host.receive(frames.open_frame(100, "GET", "/", []), 0.0) == []
    with pytest.raises(LinkError, match="never opened"):
        pass_on(host, hub)


def test_a_refused_stream_says_that_it_was_not_looked_at() -> None:
    hub = Link(Hello(name="hub"), first=False, now=0.0)
    host = Link(Hello(name="host"), first=True, now=0.0, limits=LinkLimits(streams=0))
    host.receive(message(hub), 0.0)
    hub.receive(message(host), 0.0)
    stream = hub.ask("GET", "/", [])
    pass_on(hub, host)
    assert pass_on(host, hub) == [WasReset(stream, ResetCode.REFUSED, "too many requests are under way")]


def test_an_end_that_asks_and_takes_nothing_loses_the_link() -> None:
    _, host = pair()
    with pytest.raises(LinkError, match="does not take"):
        for number in range(100, 10_000, 2):
            host.receive(frames.open_frame(number, "GET", "/", []), 0.0)
    assert host.statistics().pending < 2 * SMALL.pending_bytes


def test_any_number_of_pings_is_one_pong() -> None:
    hub, host = pair()
    host.receive(frames.frame(Kind.PING) * 50, 0.0)
    assert message(host) == frames.frame(Kind.PONG)
    assert hub.receive(frames.frame(Kind.PONG), 0.0) == []


def test_silence_is_asked_about_and_then_ends_the_link() -> None:
    hub, _ = pair()
    hub.tick(9.0)
    assert message(hub) == b""
    hub.tick(10.0)
    assert message(hub) == frames.frame(Kind.PING)
    hub.tick(20.0)
    assert message(hub) == b""
    with pytest.raises(LinkError, match="30 s"):
        hub.tick(30.0)


def test_anything_heard_is_a_sign_of_life() -> None:
    hub, host = pair()
    hub.tick(10.0)
    hub.receive(message(host) or frames.frame(Kind.PONG), 12.0)
    hub.tick(20.0)
    hub.tick(30.0)
    hub.tick(41.0)
    with pytest.raises(LinkError):
        hub.tick(43.0)


def test_an_end_that_slept_gives_the_other_one_its_time_again() -> None:
    hub, _ = pair()
    hub.tick(5.0)
    hub.tick(500.0)
    hub.tick(510.0)
    assert message(hub) == frames.frame(Kind.PING)
    hub.tick(520.0)
    with pytest.raises(LinkError):
        hub.tick(531.0)


def test_messages_are_cut_between_frames() -> None:
    hub, host = pair(LinkLimits(message_bytes=300, data_bytes=64, first_window=10_000))
    stream = hub.ask("PUT", "/x", [])
    while room := hub.room(stream):
        hub.send(stream, bytes(room))
    sizes = []
    while said := message(hub):
        sizes.append(len(said))
        host.receive(said, 0.0)
    assert sizes
    assert max(sizes) <= 300 + 64 + frames.HEAD_BYTES


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"\x04", "cut off in its head"),
        (b"\x63" + bytes(12), "unknown kind"),
        (frames.head(Kind.DATA, 2, 65), "larger"),
        (frames.head(Kind.OPEN, 2, 2000), "larger"),
        (frames.head(Kind.DATA, 2, 5) + b"four", "cut off"),
        (frames.hello_frame(Hello(name="again")), "second HELLO"),
        (frames.frame(Kind.OPEN, 2, b"\xff"), "malformed OPEN"),
        (frames.frame(Kind.OPEN, 2, b"\x93\xa3GET\xa3a b\x90"), "malformed OPEN"),
        (frames.frame(Kind.HEAD, 1, b"\x92\x64\x90"), "malformed HEAD"),
        (frames.frame(Kind.RESET, 2, b""), "malformed RESET"),
        (frames.frame(Kind.RESET, 2, b"\x09why"), "unknown code"),
        (frames.frame(Kind.CREDIT, 2, b"\x01"), "malformed CREDIT"),
        (frames.frame(Kind.DATA, 2, b"x"), "never opened"),
        (frames.frame(Kind.END, 1), "never opened"),
        (frames.frame(Kind.END, 1, b"x"), "malformed END"),
        (frames.frame(Kind.DATA, 0, b"x"), "never opened"),
        (frames.open_frame(1, "GET", "/", []), "cannot be opened"),
        (frames.open_frame(0, "GET", "/", []), "cannot be opened"),
        (frames.open_frame(4, "GET", "/", []) + frames.open_frame(4, "GET", "/", []), "cannot be opened"),
        (frames.open_frame(4, "GET", "/", []) + frames.answer_frame(4, 200, []), "takes no answer"),
        (frames.open_frame(4, "GET", "/", []) + frames.frame(Kind.END, 4) * 2, "out of turn"),
        (frames.open_frame(4, "GET", "/", []) + frames.credit_frame(4, 2**31), "absurd"),
    ],
)
def test_nonsense_ends_the_link(said: bytes, error: str) -> None:
    _, host = pair()
    with pytest.raises(LinkError, match=error):
        host.receive(said, 0.0)


def test_an_answer_body_before_its_head_ends_the_link() -> None:
    hub, _ = pair()
    stream = hub.ask("GET", "/", [])
    for kind in (Kind.DATA, Kind.END):
        with pytest.raises(LinkError, match="out of turn"):
            hub.receive(frames.frame(kind, stream), 0.0)


def test_the_first_frame_says_who_speaks() -> None:
    link = Link(Hello(name="hub"), first=False, now=0.0)
    with pytest.raises(LinkError, match="before HELLO"):
        link.receive(frames.frame(Kind.PING), 0.0)
    other = Link(Hello(name="hub"), first=False, now=0.0)
    with pytest.raises(LinkError, match="version 7"):
        other.receive(frames.hello_frame(Hello(name="future", version=7)), 0.0)


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("get", "/", []),
        ("GET", "no-path", []),
        ("GET", "/a b", []),
        ("GET", "/", [(b"Upper", b"x")]),
        ("GET", "/", [(b"name", b"two\r\nlines")]),
        ("GET", "/", [(b"name", bytes(10))]),
        ("GET", "/", [(b"name", b"x" * 2000)]),
    ],
)
def test_what_cannot_be_carried_is_not_sent(method: str, target: str, headers: list[tuple[bytes, bytes]]) -> None:
    hub, _ = pair()
    with pytest.raises(ValueError, match=r"carry|malformed|head of"):
        hub.ask(method, target, headers)
    assert message(hub) == b""
    assert hub.statistics().asked == 0


def test_answers_keep_their_order() -> None:
    hub, host = pair()
    stream = hub.ask("GET", "/", [])
    pass_on(hub, host)
    with pytest.raises(ValueError, match="needs a head"):
        host.end(stream)
    with pytest.raises(ValueError, match="status"):
        host.answer(stream, 99, [])
    host.answer(stream, 204, [])
    with pytest.raises(ValueError, match="once"):
        host.answer(stream, 204, [])
    with pytest.raises(ValueError, match="once"):
        hub.answer(stream, 204, [])
