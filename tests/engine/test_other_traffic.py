"""What reaches a container by Docker's networks, as it does without us."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest
from host import TestHost
from launched import Launched, eventually

pytestmark = [pytest.mark.root, pytest.mark.engine]

#: A client whose addresses lie in the weave ranges, behind the host's default gateway.
CLIENT, CLIENT6 = "10.44.1.2", "fd00:10::44:2"
HOST, HOST6, GATEWAY, GATEWAY6 = "198.18.9.1", "fd00:9::1", "198.18.9.2", "fd00:9::2"


class Client:
    """A machine beside the host, which is the host's default gateway."""

    def __init__(self, host: TestHost) -> None:
        self.name = f"{host.name}-client"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        host.ip("link", "add", "cable", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        self._ip("link set lo up", "link set eth0 up", f"address add {GATEWAY}/24 dev eth0",
                 f"address add {GATEWAY6}/64 dev eth0 nodad", f"address add {CLIENT}/32 dev lo",
                 f"address add {CLIENT6}/128 dev lo", f"route add default via {HOST} src {CLIENT}",
                 f"-6 route add default via {HOST6} src {CLIENT6}")
        for words in ("link set cable up", f"address add {HOST}/24 dev cable", f"route add default via {GATEWAY}",
                      f"address add {HOST6}/64 dev cable nodad", f"-6 route add default via {GATEWAY6}"):
            host.ip(*words.split())
        host.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; ip6tables -P FORWARD ACCEPT")

    def _ip(self, *lines: str) -> None:
        for words in lines:
            subprocess.run(["ip", "-n", self.name, *words.split()], check=True)

    def gets(self, url: str) -> str:
        """What it gets there; empty if that is nothing."""
        source = CLIENT6 if "[" in url else CLIENT
        command = ["ip", "netns", "exec", self.name, "curl", "-gs", "--noproxy", "*", "--interface", source,
                   "--max-time", "3", url]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout

    def close(self) -> None:
        """Remove it."""
        subprocess.run(["ip", "netns", "del", self.name], check=True)


@pytest.fixture(scope="module")
def weave(make_module_host: Callable[..., TestHost]) -> Launched:
    launched = Launched(make_module_host(), "--ipalloc-range6", "fd00:10::/64")
    launched.host.docker("network", "create", "--ipv6", "--subnet", "fd00:d::/64", "six")
    return launched


@pytest.fixture(scope="module")
def client(weave: Launched) -> Iterator[Client]:
    made = Client(weave.host)
    yield made
    made.close()


@pytest.fixture
def web(weave: Launched) -> Iterator[Callable[..., str]]:
    """Runs a web server; the value is how its address of a network of Docker's is found."""
    def run(*options: str) -> str:
        weave.docker("run", "-d", "--name", "web", *options, "busybox", "httpd", "-f", "-p", "80")
        found = weave.host.docker(
            "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}", "web")
        return str(found.stdout).strip()
    yield run
    weave.host.docker("rm", "-f", "web")


@pytest.mark.parametrize("network", ["bridge", "six"])
def test_published_ports_answer_a_client_from_the_weave_range(weave: Launched, client: Client, network: str,
                                                              web: Callable[..., str]) -> None:
    """By IPv4 and IPv6, after a restart and a proxy that is launched anew, and when another network is connected."""
    six = web(f"--net={network}", "-p", "8080:80")
    assert " dev ethwe" in weave.host.docker("exec", "web", "ip", "route", "get", CLIENT).stdout
    for again in (["restart", "-t0", "web"], ["network", "connect", "six" if network == "bridge" else "bridge", "web"]):
        assert "404" in client.gets(f"http://{HOST}:8080/")
        assert not six or "404" in client.gets(f"http://[{six}]/")
        weave.docker(*again)
    assert "404" in client.gets(f"http://{HOST}:8080/")
    weave.weave("relaunch")
    assert "404" in client.gets(f"http://{HOST}:8080/")


def test_a_network_in_the_way_is_named(weave: Launched) -> None:
    """One that was made after the launch: in log and status, and to who creates a container on it."""
    weave.docker("network", "create", "--subnet", "10.40.5.0/24", "astray")
    try:
        said = weave.docker("run", "--rm", "--net=astray", "busybox", "true").stderr
        assert "weave: Docker's network astray (10.40.5.0/24) overlaps the weave network's 10.32.0.0/12" in said
        assert eventually(lambda: "network astray (10.40.5.0/24) overlaps" in weave.weave("status", "proxy").stdout)
        assert weave.log().count("network astray (10.40.5.0/24) overlaps") == 1
        assert weave.docker("run", "--rm", "busybox", "true").stderr == ""
    finally:
        weave.docker("network", "rm", "astray")
    assert eventually(lambda: "astray" not in str(weave.status()["proxy"]["watcher"]))


def test_rules_go_with_the_interface(weave: Launched, web: Callable[..., str]) -> None:
    """A container that is detached by hand routes as Docker has it; one without Docker's network has no rules."""
    web()
    assert "6784" in weave.host.docker("exec", "web", "ip", "rule").stdout
    container = weave.host.docker("inspect", "-f", "{{.Id}}", "web").stdout.strip()
    weave.weave("detach", *weave.held()[container], "web")
    assert "6784" not in weave.host.docker("exec", "web", "ip", "rule").stdout
    assert "6784" not in weave.docker("run", "--rm", "--net=none", "busybox", "ip", "rule").stdout
