"""The files of TLS: read, checked at launch, and read again when they are renewed.

Raises :class:`~weavemw.errors.SettingsError` for whatever would keep clients
out, before there are any. PEM only, as Docker Engine has it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import logging
import os
import socket
import ssl
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from weavemw.dockerapi.hosts import Tcp
from weavemw.errors import SettingsError
from weavemw.settings import Settings

__all__ = ["Contexts", "Files", "check", "covers", "names_in", "of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Files:
    """Absolute paths of the server's certificate and key; with ``cacert``, clients must show a certificate of it."""

    cert: str
    key: str
    cacert: str = ""

    @property
    def paths(self) -> list[str]:
        """All that are given."""
        return [path for path in (self.cert, self.key, self.cacert) if path]


def of(settings: Settings) -> Files | None:
    """The files that settings name, ``None`` without TLS; raises :class:`~weavemw.errors.SettingsError`."""
    if not settings.uses_tls:
        return None
    needed = {"--tls-cert": settings.tls_cert, "--tls-key": settings.tls_key}
    if settings.tls_verify:
        needed["--tls-cacert"] = settings.tls_cacert
    for option, path in needed.items():
        if not path:
            raise SettingsError(f"TLS: no {option} is given")
    return Files(settings.tls_cert, settings.tls_key, settings.tls_cacert if settings.tls_verify else "")


class Contexts:
    """The TLS context for new connections, made again when a file has changed. Thread-safe.

    Files that don't fit together (a renewal that is half done) leave the
    context before in use, and are said in the log.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._stamp = _stamp(files)
        self._context = server_context(files)

    def current(self) -> ssl.SSLContext:
        """The context by the files as they are now."""
        with self._lock:
            stamp = _stamp(self._files)
            if stamp != self._stamp:
                self._stamp = stamp
                self._take_up()
            return self._context

    def _take_up(self) -> None:
        try:
            self._context = server_context(self._files)
            log.info("TLS: took up the renewed %s", self._files.cert)
        except SettingsError as error:
            log.warning("TLS: kept the certificate as it was: %s", error)


def server_context(files: Files) -> ssl.SSLContext:
    """TLS 1.2 and newer, HTTP/1.1, and client certificates as dockerd wants them.

    Sessions are not resumed by tickets: each connection shows its certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
        if files.cacert:
            context.verify_mode = ssl.CERT_REQUIRED
            # As in Go, each certificate in the file is trusted by itself.
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            context.load_verify_locations(files.cacert)
    except OSError as error:  # an SSLError too
        raise SettingsError(f"TLS: {files.cert} and {files.key}: {error.strerror or error}") from error
    return context


def check(files: Files, listeners: Iterable[Tcp], *, now: dt.datetime | None = None) -> list[str]:
    """Judge the files; gives warnings, raises :class:`~weavemw.errors.SettingsError` for the first mistake."""
    now = now or dt.datetime.now(dt.UTC)
    key, certificate = _key(files.key), _certificates(files.cert)[0]
    if key.public_key() != certificate.public_key():
        raise SettingsError(f"TLS: {files.key} is not the key of {files.cert}")
    for path in [files.cert, *([files.cacert] if files.cacert else [])]:
        _check_time(path, _certificates(path), now)
    warnings = [_check_names(files.cert, certificate, listener) for listener in listeners]
    return [warning for warning in dict.fromkeys(warnings) if warning]


def names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names and addresses for which it is good (subjectAltName); the common name does not count any more."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress)))


def covers(names: Iterable[str], host: str) -> bool:
    """Whether a host's name or address is among a certificate's names (RFC 9525 section 6.3)."""
    if address := _address(host):
        return address in {_address(name) for name in names}
    wanted = host.lower().rstrip(".")
    return any(name.lower() in (wanted, f"*.{wanted.partition('.')[2]}") for name in names)


def _key(path: str) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(_read(path), None)
    except TypeError as error:
        raise SettingsError(f"TLS: {path} is encrypted: nobody is there to type its password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"TLS: {path} holds no private key in PEM form") from error


def _certificates(path: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except ValueError as error:
        raise SettingsError(f"TLS: {path} holds no certificate in PEM form") from error


def _read(path: str) -> bytes:
    if not os.path.isabs(path):
        raise SettingsError(f"TLS: {path!r} is not an absolute path")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        hint = "`weave certs` makes what is needed" if isinstance(error, FileNotFoundError) else ""
        raise SettingsError(f"TLS: can't read {path}: {error.strerror}", hint=hint) from error


def _check_time(path: str, certificates: list[x509.Certificate], now: dt.datetime) -> None:
    for certificate in certificates:
        if now > certificate.not_valid_after_utc:
            raise SettingsError(f"TLS: {path} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
        if now < certificate.not_valid_before_utc:
            raise SettingsError(f"TLS: {path} is not valid before "
                                f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")


def _check_names(path: str, certificate: x509.Certificate, listener: Tcp) -> str:
    names = names_in(certificate)
    if listener.is_wildcard:
        host = socket.gethostname()
        return "" if covers(names, host) else (
            f"{path} is not for this host's name, {host}, but for {', '.join(names) or 'no name at all'}")
    if not covers(names, listener.host):
        raise SettingsError(f"TLS: {path} has no subjectAltName for {listener.host}: clients would refuse it")
    return ""


def _address(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return ""


def _stamp(files: Files) -> tuple[tuple[int, int, int], ...]:
    return tuple(_file_stamp(path) for path in files.paths)


def _file_stamp(path: str) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:  # being replaced
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_ino, found.st_size


def _no_password() -> NoReturn:
    raise SettingsError("TLS: the key is encrypted: nobody is there to type its password")
