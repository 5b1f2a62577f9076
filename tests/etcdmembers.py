"""Real members of etcd for tests: on loopback, each a process of ours, in a directory of the test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

ETCD = shutil.which("etcd")


def free_ports(count: int) -> list[int]:
    """Ports of loopback on which nobody listens."""
    socks = [socket.socket() for _ in range(count)]
    for sock in socks:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in socks]
    for sock in socks:
        sock.close()
    return ports


class Member:
    """One member; ``flags`` are further options of etcd's."""

    def __init__(self, name: str, directory: Path, client: int, peer: int, flags: Sequence[str] = (),
                 scheme: str = "http") -> None:
        self.name, self.directory, self.client, self.peer = name, directory, client, peer
        self.flags, self.scheme = flags, scheme
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def at(self) -> str:
        return f"127.0.0.1:{self.client}"

    def start(self, cluster: str, state: str = "new") -> None:
        assert ETCD
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen([
                ETCD, "--name", self.name, "--data-dir", str(self.directory / self.name), "--logger", "zap",
                "--listen-client-urls", f"{self.scheme}://{self.at}", "--advertise-client-urls",
                f"{self.scheme}://{self.at}", "--listen-peer-urls", f"http://127.0.0.1:{self.peer}",
                "--initial-advertise-peer-urls", f"http://127.0.0.1:{self.peer}", "--initial-cluster", cluster,
                "--initial-cluster-state", state, *self.flags], stdout=log, stderr=log)

    def send(self, number: int) -> None:
        assert self.process
        os.kill(self.process.pid, number)

    def stop(self) -> None:
        if self.process:
            with suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGCONT)
                self.process.kill()
            self.process.wait()
            self.process = None


class Cluster:
    """Members that know one another."""

    def __init__(self, directory: Path, size: int = 1, flags: Sequence[str] = (), scheme: str = "http") -> None:
        ports = free_ports(2 * size)
        self.members = [Member(f"m{n}", directory, ports[2 * n], ports[2 * n + 1], flags, scheme) for n in range(size)]
        self.names = ",".join(f"{each.name}=http://127.0.0.1:{each.peer}" for each in self.members)

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return "etcd://" + ",".join(each.at for each in self.members)

    def start(self) -> None:
        for member in self.members:
            member.start(self.names)

    def wait(self, limit: float = 30) -> None:
        """Until all members have a leader; by plain HTTP only."""
        deadline = time.monotonic() + limit
        while not all(self.status(member) for member in self.members):
            assert time.monotonic() < deadline, "etcd did not start"
            time.sleep(0.1)

    @staticmethod
    def status(member: Member) -> dict[str, object] | None:
        request = urllib.request.Request(f"http://{member.at}/v3/maintenance/status", data=b"{}")
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:
                status = json.load(answer)
                return status if status.get("leader", "0") != "0" else None
        except (OSError, ValueError):
            return None

    def leader(self) -> Member:
        for member in self.members:
            status = self.status(member)
            if status and status["leader"] == status["header"]["member_id"]:  # type: ignore[index]
                return member
        raise AssertionError("no leader")

    def stop(self) -> None:
        for member in self.members:
            member.stop()
