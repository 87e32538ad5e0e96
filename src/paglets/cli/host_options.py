"""The options of a host as text from a command line, checked and turned into what a `Host` takes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from paglets.cli.options import size_or_none
from paglets.config.env import DEFAULT_API_KEY_ENV, resolve_api_key

if TYPE_CHECKING:
    from paglets.security.tls import TlsOptions

DEFAULT_PORT: Final = 8765


class LogLevel(StrEnum):
    """How much a host says about what happens on it."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """What somebody asked for on the command line."""

    name: str
    host: str = "127.0.0.1"
    bind_public: Sequence[str] = ()
    """Addresses to listen on instead of `host`."""
    port: int = DEFAULT_PORT
    insecure: bool = False
    """Listen beyond this machine without a key."""
    keys: Sequence[Path] = ()
    """Key files; none for those in their usual places."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    tls_ca: Path | None = None
    peers: Sequence[str] = ()
    mesh: bool = True
    mesh_multicast: bool = True
    mesh_lan_discovery: bool = True
    mesh_version: str | None = None
    public_url: str | None = None
    connect_to: str | None = None
    """Public URL of a hub."""
    relay_offline_after: float = 30.0
    relay_delivery_timeout: float | None = None
    relay_queue_limit: int = 1024
    api_key_env: str | None = None
    tags: Sequence[str] = ()
    properties: Sequence[str] = ()
    """Each `KEY=VALUE`."""
    allow: Sequence[str] = ()
    preload: Sequence[str] = ()
    persistence_dir: Path | None = None
    checkpoint_interval: float = 1.0
    persistent_storage_quota: str = "10M"
    artifact_store: str | None = None
    artifact_max_size: str = "1G"
    artifact_storage_quota: str = "10G"
    artifact_spool_ttl: float = 86400.0
    launch_config: Path | None = None
    sync_launch_config: bool = True
    yes: bool = False
    json: bool = False
    log_level: LogLevel = LogLevel.INFO
    stop_on_eof: bool = False
    unavailable: Sequence[str] = field(default=())
    """Options that were given although this version has nothing behind them."""

    def check(self) -> dict[str, Any]:
        """Return the arguments for `Host`.

        :raises ValueError: an option makes no sense; the text names it and says what to do.
        """
        # Imported here: a command line that is wrong, or asks for help, needs no runtime.
        from paglets.artifacts.backends import artifact_place
        from paglets.runtime.options import Binding
        from paglets.serialization.names import ClassPolicy

        if self.unavailable:
            raise ValueError(f"{self.unavailable[0]} is not available in this version")
        if self.port not in range(65536):
            raise ValueError(f"--port must be 0 to 65535, not {self.port}")
        if not 0 < self.checkpoint_interval < math.inf:
            raise ValueError(
                f"--checkpoint-interval must be a number of seconds above 0, not {self.checkpoint_interval:g}"
            )
        directory = checked_directory(self.persistence_dir)
        addresses = checked_addresses(self.bind_public) or self.host
        binding = Binding.of(addresses)
        key = resolve_api_key(self.api_key_env)
        sources = f"set {DEFAULT_API_KEY_ENV}, or name a variable that holds it with --api-key-env"
        files = list(self.keys) or usual_key_files(self.name, directory)
        # With a file only where it has a key by now: what a host may do without one must not hang on a later moment.
        locked = key is not None or self.tls_client_ca is not None or has_keys(files)
        if self.public_url is not None and not locked:
            raise ValueError(f"--public-url needs an API key: {sources}")
        if self.connect_to is not None and not locked:
            raise ValueError(f"--connect-to needs an API key: {sources}")
        if self.connect_to is not None and self.public_url is not None:
            raise ValueError("a host is a hub or connected to one: give --public-url or --connect-to")
        for option, seconds in (
            ("--relay-offline-after", self.relay_offline_after),
            ("--relay-delivery-timeout", self.relay_delivery_timeout),
            ("--artifact-spool-ttl", self.artifact_spool_ttl),
        ):
            if seconds is not None and not 0 < seconds < math.inf:
                raise ValueError(f"{option} must be a number of seconds above 0, not {seconds:g}")
        if self.relay_queue_limit < 1:
            raise ValueError(f"--relay-queue-limit must be at least 1, not {self.relay_queue_limit}")
        # A connected host listens nowhere, and has a key by now.
        if not locked and not binding.loopback_only and not self.insecure:
            raise ValueError(
                f"refusing to listen on {', '.join(binding.hosts)} without an API key, since everybody who reaches it "
                f"could run code here: make one with `paglets keys new NAME --role admin`, or {sources} "
                "(--insecure listens all the same)"
            )
        ClassPolicy(tuple(self.allow))
        if self.artifact_store is not None:
            try:
                artifact_place(self.artifact_store)
            except ValueError as exc:
                raise ValueError(f"--artifact-store: {exc}") from None
        return {
            "name": self.name,
            "host": addresses,
            "port": self.port,
            "api_key": key,
            "public_url": self.public_url,
            "connect_to": self.connect_to,
            "relay_offline_after": self.relay_offline_after,
            "relay_delivery_timeout": self.relay_delivery_timeout,
            "relay_queue_limit": self.relay_queue_limit,
            "mesh": self.mesh,
            "peers": list(self.peers),
            "mesh_multicast": self.mesh_multicast,
            "mesh_lan_discovery": self.mesh_lan_discovery,
            "mesh_version": self.mesh_version,
            "persistence_dir": directory,
            "checkpoint_interval": self.checkpoint_interval,
            "persistent_storage_quota_bytes": size_or_none(self.persistent_storage_quota, "--persistent-storage-quota"),
            "artifact_store": self.artifact_store,
            "artifact_max_bytes": size_or_none(self.artifact_max_size, "--artifact-max-size"),
            "artifact_storage_quota_bytes": size_or_none(self.artifact_storage_quota, "--artifact-storage-quota"),
            "artifact_spool_ttl_seconds": self.artifact_spool_ttl,
            "tags": list(self.tags),
            "properties": properties_of(self.properties),
            "allow": list(self.allow) or None,
            "preload": list(self.preload),
            "keys": files,
            "tls": self._tls(),
            "insecure": self.insecure,
        }

    def _tls(self) -> TlsOptions | None:
        from paglets.security.tls import TlsOptions

        if self.tls_cert is not None and self.tls_key is not None:
            return TlsOptions(self.tls_cert, self.tls_key, self.tls_client_ca, self.tls_ca)
        if self.tls_cert is None and self.tls_key is None and self.tls_client_ca is None and self.tls_ca is None:
            return None
        raise ValueError("TLS needs both --tls-cert and --tls-key; make them with `paglets keys host NAME`")


def checked_addresses(addresses: Sequence[str]) -> list[str]:
    """Return the values of `--bind-public`.

    :raises ValueError: one is another option: the value was left out.
    """
    for address in addresses:
        if address.startswith("-"):
            raise ValueError(f"--bind-public needs an address, or auto, before {address}")
    return list(addresses)


def checked_directory(directory: Path | None) -> Path | None:
    """Return the value of `--persistence-dir`.

    :raises ValueError: a file is in the way, or there can be no such directory.
    """
    if directory is not None:
        wanted = directory.expanduser().absolute()
        try:
            wanted.lstat()
        except (FileNotFoundError, NotADirectoryError):
            pass  # it will be made, or the file is found below
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
            raise ValueError(f"--persistence-dir cannot be {wanted}: {reason}") from None
        there = next((each for each in (wanted, *wanted.parents) if os.path.lexists(each)), None)
        if there is not None and not there.is_dir():
            raise ValueError(f"--persistence-dir must be a directory, and {there} is none")
    return directory


def usual_key_files(name: str, persistence_dir: Path | None) -> list[Path]:
    """Return where the keys of a host are looked for."""
    from paglets.runtime.options import host_directory
    from paglets.security.key_file import DEFAULT_KEY_FILE, KEY_FILE_NAME

    return [DEFAULT_KEY_FILE, host_directory(name, persistence_dir) / KEY_FILE_NAME]


def has_keys(files: Sequence[Path]) -> bool:
    """Return whether there is a key in one of these files.

    :raises ValueError: one cannot be used.
    """
    from paglets.core.errors import HostError
    from paglets.security.key_file import load_key_file

    try:
        return any(load_key_file(path.expanduser()).keys for path in files)
    except HostError as exc:
        raise ValueError(str(exc)) from exc


def properties_of(entries: Sequence[str]) -> dict[str, str]:
    """Return `KEY=VALUE` entries as a dictionary; of several with one key the last counts.

    :raises ValueError: an entry has no `=` or no key.
    """
    properties: dict[str, str] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--property must be KEY=VALUE, not {entry!r}")
        properties[key.strip()] = value
    return properties
