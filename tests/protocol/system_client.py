"""Programs outside that talk to paglets: one message after the other to each, repeated until it is answered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from paglets.protocol.delivery import Forward, Forwarding

from .system_disk import Msg
from .system_post import Answer, Courier

if TYPE_CHECKING:
    from .system_world import World

#: Seconds after which a client gives a message to a paglet that is not durable up: before its host forgets that it lost
#: a window, network delays included.
PATIENCE = 25.0


@dataclass(slots=True)
class Stream:
    """What one client says to one paglet."""

    home: str
    url: str
    durable: bool
    seq: int = 0
    message: Msg | None = None
    attempt: int = 1
    waiting: bool = False
    """Whether the message has to be sent again."""


class Client(Courier):
    """Send to paglets and remember where they answered from."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.streams: dict[str, Stream] = {}

    def meet(self, agent: str, home: str, url: str, *, durable: bool) -> None:
        self.streams.setdefault(agent, Stream(home, url, durable))

    def free(self) -> list[str]:
        return [agent for agent, stream in self.streams.items() if stream.message is None]

    def send(self, agent: str, kind: str, *, oneway: bool, post_to: tuple[str, str] = ("", "")) -> Msg:
        stream = self.streams[agent]
        stream.seq += 1
        born = self.world.now
        message = Msg(self.world.fresh("m"), kind, self.name, agent, stream.home, stream.seq, oneway, post_to, born)
        stream.message, stream.attempt = message, 1
        self._go(stream, message)
        return message

    def again(self) -> bool:
        """Send something again that has no answer yet; tell whether there was any."""
        for stream in self.streams.values():
            if stream.waiting and stream.message is not None:
                stream.waiting = False
                if not stream.durable and self.world.now - stream.message.born > PATIENCE:
                    stream.message = None
                else:
                    self._go(stream, stream.message)
                return True
        return False

    def _go(self, stream: Stream, message: Msg) -> None:
        self.carry(Forward(stream.url, -1, stream.home), message, stream.attempt, 0, partial(self._heard, stream))

    def _heard(self, stream: Stream, answer: Answer, state: Forwarding) -> None:
        message = stream.message
        assert message is not None
        if answer.location:
            stream.url = answer.location
        match answer.kind:
            case "ok" | "accepted":
                self.world.acknowledged(message, answer)
                stream.message = None
            case "failed" | "refused":
                stream.message = None
            case "unknown" | "ended":
                self.world.told_gone(message.receiver, self.name)
                stream.message = None
                self.streams.pop(message.receiver, None)
            case _:
                stream.attempt = state.attempt + (1 if answer.kind == "uncertain" else 0)
                stream.url = stream.home
                stream.waiting = True
