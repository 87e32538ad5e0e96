"""What two hosts say when one visits the other: `protocol.gossip` in the request to join and in its answer."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from paglets.core.errors import PagletError, RemoteHostError
from paglets.protocol.gossip import Tidings
from paglets.protocol.host_ref import HostRef

GOSSIP: Final = "gossip"
AGE: Final = "age"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """A record that somebody handed over."""

    ref: HostRef
    age: float
    """Seconds since whoever tells it heard of that host."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a visited host said."""

    records: tuple[Told, ...]
    tidings: Tidings

    def about(self, url: str) -> HostRef | None:
        """Return the record of the host with this URL, or None."""
        return next((told.ref for told in self.records if told.ref.url == url), None)


def invitation(own: HostRef, tidings: Tidings) -> dict[str, Any]:
    """Return the body of a request to join."""
    return {**own.to_wire(), GOSSIP: tidings.to_wire()}


def answer(own: HostRef, lacking: Iterable[tuple[HostRef, float]], tidings: Tidings) -> dict[str, Any]:
    """Return the answer to it: this host first, then the records that the visitor may not know."""
    records = [{**ref.to_wire(), AGE: round(age, 2)} for ref, age in lacking]
    return {"hosts": [own.to_wire(), *records], GOSSIP: tidings.to_wire()}


def read_answer(url: str, reply: Any) -> Answer:
    """Return what a visited host said; records that cannot be read are left out.

    :raises RemoteHostError: it is no answer.
    :raises SerializationError: its gossip is malformed.
    """
    if not isinstance(reply, Mapping) or not isinstance(reply.get("hosts"), list):
        raise RemoteHostError(f"{url} answered without 'hosts'")
    records = []
    for entry in reply["hosts"]:
        try:
            records.append(Told(HostRef.from_wire(entry), _age_of(entry)))
        except PagletError:
            logger.debug("mesh peer %s told of an unreadable host", url, exc_info=True)
    tidings = reply.get(GOSSIP)
    return Answer(tuple(records), Tidings() if tidings is None else Tidings.from_wire(tidings))


def _age_of(entry: dict[str, Any]) -> float:
    age = entry.get(AGE, 0.0)
    if isinstance(age, bool) or not isinstance(age, (int, float)) or not math.isfinite(age):
        return 0.0
    return max(0.0, float(age))
