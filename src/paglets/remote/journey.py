"""Follow a paglet's journey from host to host, and put the pieces together.

Every host keeps what became of a paglet while it was there, and names the hosts before and after it. Asked one after
the other, each once, they give the whole way. A host that does not answer leaves a gap; what lies behind it is found
by way of the paglet's home, which hears of every move, as long as that answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from paglets.core.errors import InvalidAgentError, PagletError, RemoteHostError, SerializationError
from paglets.core.wire_fields import WireFields
from paglets.protocol.membership import normalize_host_url
from paglets.remote.client import HostClient

__all__ = ["MAX_HOSTS", "Gap", "Journey", "Stage", "follow_journey"]

MAX_HOSTS: Final = 100
"""Hosts that are asked about one paglet."""
_BEGINNINGS: Final = ("created", "cloned", "arrived")
_ENDS: Final = ("departed", "ended")


@dataclass(frozen=True, slots=True)
class Stage:
    """One thing that happened to a paglet on its way."""

    at: float
    """Unix seconds, by the clock of the host."""
    event: str
    epoch: int
    """It grows with every move, whatever the clocks say."""
    host: str
    host_url: str
    peer: str = ""
    """URL of the host that it came from or went to."""
    peer_name: str = ""
    cause: str = ""
    size_bytes: int = 0
    """Of state and files, where known."""
    seconds: float = 0.0
    """How long it took, where known."""
    transfer_id: str = ""
    class_name: str = ""

    @classmethod
    def from_wire(cls, payload: dict[str, Any]) -> Stage:
        """Restore an entry of a host's ledger.

        :raises SerializationError: time, event, epoch or host is missing, or a field has the wrong type.
        """
        fields = WireFields(payload, "journey entry")
        return cls(
            at=fields.number_or("at", 0.0),
            event=fields.text("event"),
            epoch=fields.integer("epoch"),
            host=fields.text("host"),
            host_url=fields.text("host_url"),
            peer=fields.text_or("peer", ""),
            peer_name=fields.text_or("peer_name", ""),
            cause=fields.text_or("cause", ""),
            size_bytes=fields.integer_or("size_bytes", 0),
            seconds=fields.number_or("seconds", 0.0),
            transfer_id=fields.text_or("transfer_id", ""),
            class_name=fields.text_or("class_name", ""),
        )


@dataclass(frozen=True, slots=True)
class Gap:
    """A host on the way that could not be asked."""

    host_url: str
    name: str
    """Empty where nobody named it."""
    error: str


@dataclass(slots=True)
class Journey:
    """What is known of a paglet's way."""

    agent_id: str
    stages: list[Stage] = field(default_factory=list)
    """In order of epoch and time."""
    gaps: list[Gap] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """URLs of the hosts that answered."""
    complete: bool = True
    """Whether every host that was named was asked and answered."""

    @property
    def host_url(self) -> str | None:
        """URL of the host on which the paglet is, as far as is known: None when it ended or nobody knows."""
        last = self.stages[-1] if self.stages else None
        if last is None or last.event == "ended":
            return None
        return (last.peer or None) if last.event == "departed" else last.host_url

    def to_wire(self) -> dict[str, Any]:
        """Return the journey as plain values."""
        return asdict(self) | {"host_url": self.host_url}


def follow_journey(
    client: HostClient,
    host_url: str,
    agent_id: str,
    *,
    max_hosts: int = MAX_HOSTS,
    timeout: float | None = None,
) -> Journey:
    """Ask the hosts along a paglet's way, in both directions, and return the way.

    :param host_url: where to begin: any host on which the paglet is or was, or its home.
    :param max_hosts: hosts that are asked at most; the journey is not `complete` when there are more.
    :param timeout: seconds that one host may take, the client's by default.
    :raises InvalidAgentError: no host that answered ever had the paglet.
    :raises PagletError: the first host could not be asked.
    """
    journey = Journey(agent_id)
    begin = normalize_host_url(host_url)
    waiting: deque[tuple[str, str]] = deque([(begin, "")])
    seen = {begin}
    while waiting:
        url, name = waiting.popleft()
        if len(journey.asked) + len(journey.gaps) >= max_hosts:
            journey.complete = False
            break
        try:
            stages, further = _ask(client, url, agent_id, timeout)
        except PagletError as exc:
            if url == begin:
                raise
            journey.gaps.append(Gap(url, name, str(exc)))
            journey.complete = False
            continue
        journey.asked.append(url)
        journey.stages += stages
        for next_url, next_name in further:
            if next_url not in seen:
                seen.add(next_url)
                waiting.append((next_url, next_name))
    if not journey.stages:
        raise InvalidAgentError(f"{begin} knows nothing of a paglet {agent_id}")
    journey.stages = _merged(journey.stages)
    return journey


def _ask(
    client: HostClient, url: str, agent_id: str, timeout: float | None
) -> tuple[list[Stage], list[tuple[str, str]]]:
    """Return a host's entries, and the hosts that it names."""
    piece = client.journey(url, agent_id, timeout=timeout)
    try:
        fields = WireFields(piece, "journey")
        stages = [Stage.from_wire(entry) for entry in fields.items_or_empty("entries")]
        # The host of an original knows nothing of its copy.
        further = [(stage.peer, stage.peer_name) for stage in stages if stage.peer and stage.event != "cloned"]
        for link in ("previous", "next"):
            if fields.get(link) is not None:
                named = WireFields(fields.get(link), link)
                further.append((named.text("host_url"), named.text_or("name", "")))
        further += [(known, "") for known in _known_places(client, url, agent_id, timeout)]
        return stages, [(normalize_host_url(peer), name) for peer, name in further]
    except (SerializationError, ValueError) as exc:
        raise RemoteHostError(f"{url} answered with something unreadable: {exc}") from exc


def _known_places(client: HostClient, url: str, agent_id: str, timeout: float | None) -> Iterator[str]:
    """Yield where a host believes the paglet to be, and its home, which lead past hosts that do not answer."""
    try:
        place = client.locate(url, agent_id, timeout=timeout)
    except PagletError:
        return  # its piece is worth having without that
    for key in ("host_url", "home"):
        if isinstance(place.get(key), str) and place[key]:
            yield place[key]


def _merged(stages: list[Stage]) -> list[Stage]:
    """Return entries in order: by epoch, in it the beginning of the stay first and its end last, else by time.

    The clocks of two hosts need not agree, but a stay has one host, and so one clock, except for its two ends.
    """

    def position(stage: Stage) -> tuple[int, int, float]:
        rank = 0 if stage.event in _BEGINNINGS else 2 if stage.event in _ENDS else 1
        return stage.epoch, rank, stage.at

    unique = {(stage.host_url, stage.epoch, stage.event, stage.at): stage for stage in stages}
    return sorted(unique.values(), key=position)
