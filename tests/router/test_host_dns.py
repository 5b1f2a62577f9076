from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from routerhost import Host


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds; the test's own limit ends it otherwise."""
    while not holds():
        time.sleep(0.1)


@pytest.mark.root
def test_dns_follows_the_bridges(host: Host) -> None:
    """DNS listens on Docker's bridge as soon as it is there, on the weave bridge as soon as it has an address."""
    host.router("--bridge", "")
    assert host.http("/dns-address").startswith("no address for DNS yet")
    host.stop()
    host.router()
    assert host.http("/dns-address") == "169.254.53.1"
    host.ip("link add docker0 type bridge")
    host.ip("addr add 172.17.0.1/16 dev docker0")
    host.ip("link set docker0 up")
    eventually(lambda: host.http("/dns-address") == "172.17.0.1")
    assert "NXDOMAIN" in host.dig("172.17.0.1", "172.17.0.1", "nobody.weave.local")
    host.ip("addr add 10.32.0.1/12 dev weave")
    eventually(lambda: "10.32.0.1:53" in host.http("/status"))
    assert "NXDOMAIN" in host.dig("10.32.0.1", "10.32.0.1", "nobody.weave.local")
    assert host.http("/dns-address-port") == "172.17.0.1:53"
    host.ip("link del docker0")
    eventually(lambda: host.http("/dns-address") == "10.32.0.1")


@pytest.fixture
def container(host: Host) -> Iterator[Callable[..., Container]]:
    """Make a network namespace whose only interface is a port of the weave bridge."""
    made: list[Container] = []

    def make(address: str) -> Container:
        made.append(Container(f"{host.name}-{len(made)}", host, address))
        return made[-1]

    yield make
    for each in made:
        subprocess.run(["ip", "netns", "del", each.name], check=True)


class Container:
    def __init__(self, name: str, host: Host, address: str) -> None:
        self.name, self.host, self.address = name, host, address
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.attach()

    def attach(self) -> None:
        self.host.ip(f"link add {self.name[-8:]} type veth peer name ethwe netns {self.name}")
        self.host.ip(f"link set {self.name[-8:]} master weave up")
        for command in (f"addr add {self.address} dev ethwe", "link set ethwe up", "route add 169.254.53.1 dev ethwe"):
            subprocess.run(["ip", "-n", self.name, *command.split()], check=True)

    def status(self, name: str, *options: str) -> str:
        done = subprocess.run(["nsenter", f"--net=/run/netns/{self.name}", "dig", "+tries=1", "+timeout=2", *options,
                               "@169.254.53.1", name], capture_output=True, text=True)
        found = re.search("status: ([A-Z]+)", done.stdout)
        return found[1] if found else done.stdout


@pytest.mark.root
@pytest.mark.parametrize(("filtering", "default_route"), [("0", False), ("0", True), ("1", True), ("2", True)])
def test_containers_on_the_weave_bridge_only(host: Host, container: Callable[..., Container], filtering: str,
                                             default_route: bool) -> None:
    """They are answered by UDP and TCP, in whatever subnet, though the host has no address and no route there."""
    host.ip("link add eth0 type bridge")
    host.ip("addr add 192.0.2.1/24 dev eth0")
    host.ip("link set eth0 up")
    if default_route:
        host.ip("route add default via 192.0.2.2")
    host.run("sh", "-c", f"for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo {filtering} > $f; done")
    for rule in ("-P INPUT DROP", "-A INPUT -i lo -j ACCEPT"):  # as where ufw is on
        host.run("iptables", *rule.split())
    host.router()
    assert host.http("/dns-address?network=weave") == "169.254.53.1"
    for each in (container("10.32.0.5/12"), container("10.2.1.5/24")):
        assert each.status("nobody.weave.local") == "NXDOMAIN"
        assert each.status("nobody.weave.local", "+tcp") == "NXDOMAIN"
    assert "10.32.0.0/12" not in host.ip("route")


@pytest.mark.root
def test_the_address_on_the_bridge_comes_back(host: Host, container: Callable[..., Container]) -> None:
    """Taken away, alone or with the bridge, it is back, and serves; so it does after a restart of the router."""
    host.router()
    one = container("10.32.0.5/12")
    host.ip("addr del 169.254.53.1/32 dev weave")
    eventually(lambda: one.status("nobody.weave.local") == "NXDOMAIN")
    host.ip("link del weave")
    host.ip("link add weave type bridge")
    host.ip("link set weave up")
    other = container("10.32.0.6/12")
    eventually(lambda: other.status("nobody.weave.local") == "NXDOMAIN")
    host.stop()
    host.router()
    assert other.status("nobody.weave.local") == "NXDOMAIN"


@pytest.mark.root
def test_who_is_answered(host: Host) -> None:
    """Containers on Docker's user-defined networks are answered; whoever else reaches us is refused."""
    for name, address in (("docker0", "172.17.0.1/16"), ("br-0123456789ab", "172.18.0.1/16"), ("br0", "192.0.2.1/24")):
        host.ip(f"link add {name} type bridge")
        host.ip(f"addr add {address} dev {name}")
        host.ip(f"link set {name} up")
    host.router()
    eventually(lambda: host.http("/dns-address") == "172.17.0.1")
    for source, status in (("172.17.0.1", "NXDOMAIN"), ("172.18.0.1", "NXDOMAIN"), ("192.0.2.1", "REFUSED")):
        assert f"status: {status}" in host.dig("172.17.0.1", source, "nobody.weave.local")
