"""Which role a request needs: one table with every route there is. What is not in it is served to nobody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote, unquote_plus

from paglets.security.roles import Role

_OBSERVE, _MESSAGE, _OPERATE, _ADMIN = Role.OBSERVE, Role.MESSAGE, Role.OPERATE, Role.ADMIN

#: By path, with `{}` for each part that a request chooses, and method. Paths below `/relay/hosts/{}` need what they
#: need without it.
ACCESS: Final[dict[str, dict[str, Role]]] = {
    "/health": {"GET": _OBSERVE},
    "/schema": {"GET": _OBSERVE},
    "/schema/openapi.json": {"GET": _OBSERVE},
    "/schema/{}": {"GET": _OBSERVE},
    "/hosts": {"GET": _OBSERVE},
    "/events": {"GET": _OBSERVE},
    "/services": {"GET": _OBSERVE},
    "/services/resident": {"GET": _OBSERVE},
    "/dead-letters": {"GET": _OBSERVE},
    "/agents/{}": {"GET": _OBSERVE},
    # Granting is for whoever looks after the host, not for other hosts: a paglet may ask with the key of its own.
    "/agents/{}/allowance": {"GET": _OBSERVE, "POST": _ADMIN},
    "/agents/{}/journey": {"GET": _OBSERVE},
    "/agents/{}/location": {"GET": _OBSERVE},
    # What paglets hold and are told.
    "/agents/{}/state": {"GET": _MESSAGE},
    "/agents/{}/messages": {"POST": _MESSAGE},
    "/agents/{}/messages/{}/cancel": {"POST": _MESSAGE},
    "/dead-letters/{}": {"GET": _MESSAGE},
    "/services/leases": {"POST": _MESSAGE},
    "/services/leases/{}/release": {"POST": _MESSAGE},
    "/artifacts": {"GET": _OBSERVE, "POST": _MESSAGE},
    "/artifacts/{}": {"GET": _MESSAGE, "HEAD": _MESSAGE, "DELETE": _OPERATE},
    "/artifacts/{}/metadata": {"GET": _OBSERVE},
    "/artifacts/uploads/{}": {"GET": _MESSAGE, "DELETE": _MESSAGE},
    # Their lives.
    "/agents": {"GET": _OBSERVE, "POST": _OPERATE},
    "/agents/{}/dispatch": {"POST": _OPERATE},
    "/agents/{}/clone": {"POST": _OPERATE},
    "/agents/{}/retract": {"POST": _OPERATE},
    "/agents/{}/deactivate": {"POST": _OPERATE},
    "/agents/{}/activate": {"POST": _OPERATE},
    "/agents/{}/dispose": {"POST": _OPERATE},
    "/agents/{}/services": {"POST": _OPERATE},
    "/agents/{}/unadvertise-service": {"POST": _OPERATE},
    "/dead-letters/retry": {"POST": _OPERATE},
    "/dead-letters/clear": {"POST": _OPERATE},
    "/dead-letters/{}/retry": {"POST": _OPERATE},
    "/dead-letters/{}/clear": {"POST": _OPERATE},
    # What hosts say to each other.
    "/hosts/join": {"POST": _OPERATE},
    "/homes/{}": {"POST": _OPERATE},
    "/transfers/{}": {"GET": _OPERATE},
    "/transfers/{}/commit": {"POST": _OPERATE},
    "/transfers/{}/abort": {"POST": _OPERATE},
    "/transfers/{}/settled": {"POST": _OPERATE},
    "/transfers/{}/location": {"GET": _OPERATE},
    "/blobs/missing": {"POST": _OPERATE},
    "/blobs/{}": {"PUT": _OPERATE},
    # What a hub serves beside what it passes on.
    "/relay/link": {"GET": _OPERATE},
    "/relay/diagnostics": {"GET": _OBSERVE},
    "/relay/names": {"GET": _OBSERVE},
    "/relay/names/{}/release": {"POST": _ADMIN},
    # The host itself.
    "/admin/git-update": {"POST": _ADMIN},
    "/admin/drain": {"GET": _OBSERVE, "POST": _ADMIN},
    "/admin/undrain": {"POST": _ADMIN},
}
#: What a request asks for in addition when its query has this word, whatever its value.
QUERY_ACCESS: Final[dict[tuple[str, str], tuple[str, Role]]] = {("/agents", "GET"): ("include_state", _MESSAGE)}
RELAY_PATH: Final = "/relay/"
RELAYED: Final = ("relay", "hosts")
_RELAYED_PATH: Final = "/relay/hosts/"
_MOST_PARTS: Final = 16
# Longer ones are looked up each time: what is remembered has to be small, whatever is asked for.
_REMEMBERED_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request wants."""

    template: str
    """Its path in the table."""
    role: Role
    target: str = ""
    """What stands for the first part that a request chooses."""

    @property
    def privileged(self) -> bool:
        """Whether it changes more than what a paglet is told."""
        return self.role >= Role.OPERATE


class _Node:
    """One part of the paths of the table."""

    __slots__ = ("any", "methods", "named", "template")

    def __init__(self) -> None:
        self.named: dict[str, _Node] = {}
        self.any: _Node | None = None
        self.methods: dict[str, Role] = {}
        self.template = ""


def _tree(table: dict[str, dict[str, Role]]) -> _Node:
    root = _Node()
    for template, methods in table.items():
        node = root
        for part in template.split("/")[1:]:
            if part == "{}":
                node.any = node.any or _Node()
                node = node.any
            else:
                node = node.named.setdefault(part, _Node())
        node.methods, node.template = methods, template
    return root


_ROOT: Final = _tree(ACCESS)


def wanted(method: str, path: str, query: bytes = b"") -> Wanted | None:
    """Return what a request wants, None where the table has no such path or method.

    :param path: decoded, as the routes see it.
    """
    if query or len(path) > _REMEMBERED_LENGTH:
        return _looked_up(method, path, query)
    return _remembered(method, path)


@lru_cache(maxsize=1024)
def _remembered(method: str, path: str) -> Wanted | None:
    return _looked_up(method, path, b"")


def _looked_up(method: str, path: str, query: bytes) -> Wanted | None:
    parts = [part for part in path.split("/", _MOST_PARTS) if part]
    relayed = len(parts) > 3 and tuple(parts[:2]) == RELAYED
    found = next(_matches(_ROOT, parts[3:] if relayed else parts, method), None)
    if found is None:
        return None
    role, target = found.methods[method], _target(found, parts[3:] if relayed else parts)
    more = QUERY_ACCESS.get((found.template, method))
    if more is not None and query and more[0] in unquote_plus(query.decode("latin-1")):
        role = max(role, more[1])
    if relayed:
        return Wanted(f"/relay/hosts/{{}}{found.template}", role, f"{parts[2]}/{target}")
    return Wanted(found.template, role, target)


def judged_path(path: str, raw: bytes) -> str:
    """Return the path that decides what a request wants: below `/relay/hosts/` a name is one part, whatever is in it.

    :param path: decoded.
    :param raw: as it was sent.
    """
    if not path.startswith(_RELAYED_PATH):
        return path
    name, slash, rest = raw.removeprefix(_RELAYED_PATH.encode()).partition(b"/")
    return _RELAYED_PATH + name.decode("latin-1") + unquote((slash + rest).decode("latin-1"))


def _matches(node: _Node, parts: list[str], method: str) -> Iterator[_Node]:
    """Give the paths of the table that fit, those with a name in a place before those with any."""
    if not parts:
        if method in node.methods:
            yield node
        return
    for child in (node.named.get(parts[0]), node.any):
        if child is not None:
            yield from _matches(child, parts[1:], method)


def _target(found: _Node, parts: list[str]) -> str:
    pattern = found.template.split("/")[1:]
    return next((part for part, chosen in zip(parts, pattern, strict=True) if chosen == "{}"), "")


def role_of_route(method: str, template: str) -> Role | None:
    """Return the role that a route of the application needs, None where the table has none.

    :param template: as the application writes it, like `/agents/{agent_id:str}`.
    """
    parts = ["{}" if part.startswith("{") else part for part in template.strip("/").split("/")]
    return ACCESS.get("/" + "/".join(parts), {}).get(method)
