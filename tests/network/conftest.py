"""Network namespaces for tests: one that plays the host, and processes in others that play containers."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from weavemw.network.netlink import setns

_numbers = itertools.count(1)


def make_namespace() -> str:
    name = f"weavemw-{os.getpid()}-{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    return name


@pytest.fixture
def host() -> Iterator[str]:
    """The test runs in a network namespace of its own; the value is its name."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    name = make_namespace()
    there = os.open(f"/var/run/netns/{name}", os.O_RDONLY)
    setns(there)
    try:
        yield name
    finally:
        setns(home)
        os.close(there)
        os.close(home)
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def container(host: str) -> Iterator[Callable[[], int]]:
    """Starts a process in a namespace of its own; the value of a call is its pid."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> int:
        process = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo && exec sleep 600"], stdout=subprocess.PIPE)
        started.append(process)
        process.stdout.readline()
        return process.pid

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.fixture
def ip() -> Callable[..., str]:
    """Runs ``ip`` here, or in the namespace of a pid."""

    def run(*args: str, pid: int | None = None) -> str:
        command = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", *args] if pid else ["ip", *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    return run


@pytest.fixture
def descriptors() -> Callable[[], int]:
    """How many file descriptors this process has open."""
    return lambda: len(list(Path("/proc/self/fd").iterdir()))
