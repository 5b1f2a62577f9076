"""Starts, ends and everything between, through the launched proxy: the network that was promised, or a reason."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from host import TestHost
from launched import Launched, eventually

from weavemw.dockerapi.client import DockerClient
from weavemw.dockerapi.hosts import Unix
from weavemw.transport.http_client import HttpClient

pytestmark = [pytest.mark.root, pytest.mark.engine]

RANGE6 = "fd00:10::/64"


@pytest.fixture(scope="module")
def weave(make_module_host: Callable[..., TestHost]) -> Launched:
    launched = Launched(make_module_host(), "--rewrite-inspect", "--ipalloc-range6", RANGE6)
    launched.host.docker("network", "create", "shop")
    return launched


@pytest.fixture
def clean(weave: Launched) -> Iterator[Launched]:
    """Nothing is left after the test."""
    before = weave.left()
    yield weave
    for container in weave.host.docker("ps", "-aq", "--filter", "label=test").stdout.split():
        weave.host.docker("rm", "-f", container)
    assert eventually(lambda: weave.left() == before, within=15), (before, weave.left())


def run(weave: Launched, name: str, *options: str, command: tuple[str, ...] = ("sleep", "999")) -> str:
    """``docker run -d`` through the proxy; the container's full id."""
    done = weave.docker("run", "-d", "--label", "test", "--name", name, *options, "busybox", *command)
    return str(done.stdout).strip()


def shown(weave: Launched, container: str, template: str) -> str:
    return str(weave.host.docker("inspect", "-f", template, container).stdout).strip()


def waiting(weave: Launched) -> list[dict[str, Any]]:
    """The containers that wait, as `weave status` tells of them."""
    return list(weave.status()["containers"]["waiting"])


def inside(weave: Launched, container: str, *command: str) -> str:
    return str(weave.host.docker("exec", container, *command).stdout)


def kill_process(weave: Launched, container: str) -> None:
    os.kill(int(shown(weave, container, "{{.State.Pid}}")), signal.SIGKILL)


# What a container has

def test_both_families_at_once(clean):
    """Where the router has a range of IPv6, a container has an address of each family, and its name both."""
    run(clean, "web")
    seen = inside(clean, "web", "ip", "-o", "address", "show", "dev", "ethwe", "scope", "global")
    six = next(word for word in seen.split() if word.startswith("fd00:10::"))
    assert "inet 10.32." in seen
    assert {("web.weave.local.", six.partition("/")[0])} < clean.names()
    assert "1 packets received" in clean.docker(
        "run", "--rm", "busybox", "ping", "-6", "-c1", "-w5", six.partition("/")[0]).stdout
    clean.docker("restart", "-t0", "web")
    assert inside(clean, "web", "ip", "-o", "address", "show", "dev", "ethwe", "scope", "global").count("inet") == 2


@pytest.mark.parametrize("address", ["10.33.7.7/24", "192.0.2.7/24", "fd00:99::7/64"])
def test_no_address_twice(clean, address):
    """Within the range and elsewhere, the second to claim an address is refused while the first runs."""
    claim = ("-e", f"WEAVE_CIDR={address}")
    first = run(clean, "first", *claim)
    refused = clean.docker("run", "-d", "--label", "test", *claim, "busybox", "sleep", "9", check=False)
    assert f"address {address} is already owned by first ({first[:12]})" in refused.stderr
    clean.host.docker("stop", "-t0", "first")
    second = run(clean, "second", *claim)
    told = clean.docker("start", "first", check=False)
    assert f"address {address} is already owned by second ({second[:12]})" in told.stderr
    clean.host.docker("stop", "-t0", "second")
    clean.docker("start", "first")
    assert address in clean.held()[first]


def test_warnings_of_create(clean):
    """The docker command shows what a user would want to know of the network; a refusal says whose it is."""
    holder = ("-e", "WEAVE_CIDR=10.33.7.9/24")
    run(clean, "holder", *holder)
    create = ("create", "--label", "test")
    said = clean.docker(*create, *holder, "-e", "WEAVE_CDIR=none", "busybox").stderr
    assert "weave: 10.33.7.9/24 reaches only 10.33.7.0/24; containers with automatic addresses are in" in said
    assert "weave: 10.33.7.9 is held by holder, which runs" in said
    assert "did you mean WEAVE_CIDR?" in said
    for options in ([], ["--net=host"], ["-e", "WEAVE_CIDR=none"]):
        assert clean.docker(*create, *options, "busybox").stderr == ""
    for wanted, why in (("net:10.99.0.0/24", "range 10.99.0.0/24 out of bounds: 10.32.0.0/12"),
                        ("172.17.0.1/16", "172.17.0.1 is an address of this host"),
                        ("172.17.0.9/16", "172.17.0.9 is in the network of the bridge docker0 of this host"),
                        ("10.32.0.0/8", "10.32.0.0 is the network address of the range 10.32.0.0/12")):
        refused = clean.docker(*create, "-e", f"WEAVE_CIDR={wanted}", "busybox", check=False).stderr
        assert f'weave: invalid WEAVE_CIDR "{wanted}": {why}; choose another' in refused
    assert "weave: invalid WEAVE_CIDR" in clean.docker(*create, "-e", "WEAVE_CIDR=x", "busybox", check=False).stderr


def test_a_create_without_image(clean):
    """Engine 20.10 makes an empty root of it, which binds fill: it is attached like any other."""
    root = clean.host.dir / "own-root"
    root.mkdir()
    shutil.copy(shutil.which("busybox"), root / "busybox")
    docker = DockerClient(HttpClient(Unix(str(clean.socket))))
    body = {"Cmd": ["/own/busybox", "sleep", "99"], "Labels": {"test": ""}, "HostConfig": {"Binds": [f"{root}:/own"]}}
    try:
        made = docker.requester.ask("POST", "/containers/create?name=rootless", timeout=60,
                                    body=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
        if made.status == 400:
            pytest.skip(f"this engine takes no create without image: {made.text}")
        docker.start("rootless")
        assert "inet 10." in inside(clean, "rootless", "/own/busybox", "ip", "address", "show", "dev", "ethwe")
    finally:
        docker.remove("rootless")


def test_full_subnet_says_so(clean):
    """The start fails with the subnet and how much of it is in use; others are given their addresses meanwhile."""
    for name in ("one", "two"):
        run(clean, name, "-e", "WEAVE_CIDR=net:10.33.9.0/30")
    full = clean.docker("run", "--rm", "-e", "WEAVE_CIDR=net:10.33.9.0/30", "busybox", "true", check=False)
    assert "no free addresses in 10.33.9.0/30 (2 in use)" in full.stderr
    assert clean.docker("run", "--rm", "busybox", "true").returncode == 0


def test_names_of_compose(clean):
    """In a network of yours, a container has its aliases as names too."""
    run(clean, "shop_db_1", "--net=shop", "--network-alias=db")
    assert {name for name, _ in clean.names()} >= {"shop_db_1.weave.local.", "db.weave.local."}


def test_health_check_is_dockers_alone(clean):
    """What was asked for reaches Docker as it is, and works."""
    options = ("--health-cmd", "ip link show ethwe", "--health-interval", "1s")
    run(clean, "web", *options)
    clean.host.docker("create", "--label", "test", "--name", "plain", *options, "busybox", "sleep", "999")
    assert shown(clean, "web", "{{json .Config.Healthcheck}}") == shown(clean, "plain", "{{json .Config.Healthcheck}}")
    assert eventually(lambda: shown(clean, "web", "{{.State.Health.Status}}") == "healthy")


# Starts

def test_start_of_what_runs(clean):
    """A second start changes nothing, and says what Docker says."""
    run(clean, "web")
    before = clean.ethwe("web"), shown(clean, "web", "{{.State.StartedAt}}")
    assert clean.docker("start", "web").returncode == 0
    assert (clean.ethwe("web"), shown(clean, "web", "{{.State.StartedAt}}")) == before


def test_update_of_the_restart_policy(clean):
    """``docker update`` needs nothing of us: restarted by its new policy, the container is attached as before."""
    run(clean, "web")
    address = clean.ethwe("web")
    clean.docker("update", "--restart=always", "--memory=64m", "--memory-swap=64m", "web")
    kill_process(clean, "web")
    assert eventually(lambda: shown(clean, "web", "{{.RestartCount}}") == "1" and clean.ethwe("web") == address)


def test_restart_that_can_not_be_attached_is_tried_again(clean):
    """With the router away a restarted container waits, is listed with the reason, and runs when the router is back."""
    run(clean, "web", "--restart=on-failure:3", command=("sh", "-c", "ip link show ethwe; sleep 999"))
    address = clean.ethwe("web")
    clean.weave("stop-router")
    try:
        kill_process(clean, "web")
        assert eventually(lambda: [each["name"] for each in waiting(clean)] == ["web"])
        assert eventually(lambda: waiting(clean)[0]["attempts"] >= 3, within=20)
        assert "did not answer" in waiting(clean)[0]["reason"]
        assert shown(clean, "web", "{{.State.Running}} {{.RestartCount}}") == "true 1"
    finally:
        clean.weave("launch-router", "--ipalloc-range6", RANGE6)
    assert eventually(lambda: clean.ethwe("web") == address)
    assert eventually(lambda: not waiting(clean))
    assert clean.host.docker("logs", "web").stdout.count("ethwe") == 2


def test_started_past_us_and_executed_meanwhile(clean):
    """What is executed in a container that waits for its network finds it there, as its command does."""
    run(clean, "web")
    clean.docker("stop", "-t0", "web")
    clean.weave("stop-router")
    try:
        clean.host.docker("start", "web")
        executed = clean.host.popen("docker", "-H", clean.via, "exec", "web", "ip", "-4", "address", "show", "ethwe",
                                    stdout=subprocess.PIPE, text=True)
        time.sleep(1)  # nothing can be seen of a process that waits but that it has not ended
        assert executed.poll() is None
    finally:
        clean.weave("launch-router", "--ipalloc-range6", RANGE6)
    assert "inet 10.32." in executed.communicate(timeout=60)[0]


def test_by_hand_is_kept_over_restarts(clean):
    """A container that was not created through us, and was given an address by hand, has it after each restart."""
    clean.host.docker("run", "-d", "--label", "test", "--name", "plain", "busybox", "sleep", "999")
    assert clean.ethwe("plain") == ""
    container_id = shown(clean, "plain", "{{.Id}}")
    clean.host.run("curl", "-sf", "-X", "POST", f"http://127.0.0.1:6784/ip/{container_id}")
    for _ in range(2):
        clean.host.docker("restart", "-t0", "plain")
        assert eventually(lambda: clean.ethwe("plain") == clean.held()[container_id][0])


# Ends

@pytest.mark.parametrize("end", ["exits at once", "runs out of memory", "is removed while it runs"])
def test_every_end_leaves_only_what_the_container_keeps(clean, end):
    """The interface and the name go; the address stays with a container that exists."""
    names, veths = clean.names(), clean.veths()
    command = {"exits at once": ("true",), "is removed while it runs": ("sleep", "999"),
               "runs out of memory": ("sh", "-c", "x=12345678; while :; do x=$x$x; done")}[end]
    container_id = run(clean, "web", "--memory=16m", "--memory-swap=16m", command=command)
    if end == "is removed while it runs":
        clean.docker("rm", "-f", "web")
    else:
        clean.host.docker("wait", "web")
    assert end != "runs out of memory" or shown(clean, "web", "{{.State.ExitCode}}") in ("137", "2")
    assert eventually(lambda: (clean.names(), clean.veths()) == (names, veths), within=10)
    if end == "is removed while it runs":
        assert eventually(lambda: container_id not in clean.held(), within=10)
    else:
        assert container_id in clean.held()


# /etc/hosts

def test_hosts_begin_with_the_weave_address_and_keep_all_else(clean):
    """--add-host in every form stays, also for a user without rights and a read-only root; restarts change nothing."""
    run(clean, "web", "--user=65534", "--read-only", "--add-host=plain:192.0.2.1", "--add-host=six:2001:db8::1",
        "--add-host=gate:host-gateway")
    for _ in range(2):
        hosts = inside(clean, "web", "cat", "/etc/hosts").splitlines()
        address = clean.ethwe("web").partition("/")[0]
        assert hosts[0].split("\t")[:2] == [address, "web.weave.local web"]
        assert [line for line in hosts if line.startswith(address + "\t")] == hosts[:1]
        assert {"192.0.2.1\tplain", "2001:db8::1\tsix", "172.17.0.1\tgate", "127.0.0.1\tlocalhost"} < set(hosts)
        assert inside(clean, "web", "hostname", "-i").split()[0] == address
        clean.docker("restart", "-t0", "web")


@pytest.mark.parametrize("network", ["bridge", "shop"])
def test_its_own_name_is_its_weave_address_alone(clean, network):
    """What glibc would find besides is a comment, until the container is detached."""
    container = run(clean, "web", f"--net={network}", "--add-host=other:192.0.2.1")
    address = clean.ethwe("web").partition("/")[0]

    def own() -> list[str]:
        lines = [line.split() for line in inside(clean, "web", "cat", "/etc/hosts").splitlines() if line[0] != "#"]
        return [line[0] for line in lines if "web" in line and ":" not in line[0]]
    assert own() == [address]
    clean.docker("restart", "-t0", "web")
    assert own() == [address]
    clean.weave("detach", *clean.held()[container], "web")
    left = inside(clean, "web", "cat", "/etc/hosts")
    assert f"\n{shown(clean, 'web', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}')}\t" in left
    assert "weave" not in left


def test_own_hosts_file_is_left_alone(clean):
    """A file that the user mounts at /etc/hosts is not ours to write."""
    own = clean.host.dir / "own-hosts"
    own.write_text("192.0.2.9\tmine\n")
    run(clean, "web", "-v", f"{own}:/etc/hosts")
    assert clean.ethwe("web")
    assert own.read_text() == "192.0.2.9\tmine\n"


# inspect

def test_inspect_shows_the_weave_network(clean):
    """``docker inspect`` by the proxy shows the weave address as a network, and in the old fields where they are."""
    run(clean, "web")
    address = clean.ethwe("web").partition("/")[0]
    every = clean.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", "web").stdout
    assert address in every.split()
    seen = json.loads(clean.docker("inspect", "web").stdout)[0]["NetworkSettings"]
    assert seen["Networks"]["weave"]["IPAddress"] == seen.get("IPAddress", address) == address
    assert seen["Networks"]["weave"]["MacAddress"] in inside(clean, "web", "cat", "/sys/class/net/ethwe/address")
    assert seen["Networks"]["weave"]["GlobalIPv6Address"].startswith("fd00:10::")
    assert address not in clean.host.docker("inspect", "web").stdout


def test_exec_inspect_passes(clean):
    """``inspect`` of an exec is answered, with the weave address where the daemon tells of the container's network."""
    run(clean, "web")
    made = clean.host.run("curl", "-sf", "--unix-socket", clean.socket, "-H", "Content-Type: application/json", "-d",
                          '{"Cmd":["true"]}', "http://docker/containers/web/exec").stdout
    seen = json.loads(clean.host.run("curl", "-sf", "--unix-socket", clean.socket,
                                     f"http://docker/exec/{json.loads(made)['Id']}/json").stdout)
    assert seen["ProcessConfig"]["entrypoint"] == "true"


# The wait program

def test_old_containers_start_after_prune_and_stop(clean):
    """The wait program outlives ``docker system prune`` and ``weave stop``: a container of before starts, and waits."""
    run(clean, "web")
    address = clean.ethwe("web")
    clean.host.docker("stop", "-t0", "web")
    clean.weave("stop")
    try:
        clean.host.docker("start", "web")
        clean.host.docker("system", "prune", "-af", "--volumes")
        clean.host.docker("restart", "-t0", "web")
        assert clean.host.docker("top", "web").stdout.count("/dev/w sleep 999") == 1
    finally:
        clean.weave("launch", "-H", clean.via, "--rewrite-inspect", "--ipalloc-range6", RANGE6)
    assert eventually(lambda: clean.ethwe("web") == address)
    assert "/dev/w" not in clean.host.docker("top", "web").stdout


def test_images_start_elsewhere(clean, make_host):
    """An image that was committed and saved starts on a host that knows nothing of us."""
    run(clean, "web")
    clean.docker("commit", "web", "made")
    file = Path(clean.host.dir) / "made.tar"
    clean.host.docker("save", "-o", file, "made")
    other = make_host(images=False)
    other.docker("load", "-i", file)
    assert other.docker("run", "--rm", "made", "echo", "it runs").stdout == "it runs\n"


# Options

@pytest.fixture(scope="module")
def plain(make_module_host: Callable[..., TestHost]) -> Launched:
    return Launched(make_module_host(), "--no-rewrite-hosts", "--no-multicast-route", "--mtu", "1400", "--without-dns")


def test_what_options_turn_off(plain):
    """Neither hosts nor route nor resolver nor name; the MTU is the one that was asked for, on both ends."""
    seen = plain.docker("run", "--name", "web", "busybox", "sh", "-c",
                        "cat /etc/hosts; ip route; ip link; cat /etc/resolv.conf").stdout
    assert "ethwe@" in seen
    assert "mtu 1400" in seen
    assert "224.0.0.0" not in seen
    assert "weave" not in seen
    assert plain.host.links()["weave"]["mtu"] == 1400
    assert plain.names() == set()
