"""Load for hosts that die: threads that send numbered messages until each was acknowledged, and note what they were
told.

A sender says one thing after the other, and repeats the same message (the same id) for as long as it does not know
whether it arrived. So at the end every message that it began is acknowledged, and must be in the receiver's book once.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from paglets.core.errors import PagletError
from paglets.core.messages import Message
from paglets.remote.proxy import PagletProxy

GIVE_UP_SECONDS = 60.0
FIRST_PAUSE = 0.005
LONGEST_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Told:
    """One acknowledged message."""

    sender: str
    number: int
    kind: str
    oneway: bool
    reply: Any
    agent_id: str
    relayed_to: str = ""
    """Id of the paglet that gets it as well, passed on."""

    @property
    def entry(self) -> str:
        """What the book of the receiver says of it."""
        return f"{self.sender}:{self.number}"

    @property
    def relayed_entry(self) -> str:
        """What the book of the second receiver says of it."""
        return f"{self.sender}>:{self.number}"


@dataclass
class Notes:
    """What all senders were told, and what went wrong on the way. Its methods may be called from any thread."""

    told: list[Told] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    """Names of the errors that were answered by a repetition."""
    given_up: list[str] = field(default_factory=list)
    """Messages that were never acknowledged, with the last error."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, told: Told) -> None:
        """Note an acknowledgement."""
        with self._lock:
            self.told.append(told)

    def wrong(self, exc: BaseException) -> None:
        """Note an error."""
        with self._lock:
            self.errors[type(exc).__name__] += 1

    def give_up(self, what: str) -> None:
        """Note a message that nobody took."""
        with self._lock:
            self.given_up.append(what)


@dataclass
class Call:
    """One message to be sent."""

    kind: str = "add"
    args: dict[str, Any] = field(default_factory=dict)
    oneway: bool = False


class Sender:
    """One voice: says what ``calls`` gives it, one after the other, each until it is acknowledged."""

    def __init__(
        self, name: str, proxy: PagletProxy, notes: Notes, *, stop: threading.Event, give_up: float = GIVE_UP_SECONDS
    ) -> None:
        self.name = name
        self.proxy = proxy
        self.notes = notes
        self.count = 0
        self._stop = stop
        self._give_up = give_up

    def say(self, call: Call) -> Any:
        """Say the next thing; return the reply, None when nobody took it."""
        self.count += 1
        number = self.count
        message = Message(call.kind, {"sender": self.name, "number": number, **call.args})
        for pause in pauses(self._give_up):
            try:
                if call.oneway:
                    self.proxy.send_oneway(message)
                    reply = None
                else:
                    reply = self.proxy.send(message)
            except PagletError as exc:
                self.notes.wrong(exc)
                error = exc
                time.sleep(pause)
                continue
            told = Told(
                self.name,
                number,
                call.kind,
                call.oneway,
                reply,
                self.proxy.agent_id,
                str(call.args["to"]) if call.kind == "relay" else "",
            )
            self.notes.tell(told)
            return reply
        self.notes.give_up(f"{self.name}:{number} ({call.kind}): {type(error).__name__}: {error}")
        return None

    def say_all(self, calls: Iterable[Call]) -> None:
        """Say several things."""
        for call in calls:
            self.say(call)

    def say_on(self, calls: Callable[[], Call]) -> None:
        """Go on until told to stop, or until nobody listens any more."""
        while not self._stop.is_set() and not self.notes.given_up:
            self.say(calls())


def pauses(seconds: float) -> Iterator[float]:
    """Give growing pauses between repetitions, for so many seconds."""
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE
    while time.monotonic() < deadline:
        yield pause
        pause = min(LONGEST_PAUSE, pause * 2)


class Load:
    """Threads that talk until they are told to stop."""

    def __init__(self, notes: Notes | None = None, *, give_up: float = GIVE_UP_SECONDS) -> None:
        self.notes = notes or Notes()
        self.stop = threading.Event()
        self._give_up = give_up
        self._threads: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def sender(self, name: str, proxy: PagletProxy) -> Sender:
        """Return a voice of this load."""
        return Sender(name, proxy, self.notes, stop=self.stop, give_up=self._give_up)

    def run(self, name: str, work: Callable[[], None]) -> None:
        """Run something beside the test; what it raises fails the test when the load ends."""

        def guarded() -> None:
            try:
                work()
            except BaseException as exc:
                self._failures.append(exc)
                self.stop.set()

        thread = threading.Thread(target=guarded, name=f"load-{name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def talk(self, name: str, proxy: PagletProxy, calls: Callable[[], Call]) -> None:
        """Have a voice of its own say what ``calls`` gives."""
        sender = self.sender(name, proxy)
        self.run(name, lambda: sender.say_on(calls))

    @property
    def ended(self) -> bool:
        """Whether nobody talks any more."""
        return not any(thread.is_alive() for thread in self._threads)

    def finish(self) -> Notes:
        """Stop everybody after what they are saying now.

        :raises BaseException: what one of them raised.
        """
        self.stop.set()
        for thread in self._threads:
            thread.join(self._give_up + 30.0)
            assert not thread.is_alive(), f"{thread.name} does not end"
        if self._failures:
            raise self._failures[0]
        return self.notes


@contextmanager
def load(**options: Any) -> Iterator[Load]:
    """Give a load and stop it, whatever happens."""
    made = Load(**options)
    try:
        yield made
    finally:
        made.finish()


def mixed_calls(seed: object, *, urls: list[str], others: list[tuple[str, str]]) -> Callable[[], Call]:
    """Return a seeded source of calls: mostly entries, some passed on, some that make the paglet move or sleep.

    :param urls: hosts to move to.
    :param others: ids and hosts of the paglets that entries are passed on to.
    """
    chance = random.Random(str(seed))

    def next_call() -> Call:
        dice = chance.random()
        if dice < 0.4:
            return Call()
        if dice < 0.7:
            return Call(oneway=True)
        if dice < 0.85 and others:
            to, at = chance.choice(others)
            return Call("relay", {"to": to, "at": at}, oneway=chance.random() < 0.5)
        if dice < 0.95 and urls:
            return Call("hop", {"to": chance.choice(urls)}, oneway=chance.random() < 0.5)
        return Call("rest", oneway=chance.random() < 0.5)

    return next_call
