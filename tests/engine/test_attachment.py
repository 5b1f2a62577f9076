"""Attachment and watcher with a real engine and the kernel; only the router is a fake."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from host import TestHost

from weavemw import wait
from weavemw.attaching.attachment import Attachment
from weavemw.attaching.hostnames import names_for
from weavemw.attaching.watcher import Watcher
from weavemw.dockerapi.client import DockerClient
from weavemw.dockerapi.hosts import Unix
from weavemw.dockerapi.wait_mount import bind_of
from weavemw.network.netlink import NetlinkNetwork, setns
from weavemw.testing import FakeRouter, await_true
from weavemw.transport.http_client import HttpClient

pytestmark = pytest.mark.engine


class Weave:
    """An attachment, and a watcher where a test wants one, in a test host's network namespace."""

    def __init__(self, host: TestHost) -> None:
        self.host, self.router = host, FakeRouter()
        self.docker, self.network = DockerClient(HttpClient(Unix(str(host.socket)))), NetlinkNetwork("weave", 1376)
        self.attachment = Attachment(docker=self.docker, router=self.router, network=self.network,
                                     run_dir=host.run_dir)
        self.watchers: list[Watcher] = []
        self.wait_dir = wait.install(host.state_dir)

    def watch(self) -> Watcher:
        watcher = Watcher(docker=self.docker, attachment=self.attachment, run_dir=self.host.run_dir,
                          names_for=lambda container: names_for(container, "weave.local."))
        self.watchers.append(watcher)
        watcher.start()
        return watcher

    def run(self, *args: str) -> str:
        """``docker run -d`` of a container that waits for its network, past any proxy; its id."""
        options = ["-v", bind_of(str(self.wait_dir), "/dev/w"), "--entrypoint", "/dev/w"]
        return str(self.host.docker("run", "-d", *options, *args).stdout).strip()

    def inside(self, container: str, *command: str) -> str:
        return str(self.host.docker("exec", container, *command).stdout)

    def has_network(self, container_id: str) -> bool:
        container = self.docker.inspect(container_id)
        return container.is_alive and self.attachment.is_attached(container)

    @property
    def names(self) -> set[str]:
        return {name for _, _, name in self.router.records}

    @property
    def left(self) -> tuple[Any, ...]:
        return self.network.interfaces(), self.router.records, self.router.owners


@contextlib.contextmanager
def weave_on(host: TestHost) -> Iterator[Weave]:
    """In the test host's network namespace, with whatever threads the test starts."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{host.name}", os.O_RDONLY)
    setns(there)
    made = Weave(host)
    try:
        yield made
    finally:
        for watcher in made.watchers:
            watcher.stop()
        setns(home)
        os.close(home)
        os.close(there)


@pytest.fixture
def weave(fresh_host: TestHost) -> Iterator[Weave]:
    with weave_on(fresh_host) as made:
        yield made


def test_command_finds_its_network_and_its_name(weave: Weave) -> None:
    """The command's first sight is a complete interface, and an /etc/hosts that begins with the weave address."""
    container_id = weave.run("--name", "web", "--add-host", "plain:1.2.3.4", "--add-host", "six:2001:db8::7",
                             "busybox", "sh", "-c", "ip addr show ethwe; ip route; cat /etc/hosts; hostname -i")
    address = weave.router.allocate(container_id)
    assert weave.attachment.attach(container_id, (address,), ("web.weave.local",))
    weave.host.docker("wait", container_id)
    said = weave.host.docker("logs", container_id).stdout
    assert "mtu 1376" in said
    assert "inet 10.32.0.1/24 brd 10.32.0.255 scope global ethwe" in said
    assert "224.0.0.0/4 dev ethwe" in said
    assert f"10.32.0.1\tweb.weave.local web {container_id[:12]}\t# weave\n127.0.0.1\tlocalhost" in said
    assert "1.2.3.4\tplain" in said
    assert "2001:db8::7\tsix" in said
    assert said.splitlines()[-1].split()[0] == "10.32.0.1"


def kill_its_process(weave: Weave) -> None:
    os.kill(weave.docker.inspect("web").pid, signal.SIGKILL)


def restart_it(weave: Weave) -> None:
    weave.host.docker("restart", "-t", "0", "web")


def stop_and_start_it(weave: Weave) -> None:
    weave.host.docker("stop", "-t", "0", "web")
    weave.host.docker("start", "web")


def test_every_way_to_start_without_a_client(weave: Weave) -> None:
    """Restarted by its policy or past us, paused, renamed: attached, with the same address, by its name of then."""
    weave.watch()
    container_id = weave.run("--name", "web", "--restart", "always", "busybox", "sleep", "600")
    await_true(lambda: weave.has_network(container_id))
    for disturb in (kill_its_process, restart_it, stop_and_start_it):
        before = weave.docker.inspect(container_id).started_at
        disturb(weave)
        await_true(lambda before=before: weave.docker.inspect(container_id).started_at != before, timeout=20)
        await_true(lambda: weave.has_network(container_id), timeout=20)
        await_true(lambda: weave.names == {"web.weave.local"})
        assert "10.32.0.1/24" in weave.inside("web", "ip", "addr", "show", "ethwe")
    weave.host.docker("pause", "web")
    weave.host.docker("unpause", "web")
    assert weave.has_network(container_id)
    weave.host.docker("rename", "web", "shop")
    await_true(lambda: weave.names == {"shop.weave.local"})


def test_every_way_to_die_leaves_nothing(weave: Weave) -> None:
    """Exit, kill, stop and rm -f: the interface and the name go at once, the address with the container."""
    weave.watch()
    ids = [weave.run("--name", f"c{number}", "busybox", "sleep", "600") for number in range(4)]
    await_true(lambda: all(map(weave.has_network, ids)), timeout=20)
    os.kill(weave.docker.inspect(ids[0]).pid, signal.SIGKILL)
    weave.host.docker("kill", "c1")
    weave.host.docker("stop", "-t", "0", "c2")
    weave.host.docker("rm", "-f", "c3")
    await_true(lambda: weave.network.interfaces() == () and weave.router.records == set())
    await_true(lambda: set(weave.router.owners) == set(ids[:3]))
    weave.host.docker("container", "prune", "-f")
    await_true(lambda: weave.left == ((), set(), {}))


def test_ghost_does_not_answer(weave: Weave) -> None:
    """A namespace that somebody keeps open has no way to the network once its container has ended."""
    weave.watch()
    container_id = weave.run("busybox", "sleep", "600")
    await_true(lambda: weave.has_network(container_id))
    ghost = os.open(f"/proc/{weave.docker.inspect(container_id).pid}/ns/net", os.O_RDONLY)
    try:
        weave.host.docker("kill", container_id)
        await_true(lambda: weave.network.interfaces() == ())
        links = subprocess.run(["nsenter", f"--net=/proc/self/fd/{ghost}", "ip", "link"], pass_fds=[ghost],
                               capture_output=True, text=True, check=True).stdout
        assert "ethwe" not in links
    finally:
        os.close(ghost)


def test_network_connect_and_disconnect_keep_it(weave: Weave) -> None:
    """Docker's own networks come and go beside ethwe, and Docker's edits of /etc/hosts keep our line."""
    weave.watch()
    container_id = weave.run("--name", "web", "busybox", "sleep", "600")
    await_true(lambda: weave.has_network(container_id))
    weave.host.docker("network", "create", "shop")
    weave.host.docker("network", "connect", "shop", "web")
    weave.host.docker("network", "disconnect", "bridge", "web")
    weave.host.docker("network", "disconnect", "shop", "web")
    assert weave.has_network(container_id)
    assert weave.inside("web", "cat", "/etc/hosts").startswith("10.32.0.1\tweb.weave.local web")


@pytest.mark.parametrize("live_restore", [False, True])
def test_dockerd_killed_and_back(make_host: Any, live_restore: bool) -> None:
    """After kill -9 of dockerd everything is attached as before, with the same addresses, whoever kept running."""
    host = make_host(live_restore=live_restore)
    with weave_on(host) as weave:
        watcher = weave.watch()
        ids = [weave.run("--restart", "always", "busybox", "sleep", "600") for _ in range(3)]
        await_true(lambda: all(map(weave.has_network, ids)), timeout=20)
        owners = dict(weave.router.owners)
        host.restart_dockerd(signal.SIGKILL)
        await_true(lambda: watcher.state.counters["connections"] > 1 and watcher.state.connected, timeout=30)
        await_true(lambda: all(map(weave.has_network, ids)), timeout=30)
        assert weave.router.owners == owners
        await_true(lambda: watcher.state.pending == {}, timeout=30)


def test_many_short_runs_leave_nothing(weave: Weave) -> None:
    """Containers that are gone before anybody looked leave neither address nor name nor interface."""
    weave.watch()
    for _ in range(15):
        weave.run("--rm", "busybox", "true")
    await_true(lambda: weave.docker.container_ids(everything=True) == (), timeout=30)
    await_true(lambda: weave.left == ((), set(), {}))
