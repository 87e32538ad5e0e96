"""Who may ask: the keys and certificates that a host accepts, which may change while it runs."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from paglets.core.errors import AuthenticationError, HostError
from paglets.security.caller import ANYBODY, CLASSIC_NAME, Caller
from paglets.security.key_file import load_key_file
from paglets.security.keys import KeyRecord, split_key
from paglets.security.roles import Role
from paglets.security.tls import caller_of_certificate, file_version

#: So often files are looked at.
WATCH_SECONDS: Final = 1.0
_REFUSAL: Final = "Authentication required"


class Keyring:
    """Recognise callers by what they show.

    :param api_key: the one key of old, with every right; None for none. Where a key file has the id of this very key,
        the file decides what it may do.
    :param files: key files; an absent one may come later.
    :param certificates: whether verified client certificates count.
    :param clock: Unix seconds.
    :raises HostError: a file cannot be used.
    """

    def __init__(
        self,
        api_key: str | None = None,
        files: Sequence[Path] = (),
        *,
        certificates: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._classic = None if not api_key else api_key.encode()
        self._files = tuple(files)
        self._certificates = certificates
        self._clock = clock
        self._versions: tuple[object, ...] = ()
        # Replaced as a whole: another thread reads the files.
        self._known: dict[str, tuple[KeyRecord, Caller]] = {}
        self._revoked: frozenset[str] = frozenset()
        self._locked = self._classic is not None or certificates
        self.reload()

    def __repr__(self) -> str:
        return f"<Keyring with {len(self._known)} keys{'' if self.locked else ', open'}>"

    @property
    def locked(self) -> bool:
        """Whether callers must show something. Once there was a key this stays so, even when all keys are removed."""
        return self._locked

    def reload(self) -> bool:
        """Read the files that have changed, and return whether any had; it blocks on the disk.

        :raises HostError: one cannot be used; the keys of before stay until it can.
        """
        versions = tuple(file_version(path) for path in self._files)
        if versions == self._versions:
            return False
        content = [load_key_file(path) for path in self._files]
        self._known = {
            record.key_id: (record, Caller(record.name, record.role, record.limits, record.hosts))
            for each in content
            for record in each.keys
        }
        self._revoked = frozenset(serial.lstrip("0") for each in content for serial in each.revoked_certificates)
        self._locked = self._locked or bool(self._known)
        self._versions = versions
        return True

    def caller(self, authorization: bytes | None, certificate: Mapping[str, Any] | None = None) -> Caller:
        """Return who shows this.

        :param authorization: the header of that name.
        :param certificate: what the client proved itself with, verified; it counts where there is no key.
        :raises AuthenticationError: nobody who is known; nothing in it says why.
        """
        if not self._locked:
            return ANYBODY
        if authorization is None and certificate and self._certificates:
            found = caller_of_certificate(certificate, self._revoked)
            if found is not None:
                return found
            raise AuthenticationError(_REFUSAL)
        scheme, _, shown = (authorization or b"").partition(b" ")
        key = shown.strip()
        if scheme.lower() == b"bearer" and key:
            parts = split_key(key)
            known = None if parts is None else self._known.get(parts[0])
            if parts is not None and known is not None:
                record, caller = known
                if record.fits(parts[1]) and record.state(self._clock()) == "valid":
                    return caller
            elif self._classic is not None and hmac.compare_digest(key, self._classic):
                return _CLASSIC
        raise AuthenticationError(_REFUSAL)


_CLASSIC: Final = Caller(CLASSIC_NAME, Role.ADMIN)


def checked_keyring(keyring: Keyring, *, beyond: Sequence[str], insecure: bool) -> bool:
    """Return whether a host is open to strangers although it can be reached from other machines.

    :param beyond: the addresses it listens on that are not this machine's alone.
    :param insecure: somebody said that this is meant.
    :raises HostError: it would be, and nobody said so.
    """
    if keyring.locked or not beyond:
        return False
    if not insecure:
        raise HostError(
            f"refusing to listen on {', '.join(beyond)} without a key, since everybody who reaches it could run code "
            "here: make one with `paglets keys new NAME --role admin`, or set PAGLETS_API_KEY (insecure listens all "
            "the same)"
        )
    return True
