from __future__ import annotations

import subprocess
from ipaddress import ip_network

import pytest

from weavemw.errors import NetworkError
from weavemw.network import exposed
from weavemw.network.firewall import asking, let_ask, let_through, masquerade, shut

pytestmark = pytest.mark.root


def _rules(program: str) -> list[str]:
    shown = subprocess.run([program, "-t", "nat", "-S"], check=True, capture_output=True, text=True)
    return shown.stdout.splitlines()


@pytest.mark.parametrize(("program", "network"), [("iptables", "10.2.1.0/24"), ("ip6tables", "fd00:2::/64")])
def test_a_masquerade_comes_and_goes(host, program, network, tmp_path):
    """In a chain of our own; doing it twice changes nothing, and what others flush comes back."""
    before = _rules(program)
    for _ in range(2):
        exposed.masquerade(tmp_path, [ip_network(network)])
    masqueraded = _rules(program)
    assert len(masqueraded) == len(before) + 4
    assert "-A POSTROUTING -j WEAVE-EXPOSE" in masqueraded
    assert f"-A WEAVE-EXPOSE -s {network} ! -d {network} -j MASQUERADE" in masqueraded
    subprocess.run([program, "-t", "nat", "-F"], check=True)
    subprocess.run([program, "-t", "nat", "-X"], check=True)
    exposed.masquerade_again(tmp_path)
    assert _rules(program) == masqueraded
    for _ in range(2):
        exposed.masquerade(tmp_path, [])
    exposed.masquerade_again(tmp_path)
    assert _rules(program) == before
    assert not list(tmp_path.iterdir())


def test_networks_are_exposed_one_by_one(host, tmp_path):
    """A file that is damaged means what of it can be read."""
    four, six = ip_network("10.2.1.0/24"), ip_network("fd00:2::/64")
    exposed.masquerade(tmp_path, {four, six})
    assert exposed.masqueraded(tmp_path) == {four, six}
    exposed.masquerade(tmp_path, {six})
    assert not [rule for rule in _rules("iptables") if "WEAVE" in rule]
    (tmp_path / exposed.FILE).write_text("rubbish\n10.2.1.0/24\n\x00")
    assert exposed.masqueraded(tmp_path) == {four}
    masquerade([four])
    shut()
    assert not [rule for rule in _rules("iptables") if "WEAVE" in rule]


def test_a_masquerade_that_is_refused_is_an_error(host, tmp_path, monkeypatch):
    """And not one that should be."""
    with monkeypatch.context() as away:
        away.setenv("PATH", "/nonexistent")
        with pytest.raises(NetworkError, match=r"can't masquerade 10\.2\.1\.0/24"):
            exposed.masquerade(tmp_path, [ip_network("10.2.1.0/24")])
    assert not exposed.masqueraded(tmp_path)


def rules(program="iptables"):
    return subprocess.run([program, "-S"], check=True, capture_output=True, text=True).stdout.splitlines()


def test_the_firewall_is_opened_and_shut(host):
    """What containers ask of DNS is let in, what stays on the bridge is let through; twice is as once, and it goes."""
    before, before6 = rules(), rules("ip6tables")
    for _ in range(2):
        let_through("weave")
        let_ask("weave", ["docker0", "lan0"])
    opened = rules()
    assert len(opened) == len(before) + 2 + 2 + 1 + 2 * 3 + 1
    assert {"-A FORWARD -j WEAVE", "-A WEAVE -i weave -o weave -j ACCEPT", "-A INPUT -j WEAVE-DNS",
            "-A WEAVE-DNS -i docker0 -p udp -m udp --dport 53 -j ACCEPT",
            "-A WEAVE-DNS -i lan0 -p tcp -m tcp --dport 53 -j ACCEPT"} < set(opened)
    assert opened[-1] == "-A WEAVE-DNS -d 169.254.53.1/32 -i weave -j DROP"
    let_ask("weave", ["docker0"])
    assert not [rule for rule in rules() if "lan0" in rule]
    for _ in range(2):
        shut()
    assert (rules(), rules("ip6tables")) == (before, before6)


def test_a_chain_that_another_put_behind_is_not_moved(host):
    """Who puts a rule before ours means it."""
    let_through("weave")
    subprocess.run(["iptables", "-I", "FORWARD", "-i", "weave", "-j", "DROP"], check=True)
    let_through("weave")
    assert [rule for rule in rules() if rule.startswith("-A FORWARD")] == [
        "-A FORWARD -i weave -j DROP", "-A FORWARD -j WEAVE"]


@pytest.mark.parametrize("name", ["br-+", "+", "!x", "-j", "a b", 'a"b', "a\nb", ""])
def test_names_that_would_stand_for_others_are_left_out(name):
    """Whoever makes a Docker network names its bridge: no name becomes a wildcard, or an option."""
    assert asking("weave", [name], 53) == asking("weave", [], 53)


@pytest.mark.parametrize("error", [OSError(12, "Cannot allocate memory"), subprocess.TimeoutExpired("iptables", 10)])
def test_a_firewall_that_can_not_be_asked_is_a_warning(monkeypatch, caplog, error):
    """Opening and shutting it say why they could not, and go on."""
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    let_through("weave")
    assert str(error) in caplog.text
    caplog.clear()
    shut()
    assert str(error) in caplog.text
