"""Nothing is lost: what is attached stays attached, whichever process is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from host import TestHost
from launched import Launched, eventually

pytestmark = [pytest.mark.root, pytest.mark.engine]

FIVE = [f"always{number}" for number in range(5)]


@pytest.fixture(scope="module")
def five(make_module_host: Callable[..., TestHost]) -> Launched:
    """Weave, and five containers that Docker restarts."""
    launched = Launched(make_module_host())
    for name in FIVE:
        launched.docker("run", "-d", "--restart=always", "--name", name, "busybox", "sleep", "3600")
    return launched


def main_pid(launched: Launched, container: str) -> int:
    return int(launched.host.docker("inspect", "-f", "{{.State.Pid}}", container).stdout)


def workers(launched: Launched) -> list[int]:
    pid = main_pid(launched, "weaveproxy")
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill_workers(launched: Launched) -> None:
    for pid in workers(launched):
        os.kill(pid, signal.SIGKILL)


def kill_master(launched: Launched) -> None:
    os.kill(main_pid(launched, "weaveproxy"), signal.SIGKILL)


def kill_router(launched: Launched) -> None:
    os.kill(main_pid(launched, "weave"), signal.SIGKILL)


def kill_dockerd(launched: Launched) -> None:
    launched.host.kill_dockerd()
    launched.host.start_dockerd()


def kill_containers(launched: Launched) -> None:
    for name in FIVE:
        os.kill(main_pid(launched, name), signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_workers, kill_master, kill_router, kill_dockerd, kill_containers])
def test_all_are_attached_again_with_their_addresses(five: Launched, kill: Callable[[Launched], None]) -> None:
    """After kill -9, all five have the addresses that they had, resolve, and reach each other; so does a new one."""
    before = {name: five.ethwe(name) for name in FIVE}
    assert all(before.values())
    kill(five)
    assert eventually(lambda: {name: five.ethwe(name) for name in FIVE} == before, within=60)
    assert eventually(lambda: five.names() >= {(f"{name}.weave.local.", address.partition("/")[0])
                                               for name, address in before.items()})
    assert eventually(lambda: five.weave("healthcheck"))
    assert five.host.docker("exec", FIVE[0], "ping", "-c1", "-w5", FIVE[1])
    assert eventually(lambda: five.docker("run", "--rm", "busybox", "ping", "-c1", "-w5", FIVE[2]))


def test_reboot(make_host: Callable[..., TestHost]) -> None:
    """After the host comes up again, with Docker starting everything at once, all are attached as before."""
    launched = Launched(make_host())
    for name in FIVE:
        launched.docker("run", "-d", "--restart=always", "--name", name, "busybox", "sleep", "3600")
    before = {name: launched.ethwe(name) for name in FIVE}
    launched.host.kill_dockerd(signal.SIGTERM)
    launched.host.ip("link", "delete", "weave")
    launched.host.start_dockerd()
    assert eventually(lambda: {name: launched.ethwe(name) for name in FIVE} == before, within=60)
