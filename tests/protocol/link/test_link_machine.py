"""Two ends of a link under any interleaving, and one end under any bytes."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from paglets.protocol.link import (
    Ended,
    Hello,
    Link,
    LinkError,
    LinkEvent,
    LinkLimits,
    Opened,
    Received,
    ResetCode,
    WasReset,
    frames,
)
from paglets.protocol.link.frames import Kind
from tests.effort import thorough

LIMITS = LinkLimits(
    data_bytes=32,
    head_bytes=512,
    first_window=48,
    largest_window=200,
    window_budget=300,
    streams=4,
    message_bytes=120,
    pending_bytes=4096,
)
MOST_HELD = LIMITS.streams * LIMITS.first_window + LIMITS.window_budget

_headers = st.lists(st.tuples(st.sampled_from([b"a", b"content-length"]), st.sampled_from([b"", b"1", b"x\ty"])))
_frames = st.one_of(
    st.builds(lambda k, s, c: frames.frame(k, s, c), st.sampled_from(Kind), st.integers(0, 9), st.binary(max_size=40)),
    st.builds(lambda s, h: frames.open_frame(s, "GET", "/x", h), st.integers(0, 9), _headers),
    st.builds(lambda s, h: frames.answer_frame(s, 200, h), st.integers(0, 9), _headers),
    st.builds(frames.credit_frame, st.integers(0, 9), st.integers(0, 2**32 - 1)),
    st.builds(frames.reset_frame, st.integers(0, 9), st.sampled_from(ResetCode), st.text(max_size=20)),
    st.just(frames.frame(Kind.PING)),
    st.binary(max_size=60),
)


@given(st.lists(st.lists(_frames, max_size=8).map(b"".join), max_size=12), st.booleans(), st.booleans())
@settings(max_examples=thorough(50, 150), deadline=None)
def test_no_bytes_break_or_fill_an_end(messages: list[bytes], greeted: bool, first: bool) -> None:
    link = Link(Hello(name="one"), first=first, now=0.0, limits=LIMITS)
    if greeted:
        link.receive(frames.hello_frame(Hello(name="other")), 0.0)
        link.ask("GET", "/mine", [])
        link.ask("GET", "/mine", [])
    for message in messages:
        try:
            link.receive(message, 0.0)
        except LinkError:
            break
    held = link.statistics()
    assert held.unread <= MOST_HELD
    assert held.pending <= LIMITS.pending_bytes + 120
    assert held.serving <= LIMITS.streams


class TwoEnds(RuleBasedStateMachine):
    """Streams in both directions at once, over a connection that takes its time."""

    streams = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.ends = [Link(Hello(name=str(i)), first=i == 0, now=0.0, limits=LIMITS) for i in range(2)]
        self.wire: list[deque[bytes]] = [deque(), deque()]
        # By receiving end and stream.
        self.sent: dict[tuple[int, int], bytearray] = {}
        self.got: dict[tuple[int, int], bytearray] = {}
        self.unread: dict[tuple[int, int], int] = {}
        self.over: set[tuple[int, int]] = set()
        self.said: set[tuple[int, int]] = set()
        self.dead: set[int] = set()
        self.answered: set[int] = set()
        self.opened: set[int] = set()

    @initialize()
    def greet(self) -> None:
        for end in (0, 1):
            self.move(end)
        for end in (0, 1):
            self.arrive(end, 5)

    def move(self, end: int) -> None:
        while pieces := self.ends[end].take():
            self.wire[1 - end].append(b"".join(pieces))

    def see(self, end: int, events: list[LinkEvent]) -> None:
        for event in events:
            match event:
                case Opened(stream):
                    self.opened.add(stream)
                case Received(stream, data):
                    key = (end, stream)
                    self.got.setdefault(key, bytearray()).extend(data)
                    self.unread[key] = self.unread.get(key, 0) + len(data)
                case Ended(stream):
                    self.over.add((end, stream))
                case WasReset(stream):
                    self.dead.add(stream)

    @rule(end=st.integers(0, 1), target=streams)
    def ask(self, end: int) -> object:
        if self.ends[end].statistics().asked >= LIMITS.streams:
            return multiple()
        return (end, self.ends[end].ask("POST", "/", []))

    @rule(stream=streams, by_asker=st.booleans(), data=st.binary(min_size=1, max_size=70))
    def write(self, stream: tuple[int, int], by_asker: bool, data: bytes) -> None:
        asker, number = stream
        end = asker if by_asker else 1 - asker
        if not by_asker:
            if number not in self.opened or (end, number) in self.said:
                return
            if number not in self.answered:
                self.answered.add(number)
                self.ends[end].answer(number, 200, [])
        room = self.ends[end].room(number)
        self.ends[end].send(number, data[:room])
        self.sent.setdefault((1 - end, number), bytearray()).extend(data[:room])

    @rule(stream=streams, by_asker=st.booleans())
    def finish(self, stream: tuple[int, int], by_asker: bool) -> None:
        asker, number = stream
        end = asker if by_asker else 1 - asker
        if by_asker or number in self.answered:
            self.ends[end].end(number)
            self.said.add((end, number))

    @rule(stream=consumes(streams), by_asker=st.booleans())
    def give_up(self, stream: tuple[int, int], by_asker: bool) -> None:
        asker, number = stream
        if by_asker or number in self.opened:
            self.ends[asker if by_asker else 1 - asker].reset(number, ResetCode.CANCELLED, "no more")
            self.dead.add(number)

    @rule(end=st.integers(0, 1), most=st.integers(1, 400))
    def read(self, end: int, most: int) -> None:
        for key, unread in self.unread.items():
            if key[0] == end and unread:
                taken = min(unread, most)
                self.unread[key] -= taken
                self.ends[end].consumed(key[1], taken)

    @rule(end=st.integers(0, 1))
    def flush(self, end: int) -> None:
        self.move(end)

    @rule(end=st.integers(0, 1), messages=st.integers(1, 5))
    def arrive(self, end: int, messages: int) -> None:
        for _ in range(min(messages, len(self.wire[end]))):
            self.see(end, self.ends[end].receive(self.wire[end].popleft(), 0.0))

    @invariant()
    def nothing_piles_up(self) -> None:
        for link in self.ends:
            held = link.statistics()
            assert held.unread <= MOST_HELD
            assert held.granted <= LIMITS.window_budget

    @invariant()
    def what_came_is_what_was_sent(self) -> None:
        for key, got in self.got.items():
            assert self.sent[key].startswith(got)

    def teardown(self) -> None:
        """Let everything through that is under way: whatever was not given up arrives whole."""
        for _ in range(200):
            for end in (0, 1):
                self.move(end)
                self.arrive(end, 1000)
                self.read(end, 10_000)
        for (end, number), data in self.sent.items():
            if number in self.dead:
                continue
            assert self.got.get((end, number), b"") == data
            assert ((1 - end, number) in self.said) == ((end, number) in self.over)
        alive = {number for _, number in self.sent if number not in self.dead}
        for link in self.ends:
            held = link.statistics()
            assert held.pending == 0
            if not alive and not self.opened - self.dead:
                assert held.granted == 0


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
