"""The options of a host, checked and in one form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from paglets.core.errors import HostError
from paglets.persistence.directory import safe_host_name
from paglets.remote.exchanges import split_url
from paglets.remote.idle import Origin
from paglets.remote.lan import lan_address
from paglets.remote.shortcut import Shortcut

DEFAULT_PERSISTENCE_ROOT = Path.home() / ".paglets" / "hosts"
AUTO = "auto"
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
_MAX_NAME = 200


def checked_name(name: str) -> str:
    """Return a host's name.

    :raises ValueError: it is empty, too long, or holds control characters.
    """
    if not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
        raise ValueError(f"a host needs a printable name of 1 to {_MAX_NAME} characters, not {name!r}")
    return name


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a host listens, and under which address others reach it."""

    specs: tuple[str, ...]
    """What was asked for, ``auto`` included."""
    hosts: tuple[str, ...]
    """The addresses to listen on."""
    lan: str = ""
    """The address of this machine in its network, where what was asked for depends on it; else empty."""

    @classmethod
    def of(cls, host: str | Sequence[str]) -> Binding:
        """Resolve what was asked for.

        :raises ValueError: nothing usable is left.
        """
        specs = [host] if isinstance(host, str) else list(host)
        cleaned = tuple(dict.fromkeys(spec.strip() for spec in specs if spec.strip()))
        if isinstance(host, str) and not cleaned:
            cleaned = ("0.0.0.0",)  # noqa: S104 - what an empty bind host means everywhere
        if not cleaned:
            raise ValueError("a host needs an address to listen on")
        return cls._resolved(cleaned)

    @classmethod
    def _resolved(cls, specs: tuple[str, ...]) -> Binding:
        depends = specs[0] in _WILDCARDS or any(spec.lower() == AUTO for spec in specs)
        lan = lan_address() if depends else ""
        return cls(specs, tuple(dict.fromkeys(lan if spec.lower() == AUTO else spec for spec in specs)), lan)

    @property
    def follows(self) -> bool:
        """Whether what was asked for depends on the address of this machine in its network, which may change."""
        return bool(self.lan)

    def now(self) -> Binding:
        """Return what was asked for, resolved again; that may take as long as a name server."""
        return self._resolved(self.specs) if self.follows else self

    def followed(self) -> Binding | None:
        """Return what a running host is to listen on now, None where it stays as it is.

        A machine that has lost its network has no address but the loopback one, where nobody would find the host: that
        is waited out.
        """
        found = self.now()
        if found.lan == self.lan or (is_loopback(found.lan) and not is_loopback(self.lan)):
            return None
        return found

    @property
    def public_host(self) -> str:
        """The address for others."""
        first = self.hosts[0]
        return self.lan if first in _WILDCARDS else first

    @property
    def loopback_only(self) -> bool:
        """Whether only this machine can reach the host."""
        return not self.beyond

    @property
    def beyond(self) -> tuple[str, ...]:
        """The addresses that other machines can reach."""
        return tuple(host for host in self.hosts if not is_loopback(host))


def is_loopback(host: str) -> bool:
    """Tell whether an address is this machine's alone."""
    return host.lower() == "localhost" or host.startswith("127.") or host == "::1"


def base_url(host: str, port: int, *, tls: bool = False) -> str:
    """Return the base URL of an address."""
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def own_shortcut(public_url: str | None, bind_host: str, port: int) -> Shortcut | None:
    """Return how a host reaches itself and what is connected to it without leaving its machine.

    :return: None for a host whose URL is that of its own socket.
    """
    if public_url is None:
        return None
    origin, _, path = split_url(public_url)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind_host, bind_host)  # noqa: S104 - compared
    return Shortcut(origin, path.rstrip("/"), Origin("http", host, port))


def checked_public_url(url: str | None, option: str = "public_url") -> str | None:
    """Return a public URL without its trailing slash.

    :param option: what to call it.
    :raises ValueError: it is no http or https URL.
    """
    if url is None:
        return None
    cleaned = url.strip().rstrip("/")
    parts = urlsplit(cleaned)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{option} must be an http or https URL, not {url!r}")
    return cleaned


def cleaned_tags(tags: Sequence[str] | None) -> tuple[str, ...]:
    """Return tags stripped, case-folded, sorted, each once."""
    return tuple(sorted({tag.strip().casefold() for tag in tags or () if tag.strip()}))


def cleaned_properties(properties: dict[str, str] | None) -> dict[str, str]:
    """Return properties with stripped keys and text values; empty keys are dropped."""
    return {str(key).strip(): str(value) for key, value in (properties or {}).items() if str(key).strip()}


def at_least(least: float, number: float, option: str) -> float:
    """Return a number, or `least` where it is below that.

    :param option: what to call it.
    :raises ValueError: it is infinite, or not a number.
    """
    if not float("-inf") < number < float("inf"):
        raise ValueError(f"{option} must be a finite number, not {number!r}")
    return max(least, number)


def host_directory(name: str, persistence_dir: str | Path | None) -> Path:
    """Return the absolute directory of a host."""
    if persistence_dir is None:
        return DEFAULT_PERSISTENCE_ROOT / safe_host_name(name)
    return Path(persistence_dir).expanduser().absolute()


def key_files(keys: str | Path | Sequence[str | Path] | None) -> tuple[Path, ...]:
    """Return the key files of a host as absolute paths."""
    listed = [] if keys is None else [keys] if isinstance(keys, (str, Path)) else list(keys)
    return tuple(Path(path).expanduser().absolute() for path in listed)


def not_available(option: str) -> HostError:
    """Return the error for an option that this version does not have."""
    return HostError(f"{option} is not available in this version of paglets")
