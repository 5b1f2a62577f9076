from __future__ import annotations

import subprocess
from ipaddress import ip_network

import pytest

from weavemw.network.firewall import masquerade, unmasquerade

pytestmark = pytest.mark.root


def _rules(program: str) -> list[str]:
    shown = subprocess.run([program, "-t", "nat", "-S", "POSTROUTING"], check=True, capture_output=True, text=True)
    return shown.stdout.splitlines()


@pytest.mark.parametrize(("program", "network"), [("iptables", "10.2.1.0/24"), ("ip6tables", "fd00:2::/64")])
def test_a_masquerade_comes_and_goes(host, program, network):
    """Doing it twice changes nothing."""
    before = _rules(program)
    for _ in range(2):
        masquerade([ip_network(network)])
    assert len(_rules(program)) == len(before) + 2
    assert f"-A POSTROUTING -s {network} ! -d {network} -j MASQUERADE" in _rules(program)
    for _ in range(2):
        unmasquerade([ip_network(network)])
    assert _rules(program) == before
