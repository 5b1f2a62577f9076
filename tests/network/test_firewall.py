from __future__ import annotations

import subprocess
from ipaddress import ip_network

import pytest

from weavemw.network.firewall import let_ask, let_through, masquerade, shut, unmasquerade

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


def test_the_firewall_is_opened_and_shut(host):
    """What containers ask of DNS is let in, what stays on the bridge is let through; twice is as once, and it goes."""
    def rules():
        return subprocess.run(["iptables", "-S"], check=True, capture_output=True, text=True).stdout.splitlines()

    before = rules()
    for _ in range(2):
        let_through("weave")
        let_ask(["weave", "docker0"])
    assert len(rules()) == len(before) + 1 + 2 * 3
    assert "-A INPUT -i docker0 -p udp -m udp --dport 53 -j ACCEPT" in rules()
    for _ in range(2):
        shut("weave", "docker0")
    assert rules() == before


@pytest.mark.parametrize("error", [OSError(12, "Cannot allocate memory"), subprocess.TimeoutExpired("iptables", 10)])
def test_a_firewall_that_can_not_be_asked_is_a_warning(monkeypatch, caplog, error):
    """Opening and shutting it say why they could not, and go on."""
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    let_through("weave")
    assert str(error) in caplog.text
    caplog.clear()
    shut("weave")
    assert str(error) in caplog.text
