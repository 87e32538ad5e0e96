"""What a host says about itself on the local network, and who believes it.

An announcement is four short texts in a DNS-SD record (RFC 6763): name, URL and code version of the host, and a
signature where the host has a key. Whoever has a key contacts only hosts whose announcement is signed with it, because
the first request to a host shows it the key: anybody on the network may announce anything. The signature is an HMAC
(RFC 2104) with SHA-256 over all that is announced; it gives nothing of the key away, whose secret part is 256 random
bits when `paglets keys new` made it. A repeated announcement can only name the URL that its host once had.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

from paglets.protocol.membership import normalize_host_url
from paglets.remote.lan import is_loopback

SERVICE_TYPE: Final = "_paglets._tcp.local."
MOST_TEXT_BYTES: Final = 255
"""Bytes of one text of a record, with its key (RFC 6763, section 6.1)."""

_CONTEXT: Final = b"paglets discovery 1"
_NAME, _URL, _VERSION, _SIGNATURE = "name", "url", "version", "sig"


@dataclass(frozen=True, slots=True)
class Announcement:
    """One host of the local network."""

    name: str
    url: str
    code_version: str
    signed: bool = field(default=False, compare=False)
    """Whether whoever announced it has a key, so that one is wanted there."""

    def texts(self, key: str | None) -> dict[str, str]:
        """Return the texts of the record, signed where there is a key.

        :raises ValueError: one is too long for a record.
        """
        texts = {_NAME: self.name, _URL: self.url, _VERSION: self.code_version}
        if key is not None:
            texts[_SIGNATURE] = self._signature(key)
        for name, text in texts.items():
            if len(f"{name}={text}".encode()) > MOST_TEXT_BYTES:
                raise ValueError(f"the {name} {text[:40]!r}... is too long to be announced")
        return texts

    @classmethod
    def believed(cls, texts: Mapping[bytes, bytes | None], key: str | None) -> Self | None:
        """Return what a record announces, None if it is malformed or, for who has a key, not signed with it."""
        try:
            name, url, version = ((texts[each.encode()] or b"").decode() for each in (_NAME, _URL, _VERSION))
            found = cls(name, normalize_host_url(url), version, _SIGNATURE.encode() in texts)
            parts = urlsplit(found.url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            if not name or not usable or parts.username is not None:
                return None
        except (KeyError, ValueError):
            return None
        if key is not None:
            shown = texts.get(_SIGNATURE.encode()) or b""
            if not hmac.compare_digest(shown, found._signature(key).encode()):
                return None
        return found

    def concerns(self, url: str) -> bool:
        """Tell whether a host with this URL could use the announced one: both on this machine alone, or neither.

        A host that listens on the loopback address only would be known to others by an address of no use to them.
        """
        return is_loopback(self.url) is is_loopback(url)

    def _signature(self, key: str) -> str:
        # Lengths first, so that no two announcements have the same bytes.
        parts = [part.encode() for part in (self.name, self.url, self.code_version)]
        told = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.new(key.encode(), _CONTEXT + told, hashlib.sha256).hexdigest()
