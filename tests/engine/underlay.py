"""A switch between test hosts, and an etcd with a member on each of them."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from host import TestHost, destroy, unused_name

__all__ = ["Underlay", "start_etcd", "why_no_etcd"]


class Underlay:
    """A network namespace with a bridge, to which each host is connected: 10.99.0.1 and so on, at ``u0``."""

    def __init__(self, hosts: Sequence[TestHost]) -> None:
        self.hosts = hosts
        self.name = unused_name()
        self.addresses = [f"10.99.0.{number}" for number, _ in enumerate(hosts, 1)]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(destroy, self.name)
            _ip("netns", "add", self.name)
            _ip("-n", self.name, "link", "add", "sw", "type", "bridge")
            _ip("-n", self.name, "link", "set", "sw", "up")
            for number, (host, address) in enumerate(zip(self.hosts, self.addresses, strict=True), 1):
                self._connect(host, number, address)
            stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        destroy(self.name)

    def _connect(self, host: TestHost, number: int, address: str) -> None:
        _ip("link", "add", "u0", "netns", host.name, "type", "veth", "peer", "name", f"s{number}", "netns", self.name)
        _ip("-n", self.name, "link", "set", f"s{number}", "master", "sw", "up")
        host.ip("address", "add", f"{address}/24", "dev", "u0")
        host.ip("link", "set", "u0", "up")


def why_no_etcd() -> str | None:
    """Why there can be no etcd here, or None if there can."""
    return None if shutil.which("etcd") else "needs etcd (apt-get install etcd-server)"


def start_etcd(underlay: Underlay) -> str:
    """Start a member on each host, which end with their hosts; returns what ``--store`` is to be."""
    members = ",".join(f"{host.name}=http://{address}:2380"
                       for host, address in zip(underlay.hosts, underlay.addresses, strict=True))
    for host, address in zip(underlay.hosts, underlay.addresses, strict=True):
        with (host.dir / "etcd.log").open("ab") as log:
            host.popen("etcd", "--name", host.name, "--data-dir", host.dir / "etcd", "--logger", "zap",
                       "--listen-client-urls", f"http://{address}:2379", "--advertise-client-urls",
                       f"http://{address}:2379", "--listen-peer-urls", f"http://{address}:2380",
                       "--initial-advertise-peer-urls", f"http://{address}:2380", "--initial-cluster", members,
                       stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + 60
    for host, address in zip(underlay.hosts, underlay.addresses, strict=True):
        while host.run("curl", "-sf", f"http://{address}:2379/health", check=False).returncode:
            if time.monotonic() > deadline:
                raise TimeoutError(f"etcd on {host.name} does not answer; see {host.dir}/etcd.log")
            time.sleep(0.2)
    return "etcd://" + ",".join(f"{address}:2379" for address in underlay.addresses)


def _ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True)
