from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from weavemw.errors import SettingsError
from weavemw.router.client import RouterClient

ROOT = Path(__file__).parents[2]


def test_one_router_per_state_directory(start: Callable[..., Any]) -> None:
    """A second router on the same state is refused; when the first has stopped, it may."""
    first = start()
    with pytest.raises(SettingsError, match="already running: another router uses"):
        start()
    first.stop()
    assert RouterClient(start().address).domain() == "weave.local."


def test_port_taken(start: Callable[..., Any], tmp_path: Path) -> None:
    """A port that is taken is named, and what was begun is given back."""
    taken = start().address
    with pytest.raises(SettingsError, match=f"can't listen on {taken}: Address already in use"):
        start(http_address=taken, state_dir=tmp_path / "other")
    start(state_dir=tmp_path / "other")


def test_not_a_database(start: Callable[..., Any], tmp_path: Path) -> None:
    """A state file that is something else is named, and left as it is."""
    (tmp_path / "router.db").write_text("precious" * 100)
    with pytest.raises(SettingsError, match=r"can't use .*router\.db: file is not a database"):
        start(state_dir=tmp_path)
    assert (tmp_path / "router.db").read_text().startswith("precious")


def test_dns_port_taken(start: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where DNS can't listen, that is said once, and the rest works."""
    first = start()
    second = start(state_dir=tmp_path / "other", dns_port=first.settings.dns_port)
    assert RouterClient(second.address).allocate("a").ip
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"DNS can't listen on 127.0.0.1:{first.settings.dns_port}, trying again: [Errno 98] Address already in use"]


class Host:
    """A network namespace with a router in it."""

    def __init__(self, name: str, state: Path) -> None:
        self.name = name
        self.state = state
        self.processes: list[subprocess.Popen[str]] = []
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.ip("link set lo up")

    def run(self, *command: str) -> str:
        done = subprocess.run(self._inside(*command), capture_output=True, text=True, cwd=ROOT, timeout=30)
        return done.stdout + done.stderr

    def ip(self, arguments: str) -> str:
        return subprocess.run(self._inside("ip", *arguments.split()), check=True, capture_output=True, text=True).stdout

    def router(self, *options: str) -> None:
        command = self._router(*options)
        self.processes.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
        stderr = self.processes[-1].stderr
        assert stderr
        assert any(re.search("the router serves", line) for line in stderr)

    def router_output(self, *options: str) -> str:
        return self.run(*self._router(*options)[2:])

    def _router(self, *options: str) -> list[str]:
        return self._inside(sys.executable, "-m", "weavemw.router", "--state-dir", str(self.state),
                            "--upstream", "127.0.0.1:9", *options)

    def http(self, path: str) -> str:
        return self.run("curl", "-s", f"http://127.0.0.1:6784{path}").strip()

    def dig(self, server: str, source: str, name: str) -> str:
        return self.run("dig", "+tries=1", "+timeout=2", "-b", source, f"@{server}", name)

    def stop(self) -> None:
        while self.processes:
            process = self.processes.pop()
            process.send_signal(signal.SIGTERM)
            process.communicate()

    def delete(self) -> None:
        self.stop()
        subprocess.run(["ip", "netns", "del", self.name], check=True)

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.name}", *command]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(f"wr{os.getpid()}", tmp_path)
    yield host
    host.delete()


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds; the test's own limit ends it otherwise."""
    while not holds():
        time.sleep(0.1)


@pytest.mark.root
def test_bridge(host: Host) -> None:
    """The router makes the bridge, up and with the MTU wanted, and leaves it when it stops, to be used again."""
    host.router("--mtu", "1400")
    first = host.ip("-o link show weave")
    assert "mtu 1400" in first
    assert ",UP" in first
    host.stop()
    host.router("--mtu", "1400")
    assert host.ip("-o link show weave").split("link/ether")[1] == first.split("link/ether")[1]


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
def test_overlapping_route(host: Host) -> None:
    """A range that overlaps a route of the host is refused, the route named; with --force it is taken."""
    host.ip("link add br0 type bridge")
    host.ip("addr add 10.40.0.1/16 dev br0")
    host.ip("link set br0 up")
    assert host.router_output().strip() == (
        "weave router: range 10.32.0.0/12 overlaps the route 10.40.0.0/16 dev br0 of this host; "
        "choose another with --ipalloc-range, or use --force")
    host.router("--force")
    assert host.http("/ipinfo/defaultsubnet") == "10.32.0.0/12"


@pytest.mark.root
def test_own_route_is_no_overlap(host: Host) -> None:
    """The bridge's own route, which is there when the host is exposed, is no reason to refuse."""
    host.router()
    host.ip("addr add 10.32.0.1/12 dev weave")
    host.stop()
    host.router()
