"""The artifact that somebody means by the first characters of its id, over all hosts."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Final

import typer

from paglets.cli.console import bytes_text
from paglets.core.errors import ConflictError, NotFoundError, TransferError

if TYPE_CHECKING:
    from paglets.artifacts import ArtifactRef
    from paglets.cli.fleet import Fleet
    from paglets.remote.admin import ServerRef

SHORTEST_PREFIX: Final = 4
_HEX = re.compile(r"[0-9a-fA-F]+", re.ASCII)
_MOST_LISTED: Final = 10

ArtifactArgument = Annotated[
    str,
    typer.Argument(metavar="ARTIFACT", help="Id of an artifact, or its first characters (4 or more) if unique."),
]


def find(fleet: Fleet, text: str) -> tuple[ServerRef, ArtifactRef]:
    """Return the artifact with this id, or the only one whose id begins so, and its host.

    :raises ConflictError: several are meant; the text lists them.
    :raises NotFoundError: none is, or it is no id.
    """
    if _HEX.fullmatch(text) is None:
        raise NotFoundError(f"no artifact {text!r}: an id has hex digits and nothing else")
    exact = fleet.ask(lambda server: _metadata(fleet, server, text))
    found = [(server, ref) for server, ref in exact.given if ref is not None]
    answers = exact
    if not found and len(text) >= SHORTEST_PREFIX:
        answers = fleet.ask(lambda server: fleet.client.list_artifacts(server.url))
        beginning = text.lower()
        found = [
            (server, ref) for server, refs in answers.given for ref in refs if ref.artifact_id.startswith(beginning)
        ]
    if len(found) == 1:
        # Whatever a host says of itself, it is reached as it was found.
        ((server, ref),) = found
        return server, replace(ref, host_url=server.url)
    if found:
        labels = [label(server, ref) for server, ref in found[:_MOST_LISTED]]
        raise ConflictError(f"{text!r} may be {', '.join(labels)}; write more of the id, or choose one with --host")
    for server, error in answers.missing:
        raise NotFoundError(f"no artifact {text!r}, but {server.name} was not asked: {error}")
    short = (
        f"; the beginning of an id must have at least {SHORTEST_PREFIX} digits" if len(text) < SHORTEST_PREFIX else ""
    )
    raise NotFoundError(f"no artifact {text!r} on {', '.join(server.name for server in fleet.servers)}{short}")


def _metadata(fleet: Fleet, server: ServerRef, artifact_id: str) -> ArtifactRef | None:
    try:
        return fleet.client.artifact_metadata(server.url, artifact_id)
    except (TransferError, NotFoundError):
        return None


def label(server: ServerRef, ref: ArtifactRef) -> str:
    """Return id, name, size and host, for people."""
    return f"{ref.artifact_id} ({ref.name or 'no name'}, {bytes_text(ref.size_bytes)}, on {server.name})"
