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


def restart_by_docker(launched: Launched) -> None:
    launched.host.docker("restart", "weave", "weaveproxy")


def stop_by_docker(launched: Launched) -> None:
    launched.host.docker("stop", "weaveproxy")
    assert "weaveproxy was stopped: `weave relaunch` starts it" in launched.weave("status", check=False).stdout
    launched.weave("relaunch")


def remove_by_docker(launched: Launched) -> None:
    launched.host.docker("rm", "-f", "weaveproxy")
    launched.weave("launch-proxy", "-H", launched.via)


def kill_containers(launched: Launched) -> None:
    for name in FIVE:
        os.kill(main_pid(launched, name), signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_workers, kill_master, kill_router, kill_dockerd, kill_containers,
                                  restart_by_docker, stop_by_docker, remove_by_docker])
def test_all_are_attached_again_with_their_addresses(five: Launched, kill: Callable[[Launched], None]) -> None:
    """After kill -9, or docker's commands on ours, all five have their addresses and names; so has a new one."""
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


def test_dockerd_is_replaced_under_running_containers(make_host: Callable[..., TestHost]) -> None:
    """With live-restore, as at an upgrade of Docker: nothing is started anew, and all serves again."""
    launched = Launched(make_host(live_restore=True))
    launched.docker("run", "-d", "--restart=always", "--name", "web", "busybox", "sleep", "3600")
    before = [main_pid(launched, name) for name in ("weave", "weaveproxy", "web")]
    launched.host.restart_dockerd()
    assert [main_pid(launched, name) for name in ("weave", "weaveproxy", "web")] == before
    assert eventually(lambda: launched.docker("run", "--rm", "busybox", "ping", "-c1", "-w5", "web"))
    assert eventually(lambda: launched.weave("healthcheck"))


def test_a_program_that_can_not_start_again_says_why(five: Launched) -> None:
    """After a reboot into another network, say: the status has the router's own reason, while Docker goes on trying."""
    five.host.ip("route", "add", "10.33.0.0/16", "dev", "docker0")
    kill_router(five)
    assert eventually(lambda: "overlaps the route 10.33.0.0/16" in five.weave("status", check=False).stdout)
    five.host.ip("route", "delete", "10.33.0.0/16", "dev", "docker0")
    assert eventually(lambda: five.weave("healthcheck"), within=60)
