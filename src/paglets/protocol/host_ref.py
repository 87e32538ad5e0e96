"""What is known of one host, and what its address looks like."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from paglets.core.errors import SerializationError
from paglets.core.wire_fields import WireFields


def normalize_host_url(url: str) -> str:
    """Return a host URL without surrounding blanks and trailing slashes, with `http://` when it names no scheme.

    :raises ValueError: nothing is left.
    """
    text = url.strip()
    while text.endswith("/"):
        text = text.rstrip("/").rstrip()
    if not text or text.endswith(":"):
        raise ValueError(f"Not a host URL: {url!r}")
    return text if "://" in text else f"http://{text}"


@dataclass(frozen=True, slots=True)
class HostRef:
    """What is known of one host.

    `last_seen` is Unix seconds by that host's own clock; `error` says why an offline host is offline.
    """

    name: str
    url: str
    code_version: str
    online: bool
    last_seen: float
    active_count: int
    inactive_count: int
    tags: tuple[str, ...] = ()
    properties: dict[str, str] = field(default_factory=dict)
    error: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return the fields as plain values; `error` only when set."""
        wire: dict[str, Any] = {
            "name": self.name,
            "url": self.url.rstrip("/"),
            "code_version": self.code_version,
            "online": self.online,
            "last_seen": self.last_seen,
            "active_count": self.active_count,
            "inactive_count": self.inactive_count,
            "tags": list(self.tags),
            "properties": dict(self.properties),
        }
        if self.error is not None:
            wire["error"] = self.error
        return wire

    @classmethod
    def from_wire(cls, payload: dict[str, Any]) -> HostRef:
        """Restore a reference, also from the health of a host, which has `address` in place of `url`.

        :raises SerializationError: `name`, `code_version` or the URL is missing, or a field has the wrong type.
        """
        fields = WireFields(payload, "host")
        last_seen = fields.number_or("last_seen", 0.0)
        if not isfinite(last_seen):  # nothing that is said later could be newer
            raise SerializationError("host field 'last_seen' must be a finite number")
        return cls(
            name=fields.text("name"),
            url=_host_url(fields.text("address" if fields.get("url") is None else "url")),
            code_version=fields.text("code_version"),
            online=fields.flag_or("online", True),
            last_seen=last_seen,
            active_count=fields.integer_or("active_count", 0),
            inactive_count=fields.integer_or("inactive_count", 0),
            tags=normalize_tags(fields.texts_or_empty("tags")),
            properties={key: str(value) for key, value in fields.mapping_or_empty("properties").items()},
            error=fields.text_or_none("error") or None,
        )


def normalize_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Return tags stripped, case-folded, without blanks and repetitions, sorted."""
    return tuple(sorted({tag.strip().casefold() for tag in tags} - {""}))


def _host_url(text: str) -> str:
    try:
        url = normalize_host_url(text)
    except ValueError as error:
        raise SerializationError(f"host field 'url': {error}") from error
    # The URL came from a peer and will be requested: nothing but HTTP may be asked for.
    if not url.lower().startswith(("http://", "https://")):
        raise SerializationError(f"host field 'url' must be an HTTP URL, not {text!r}")
    return url
