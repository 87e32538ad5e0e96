"""A private CA, and certificates of it for the hosts and people of one mesh.

Only issuing needs the library `cryptography` (the extra `paglets[tls]`); hosts and clients use the interpreter's own
TLS.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from paglets.core.errors import ConflictError, HostError
from paglets.persistence.atomic import make_directories, replacing
from paglets.security.keys import checked_key_name
from paglets.security.roles import Role
from paglets.security.tls import ROLE_MARK

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

DEFAULT_TLS_DIRECTORY: Final = Path("~/.paglets/tls").expanduser()
CA_NAME: Final = "ca"
CA_DAYS: Final = 3650
HOST_DAYS: Final = 397
_SKEW: Final = timedelta(minutes=5)
_PART: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\Z){_PART}(?:\.{_PART})*")


@dataclass(frozen=True, slots=True)
class Issued:
    """Files of a certificate."""

    certificate: Path
    key: Path
    serial: str
    """Hexadecimal digits."""
    expires: float
    """Unix seconds."""


def paths_of(directory: Path, name: str) -> tuple[Path, Path]:
    """Return where the certificate and the key of a name are."""
    return directory / f"{name}.pem", directory / f"{name}-key.pem"


def make_ca(directory: Path, *, common_name: str = "paglets CA", days: int = CA_DAYS) -> Issued:
    """Make a CA of one's own; its key signs certificates and belongs on no host.

    :raises ConflictError: there is one already.
    :raises HostError: the library is missing, or a file cannot be written.
    """
    _require_library()
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    certificate_path, key_path = paths_of(directory, CA_NAME)
    if certificate_path.exists() or key_path.exists():
        raise ConflictError(f"there is a CA in {directory} already; hosts that trust it would not trust another one")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([_attribute("COMMON_NAME", common_name)])
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = _builder(subject, subject, key, days).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    certificate = _signed(builder.add_extension(usage, critical=True), key)
    return _write(directory, CA_NAME, certificate, key)


def issue(
    directory: Path,
    name: str,
    *,
    addresses: Sequence[str] = (),
    role: Role | None = Role.OPERATE,
    days: int = HOST_DAYS,
) -> Issued:
    """Make a certificate for a host or a person, good for both ends of a connection; one of before is replaced.

    :param addresses: names and addresses under which it is reached.
    :param role: what its holder may do on hosts that take the CA with `--tls-client-ca`; None for nothing.
    :raises ValueError: the name or an address is none.
    :raises HostError: there is no CA, the library is missing, or a file cannot be written.
    """
    checked_key_name(name)
    if name == CA_NAME or name.endswith("-key"):
        raise ValueError(f"{name!r} is the name of a file of the CA; choose another")
    _require_library()
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    ca, ca_key = _load_ca(directory)
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [_attribute("COMMON_NAME", name)]
    if role is not None:
        parts.append(_attribute("ORGANIZATIONAL_UNIT_NAME", f"{ROLE_MARK}{role}"))
    builder = _builder(x509.Name(parts), ca.subject, key, days)
    names = [_general_name(address) for address in dict.fromkeys(addresses)]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(both, critical=False)
        .add_extension(authority, critical=False)
    )
    return _write(directory, name, _signed(builder, ca_key), key)


def serial_of(directory: Path, name: str) -> str | None:
    """Return the serial number of the certificate of a name, None where there is none.

    :raises HostError: the library is missing, or the file is no certificate.
    """
    path = paths_of(directory, name)[0]
    if not path.exists():
        return None
    _require_library()
    from cryptography import x509

    try:
        return f"{x509.load_pem_x509_certificate(path.read_bytes()).serial_number:x}"
    except (OSError, ValueError) as exc:
        raise HostError(f"{path} is no certificate: {exc}") from exc


def _require_library() -> None:
    try:
        import cryptography  # noqa: F401 - whether it is there is all that is asked
    except ImportError:
        raise HostError('making certificates needs a library: pip install "paglets[tls]"') from None


def _attribute(kind: str, value: str) -> x509.NameAttribute[str]:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.NameAttribute(getattr(NameOID, kind), value)


def _general_name(address: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(address.strip("[]")))
    except ValueError:
        if _HOST_NAME.fullmatch(address) is None:
            raise ValueError(f"{address!r} is neither an address nor a name of a host") from None
        return x509.DNSName(address.lower())


def _usage(**given: bool) -> x509.KeyUsage:
    from cryptography import x509

    kinds = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
        "encipher_only decipher_only"
    )
    return x509.KeyUsage(**{kind: given.get(kind, False) for kind in kinds.split()})


def _builder(subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    from cryptography import x509

    if not 0 < days <= CA_DAYS:
        raise ValueError(f"a certificate is valid for 1 to {CA_DAYS} days, not {days}")
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _signed(builder: x509.CertificateBuilder, signer: EllipticCurvePrivateKey) -> x509.Certificate:
    from cryptography.hazmat.primitives import hashes

    return builder.sign(signer, hashes.SHA256())


def _load_ca(directory: Path) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    certificate_path, key_path = paths_of(directory, CA_NAME)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        key = load_pem_private_key(key_path.read_bytes(), None)
    except FileNotFoundError:
        raise HostError(f"there is no CA in {directory}; make one with `paglets keys ca`") from None
    except (OSError, ValueError, TypeError) as exc:
        raise HostError(f"the CA in {directory} cannot be used: {exc}") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise HostError(f"the CA in {directory} has a key of another kind than `paglets keys ca` makes")
    return certificate, key


def _write(directory: Path, name: str, certificate: x509.Certificate, key: EllipticCurvePrivateKey) -> Issued:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    certificate_path, key_path = paths_of(directory, name)
    try:
        make_directories(directory)
        directory.chmod(0o700)
        # The key first: a host that reloads between the two finds a pair that does not fit, and waits for the other.
        for path, content, mode in (
            (key_path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600),
            (certificate_path, certificate.public_bytes(Encoding.PEM), 0o644),
        ):
            with replacing(path) as stream:
                with suppress(AttributeError):  # where permissions are of another kind
                    os.fchmod(stream.fileno(), mode)
                stream.write(content)
    except OSError as exc:
        raise HostError(f"the certificate cannot be written to {directory}: {exc.strerror or exc}") from exc
    return Issued(
        certificate_path, key_path, f"{certificate.serial_number:x}", certificate.not_valid_after_utc.timestamp()
    )
