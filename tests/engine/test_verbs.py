"""The verbs of `weave` on a real engine, beside launching and names."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from host import TestHost
from launched import Launched, eventually

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture(scope="module")
def weave(make_module_host: Callable[..., TestHost]) -> Launched:
    return Launched(make_module_host())


@pytest.fixture
def web(weave: Launched) -> Iterator[str]:
    """A container that was not made through the proxy."""
    yield weave.host.docker("run", "-d", "--name", "web", "busybox", "sleep", "3600").stdout.strip()
    weave.weave("hide")
    weave.host.docker("rm", "-f", "web")
    assert eventually(lambda: not weave.held())


def says(weave: Launched, *arguments: str) -> str:
    """The one line that a failing command prints."""
    done = weave.weave(*arguments, check=False)
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return str(done.stderr)


def test_run_passes_on_what_is_dockers_and_attaches(weave: Launched) -> None:
    """The id is printed; the container has the address, its name resolves, and Docker's options are obeyed."""
    made = weave.weave("run", "10.2.1.1/24", "--name", "shop", "-e", "A=b", "busybox", "sleep", "3600").stdout
    assert weave.host.docker("inspect", "-f", "{{.Id}}", "shop").stdout == made
    assert weave.ethwe("shop") == "10.2.1.1/24"
    assert "A=b" in weave.host.docker("exec", "shop", "env").stdout
    assert weave.weave("dns-lookup", "shop").stdout == "10.2.1.1\n"
    assert "weave.local" in weave.host.docker("exec", "shop", "hostname").stdout
    weave.host.docker("rm", "-f", "shop")
    assert eventually(lambda: not weave.held())


def test_run_takes_rm_and_what_it_says_itself(weave: Launched) -> None:
    """The container goes with its end, and its address; a second -d and a -- do no harm."""
    weave.weave("run", "10.2.1.1/24", "-d", "--rm", "--name", "shop", "--", "busybox", "sleep", "3600")
    assert weave.ethwe("shop") == "10.2.1.1/24"
    weave.host.docker("kill", "shop")
    assert eventually(lambda: not weave.held())
    ended = weave.weave("run", "--rm", "busybox", "true", check=False)
    assert (ended.returncode, ended.stderr) == (1, f"weave: {ended.stdout[:12]} ended before it could be attached\n")


def test_run_says_what_docker_said(weave: Launched) -> None:
    """Docker's own words on stderr, and its status; nothing is held."""
    failed = weave.weave("run", "--no-such-option", "busybox", check=False)
    assert failed.returncode == 125
    assert "no-such-option" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not weave.held()


def test_run_goes_to_the_engine_where_docker_host_is_the_proxy(weave: Launched) -> None:
    """No wait program in what `weave run` makes."""
    made = weave.weave("run", "busybox", "sleep", "3600", DOCKER_HOST=weave.via).stdout.strip()
    assert weave.host.docker("inspect", "-f", "{{.Config.Entrypoint}}", made).stdout.strip() in ("[]", "<no value>")
    assert weave.ethwe(made).startswith("10.32.")
    weave.host.docker("rm", "-f", made)


def test_start_attaches_again_with_the_same_address(weave: Launched, web: str) -> None:
    """Also with others besides."""
    weave.weave("attach", "web")
    first = weave.ethwe("web")
    weave.host.docker("kill", "web")
    assert weave.weave("start", "web").stdout == "web\n"
    assert weave.ethwe("web") == first
    weave.host.docker("kill", "web")
    weave.weave("start", "10.2.1.9/24", "web")
    assert set(weave.held()[web]) == {first, "10.2.1.9/24"}


def test_attach_ps_and_detach(weave: Launched, web: str) -> None:
    """Addresses are printed as they come and go, bare; ps shows what is there, and the host's own line."""
    first = weave.weave("attach", "web").stdout.strip()
    assert weave.ethwe("web").partition("/")[0] == first
    assert weave.weave("attach", "10.2.1.9/24", "web").stdout == "10.2.1.9\n"
    rows = {line.split()[0]: line.split()[2:] for line in weave.weave("ps").stdout.splitlines()}
    assert set(rows[web[:12]]) == {f"{first}/12", "10.2.1.9/24"}
    assert rows["weave:expose"] == []
    assert weave.weave("ps", "web").stdout.split()[0] == web[:12]
    assert weave.weave("detach", "10.2.1.9/24", "web").stdout == "10.2.1.9\n"
    assert weave.ethwe("web") == f"{first}/12"
    assert weave.weave("detach", "web").stdout.strip() == first
    assert (weave.ethwe("web"), weave.held(), weave.veths()) == ("", {}, set())


def test_detach_takes_what_is_there(weave: Launched, web: str) -> None:
    """Nothing said means the default subnet; what is not there is no mistake, and what is kept is said."""
    assert weave.weave("detach", "web").stdout == ""
    weave.weave("attach", "10.2.1.9/24", "web")
    nothing = weave.weave("detach", "web")
    assert nothing.stdout == ""
    assert nothing.stderr == "weave: nothing to detach; there is: `weave detach 10.2.1.9/24 web`\n"
    assert weave.weave("detach", "10.2.1.8/24", "web").stdout == ""
    assert weave.weave("detach", "10.2.1.9/24", "web").stdout == "10.2.1.9\n"


def test_what_was_attached_by_hand_is_attached_again(weave: Launched, web: str) -> None:
    """When Docker starts it again, with the same address, until it is detached."""
    weave.weave("attach", "web")
    first = weave.ethwe("web")
    weave.host.docker("restart", "-t", "0", "web")
    assert eventually(lambda: weave.ethwe("web") == first)


def test_a_detached_container_stays_so(weave: Launched, web: str) -> None:
    """The watcher gives back what was attached by hand only while it holds an address."""
    weave.weave("attach", "web")
    weave.weave("detach", "web")
    weave.host.docker("restart", "-t", "0", "web")
    assert weave.ethwe("web") == ""


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["attach", "nosuch"], "No such container: nosuch"),
    (["ps", "nosuch"], "No such container: nosuch"),
    (["start", "nosuch"], "No such container: nosuch"),
    (["detach", "nosuch"], "No such container: nosuch"),
    (["attach", "weave"], "it has the host's network"),
    (["attach", "10.2.1.0/24", "web"], "the network's own address"),
])
def test_mistakes_are_one_line(weave: Launched, web: str, arguments: list[str], complaint: str) -> None:
    """What can't be is said, and nothing is held."""
    assert complaint in says(weave, *arguments)
    assert not weave.held()


def test_an_address_that_is_taken_is_refused(weave: Launched, web: str) -> None:
    """It says whose it is."""
    weave.weave("attach", "10.2.1.9/24", "web")
    other = weave.host.docker("run", "-d", "busybox", "sleep", "3600").stdout.strip()
    assert "10.2.1.9/24 is taken by web" in says(weave, "attach", "10.2.1.9/24", other[:12])
    weave.host.docker("rm", "-f", other)


def _nat(weave: Launched) -> str:
    return str(weave.host.run("iptables", "-t", "nat", "-S").stdout)


def test_expose_and_hide(weave: Launched, web: str) -> None:
    """The host reaches a container and back; a name, the masquerade; hide leaves nothing."""
    before = _nat(weave)
    container = weave.weave("attach", "web").stdout.strip()
    exposed = weave.weave("expose", "-h", "here.weave.local").stdout.strip()
    assert weave.weave("expose").stdout.strip() == exposed
    assert weave.host.run("busybox", "ping", "-c1", "-w5", container, check=False).returncode == 0
    assert weave.weave("dns-lookup", "here").stdout.strip() == exposed
    assert weave.weave("ps", "weave:expose").stdout.split()[2:] == [f"{exposed}/12"]
    assert "10.32.0.0/12 ! -d 10.32.0.0/12 -j MASQUERADE" in _nat(weave)
    weave.weave("stop-router")
    weave.weave("launch-router")
    assert weave.weave("ps", "weave:expose").stdout.split()[2:] == [f"{exposed}/12"]
    assert weave.weave("hide").stdout.strip() == exposed
    assert weave.weave("ps", "weave:expose").stdout.split()[2:] == []
    assert _nat(weave) == before
    assert set(weave.held()) == {web}
    assert (weave.weave("hide").stdout, weave.weave("hide").stderr) == ("", "")


def test_expose_by_hand(weave: Launched) -> None:
    """Several addresses, without a masquerade; one of them is hidden, then the rest."""
    shown = weave.weave("expose", "10.2.1.132/24", "net:10.33.0.0/24", "--without-masquerade").stdout.split()
    assert shown[0] == "10.2.1.132"
    assert "10.2.1.0/24" not in _nat(weave)
    assert weave.weave("hide", "10.2.1.132/24").stdout == "10.2.1.132\n"
    assert weave.weave("hide", "10.2.1.132/24").stdout == ""
    assert weave.weave("hide").stdout.split() == shown[1:]
    assert not weave.held()


def test_an_expose_that_fails_leaves_nothing(weave: Launched, web: str) -> None:
    """Of several addresses one is taken: the host has none."""
    weave.weave("attach", "10.2.1.9/24", "web")
    assert "is taken by web" in says(weave, "expose", "10.2.1.8/24", "10.2.1.9/24")
    assert "weave:expose" not in weave.held()
    assert "is no name in weave.local" in says(weave, "expose", "-h", "example.com")
    assert weave.weave("ps", "weave:expose").stdout.split()[2:] == []


def test_docker_bridge_ip_and_setup(weave: Launched) -> None:
    """The address is Docker's own; setup may be done again."""
    address = weave.weave("docker-bridge-ip").stdout.strip()
    assert f"inet {address}/" in weave.host.ip("address", "show", "docker0")
    assert "is not there" in weave.weave("docker-bridge-ip", check=False, DOCKER_BRIDGE="nosuch").stderr
    first = weave.weave("setup").stdout
    assert weave.weave("setup").stdout == first
    assert first.splitlines()[1].startswith("weavemw/host:")


def test_peers_and_report(weave: Launched) -> None:
    """What the router has of them, and one line where it has no use for them."""
    assert "serves a single host" in weave.weave("connect", "host2", "host3").stderr
    assert weave.weave("status", "targets").stdout.split() == ["host2", "host3"]
    weave.weave("connect", "--replace", "host4")
    weave.weave("forget", "host4")
    assert weave.weave("status", "targets").stdout.strip() == ""
    assert weave.weave("rmpeer", "aa:bb").stdout == "0 IPs taken over from aa:bb\n"
    assert weave.weave("prime").stdout == ""
    assert json.loads(weave.weave("report").stdout)["IPAM"]["Range"] == "10.32.0.0/12"
    assert weave.weave("report", "-f", "{{.IPAM.Range}}").stdout == "10.32.0.0/12\n"
    assert "is not supported" in says(weave, "report", "-f", "{{range .}}")
