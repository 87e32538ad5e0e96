"""What the answers of hosts say about where paglets are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from paglets.remote.routes import RouteTable

__all__ = ["Whereabouts", "learn_creation", "learn_move", "learn_reply", "place_in"]

_MAX_URL_LENGTH: Final = 4096


def place_in(answer: Mapping[str, Any], name: str) -> str:
    """Return the base URL in a field of an answer, empty where there is none."""
    url = answer.get(name)
    if not isinstance(url, str) or not url.startswith(("http://", "https://")) or len(url) > _MAX_URL_LENGTH:
        return ""
    return url.rstrip("/")


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What a host knows about the place of a paglet."""

    here: bool = False
    """Whether that host has it."""
    ended: bool = False
    url: str = ""
    """Base URL of the host where it is; empty if not known."""
    home: str = ""
    epoch: int = 0
    """Of its stay there: among several answers the highest is the newest."""

    @classmethod
    def of(cls, answer: Any) -> Whereabouts:
        """Read an answer, leaving out what is not what it should be."""
        if not isinstance(answer, Mapping):
            return cls()
        epoch = answer.get("epoch")
        return cls(
            answer.get("here") is True,
            answer.get("ended") is True,
            place_in(answer, "host_url"),
            place_in(answer, "home"),
            epoch if isinstance(epoch, int) else 0,
        )


def learn_reply(routes: RouteTable, agent_id: str, asked: str, place: str, answer: Mapping[str, Any]) -> None:
    """Note what the answer to a message says: `location` and `home`.

    :param asked: the host URL of the proxy.
    :param place: the host that answered.
    """
    routes.unblock(place)
    there = home = ""
    if len(answer) > 1:
        there, home = place_in(answer, "location"), place_in(answer, "home")
    routes.learn(agent_id, asked, there or place, home)


def learn_move(routes: RouteTable, agent_id: str, asked: str, place: str, answer: Mapping[str, Any]) -> None:
    """Note where the proxy in the answer to an operation is: the paglet itself, or a copy of it."""
    routes.learn(agent_id, asked, place)
    proxy = answer.get("proxy")
    if not isinstance(proxy, Mapping):
        return
    moved, there = proxy.get("agent_id"), place_in(proxy, "host_url")
    if there and moved == agent_id:
        routes.learn(agent_id, asked, there)
    elif there and isinstance(moved, str):
        routes.learn(moved, there, there)


def learn_creation(routes: RouteTable, url: str, answer: Any) -> None:
    """Note where the paglet is that a request to a URL created, if it created one."""
    if not url.endswith("/agents") or not isinstance(answer, Mapping):
        return
    proxy = answer.get("proxy")
    if isinstance(proxy, Mapping):
        created, there = proxy.get("agent_id"), place_in(proxy, "host_url")
        if there and isinstance(created, str):
            routes.learn(created, there, there)
