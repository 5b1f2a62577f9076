"""Two hosts, a router on each, an etcd: what a container of one sends reaches one of the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from etcdmembers import ETCD

from weavemw.network.plan import mac_for

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.root, pytest.mark.skipif(ETCD is None, reason="needs etcd (apt-get install etcd-server)")]


class Hosts:
    """Network namespaces, and the processes in them."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.base = directory, f"wr{os.getpid()}"
        self.names: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def space(self, name: str) -> str:
        self.names.append(f"{self.base}{name}")
        self.ip("netns", "add", self.names[-1])
        self.ip("-n", self.names[-1], "link", "set", "lo", "up")
        return self.names[-1]

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def run(self, space: str, *words: str) -> str:
        done = subprocess.run(["ip", "netns", "exec", space, *words], capture_output=True, text=True, timeout=30)
        return done.stdout.strip()

    def begin(self, space: str, *words: str) -> None:
        with (self.directory / "log").open("ab") as log:
            self.processes.append(subprocess.Popen(["ip", "netns", "exec", space, *words], cwd=ROOT, stdout=log,
                                                   stderr=log))

    def ask(self, space: str, method: str, path: str, *more: str) -> str:
        return self.run(space, "curl", "-s", "-m", "20", "-X", method, *more, f"http://127.0.0.1:6784{path}")

    def router(self, number: int, space: str) -> None:
        state = self.directory / space
        self.begin(space, sys.executable, "-m", "weavemw.router", "--state-dir", str(state), "--run-dir",
                   str(state / "run"), "--store", "etcd://10.99.0.1", "--nickname", f"host{number}", "--upstream",
                   "127.0.0.1:9")

    def container(self, host: str, owner: str) -> tuple[str, str]:
        """A container on the bridge of a host: its namespace and its address."""
        inside = self.space(f"{owner[0]}c")
        self.ip("link", "add", "ethwe", "netns", inside, "type", "veth", "peer", "name", "v0", "netns", host)
        self.ip("-n", inside, "link", "set", "ethwe", "address", mac_for(owner), "mtu", "1376", "up")
        self.ip("-n", host, "link", "set", "v0", "mtu", "1376", "master", "weave", "up")
        address = self.ask(host, "POST", f"/ip/{owner}")
        self.ip("-n", inside, "address", "add", address, "dev", "ethwe")
        self.ask(host, "PUT", f"/name/{owner}/{address.split('/')[0]}", "-d", f"fqdn={owner[0]}.weave.local")
        return inside, address.split("/")[0]

    def end(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait()
        for name in self.names:
            self.ip("netns", "del", name)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    hosts = Hosts(tmp_path)
    try:
        yield hosts
    finally:
        hosts.end()


def until(holds: Callable[[], object], limit: float = 30) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_containers_of_two_hosts_reach_each_other(hosts: Hosts) -> None:
    one, two = hosts.space("a"), hosts.space("b")
    hosts.ip("link", "add", "u0", "netns", one, "type", "veth", "peer", "name", "u0", "netns", two)
    for number, space in enumerate((one, two), 1):
        hosts.ip("-n", space, "address", "add", f"10.99.0.{number}/24", "dev", "u0")
        hosts.ip("-n", space, "link", "set", "u0", "up")
        hosts.ip("-n", space, "route", "add", "default", "via", f"10.99.0.{3 - number}")
    etcd = shutil.which("etcd")
    assert etcd
    hosts.begin(one, etcd, "--data-dir", str(hosts.directory / "etcd"), "--logger", "zap", "--listen-client-urls",
                "http://10.99.0.1:2379", "--advertise-client-urls", "http://10.99.0.1:2379")
    for number, space in enumerate((one, two), 1):
        hosts.router(number, space)
    for space in (one, two):
        until(lambda space=space: "blocks" in hosts.ask(space, "GET", "/ring"))  # type: ignore[misc]
    first, _ = hosts.container(one, "a" * 64)
    second, address = hosts.container(two, "b" * 64)
    until(lambda: "b" in hosts.ask(one, "GET", "/status/dns").split())
    hosts.begin(second, sys.executable, "-m", "http.server", "8000", "--bind", address, "--directory",
                str(hosts.directory))
    got = ("curl", "-s", "-m", "2", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}:8000/")
    until(lambda: hosts.run(first, *got) == "200")
    hosts.processes[0].kill()  # etcd: what is there goes on
    time.sleep(3)
    assert hosts.run(first, *got) == "200"
    assert hosts.ask(one, "POST", f"/ip/{'c' * 64}").endswith("/12")
    until(lambda: "StoreTrouble" in hosts.ask(one, "GET", "/status"))
