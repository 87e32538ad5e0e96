"""TLS: how a host proves who it is, how clients check that, and what a client's certificate says of its holder."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from paglets.core.errors import HostError
from paglets.security.caller import Caller
from paglets.security.roles import Role, role_named

#: Environment variables of clients: what to verify hosts by, and what to prove themselves with.
CA_FILE_VARIABLE: Final = "PAGLETS_CA_FILE"
CLIENT_CERT_VARIABLE: Final = "PAGLETS_CLIENT_CERT"
CLIENT_KEY_VARIABLE: Final = "PAGLETS_CLIENT_KEY"

#: Before the role in the organisational unit of a certificate.
ROLE_MARK: Final = "paglets-role:"


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Files in PEM form."""

    certificate: Path
    """The host's certificate, with those between it and the CA."""
    key: Path
    """Its private key."""
    client_ca: Path | None = None
    """The CA of clients: a certificate of it counts as a key, with the role it names. Use a CA that signs for nobody
    else."""
    ca: Path | None = None
    """What other hosts are verified by; `PAGLETS_CA_FILE`, then `client_ca`, then the system's trust store by
    default."""


class ServerTls:
    """The TLS context of a server, which takes up new certificates while it runs.

    :raises HostError: a file cannot be used.
    """

    def __init__(self, options: TlsOptions) -> None:
        self._options = options
        self._seen = self._versions()
        self._current = _server_context(options)
        self.context = _server_context(options)
        # A context that is in use is not changed: another thread reads the files. Each connection is told which is new.
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        del name, context
        connection.context = self._current

    def _versions(self) -> tuple[object, ...]:
        options = self._options
        paths = (options.certificate, options.key, *([options.client_ca] if options.client_ca is not None else []))
        return tuple(file_version(path) for path in paths)

    def reload(self) -> bool:
        """Use the present certificate for new connections, if its files have changed; return whether it is another.

        :raises HostError: what the files have cannot be used; the certificate of before stays.
        """
        versions = self._versions()
        if versions == self._seen:
            return False
        self._current = _server_context(self._options)
        self._seen = versions
        return True


def file_version(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file does, None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _server_context(options: TlsOptions) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, options.certificate, options.key)
    if options.client_ca is not None:
        _load_authorities(context, options.client_ca)
        # Not required: somebody else may show a key.
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(ca: Path | None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return how to verify hosts, and what to show them.

    :param ca: the only authorities to trust; None for those of the system.
    :param certificate: shown to hosts that ask for one.
    :raises HostError: a file cannot be used.
    """
    context = ssl.create_default_context() if ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is not None:
        _load_authorities(context, ca)
    if certificate is not None:
        _load_pair(context, certificate, key)
    return context


def default_client_context() -> ssl.SSLContext:
    """Return the context of clients that were given none: as the environment says, else the system's trust store.

    :raises HostError: a file that the environment names cannot be used.
    """
    return client_context(
        *(_from_environment(name) for name in (CA_FILE_VARIABLE, CLIENT_CERT_VARIABLE, CLIENT_KEY_VARIABLE))
    )


def host_client_context(options: TlsOptions | None) -> ssl.SSLContext | None:
    """Return how a host verifies others and proves itself to them; None where nothing was chosen.

    :raises HostError: a file cannot be used.
    """
    if options is None:
        return None
    ca = options.ca or _from_environment(CA_FILE_VARIABLE) or options.client_ca
    return client_context(ca, options.certificate, options.key)


def _from_environment(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value).expanduser() if value else None


def _no_password() -> str:
    raise HostError("the private key is encrypted; give one without a password, readable by its owner alone")


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as exc:
        raise HostError(f"the certificate {certificate} and its key cannot be used: {_reason(exc)}") from exc


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError) as exc:
        raise HostError(f"the authorities in {path} cannot be used: {_reason(exc)}") from exc


def _reason(exc: Exception) -> str:
    return str(getattr(exc, "strerror", None) or exc)


def caller_of_certificate(certificate: Mapping[str, Any], revoked: frozenset[str]) -> Caller | None:
    """Return the holder of a verified certificate; None where it names no role or was revoked.

    :param certificate: as `ssl.SSLSocket.getpeercert` gives it.
    :param revoked: serial numbers in lower-case hexadecimal digits.
    """
    if str(certificate.get("serialNumber", "")).lower().lstrip("0") in revoked:
        return None
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    name = next((value for key, value in subject if key == "commonName"), "")
    units = [value for key, value in subject if key == "organizationalUnitName"]
    roles = [unit.removeprefix(ROLE_MARK) for unit in units if unit.startswith(ROLE_MARK)]
    if len(roles) != 1 or not name:
        return None
    try:
        role: Role = role_named(roles[0])
    except ValueError:
        return None
    names = tuple(value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address"))
    # Apart from the names of keys: a certificate must not be taken for a key of the same name, nor share its limits.
    return Caller(f"cert:{name}", role, names=names)
