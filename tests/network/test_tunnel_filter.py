from __future__ import annotations

import subprocess
from ipaddress import ip_address

import pytest

from weavemw.errors import NetworkError
from weavemw.network import tunnel_filter
from weavemw.network.tunnel_filter import Filter

TWO = frozenset(map(ip_address, ("10.99.0.3", "10.99.0.2")))


def test_only_senders_are_let_in():
    """Whoever is not listed is dropped at VXLAN's port; without anybody listed, all are."""
    text = tunnel_filter.rules(Filter("weave-wx", 6784, 4, TWO))
    assert "elements = { 10.99.0.2, 10.99.0.3 }" in text
    assert "udp dport 6784 ip saddr != @senders drop" in text
    assert "elements" not in tunnel_filter.rules(Filter("weave-wx", 6784, 4, frozenset()))


def test_encrypted_networks_are_never_plain():
    """With an interface that encrypts, packets of VXLAN come and go by no other."""
    text = tunnel_filter.rules(Filter("weave-wx", 6784, 4, TWO, "weave-wg"))
    assert 'iifname != "weave-wg" udp dport 6784 drop' in text
    assert 'oifname != "weave-wg" ip daddr 240.0.0.0/4 udp dport 6784 drop' in text


@pytest.mark.root
@pytest.mark.parametrize("wanted", [Filter("weave-wx", 6784, 4, TWO), Filter("a.b+c-wx", 1, 4, TWO, "weave-wg"),
                                    Filter("weave-wx", 6784, 6, frozenset({ip_address("fd99::2")}))])
def test_rules_are_nftables_own(host, wanted):
    """The kernel takes them, twice, and nothing is left after the removal."""
    tunnel_filter.apply(wanted)
    tunnel_filter.apply(wanted)
    shown = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    assert shown.count("table") == 2
    tunnel_filter.remove(wanted.device)
    tunnel_filter.remove(wanted.device)
    assert subprocess.run(["nft", "list", "ruleset"], capture_output=True, check=True).stdout == b""


def test_missing_program_is_said(monkeypatch, tmp_path):
    """Without nft, one sentence says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NetworkError, match="apt-get install nftables"):
        tunnel_filter.apply(Filter("weave-wx", 6784, 4, TWO))
