"""Machines for tests: network namespaces on one underlay, each with a weave bridge, and containers on that.

A machine has ``u0`` with 10.99.0.N and fd99::N. What is done on it is done by a thread that is there.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any, TypeVar

from weavemw.cluster.peers import Peer, RemoteContainer, Underlay
from weavemw.network.netlink import ensure_bridge, setns

T = TypeVar("T")

_numbers = itertools.count(1)
MTU = 1376


def ip(*argv: str) -> str:
    return subprocess.run(["ip", *argv], check=True, capture_output=True, text=True).stdout


def _enter(name: str) -> None:
    """Let this thread be in the namespace, and its programs have a /run/wireguard of their own."""
    Path("/run/wireguard").mkdir(exist_ok=True)
    assert ctypes.CDLL(None).unshare(0x00020000) == 0  # CLONE_NEWNS
    subprocess.run("mount --make-rprivate / && mount -t tmpfs tmpfs /run/wireguard", shell=True, check=True)
    descriptor = os.open(f"/run/netns/{name}", os.O_RDONLY)
    setns(descriptor)
    os.close(descriptor)


class Space:
    """A network namespace, and a thread in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        ip("netns", "add", name)
        self._thread = ThreadPoolExecutor(1, initializer=_enter, initargs=(name,))
        self.ip("link", "set", "lo", "up")

    def do(self, action: Callable[[], T]) -> T:
        return self._thread.submit(action).result()

    def ip(self, *argv: str) -> str:
        return ip("-n", self.name, *argv)

    def run(self, *argv: str, check: bool = True) -> str:
        result = subprocess.run(["ip", "netns", "exec", self.name, *argv], capture_output=True, text=True, check=False)
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    def popen(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(["ip", "netns", "exec", self.name, *argv], text=True, **options)

    def close(self) -> None:
        self._thread.shutdown()
        ip("netns", "del", self.name)


class Container(Space):
    """A namespace with ``ethwe`` on a machine's bridge."""

    def __init__(self, machine: Machine, name: str, address: str, number: int) -> None:
        super().__init__(name)
        self.machine, self.addresses = machine, (address,)
        self.mac = f"02:cc:00:00:00:{number:02x}"
        machine.ip("link", "add", f"p{number}", "mtu", str(MTU), "master", "weave", "type", "veth", "peer", "name",
                   "ethwe", "mtu", str(MTU), "address", self.mac, "netns", name)
        machine.ip("link", "set", f"p{number}", "up")
        self.ip("link", "set", "ethwe", "up")
        self.ip("address", "add", address, "dev", "ethwe", *(["nodad"] if ":" in address else ["brd", "+"]))

    @property
    def remote(self) -> RemoteContainer:
        return RemoteContainer(self.name, self.machine.id, self.mac, tuple(map(ip_interface, self.addresses)))

    def ping(self, address: str, *options: str) -> str:
        return self.run("busybox", "ping", "-c", "1", "-W", "2", *options, address, check=False)


class Machine(Space):
    """One host of several."""

    def __init__(self, name: str, number: int, mtu: int = 1500) -> None:
        super().__init__(name)
        self.number = number
        self.id = f"02:00:00:00:00:{number:02x}"
        self.address, self.address6 = f"10.99.0.{number}", f"fd99::{number}"
        self.mtu = mtu

    def plug(self, switch: Space) -> None:
        ip("link", "add", "u0", "netns", self.name, "mtu", str(self.mtu), "type", "veth", "peer", "name",
           f"s{self.number}", "mtu", str(self.mtu), "netns", switch.name)
        switch.ip("link", "set", f"s{self.number}", "master", "sw", "up")
        self.ip("address", "add", f"{self.address}/24", "dev", "u0")
        self.ip("address", "add", f"{self.address6}/64", "dev", "u0", "nodad")
        self.ip("link", "set", "u0", "up")
        self.do(lambda: ensure_bridge("weave", MTU))
        self.ip("address", "add", "169.254.53.1/32", "dev", "weave")

    def close(self) -> None:
        """wireguard-go ends with its interface, and would keep the namespace else."""
        subprocess.run(["ip", "-n", self.name, "link", "delete", "weave-wg"], capture_output=True, check=False)
        super().close()

    def peer(self, key: str | None = None, family: int = 4) -> Peer:
        endpoint = ip_address(self.address if family == 4 else self.address6)
        return Peer(self.id, self.name, Underlay((endpoint,), self.mtu, key))


class Site:
    """All machines and containers of a test."""

    def __init__(self, machines: int, mtu: int = 1500) -> None:
        self.base = f"wm{os.getpid()}-{next(_numbers)}"
        self._count = itertools.count(1)
        self.spaces: list[Space] = []
        self.switch = self._add(Space(f"{self.base}-sw"))
        self.switch.ip("link", "add", "sw", "mtu", str(mtu), "type", "bridge", "mcast_snooping", "0")
        self.switch.ip("link", "set", "sw", "up")
        self.machines = [self.machine(mtu) for _ in range(machines)]

    def machine(self, mtu: int = 1500) -> Machine:
        number = next(self._count)
        machine = self._add(Machine(f"{self.base}-h{number}", number, mtu))
        machine.plug(self.switch)
        return machine

    def container(self, machine: Machine, address: str) -> Container:
        number = next(self._count)
        return self._add(Container(machine, f"{self.base}-c{number}", address, number))

    def _add(self, space: T) -> T:
        self.spaces.append(space)  # type: ignore[arg-type]
        return space

    def close(self) -> None:
        for space in reversed(self.spaces):
            space.close()


@contextmanager
def captured(space: Space, device: str = "u0") -> Iterator[list[bytes]]:
    """All packets of an interface during the block, as they are at its end."""
    found: list[bytes] = []
    with space.do(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))) as sock:
        sock.bind((device, 3))
        sock.setblocking(False)
        yield found
        time.sleep(0.2)
        while True:
            try:
                found.append(sock.recv(65536))
            except BlockingIOError:
                return


def vxlan_packets(packets: list[bytes]) -> list[bytes]:
    """What is inside of those IPv4 packets that are VXLAN's (UDP port 6784)."""
    return [packet[50:] for packet in packets
            if packet[12:14] == b"\x08\x00" and packet[23] == 17 and packet[36:38] == (6784).to_bytes(2, "big")]
