from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from ipaddress import ip_interface, ip_network
from itertools import pairwise
from typing import Any

import pytest
from routerhost import Host

from weavemw.errors import DockerUnreachable
from weavemw.router import host as router_host
from weavemw.router.host import HostBridge
from weavemw.router.host_dns import HostDns, Strangers
from weavemw.router.main import RouterSettings
from weavemw.router.zone import Zone


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


@pytest.mark.root
def test_whose_questions_the_firewall_lets_in(host: Host) -> None:
    """Those of Docker's bridges, by name; and by weaveDNS's address on the weave bridge nothing but questions."""
    for name, address in (("docker0", "172.17.0.1/16"), ("br-0123456789ab", "172.18.0.1/16"),
                          ("br-lan", "192.0.2.1/24")):
        host.ip(f"link add {name} type bridge")
        host.ip(f"addr add {address} dev {name}")
        host.ip(f"link set {name} up")
    host.router()
    eventually(lambda: "br-0123456789ab" in host.run("iptables", "-S", "WEAVE-DNS"))
    shown = host.run("iptables", "-S")
    assert "-A INPUT -j WEAVE-DNS" in shown
    assert "-i docker0 -p udp -m udp --dport 53 -j ACCEPT" in shown
    assert "-d 169.254.53.1/32 -i weave -j DROP" in shown
    assert "br-lan" not in shown
    assert "br-+" not in shown


ONE, OTHER = ip_network("192.0.2.0/24"), ip_network("198.51.100.0/24")


def test_strangers_are_asked_about_less_and_less() -> None:
    """Docker is asked soon again, then after pauses that double up to a minute; a new network begins anew."""
    strangers, asked = Strangers(), []
    for tenth in range(3000):
        if strangers.are_due({ONE}, tenth / 10):
            strangers.were_asked_about(tenth / 10)
            asked.append(tenth)
    pauses = [(later - earlier) / 10 for earlier, later in pairwise(asked)]
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60, 60], abs=0.101)
    assert strangers.are_due({ONE, OTHER}, 300)
    strangers.were_asked_about(300)
    assert not strangers.are_due({ONE, OTHER}, 300.1)
    assert strangers.are_due({ONE, OTHER}, 300.3)


def test_known_networks_are_no_strangers() -> None:
    """Without any unknown network nothing is asked, and what was unknown before is forgotten."""
    strangers = Strangers()
    assert not strangers.are_due((), 0)
    assert strangers.are_due({ONE}, 0)
    strangers.were_asked_about(0)
    assert not strangers.are_due((), 1)
    assert strangers.are_due({ONE}, 1.1)


class Networks:
    """A Docker with these subnets, that counts how often it is asked."""

    def __init__(self) -> None:
        self.subnets: list[str] = []
        self.asked = 0
        self.down = False
        self.opened: list[Sequence[str]] = []

    def let_ask(self, names: Sequence[str]) -> None:
        """The host's firewall, opened to these bridges."""
        self.opened.append(names)

    def bridge_subnets(self) -> tuple[str, ...]:
        self.asked += 1
        if self.down:
            raise DockerUnreachable("Docker is down")
        return tuple(self.subnets)


@pytest.fixture
def bridges(monkeypatch: pytest.MonkeyPatch) -> list[HostBridge]:
    """What a look at the host finds."""
    known: list[HostBridge] = []
    monkeypatch.setattr(router_host, "bridges", lambda: tuple(known))
    return known


def run(settings: RouterSettings, docker: Networks, steps: Callable[[HostDns], Coroutine[Any, Any, None]]) -> None:
    async def serve() -> None:
        dns = HostDns(settings, Zone("weave.local"), docker, docker.let_ask)  # type: ignore[arg-type]
        try:
            await steps(dns)
        finally:
            await dns.server.close()

    asyncio.run(serve())


def test_bridges_of_others_cost_nothing(settings: RouterSettings, bridges: list[HostBridge]) -> None:
    """With a bridge that is not Docker's, Docker is asked once and not at each look; a new bridge is asked about."""
    docker = Networks()
    bridges.append(HostBridge("virbr0", (ip_interface("192.0.2.1/24"),)))

    async def steps(dns: HostDns) -> None:
        for _ in range(10):
            await dns.follow()
        assert docker.asked == 1
        bridges.append(HostBridge("mybridge", (ip_interface("198.51.100.1/24"),)))
        docker.subnets.append("198.51.100.0/24")
        await dns.follow()
        assert docker.asked == 2
        assert OTHER in dns.server.clients.networks
        assert ONE not in dns.server.clients.networks
        assert docker.opened == [("docker0",), ("docker0", "mybridge")]
        dns.open_again()
        assert docker.opened[2:] == docker.opened[1:2]

    run(settings, docker, steps)


def test_docker_is_asked_until_it_answers(settings: RouterSettings, bridges: list[HostBridge]) -> None:
    """While it is down, at each look; what it said before is kept."""
    docker = Networks()
    docker.down = True
    bridges.append(HostBridge("mybridge", (ip_interface("198.51.100.1/24"),)))

    async def steps(dns: HostDns) -> None:
        await dns.follow()
        await dns.follow()
        assert docker.asked == 2
        docker.down = False
        docker.subnets.append("198.51.100.0/24")
        await dns.follow()
        assert OTHER in dns.server.clients.networks

    run(settings, docker, steps)
