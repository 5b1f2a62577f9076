from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from weavemw.dockerapi.hosts import Tcp
from weavemw.errors import SettingsError
from weavemw.serving import certs, tls_files
from weavemw.serving.tls_files import Contexts, Files
from weavemw.settings import Settings

_NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Files as they should be."""
    certs.create(tmp_path, ["host1", "127.0.0.1"], days=10)
    return Files(f"{tmp_path}/server-cert.pem", f"{tmp_path}/server-key.pem", f"{tmp_path}/ca.pem")


def test_good_files_need_no_word(files: Files) -> None:
    """Neither error nor warning, for an address that the certificate names."""
    assert tls_files.check(files, [Tcp("127.0.0.1", 1), Tcp("host1", 1)]) == []


def test_a_wildcard_whose_name_is_missing_is_a_warning(files: Files) -> None:
    """Nobody knows by which name clients come."""
    (warning,) = tls_files.check(files, [Tcp("0.0.0.0", 1), Tcp("::", 1)])
    assert "is not for this host's name" in warning
    assert "but for host1, 127.0.0.1" in warning


def _encrypt(files: Files) -> None:
    key = serialization.load_pem_private_key(Path(files.key).read_bytes(), None)
    Path(files.key).write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")))


def _replace_key(files: Files) -> None:
    Path(files.key).write_bytes(Path(files.key).with_name("ca-key.pem").read_bytes())


@pytest.mark.parametrize(("spoil", "complaint"), [
    pytest.param(lambda files: os.unlink(files.cert), r"can't read .*/server-cert.pem: No such file", id="missing"),
    pytest.param(lambda files: os.unlink(files.cacert), r"can't read .*/ca.pem: No such file", id="CA missing"),
    pytest.param(_replace_key, r"server-key.pem is not the key of .*/server-cert.pem", id="another's key"),
    pytest.param(_encrypt, r"server-key.pem is encrypted", id="encrypted key"),
    pytest.param(lambda files: Path(files.key).write_text("x"), r"server-key.pem holds no private key", id="no key"),
    pytest.param(lambda files: Path(files.cert).write_text("x"), r"server-cert.pem holds no certificate", id="no cert"),
])
def test_each_mistake_has_its_line(files: Files, spoil: Callable[[Files], None], complaint: str) -> None:
    """Which file, and what is wrong with it."""
    spoil(files)
    with pytest.raises(SettingsError, match=complaint) as raised:
        tls_files.check(files, [])
    assert "\n" not in raised.value.message


@pytest.mark.parametrize(("days", "complaint"), [(11, "server-cert.pem expired on"), (-1, "is not valid before")])
def test_time_is_looked_at(files: Files, days: int, complaint: str) -> None:
    """A certificate that was, or will be."""
    with pytest.raises(SettingsError, match=complaint):
        tls_files.check(files, [], now=_NOW + dt.timedelta(days=days))


def test_an_address_that_the_certificate_does_not_name_is_refused(files: Files) -> None:
    """Clients would refuse it."""
    with pytest.raises(SettingsError, match=r"has no subjectAltName for 10\.0\.0\.1"):
        tls_files.check(files, [Tcp("10.0.0.1", 1)])


@pytest.mark.parametrize(("name", "host", "covered"), [
    ("host1", "HOST1", True), ("host1", "host2", False), ("*.example.com", "a.example.com", True),
    ("*.example.com", "a.b.example.com", False), ("*.example.com", "example.com", False),
    ("::1", "0:0:0:0:0:0:0:1", True), ("10.0.0.1", "10.0.0.1", True), ("*.0.0.1", "10.0.0.1", False),
])
def test_names(name: str, host: str, covered: bool) -> None:
    """As clients compare them."""
    assert tls_files.covers([name], host) is covered


@pytest.mark.parametrize(("given", "missing"), [
    ({"tls": True}, "--tls-cert"), ({"tls": True, "tls_cert": "/a"}, "--tls-key"),
    ({"tls_verify": True, "tls_cert": "/a", "tls_key": "/b"}, "--tls-cacert"),
])
def test_options_that_are_missing_are_named(given: dict[str, object], missing: str) -> None:
    """The first of them."""
    with pytest.raises(SettingsError, match=f"no {missing} is given"):
        tls_files.of(Settings.from_mapping(given))


def test_verification_needs_to_be_asked_for() -> None:
    """--tls with a CA asks no client for a certificate, as dockerd."""
    given = {"tls_cert": "/a", "tls_key": "/b", "tls_cacert": "/c"}
    assert tls_files.of(Settings.from_mapping(given)) is None
    assert tls_files.of(Settings.from_mapping(given | {"tls": True})) == Files("/a", "/b")
    assert tls_files.of(Settings.from_mapping(given | {"tls_verify": True})) == Files("/a", "/b", "/c")


def test_a_renewal_is_taken_up_when_it_is_whole(files: Files, tmp_path: Path) -> None:
    """A half-done one leaves the context that is in use."""
    contexts = Contexts(files)
    first = contexts.current()
    assert contexts.current() is first
    key = Path(files.key).read_bytes()
    certs.renew(tmp_path, ["host1"], days=10)
    second = contexts.current()
    assert second is not first
    Path(files.key).write_bytes(key)
    assert contexts.current() is second
