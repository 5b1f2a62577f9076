"""What somebody breaks on a host mends itself within seconds; what can't be mended is said."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest
from host import TestHost
from launched import Launched, eventually

from weavemw.network.plan import host_names

pytestmark = [pytest.mark.root, pytest.mark.engine]

MakeHost = Callable[..., TestHost]
SOON = 20


@pytest.fixture(scope="module")
def launched(make_module_host: MakeHost) -> Launched:
    """Weave, and two containers, one of them attached by hand."""
    launched = Launched(make_module_host())
    launched.docker("run", "-d", "--name", "web", "busybox", "sleep", "3600")
    launched.host.docker("run", "-d", "--name", "hand", "busybox", "sleep", "3600")
    launched.weave("attach", "hand")
    return launched


def pid_of(launched: Launched, container: str) -> str:
    return str(launched.host.docker("inspect", "-f", "{{.State.Pid}}", container).stdout).strip()


def id_of(launched: Launched, container: str) -> str:
    return str(launched.host.docker("inspect", "-f", "{{.Id}}", container).stdout).strip()


def inside(launched: Launched, container: str, *ip: str) -> None:
    launched.host.run("nsenter", "-t", pid_of(launched, container), "-n", "ip", *ip)


def host_end(launched: Launched, container: str) -> str:
    return host_names(id_of(launched, container))[0]


def delete_bridge(launched: Launched) -> None:
    launched.host.ip("link", "delete", "weave")


def bridge_down(launched: Launched) -> None:
    launched.host.ip("link", "set", "weave", "down")


def off_the_bridge(launched: Launched) -> None:
    for name in ("web", "hand"):
        launched.host.ip("link", "set", host_end(launched, name), "nomaster")


def host_ends_down(launched: Launched) -> None:
    for name in ("web", "hand"):
        launched.host.ip("link", "set", host_end(launched, name), "down")


def pairs_deleted(launched: Launched) -> None:
    for name in ("web", "hand"):
        launched.host.ip("link", "delete", host_end(launched, name))


def ethwe_down(launched: Launched) -> None:
    for name in ("web", "hand"):
        inside(launched, name, "link", "set", "ethwe", "down")


def without_addresses(launched: Launched) -> None:
    for name in ("web", "hand"):
        inside(launched, name, "address", "flush", "dev", "ethwe")


def tables_flushed(launched: Launched) -> None:
    launched.host.run("iptables", "-F")
    launched.host.run("iptables", "-P", "FORWARD", "DROP")


def router_without_its_state(launched: Launched) -> None:
    launched.host.docker("stop", "-t", "1", "weave")
    for file in launched.host.state_dir.glob("router.db*"):
        file.unlink()
    launched.host.docker("start", "weave")


def names_wiped(launched: Launched) -> None:
    launched.host.run("curl", "-sf", "-X", "DELETE", "http://127.0.0.1:6784/name")


BREAKS = [delete_bridge, bridge_down, off_the_bridge, host_ends_down, pairs_deleted, ethwe_down, without_addresses,
          tables_flushed, router_without_its_state, names_wiped]


@pytest.mark.parametrize("damage", BREAKS)
def test_what_is_broken_is_mended(launched: Launched, damage: Callable[[Launched], None]) -> None:
    """Both have their addresses, reach each other by name, and weave says that it is healthy."""
    before = {name: launched.ethwe(name) for name in ("web", "hand")}
    assert all(before.values())
    damage(launched)

    def whole() -> bool:
        return {name: launched.ethwe(name) for name in before} == before \
            and {name for name, _ in launched.names()} >= {"web.weave.local.", "hand.weave.local."} \
            and bool(launched.host.docker("exec", "web", "ping", "-c1", "-w1", before["hand"].partition("/")[0])) \
            and bool(launched.host.docker("exec", "web", "nslookup", "hand.weave.local"))

    assert eventually(whole, SOON)
    assert eventually(lambda: launched.weave("healthcheck"), SOON)
    assert set(before) <= {each["name"] for each in launched.status()["containers"]["attached"]}
    assert launched.held()[id_of(launched, "web")] == [before["web"]]


def test_attach_mends(make_host: MakeHost) -> None:
    """`weave attach` gives a container its interface back where nobody watches."""
    host = make_host()
    launched = Launched(host)
    launched.docker("run", "-d", "--name", "web", "busybox", "sleep", "3600")
    before = launched.ethwe("web")
    launched.weave("stop-proxy")
    host.ip("link", "set", host_end(launched, "web"), "nomaster")
    assert launched.weave("attach", "web").stdout.split() == [before.partition("/")[0]]
    assert host.links()[host_end(launched, "web")]["master"] == "weave"


def test_what_was_detached_by_hand_stays_so(launched: Launched) -> None:
    """After relaunch too; the status says why. Started again it is attached again."""
    launched.docker("run", "-d", "--name", "off", "busybox", "sleep", "3600")
    launched.weave("detach", "off")
    launched.weave("relaunch")
    assert eventually(lambda: launched.weave("healthcheck"))

    def rows() -> dict[str, str]:
        return {each["name"]: each["reason"] for each in launched.status()["containers"]["left_alone"]}

    assert eventually(lambda: rows().get("off") == "it was detached by hand")
    assert not launched.ethwe("off")
    launched.host.docker("restart", "-t", "0", "off")
    assert eventually(lambda: launched.ethwe("off"))


def test_without_a_proxy(make_host: MakeHost) -> None:
    """What `weave run` attached is mended, attached again after a restart, and leaves nothing when it is gone."""
    host = make_host()
    launched = Launched(host)
    launched.weave("stop-proxy")
    launched.weave("run", "10.2.1.1/24", "--name", "r1", "busybox", "sleep", "3600")
    host.ip("link", "set", host_end(launched, "r1"), "nomaster")
    assert eventually(lambda: host.links().get(host_end(launched, "r1"), {}).get("master") == "weave")
    host.docker("restart", "-t", "0", "r1")
    assert eventually(lambda: launched.ethwe("r1") == "10.2.1.1/24" and launched.names())
    host.docker("rm", "-f", "r1")
    assert eventually(lambda: launched.left() == ({}, set(), set()))


def test_the_host_keeps_its_own_address(make_host: MakeHost) -> None:
    """What was exposed is so again after the bridge was removed; what was hidden is not."""
    host = make_host()
    launched = Launched(host)
    address = launched.weave("expose").stdout.strip()
    time.sleep(6)  # the router looks every five seconds
    host.ip("link", "delete", "weave")
    assert eventually(lambda: address in host.ip("address", "show", "dev", "weave"))
    launched.weave("hide")
    host.ip("link", "delete", "weave")
    assert eventually(lambda: "169.254.53.1" in host.ip("address", "show", "dev", "weave"))
    assert address not in host.ip("address", "show", "dev", "weave")


@pytest.mark.timeout(300)
def test_health_tells_the_truth(make_host: MakeHost) -> None:
    """Each of these is said by `weave healthcheck`, `status` and `doctor`, for as long as it is so, and by Docker."""
    host = make_host()
    launched = Launched(host)
    launched.docker("run", "-d", "--name", "web", "busybox", "sleep", "3600")
    launched.docker("run", "-d", "--name", "db", "--net=none", "busybox", "sleep", "3600")
    assert eventually(lambda: launched.weave("healthcheck"))
    found = launched.weave("doctor", check=False)
    assert found.returncode == 0, found.stdout
    assert {"reachability: fine",
            "DNS at 169.254.53.1: fine", "DNS at 172.17.0.1: fine", "clock: fine"} <= set(found.stdout.splitlines())

    def said(words: str) -> bool:
        asked = [launched.weave(verb, check=False) for verb in ("healthcheck", "status", "doctor")]
        return all(each.returncode == 1 and words in each.stdout + each.stderr for each in asked)

    host.dockerd and host.dockerd.send_signal(signal.SIGSTOP)
    assert eventually(lambda: said("did not answer"), 40)
    host.dockerd and host.dockerd.send_signal(signal.SIGCONT)
    assert eventually(lambda: launched.weave("healthcheck"), 90)
    router = int(pid_of(launched, "weave"))
    os.kill(router, signal.SIGSTOP)
    assert eventually(lambda: said("did not answer"), 40)
    os.kill(router, signal.SIGCONT)
    assert eventually(lambda: launched.weave("healthcheck"), 90)
    host.run("chattr", "+i", host.state_dir)
    try:
        assert eventually(lambda: said(f"can't write in {host.state_dir}"), 40)
    finally:
        host.run("chattr", "-i", host.state_dir)
