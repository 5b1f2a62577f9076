"""Certificates for a proxy and its clients: what ``weave certs`` makes.

A directory holds them under the names of Docker's guide: ``ca.pem`` and
``ca-key.pem``, ``server-cert.pem`` and ``server-key.pem``, ``cert.pem`` and
``key.pem`` for a client. Keys are readable by their owner alone from the moment
they exist; nothing is overwritten unasked, and whole files appear at once.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID

from weavemw.errors import Conflict, SettingsError

__all__ = ["Authority", "create", "host_names", "renew"]

_CA_DAYS = 3650
#: What a clock may be wrong by on the machine that checks.
_SLACK = dt.timedelta(minutes=5)

Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA: signs certificates with new keys (P-256)."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, days: int = _CA_DAYS) -> Authority:
        """A CA that may sign certificates, but no further CA."""
        key, name = _new_key(), _name(f"weave CA of {socket.gethostname()}"[:64])
        usage = x509.KeyUsage(digital_signature=False, content_commitment=False, key_encipherment=False,
                              data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
                              encipher_only=False, decipher_only=False)
        builder = (_begun(name, name, key, days).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
                   .add_extension(usage, True))
        return cls(builder.sign(key, hashes.SHA256()), key)

    def server(self, names: Iterable[str], days: int, *, member: bool = False) -> Pair:
        """A certificate for a server with these names and addresses; a ``member`` is its fellows' client too."""
        names = list(dict.fromkeys(names))
        usages = [Usage.SERVER_AUTH, *([Usage.CLIENT_AUTH] if member else [])]
        return self._sign(names[0], days, usages, x509.SubjectAlternativeName(map(_general_name, names)))

    def client(self, name: str, days: int) -> Pair:
        """A certificate for a client."""
        return self._sign(name, days, [Usage.CLIENT_AUTH])

    def _sign(self, name: str, days: int, usages: Iterable[x509.ObjectIdentifier],
              names: x509.SubjectAlternativeName | None = None) -> Pair:
        key = _new_key()
        builder = (_begun(_name(name[:64]), self.certificate.subject, key, days)
                   .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
                   .add_extension(x509.ExtendedKeyUsage(usages), False)
                   .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False))
        if names:
            builder = builder.add_extension(names, False)
        return builder.sign(self.key, hashes.SHA256()), key


def create(directory: Path, names: Iterable[str], *, days: int, client: str = "client",
           force: bool = False, member: bool = False) -> list[Path]:
    """Make what is missing of CA, server's and client's certificate; with ``force``, everything anew.

    A CA that is there signs, unless ``force``. Returns the files written; raises
    :class:`~weavemw.errors.Conflict` if nothing is missing.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority, written = _authority(directory, force=force)
    for cert, key in (("server-cert.pem", "server-key.pem"), ("cert.pem", "key.pem")):
        if force or _is_missing(directory, cert, key):
            made = (authority.server(names, days, member=member) if cert.startswith("server")
                    else authority.client(client, days))
            written += _write_pair(directory, cert, key, made)
    if not written:
        raise Conflict(f"{directory} has all certificates already: --renew signs new ones, --force replaces the CA too")
    return written


def renew(directory: Path, names: Iterable[str], *, days: int, client: str = "client",
          member: bool = False) -> list[Path]:
    """Replace the server's and the client's certificate and key by new ones of the same CA."""
    authority = _load_authority(directory)
    return [*_write_pair(directory, "server-cert.pem", "server-key.pem", authority.server(names, days, member=member)),
            *_write_pair(directory, "cert.pem", "key.pem", authority.client(client, days))]


def host_names(addresses: Iterable[str]) -> tuple[str, ...]:
    """The names and addresses by which clients reach this host."""
    name = socket.gethostname()
    return tuple(dict.fromkeys([name, name.partition(".")[0], "localhost", "127.0.0.1", "::1", *addresses]))


def _authority(directory: Path, *, force: bool) -> tuple[Authority, list[Path]]:
    if not force and not _is_missing(directory, "ca.pem", "ca-key.pem"):
        return _load_authority(directory), []
    made = Authority.new()
    return made, _write_pair(directory, "ca.pem", "ca-key.pem", (made.certificate, made.key))


def _load_authority(directory: Path) -> Authority:
    try:
        certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((directory / "ca-key.pem").read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"can't sign with ca.pem and ca-key.pem in {directory}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise SettingsError(f"{directory}/ca-key.pem is not a key that `weave certs` made for {directory}/ca.pem")
    return Authority(certificate, key)


def _is_missing(directory: Path, cert: str, key: str) -> bool:
    there = [name for name in (cert, key) if (directory / name).exists()]
    if len(there) == 1:
        raise Conflict(f"{directory} has {there[0]}, but not the other of {cert} and {key}: --force replaces all")
    return not there


def _write_pair(directory: Path, cert: str, key: str, pair: Pair) -> list[Path]:
    certificate, private = pair
    secret = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                   serialization.NoEncryption())
    _write(directory / key, secret, 0o600)
    _write(directory / cert, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return [directory / cert, directory / key]


def _write(path: Path, data: bytes, mode: int) -> None:
    with _replacing(path) as fd:
        os.fchmod(fd, mode)
        os.write(fd, data)
        os.fsync(fd)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[int]:
    try:
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    except OSError as error:
        raise SettingsError(f"can't write in {path.parent}: {error.strerror}") from error
    try:
        yield fd
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _begun(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey,
           days: int) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - _SLACK)
            .not_valid_after(now + dt.timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise SettingsError(f"{name!r} is neither an address nor a name in ASCII") from error
