"""What requests for artifacts and blobs look like and what their answers mean; no input or output happens here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from paglets.artifacts import ArtifactRef
from paglets.artifacts.catalogue import checked_artifact_id
from paglets.core.errors import RemoteHostError, SerializationError, TransferError
from paglets.core.text import has_lone_surrogates
from paglets.remote.requests import field_of

__all__ = [
    "SHA256_HEADER",
    "artifact_from_reply",
    "artifact_url",
    "artifacts_from_reply",
    "blob_url",
    "check_upload",
    "encodings_of",
    "list_url",
    "locate_artifact",
    "missing_from_reply",
    "offset_of",
    "upload_part_url",
    "upload_url",
]

SHA256_HEADER: Final = "x-paglets-artifact-sha256"


def upload_url(
    host_url: str,
    *,
    owner_agent_id: str,
    name: str,
    compression: str,
    expires_at: float,
    size: int,
    expected_sha256: str | None,
    upload: str = "",
    offset: int = 0,
) -> str:
    """Return the URL to which an artifact is posted.

    :param upload: key under which the host keeps what arrives, should the connection break.
    :param offset: how much of it the host has already.
    :raises TransferError: a text holds half of a surrogate pair, as the name of a file may, which no URL can carry.
    """
    for what, text in (("name", name), ("owner", owner_agent_id), ("compression", compression)):
        if has_lone_surrogates(text):
            raise TransferError(f"the {what} {text!r} of an artifact is no text in UTF-8; give another {what}")
    query = {
        "owner_agent_id": owner_agent_id,
        "name": name,
        "compression": compression,
        "expires_at": str(expires_at),
        "size": str(size),
    }
    if expected_sha256:
        query["sha256"] = expected_sha256
    if upload:
        query["upload"] = upload
        query["offset"] = str(offset)
    return f"{host_url.rstrip('/')}/artifacts?{urlencode(query)}"


def upload_part_url(host_url: str, key: str) -> str:
    """Return the URL of what has arrived of an upload."""
    return f"{host_url.rstrip('/')}/artifacts/uploads/{quote(key, safe='')}"


def offset_of(reply: Any, url: str) -> int:
    """Return how much of something has arrived, as an answer says; raise `RemoteHostError` if it does not."""
    offset = field_of(reply, "offset", url)
    if type(offset) is not int or offset < 0:
        raise RemoteHostError(f"{url} answered with an offset that is no number of bytes")
    return offset


def encodings_of(health: Any) -> list[str]:
    """Return the content codings that a host takes, as its health says; none of a host that says nothing of them."""
    found = health.get("encodings") if isinstance(health, Mapping) else None
    return [coding for coding in found if isinstance(coding, str)] if isinstance(found, list) else []


def list_url(host_url: str, owner_agent_id: str | None) -> str:
    """Return the URL that lists the artifacts of a host, or of one owner on it."""
    query = "" if owner_agent_id is None else "?" + urlencode({"owner_agent_id": owner_agent_id})
    return f"{host_url.rstrip('/')}/artifacts{query}"


def artifact_url(host_url: str, artifact_id: str, part: str = "") -> str:
    """Return the URL of an artifact's content, or of a part such as `metadata`.

    :raises TransferError: the id is malformed; it would make another route of the URL.
    """
    base = f"{host_url.rstrip('/')}/artifacts/{checked_artifact_id(artifact_id)}"
    return f"{base}/{part}" if part else base


def locate_artifact(artifact: ArtifactRef | str, artifact_id: str | None, caller: str) -> ArtifactRef:
    """Return the reference that the first two arguments of an artifact method stand for.

    :raises ValueError: the first one is a URL and there is no id; the text names the calling method.
    """
    if isinstance(artifact, ArtifactRef):
        return artifact
    if not artifact_id:
        raise ValueError(f"{caller} needs artifact_id when it is called with a host URL")
    return ArtifactRef(host_url=artifact, artifact_id=artifact_id)


def artifact_from_reply(reply: Any, host_url: str, url: str) -> ArtifactRef:
    """Return the artifact that an answer describes; raise `RemoteHostError` if it describes none."""
    return _artifact(field_of(reply, "artifact", url), host_url, url)


def artifacts_from_reply(reply: Any, host_url: str, url: str) -> list[ArtifactRef]:
    """Return the artifacts that an answer lists; raise `RemoteHostError` if it lists none."""
    items = field_of(reply, "artifacts", url)
    if not isinstance(items, list):
        raise RemoteHostError(f"{url} answered with artifacts that are no list")
    return [_artifact(item, host_url, url) for item in items]


def _artifact(wire: Any, host_url: str, url: str) -> ArtifactRef:
    if not isinstance(wire, dict):
        raise RemoteHostError(f"{url} answered with an artifact that is no object")
    try:
        return ArtifactRef.from_wire({**wire, "host_url": wire.get("host_url") or host_url.rstrip("/")})
    except (KeyError, SerializationError) as exc:
        raise RemoteHostError(f"{url} answered with an unreadable artifact: {exc}") from exc


def check_upload(ref: ArtifactRef, *, size: int, sha256: str) -> None:
    """Raise `TransferError` unless the host stored exactly the bytes that were sent."""
    if ref.size_bytes != size:
        raise TransferError(f"{ref.host_url} stored {ref.size_bytes} of the {size} bytes of {ref.name!r}")
    if ref.sha256.lower() != sha256.lower():
        raise TransferError(f"{ref.host_url} stored {ref.name!r} with checksum {ref.sha256!r} instead of {sha256!r}")


# --- blobs -----------------------------------------------------------------------------------------------------------


def blob_url(host_url: str, sha256: str, *, holder: str, size: int, offset: int) -> str:
    """Return the URL to which a blob is put."""
    query = urlencode({"holder": holder, "size": size, "offset": offset})
    return f"{host_url.rstrip('/')}/blobs/{quote(sha256, safe='')}?{query}"


def missing_from_reply(reply: Any, url: str) -> list[tuple[str, int]]:
    """Return which blobs a host lacks and what it has of each; raise `RemoteHostError` if the answer does not say."""
    items = field_of(reply, "missing", url)
    if not isinstance(items, list):
        raise RemoteHostError(f"{url} answered with blobs that are no list")
    missing = []
    for item in items:
        match item:
            case [str(sha256), int(offset)] if offset >= 0:
                missing.append((sha256, offset))
            case _:
                raise RemoteHostError(f"{url} answered with a blob that is not its checksum and an offset")
    return missing
