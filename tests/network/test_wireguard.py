from __future__ import annotations

import stat
from ipaddress import ip_address, ip_network

import pytest

from weavemw.errors import NetworkError, SettingsError
from weavemw.network import wireguard
from weavemw.network.messages import (
    ACK,
    CREATE,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    RTM_NEWLINK,
    Message,
    attribute,
    link_header,
)
from weavemw.network.wireguard import WireGuard, WireGuardPeer, configuration, inner_address, public_key

# RFC 7748, section 6.1
PRIVATE, PUBLIC = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="


def test_public_key_is_that_of_the_rfc():
    """Keys are X25519's, in base64."""
    assert public_key(PRIVATE) == PUBLIC


def test_key_is_made_once_and_for_us_alone(tmp_path):
    """The key of a host stays, and nobody else can read it."""
    first = WireGuard("wg", 6785, tmp_path / "key").key
    assert WireGuard("wg", 6785, tmp_path / "key").key == first
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize(("content", "mode", "complaint"), [
    ("nonsense", 0o600, "holds no key"), ("", 0o600, "holds no key"), (PRIVATE, 0o644, "others can read")])
def test_bad_key_files_are_refused(tmp_path, content, mode, complaint):
    """A file that is no key, or that others know, is named."""
    (tmp_path / "key").write_text(content)
    (tmp_path / "key").chmod(mode)
    with pytest.raises(SettingsError, match=complaint):
        WireGuard("wg", 6785, tmp_path / "key")


def test_peers_send_from_their_own_address_alone():
    """Each peer has its key, its endpoint, and the one address in the tunnel that its key stands for."""
    text = configuration(PRIVATE, 6785, [WireGuardPeer(PUBLIC, ip_address("fd99::2"))], 6785)
    assert "ListenPort = 6785" in text
    assert f"PublicKey = {PUBLIC}\nEndpoint = [fd99::2]:6785\nAllowedIPs = {inner_address(PUBLIC)}/32" in text
    assert inner_address(PUBLIC) in ip_network("240.0.0.0/4")


@pytest.mark.root
@pytest.mark.parametrize(("there", "missing"), [((), "wg is missing"), (("wg",), "this kernel has no WireGuard, and")])
def test_what_is_missing_is_said(host, tmp_path, monkeypatch, there, missing):
    """Where there is no WireGuard, one sentence says what to install."""
    unknown = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, "no-such-kind"))
    monkeypatch.setattr(wireguard.shutil, "which", lambda program: program if program in there else None)
    monkeypatch.setattr(wireguard, "_device", lambda _: Message(RTM_NEWLINK, ACK | CREATE, link_header() + unknown, ""))
    with pytest.raises(NetworkError, match=f"can't encrypt: {missing}.*apt-get install"):
        WireGuard("wg", 6785, tmp_path / "key").set_up([], 1440)
