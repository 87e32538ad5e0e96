"""Symbolic links of a tree: each must end inside it, also by way of other links."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from paglets.core.errors import TransferError

MAX_TARGET_BYTES: Final = 4095
#: As many links as Linux follows on one path.
_MAX_FOLLOWED: Final = 40
#: Steps of all links of a tree together; a tree made to take long is refused.
_MAX_STEPS: Final = 2_000_000


def check_links(links: Mapping[bytes, bytes]) -> None:
    """Make sure that no link of a tree leads out of it.

    A link to something that is not there is allowed: it leads nowhere, inside.

    :param links: what each link says, by its path in the tree.
    :raises TransferError: one is absolute, leads out of the tree or in a circle, or has no such target as links have.
    """
    left = _MAX_STEPS
    for path, target in links.items():
        if not target or len(target) > MAX_TARGET_BYTES or b"\0" in target:
            raise TransferError(f"symbolic link {_text(path)!r} has no target that a link can have")
        left = _resolve(path, links, left)


def _resolve(path: bytes, links: Mapping[bytes, bytes], left: int) -> int:
    """Follow one link to its end and return how many of the steps are left."""
    here = _directories_above(path)
    ahead = _components(path, links[path])
    followed = 1
    while ahead:
        left -= 1
        if left < 0:
            raise TransferError("the symbolic links of the directory are too entangled to be followed")
        component = ahead.pop()
        if component in (b"", b"."):
            continue
        if component == b"..":
            if not here:
                raise TransferError(f"symbolic link {_text(path)!r} leads out of the directory")
            here.pop()
            continue
        reached = here[-1] + b"/" + component if here else component
        if len(reached) > MAX_TARGET_BYTES:
            raise TransferError(f"symbolic link {_text(path)!r} leads to a path longer than any can be")
        if reached not in links:
            here.append(reached)
            continue
        followed += 1
        if followed > _MAX_FOLLOWED:
            raise TransferError(f"symbolic link {_text(path)!r} leads through too many others, or in a circle")
        ahead += _components(path, links[reached])
    return left


def _components(path: bytes, target: bytes) -> list[bytes]:
    """Return the components of a target, the last one first."""
    if target.startswith(b"/") or (os.name == "nt" and (b"\\" in target or b":" in target)):
        raise TransferError(f"symbolic link {_text(path)!r} is absolute; it would lead out of the directory")
    return target.split(b"/")[::-1]


def _directories_above(path: bytes) -> list[bytes]:
    parts = path.split(b"/")[:-1]
    return [b"/".join(parts[: count + 1]) for count in range(len(parts))]


def _text(path: bytes) -> str:
    return path.decode(errors="replace")
