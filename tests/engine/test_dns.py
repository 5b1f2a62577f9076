"""DNS on a real engine: Docker's own settings and names count as without us, and no bridge of Docker's is needed."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from host import TestHost
from launched import Launched, eventually

pytestmark = [pytest.mark.root, pytest.mark.engine]

SLEEP = ("busybox", "sleep", "3600")

#: Answers A questions for names that end with a word by an address, all others by NXDOMAIN.
_SERVER = """
import socket, sys
address, word, answer = sys.argv[1:]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.bind((address, 53))
    print("ready", flush=True)
    while True:
        query, client = server.recvfrom(4096)
        known = word.encode() in query.lower()
        rest = query[12:] + (b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4" + socket.inet_aton(answer)) * known
        if known and not query.endswith(b"\\0\\1\\0\\1"):
            known, rest = False, query[12:]
            server.sendto(query[:2] + b"\\x85\\x80\\0\\1\\0\\0\\0\\0" + query[10:12] + rest, client)
            continue
        head = query[:2] + (b"\\x85\\x80" if known else b"\\x85\\x83") + b"\\0\\1\\0" + bytes([known]) + b"\\0\\0"
        server.sendto(head + query[10:12] + rest, client)
"""


@contextlib.contextmanager
def resolver(host: TestHost, address: str, word: str, answer: str) -> Iterator[None]:
    """A DNS server at an address of the host, which knows the names with a word in them."""
    host.ip("link", "add", "name", f"d{word[:9]}", "type", "bridge")
    host.ip("address", "add", f"{address}/32", "dev", f"d{word[:9]}")
    host.ip("link", "set", f"d{word[:9]}", "up")
    server = host.popen(sys.executable, "-c", _SERVER, address, word, answer, stdout=-1)
    assert server.stdout
    assert server.stdout.readline() == b"ready\n"
    try:
        yield
    finally:
        server.terminate()
        server.wait()
        host.ip("link", "delete", f"d{word[:9]}")


@contextlib.contextmanager
def running(weave: Launched, *options: str, directly: bool = False) -> Iterator[str]:
    docker = weave.host.docker if directly else weave.docker
    container = str(docker("run", "-d", *options, *SLEEP).stdout.strip())
    try:
        yield container
    finally:
        weave.host.docker("rm", "-f", container, check=False)


def found(weave: Launched, container: str, name: str) -> str:
    """What busybox's nslookup finds in a container: the addresses after the server's."""
    done = weave.host.docker("exec", container, "nslookup", "-type=a", name, check=False)
    words = done.stdout.partition("\n\n")[2].split()
    return " ".join(word for word, before in zip(words[1:], words, strict=False) if before == "Address:")


def own(weave: Launched, container: str) -> str:
    return weave.ethwe(container).partition("/")[0]


@pytest.fixture(scope="module")
def weave(make_module_host: Callable[..., TestHost]) -> Iterator[Launched]:
    host = make_module_host()
    host.docker("network", "create", "shop")
    host.docker("network", "create", "--internal", "inner")
    with resolver(host, "192.0.2.53", "private", "192.0.2.7"):
        yield Launched(host)


NETWORKS = ["bridge", "shop", "inner", "none"]


@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_of_it_is_set_at_create(weave: Launched, network: str) -> None:
    """At Docker, resolvers, hostname and domain are what the creator asked for; in the container they are ours."""
    with running(weave, "--name=web", f"--net={network}") as container:
        shown = weave.host.docker("inspect", "-f", "{{json .HostConfig.Dns}} {{json .HostConfig.DnsSearch}} "
                                  "{{.Config.Hostname}} {{.Config.Domainname}}", container).stdout.split()
        assert shown[0] in ("[]", "null")
        assert shown[1] in ("[]", "null")
        assert shown[2:] == [container[:12]]
        assert weave.host.docker("exec", container, "hostname", "-f").stdout.strip() == "web.weave.local"
        assert found(weave, container, "web.weave.local") == own(weave, container)
        docker = weave.host.docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
                                   container)
        on_own_network = network in ("shop", "inner")  # where Docker has the name too
        assert found(weave, container, "web") == (docker.stdout.strip() if on_own_network else own(weave, container))


@pytest.mark.parametrize("network", ["bridge", "shop"])
def test_the_servers_that_the_creator_gave(weave: Launched, network: str) -> None:
    """Names that only these know resolve, and ours."""
    with running(weave, "--name=web", f"--net={network}", "--dns=192.0.2.53", "--dns-search=a.example",
                 "--dns-opt=timeout:1") as container:
        assert found(weave, container, "db.private.example") == "192.0.2.7"
        assert found(weave, container, "web.weave.local") == own(weave, container)
        lines = weave.host.docker("exec", container, "cat", "/etc/resolv.conf").stdout.splitlines()
        assert "search a.example" in lines
        assert any("timeout:1" in line for line in lines if line.startswith("options"))


def test_names_that_only_docker_knows(weave: Launched) -> None:
    """Containers that are not attached, link aliases; and a name of the same network before one of elsewhere."""
    with running(weave, "--name=plain", "--net=shop", "--network-alias=both", directly=True) as plain, \
            running(weave, "--name=both") as both, \
            running(weave, "--name=client", "--net=shop", "--link=plain:linked") as client:
        address = weave.host.docker("inspect", "-f", "{{.NetworkSettings.Networks.shop.IPAddress}}", plain)
        expected = address.stdout.strip()
        assert [found(weave, client, name) for name in ("plain", "linked", "both")] == [expected] * 3
        assert found(weave, client, "both.weave.local") == own(weave, both)
        weave.host.docker("restart", "-t0", client)  # past us
        assert eventually(lambda: found(weave, client, "plain") == expected)


def test_connected_and_disconnected(weave: Launched) -> None:
    """Wherever the container is put while it runs, weave names and Docker's are found, and those from outside."""
    with running(weave, "--name=plain", "--net=shop", directly=True), running(weave, "--name=web") as web, \
            running(weave, "--name=app", "--dns=192.0.2.53") as app:
        weave.host.docker("network", "connect", "shop", app)
        assert eventually(lambda: found(weave, app, "plain"))
        assert found(weave, app, "web.weave.local") == own(weave, web)
        assert found(weave, app, "nobody.test") == ""
        weave.host.docker("network", "disconnect", "bridge", app)
        assert found(weave, app, "web") == own(weave, web)
        weave.host.docker("network", "disconnect", "shop", app)
        assert found(weave, app, "web") == own(weave, web)


def test_an_address_of_docker0_that_is_taken(weave: Launched) -> None:
    """Another program's server at docker0's port 53 is in nobody's way."""
    weave.weave("stop-router")
    taken = weave.host.popen(sys.executable, "-c", _SERVER, "172.17.0.1", "x", "192.0.2.8", stdout=-1)
    assert taken.stdout
    assert taken.stdout.readline() == b"ready\n"
    try:
        weave.weave("launch-router")
        with running(weave, "--name=web") as web:
            assert found(weave, web, "web.weave.local") == own(weave, web)
    finally:
        taken.terminate()
        taken.wait()


def test_without_rights(weave: Launched) -> None:
    """A container without capabilities, of another user, and read-only, has hostname and names all the same."""
    with running(weave, "--name=web", "--cap-drop=ALL", "--user=12345", "--read-only") as web:
        assert weave.host.docker("exec", web, "hostname").stdout == "web\n"
        assert found(weave, web, "web") == own(weave, web)


def test_a_file_that_was_emptied(weave: Launched) -> None:
    """The next look at all containers puts it right."""
    with running(weave, "--name=web") as web:
        weave.host.docker("exec", web, "sh", "-c", ": > /etc/resolv.conf")
        weave.weave("stop-proxy")
        weave.weave("launch-proxy", "-H", weave.via)
        assert eventually(lambda: found(weave, web, "web") == own(weave, web))


def test_a_commit_and_a_restart(weave: Launched) -> None:
    """The hostname is not in an image; it is there after a restart past the proxy."""
    with running(weave, "--name=web") as web:
        weave.docker("commit", web, "committed")
        shown = weave.host.docker("image", "inspect", "-f", "{{json .Config}}", "committed").stdout
        assert '"web"' not in shown
        assert "weave.local" not in shown
        weave.host.docker("restart", "-t0", web)
        assert eventually(lambda: weave.host.docker("exec", web, "hostname").stdout == "web\n")


def test_docker0_gets_another_address(make_host: Callable[..., TestHost]) -> None:
    """Containers that were made before that go on resolving names, and those that run all the while too."""
    host = make_host()
    weave = Launched(host)
    with running(weave, "--name=old", "--restart=always") as old:
        host.daemon_options.append("--bip=172.31.5.1/24")
        host.kill_dockerd(signal.SIGTERM)
        host.ip("link", "delete", "docker0")
        host.start_dockerd()
        assert eventually(lambda: found(weave, old, "old.weave.local") == own(weave, old) != "")


@pytest.mark.parametrize("options", [["--dns=192.0.2.53", "--dns-search=corp.private"]])
def test_the_daemons_settings(make_host: Callable[..., Any], options: list[str]) -> None:
    """--dns and --dns-search of dockerd count."""
    host = make_host(daemon_options=options)
    with resolver(host, "192.0.2.53", "private", "192.0.2.7"):
        weave = Launched(host)
        with running(weave, "--name=web") as web:
            assert found(weave, web, "db.private") == "192.0.2.7"
            assert "search corp.private" in weave.host.docker("exec", web, "cat", "/etc/resolv.conf").stdout


def test_a_host_without_a_server(weave: Launched, tmp_path: Path) -> None:
    """Docker's own default is asked."""
    (tmp_path / "resolv.conf").write_text("# nobody\n")
    weave.weave("stop-router")
    with resolver(weave.host, "8.8.8.8", "google", "192.0.2.9"):
        weave.weave("launch-router", f"--resolv-conf={tmp_path / 'resolv.conf'}")
        with running(weave, "--name=web", "--net=none") as web:
            assert found(weave, web, "some.google.test") == "192.0.2.9"
    weave.weave("stop-router")
    weave.weave("launch-router")
