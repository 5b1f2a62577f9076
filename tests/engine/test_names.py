"""Names on a real engine: who is registered, what a container gets, and that it is the truth."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from host import TestHost
from launched import Launched, eventually
from resolvers import MUSL_GCC, image_root

pytestmark = [pytest.mark.root, pytest.mark.engine]

SERVER, ON_BRIDGE = "172.17.0.1", "169.254.53.1"
SLEEP = ("busybox", "sleep", "3600")


@pytest.fixture(scope="module")
def weave(make_module_host: Callable[..., TestHost]) -> Launched:
    launched = Launched(make_module_host())
    launched.host.docker("network", "create", "shop")
    launched.host.docker("network", "create", "-o", "com.docker.network.bridge.name=mybridge", "named")
    for name in ("web", "client"):
        launched.docker("run", "-d", "--name", name, *SLEEP)
    return launched


@contextlib.contextmanager
def running(weave: Launched, *options: str) -> Iterator[str]:
    """A container's id, for as long as it is needed."""
    container = str(weave.docker("run", "-d", *options, *SLEEP).stdout.strip())
    try:
        yield container
    finally:
        weave.host.docker("rm", "-f", container, check=False)  # a test may have removed it


def registered(weave: Launched, container: str) -> set[str]:
    """A container's names, without the domain."""
    return {record["Hostname"].removesuffix(".weave.local.") for record in weave.ask("/name") or ()
            if record["ContainerID"] == container}


def addresses(weave: Launched, name: str) -> list[str]:
    """What DNS answers."""
    done = weave.host.run("dig", "+short", "+tries=2", "+timeout=2", f"@{SERVER}", f"{name}.weave.local")
    return str(done.stdout).split()


def reaches(weave: Launched, name: str, container: str = "client") -> bool:
    return bool(weave.host.docker("exec", container, "ping", "-c1", "-w5", name, check=False).returncode == 0)


def pid(weave: Launched, container: str) -> int:
    return int(weave.host.docker("inspect", "-f", "{{.State.Pid}}", container).stdout)


# -- who is registered, and what a container gets

@pytest.mark.parametrize(("options", "hostname", "names"), [
    pytest.param(["--name=cat"], "cat", {"cat"}, id="name"),
    pytest.param(["-h", "dog.weave.local"], "dog.weave.local", {"dog"}, id="hostname in the domain"),
    pytest.param(["-h", "hen"], "hen", {"hen"}, id="hostname without domain"),
    pytest.param(["-h", "cow.farm.weave.local"], "cow.farm.weave.local", {"cow.farm"}, id="subdomain"),
    pytest.param(["--name=fox", "-h", "owl"], "owl", {"owl"}, id="hostname wins over name"),
    pytest.param(["--name=ape", "-h", "ape.example.com"], "ape.example.com", set(), id="hostname elsewhere"),
    pytest.param(["--name", "x" * 60], "", {"x" * 60}, id="name too long for a hostname"),
    pytest.param(["--name=bee", "--dns=192.0.2.53", "--dns-search=a.example"], "bee", {"bee"},
                 id="own resolver and search list"),
    pytest.param(["--name=ant", "--uts=host"], None, {"ant"}, id="hostname of the host"),
    pytest.param(["--name=elk", "--net=none"], "elk", {"elk"}, id="no other network"),
])
def test_what_a_container_gets(weave: Launched, options: list[str], hostname: str | None, names: set[str]) -> None:
    """Its hostname, our server, its own search list, exactly its names; and it resolves others at once."""
    with running(weave, *options) as container:
        assert registered(weave, container) == names
        assert reaches(weave, "web.weave.local", container)
        own_search = "--dns-search=a.example" in options
        assert own_search or reaches(weave, "web", container)  # of which there is no server here
        expected = {"": container[:12], None: weave.host.run("hostname").stdout.strip()}.get(hostname, hostname)
        assert weave.host.docker("exec", container, "hostname").stdout.strip() == expected
        if hostname is not None:  # else Docker writes the id
            assert weave.host.docker("exec", container, "cat", "/etc/hostname").stdout.strip() == expected
        lines = weave.host.docker("exec", container, "cat", "/etc/resolv.conf").stdout.splitlines()
        assert [line.split()[1] for line in lines if line.startswith("nameserver")] == [ON_BRIDGE]
        assert [line for line in lines if line.startswith("search")] == ["search a.example"] * own_search


@pytest.mark.parametrize("network", ["shop", "named"])
def test_networks_of_the_users(weave: Launched, network: str) -> None:
    """On a user-defined network Docker's own resolver asks ours, whatever the bridge is called; aliases are names."""
    with running(weave, "--name=yak", f"--net={network}", "--network-alias=gnu") as container:
        assert registered(weave, container) == {"yak", "gnu"}
        assert reaches(weave, "web", container)
        assert reaches(weave, "web.weave.local", container)
        assert reaches(weave, "gnu")
        assert reaches(weave, "client", container)


@pytest.mark.parametrize("options", [[], ["-o", "com.docker.network.bridge.name=newbridge"]], ids=["new", "named"])
def test_a_network_that_was_just_made(weave: Launched, options: list[str]) -> None:
    """The first instruction of the first container on a network resolves names."""
    weave.host.docker("network", "create", *options, "new")
    try:
        assert "Address" in weave.docker("run", "--rm", "--net=new", "busybox", "nslookup", "web.weave.local").stdout
    finally:
        weave.host.docker("network", "rm", "new")


def test_an_alias_given_to_a_running_container(weave: Launched) -> None:
    """`docker network connect --alias` and `disconnect` change names at once, and the first one stays all the while."""
    with running(weave, "--name=late") as container:
        weave.host.docker("network", "connect", "--alias=later", "shop", container)
        assert eventually(lambda: registered(weave, container) == {"late", "later"}, within=10)
        assert addresses(weave, "later") == addresses(weave, "late") != []
        weave.host.docker("network", "disconnect", "shop", container)
        assert eventually(lambda: registered(weave, container) == {"late"}, within=10)


@pytest.mark.parametrize("directly", [False, True], ids=["through the proxy", "past it"])
def test_an_alias_given_right_after_a_start(weave: Launched, directly: bool) -> None:
    """No alias is forgotten, however soon after the start it comes, while the watcher is at work on the container."""
    docker = weave.host.docker if directly else weave.docker
    with running(weave, "--name=soon") as container:
        for alias in (f"soon{number}" for number in range(12)):
            weave.host.docker("stop", "-t0", container)
            docker("start", container)
            weave.host.docker("network", "connect", f"--alias={alias}", "shop", container)
            assert eventually(lambda alias=alias: registered(weave, container) == {"soon", alias}, within=10)
            weave.host.docker("network", "disconnect", "shop", container)


def test_hostnames_made_of_labels_and_expressions(weave: Launched) -> None:
    """--hostname-from-label, --hostname-match and --hostname-replacement work together, and without the label too."""
    weave.weave("stop-proxy")
    weave.weave("launch-proxy", "-H", weave.via, "--hostname-from-label=host",
                "--hostname-match=^aws-[0-9]+-(?P<n>.*)$", "--hostname-replacement=my-${n}-$1")
    try:
        with running(weave, "--name=aws-12-red", "--label=host=aws-7-blue") as container:
            assert registered(weave, container) == {"my-blue-blue"}
        with running(weave, "--name=aws-12-red") as container:
            assert registered(weave, container) == {"my-red-red"}
    finally:
        weave.weave("stop-proxy")
        weave.weave("launch-proxy", "-H", weave.via)


@pytest.mark.parametrize(("program", "option"), [("proxy", "--without-dns"), ("router", "--no-dns")])
def test_without_dns(weave: Launched, program: str, option: str) -> None:
    """Nothing is added and nothing registered; the container has its address all the same."""
    given = ["-H", weave.via] if program == "proxy" else []
    weave.weave(f"stop-{program}")
    weave.weave(f"launch-{program}", *given, option)
    try:
        with running(weave, "--name=mute") as container:
            assert weave.ethwe(container)
            assert registered(weave, container) == set()
            shown = weave.host.docker("inspect", "-f", "{{json .HostConfig.Dns}} {{.Config.Domainname}}", container)
            assert shown.stdout.split() in (["null"], ["[]"])
    finally:
        weave.weave(f"stop-{program}")
        weave.weave(f"launch-{program}", *given)
    assert eventually(lambda: reaches(weave, "web"))


# -- the truth

@pytest.mark.parametrize("end", [["kill"], ["stop", "-t1"], ["rm", "-f"]], ids=" ".join)
def test_gone_with_its_container(weave: Launched, end: list[str]) -> None:
    """A name is gone when its container ends, however it ends, and others with the same name stay."""
    with running(weave, "--name=one", "-h", "twin") as one, running(weave, "--name=two", "-h", "twin") as two:
        both = {weave.ethwe(each).partition("/")[0] for each in (one, two)}
        assert set(addresses(weave, "twin")) == both
        left = weave.ethwe(two).partition("/")[0]
        weave.host.docker(*end, one)
        assert eventually(lambda: addresses(weave, "twin") == [left], within=10)


@pytest.mark.parametrize("policy", ["no", "always"])
def test_back_after_a_restart(weave: Launched, policy: str) -> None:
    """After docker restart, and after a restart policy, the name is back, with the address that it had."""
    with running(weave, "--name=phoenix", f"--restart={policy}") as container:
        before = addresses(weave, "phoenix")
        process = pid(weave, container)
        if policy == "no":
            weave.host.docker("restart", "-t0", container)
        else:
            os.kill(process, signal.SIGKILL)
        assert eventually(lambda: pid(weave, container) not in (0, process))
        assert eventually(lambda: addresses(weave, "phoenix") == before != [], within=10)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_rename_moves_the_name(weave: Launched, stopped: bool) -> None:
    """A container without a hostname of its own goes by its name: by the new one only, also if it was stopped then."""
    with running(weave, "--name", "y" * 60) as container:
        if stopped:
            weave.host.docker("kill", container)
        weave.host.docker("rename", container, "newname")
        if stopped:
            weave.host.docker("start", container)
        assert eventually(lambda: registered(weave, container) == {"newname"}, within=10)
        assert eventually(lambda: addresses(weave, "y" * 60) == [], within=10)


def hostname(weave: Launched, container: str) -> str:
    return str(weave.host.docker("exec", container, "hostname").stdout.strip())


def test_blue_green_by_two_renames(weave: Launched) -> None:
    """Names and hostnames made of a container's name follow it while it runs, and at its next start."""
    with running(weave, "--name=app") as blue, running(weave, "--name=app.new") as green:
        assert registered(weave, green) == {"app.new"}
        weave.docker("rename", "app", "app.old")
        weave.docker("rename", "app.new", "app")
        assert eventually(lambda: (registered(weave, blue), registered(weave, green)) == ({"app.old"}, {"app"}))
        assert eventually(lambda: (hostname(weave, blue), hostname(weave, green)) == ("app.old", "app"))
        assert addresses(weave, "app") == [weave.ethwe(green).partition("/")[0]]
        weave.host.docker("restart", "-t0", green)
        assert eventually(lambda: hostname(weave, green) == "app", within=10)
        assert weave.host.docker("exec", green, "cat", "/etc/hosts").stdout.split()[1:3] == ["app.weave.local", "app"]


@pytest.mark.parametrize("options", [["-h", "mine"], ["-h", "mine", "--domainname=weave.local"]], ids=len)
def test_the_users_hostname_stays_at_a_rename(weave: Launched, options: list[str]) -> None:
    """A hostname that the user gave is the container's name in DNS, whatever the container is called."""
    with running(weave, "--name=before", *options) as container:
        weave.docker("rename", container, "after")
        weave.host.docker("restart", "-t0", container)
        assert eventually(lambda: registered(weave, container) == {"mine"}, within=10)
        assert hostname(weave, container) == "mine"


@pytest.mark.parametrize("options", [["-h", "foo bar"], ["-h", "\u00fcn\u00ef"], ["-h", "a\\b"],
                                     ["--net=shop", "--network-alias=foo bar"],
                                     ["--net=shop", "--network-alias=\u00fc"],
                                     ["--net=shop", f"--network-alias={'a' * 64}"]], ids=" ".join)
def test_names_that_dns_cannot_hold(weave: Launched, options: list[str]) -> None:
    """Docker takes them, so the container starts, and has its other names."""
    with running(weave, "--name=odd", *options) as container:
        assert weave.ethwe(container)
        assert registered(weave, container) == ({"odd"} if "--net=shop" in options else set())


def restart_router(weave: Launched) -> None:
    weave.weave("stop-router")
    weave.weave("launch-router")


def restart_dockerd(weave: Launched) -> None:
    weave.host.restart_dockerd()


def restart_proxy(weave: Launched) -> None:
    weave.weave("stop-proxy")
    weave.weave("launch-proxy", "-H", weave.via)


@pytest.mark.parametrize("restart", [restart_router, restart_proxy, restart_dockerd])
def test_names_survive(weave: Launched, restart: Callable[[Launched], None]) -> None:
    """Names, those that dns-add gave to a container or to no container included, are there after a restart."""
    with running(weave, "--name=stays", "--restart=always") as container:
        weave.weave("dns-add", "stays", "-h", "extra.weave.local")
        weave.weave("dns-add", "192.0.2.7", "-h", "printer.weave.local")
        before = addresses(weave, "stays")
        restart(weave)
        for name, expected in (("stays", before), ("extra", before), ("printer", ["192.0.2.7"])):
            assert eventually(lambda name=name, expected=expected: addresses(weave, name) == expected, within=30), name
        assert eventually(lambda: registered(weave, container) == {"stays", "extra"})
        weave.weave("dns-remove", "192.0.2.7", "-h", "printer.weave.local")
    for name in ("web", "client"):
        weave.docker("start", name)


# -- who asks

@pytest.fixture(scope="module")
def askers(weave: Launched, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A container with resolvers of all kinds on each kind of network, by network."""
    weave.host.docker("import", "-", "resolvers", input=image_root(tmp_path_factory.mktemp("musl")), text=False)
    networks = ("bridge", "shop", "none")
    made = {network: str(weave.docker("run", "-d", f"--name=on-{network}", f"--net={network}", "resolvers", "sleep",
                                      "3600").stdout.strip()) for network in networks}
    yield made
    weave.host.docker("rm", "-f", *made.values())


@pytest.mark.parametrize("network", ["bridge", "shop", "none"])
@pytest.mark.parametrize("command", [
    pytest.param("nslookup web.weave.local", id="busybox"),
    pytest.param("ping -c1 -w5 web", id="ping"),
    pytest.param("getent ahosts web", id="glibc"),
    pytest.param("getent hosts web.weave.local", id="glibc with domain"),
    pytest.param("dig +short web.weave.local", id="dig"),
    pytest.param("dig +short +tcp WEB.Weave.Local", id="dig by TCP"),
    pytest.param("musl web", id="musl", marks=pytest.mark.skipif(not MUSL_GCC, reason="needs musl-gcc (musl-tools)")),
    pytest.param("musl web.weave.local", id="musl with domain",
                 marks=pytest.mark.skipif(not MUSL_GCC, reason="needs musl-gcc (musl-tools)")),
])
def test_every_resolver(weave: Launched, askers: dict[str, str], network: str, command: str) -> None:
    """glibc, musl, BIND's dig and busybox find a container, by name and with the domain, on each kind of network."""
    done = weave.host.docker("exec", askers[network], *command.split())
    assert weave.ethwe("web").partition("/")[0] in re.findall(r"[0-9.]+", done.stdout)


@pytest.mark.parametrize("network", ["bridge", "shop", "none"])
def test_from_address_to_name(weave: Launched, askers: dict[str, str], network: str) -> None:
    """An address of the weave network has a name for whoever has the address."""
    address = weave.ethwe("web").partition("/")[0]
    assert weave.host.docker("exec", askers[network], "getent", "hosts", address).stdout.split()[1:] == [
        "web.weave.local"]


COMPOSE = """\
services:
  front: &service
    image: busybox
    command: [sleep, "3600"]
    stop_grace_period: 0s
  back: *service
  store:
    <<: *service
    networks: {default: {aliases: [database]}}
"""


def test_compose(weave: Launched, tmp_path: Path) -> None:
    """Three services of a Compose file find each other by service name and alias, by their weave addresses."""
    compose = compose_of(weave)
    (tmp_path / "compose.yaml").write_text('version: "3.7"\n' + COMPOSE)
    options = ("--project-name=project", "-f", tmp_path / "compose.yaml")
    weave.host.run(*compose, *options, "up", "-d", env={"DOCKER_HOST": weave.via})
    try:
        shown = weave.host.docker("ps", "--no-trunc", "--format", '{{.Label "com.docker.compose.service"}} {{.ID}}',
                                  "--filter=label=com.docker.compose.project=project").stdout
        there = dict(line.split() for line in shown.splitlines())
        everybody = " && ".join(f"ping -c1 -w5 {name} && ping -c1 -w5 {name}.weave.local" for name in
                                ("front", "back", "store", "database"))
        for service, container in there.items():
            assert service in registered(weave, container)
            weave.host.docker("exec", container, "sh", "-c", everybody)
        assert addresses(weave, "database") == [weave.ethwe(there["store"]).partition("/")[0]]
    finally:
        weave.host.run(*compose, *options, "down", "-t0", env={"DOCKER_HOST": weave.via})
    assert eventually(lambda: addresses(weave, "front") == [], within=10)


def compose_of(weave: Launched) -> list[str]:
    """Compose, as a plugin (v2) or a program (v1)."""
    if weave.host.docker("compose", "version", check=False).returncode == 0:
        return ["docker", "compose"]
    if weave.host.run("sh", "-c", "command -v docker-compose", check=False).returncode == 0:
        return ["docker-compose"]
    pytest.skip("needs Compose (apt-get install docker-compose, or the plugin docker-compose-v2)")


# -- by hand

def test_a_further_name_of_a_container(weave: Launched) -> None:
    """dns-add gives a container another name, dns-remove takes it away; its own name stays."""
    weave.weave("dns-add", "web", "-h", "store.weave.local")
    assert reaches(weave, "store")
    assert weave.weave("dns-lookup", "store").stdout.split() == [weave.ethwe("web").partition("/")[0]]
    weave.weave("dns-remove", "web", "-h", "store.weave.local")
    assert eventually(lambda: not reaches(weave, "store"), within=10)
    assert reaches(weave, "web")
    unknown = weave.weave("dns-lookup", "store", check=False)
    assert (unknown.returncode, unknown.stdout) == (1, "")


def test_a_name_for_later(weave: Launched) -> None:
    """dns-add to a container that does not run registers nothing: not until it starts."""
    container = weave.docker("create", "--name", "later", "busybox", "sleep", "3600").stdout.strip()
    assert weave.weave("dns-add", "later", check=False).returncode == 1
    said = weave.weave("dns-add", "later", "-h", "afterwards.weave.local").stderr
    assert "not running" in said
    assert registered(weave, container) == set()
    weave.docker("start", "later")
    assert registered(weave, container) == {"later", "afterwards"}
    weave.docker("rm", "-f", "later")


def test_the_arguments_that_docker_would_be_given(weave: Launched) -> None:
    """dns-args prints the server and the search domain; `weave run` uses them, with the address that can be reached."""
    assert weave.weave("dns-args").stdout.split() == [f"--dns={SERVER}", "--dns-search=weave.local"]
    container = weave.weave("run", "--net=none", "--name=solo", *SLEEP).stdout.strip()
    assert eventually(lambda: reaches(weave, "web", container), within=10)
    weave.host.docker("rm", "-f", container)


@pytest.mark.parametrize("arguments", [["dns-add"], ["dns-add", "nosuch", "-h", "x.weave.local"], ["dns-lookup"],
                                       ["dns-remove", "300.1.1.1", "-h", "x.weave.local"]], ids=" ".join)
def test_mistakes_are_one_line(weave: Launched, arguments: list[str]) -> None:
    """What can't be is said in one line, without a traceback."""
    failed = weave.weave(*arguments, check=False)
    assert failed.returncode != 0
    assert failed.stdout == ""
    assert "Traceback" not in failed.stderr
