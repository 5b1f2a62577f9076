from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from weavemw.errors import Conflict, SettingsError
from weavemw.serving import certs
from weavemw.serving.tls_files import names_in

_ALL = {"ca.pem", "ca-key.pem", "server-cert.pem", "server-key.pem", "cert.pem", "key.pem"}


def _load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_all_that_docker_needs_is_made(tmp_path: Path) -> None:
    """Under the names of Docker's guide, for the names that were given; keys for their owner alone."""
    directory = tmp_path / "tls"
    written = certs.create(directory, ["host1", "10.0.0.1", "fd00::1"], days=10)
    assert {path.name for path in written} == _ALL == set(os.listdir(directory))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in written:
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if path.name.endswith("key.pem") else 0o644)
    assert names_in(_load(directory / "server-cert.pem")) == ("host1", "10.0.0.1", "fd00::1")


def test_a_key_is_never_open_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for the moment between its making and its naming, whatever the umask."""
    modes: list[int] = []
    write = os.write

    def spy(fd: int, data: bytes) -> int:
        if b"PRIVATE" in data:
            modes.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return write(fd, data)

    monkeypatch.setattr(os, "write", spy)
    before = os.umask(0)
    try:
        certs.create(tmp_path, ["host1"], days=10)
    finally:
        os.umask(before)
    assert modes == [0o600] * 3


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    """What is there stays and is used; what is missing is made; with force all is new."""
    certs.create(tmp_path, ["host1"], days=10)
    before = {name: (tmp_path / name).read_bytes() for name in _ALL}
    with pytest.raises(Conflict, match="has all certificates already"):
        certs.create(tmp_path, ["host1"], days=10)
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).unlink()
    assert [path.name for path in certs.create(tmp_path, ["host1"], days=10)] == ["cert.pem", "key.pem"]
    assert (tmp_path / "ca.pem").read_bytes() == before["ca.pem"]
    _load(tmp_path / "cert.pem").verify_directly_issued_by(_load(tmp_path / "ca.pem"))
    (tmp_path / "key.pem").unlink()
    with pytest.raises(Conflict, match=r"has cert\.pem, but not the other"):
        certs.create(tmp_path, ["host1"], days=10)
    certs.create(tmp_path, ["host1"], days=10, force=True)
    assert all((tmp_path / name).read_bytes() != before[name] for name in _ALL)


def test_renewal_keeps_the_ca(tmp_path: Path) -> None:
    """New certificates and keys for server and client, of the same CA."""
    certs.create(tmp_path, ["host1"], days=10)
    before = {name: (tmp_path / name).read_bytes() for name in _ALL}
    certs.renew(tmp_path, ["host2"], days=20)
    assert {name for name in _ALL if (tmp_path / name).read_bytes() == before[name]} == {"ca.pem", "ca-key.pem"}
    assert names_in(_load(tmp_path / "server-cert.pem")) == ("host2",)


@pytest.mark.parametrize(("spoil", "complaint"), [
    pytest.param(lambda d: (d / "ca-key.pem").unlink(), "No such file", id="no key"),
    pytest.param(lambda d: (d / "ca-key.pem").write_bytes(b"x"), "can't sign with", id="no key in it"),
    pytest.param(lambda d: (d / "ca-key.pem").write_bytes((d / "key.pem").read_bytes()),
                 "is not a key that", id="another's"),
])
def test_a_ca_that_cannot_sign_is_said(tmp_path: Path, spoil: object, complaint: str) -> None:
    """In one line, and nothing is changed."""
    certs.create(tmp_path, ["host1"], days=10)
    spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(SettingsError, match=complaint):
        certs.renew(tmp_path, ["host1"], days=10)


def test_a_strict_client_and_server_accept_them(tmp_path: Path) -> None:
    """OpenSSL with all its strictness, both ways."""
    certs.create(tmp_path, ["host1"], days=10)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.pem")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    server.verify_mode = ssl.CERT_REQUIRED
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    server.load_cert_chain(tmp_path / "server-cert.pem", tmp_path / "server-key.pem")
    client.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(one, other, server_hostname="host1"), server.wrap_bio(other, one, server_side=True)]
    for end in ends * 2:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert ends[1].getpeercert()


def test_a_member_of_etcd_is_its_fellows_client(tmp_path: Path) -> None:
    """Members show each other the certificate with which they serve; a proxy's is a server's alone."""
    def usages() -> set[str]:
        found = _load(tmp_path / "server-cert.pem").extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        return {usage._name for usage in found.value}

    certs.create(tmp_path, ["10.0.0.11"], days=10, member=True)
    assert usages() == {"serverAuth", "clientAuth"}
    certs.renew(tmp_path, ["10.0.0.11"], days=10)
    assert usages() == {"serverAuth"}


def test_the_hosts_own_names() -> None:
    """Its name, localhost, and the addresses that it is given; each once."""
    names = certs.host_names(["127.0.0.1", "10.0.0.1"])
    assert {"localhost", "127.0.0.1", "::1", "10.0.0.1"} < set(names)
    assert len(names) == len(set(names))
