"""The manual of the Docker API proxy, command by command, in its order, at a terminal of a real host.

Some things are not as the manual has them. The image ``ubuntu`` is busybox. Two of its commands never existed
(``docker launch-proxy`` is weave's, and docker's CLI writes ``--tlsverify``, ``--tlscacert``, ``--tlscert``,
``--tlskey``). ``host1`` is localhost, ``/tls`` a directory of the test's, and the unix socket is there too. And between
its alternatives what runs is stopped, by its own ``weave stop``. The last test holds that no command is missing.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from host import TestHost

from weavemw.serving import certs

pytestmark = [pytest.mark.root, pytest.mark.engine]

_ROOT = Path(__file__).parents[2]
_PROMPT = "host1$ "
_ID = r"[0-9a-f]{64}"
_IN_CONTAINER = "/ # "

#: Every command line of the manual, in its order.
_MANUAL = r"""
weave launch
weave launch-router && weave launch-proxy
weave launch-proxy -H tcp://127.0.0.1:9999
eval "$(weave env)"
docker ps
docker $(weave config) ps
weave stop-proxy
docker run -ti ubuntu
docker create -ti ubuntu
docker start ID
docker run -e WEAVE_CIDR=10.2.1.1/24 -ti ubuntu
docker run -e WEAVE_CIDR="10.2.1.1/24 10.2.2.1/24" -ti ubuntu
docker run -ti ubuntu
docker run -ti -e WEAVE_CIDR=net:10.32.2.0/24 ubuntu
docker run -ti -e WEAVE_CIDR=none ubuntu
weave launch-proxy --no-default-ipalloc
docker run -ti -e WEAVE_CIDR="" ubuntu
weave launch-proxy --tls-verify --tls-cacert=/tls/ca.pem --tls-cert=/tls/server-cert.pem --tls-key=/tls/server-key.pem
docker --tlsverify --tlscacert=ca.pem --tlscert=cert.pem --tlskey=key.pem -H=tcp://localhost:12375 version
mkdir -pv ~/.docker
cp -v {ca,cert,key}.pem ~/.docker
eval "$(weave env)"
export DOCKER_TLS_VERIFY=1
docker version
weave run -ti ubuntu
weave run 10.2.1.1/24 -ti ubuntu
weave start ID
weave status
docker logs weaveproxy
""".strip().splitlines()


class Terminal:
    """A shell at a terminal of the host; what was typed is not in what it shows."""

    def __init__(self, host: TestHost) -> None:
        self.host = host
        self.typed: list[str] = []
        programs = host.dir / "programs"
        programs.mkdir()
        (programs / "weave").write_text(f"#!/bin/sh\nPYTHONPATH={_ROOT} exec python -m weavemw.cli \"$@\"\n")
        (programs / "weave").chmod(0o755)
        environ = host.environ({"HOME": str(host.dir / "home"), "PS1": _PROMPT, "TERM": "dumb",
                                "WEAVEMW_LISTENERS": f"unix://{host.dir}/weave.sock tcp://0.0.0.0:12375"})
        environ["PATH"] = f"{programs}:{environ['PATH']}"
        (host.dir / "home").mkdir()
        argv = host.argv("bash", "--norc", "--noprofile", "--noediting", "-i")
        self.shell = pexpect.spawn(argv[0], argv[1:], env=environ, encoding="utf-8", echo=False, timeout=60,
                                   cwd=str(host.dir), dimensions=(50, 200))
        self.shell.expect_exact(_PROMPT)

    def type(self, line: str) -> str:
        """Type a line that ends by itself; gives what it shows, and holds that its status is 0."""
        self._send(line)
        self.shell.expect_exact(_PROMPT)
        shown = self.shell.before.replace("\r\n", "\n")
        self.shell.sendline("echo status=$?")
        self.shell.expect_exact(_PROMPT)
        assert self.shell.before.strip() == "status=0", f"{line}\n{shown}"
        return str(shown)

    def enter(self, line: str) -> list[str]:
        """Type a ``docker run -ti``, look at ethwe in there, and leave; gives the addresses."""
        self._send(line)
        self.shell.expect_exact(_IN_CONTAINER)
        self.shell.sendline("ip -o address show dev ethwe 2>&1; echo end of addresses")
        self.shell.expect("\nend of addresses")
        found = re.findall(r"inet ([0-9./]+)", self.shell.before)
        self.shell.expect_exact(_IN_CONTAINER)
        self.shell.sendline("exit")
        self.shell.expect_exact(_PROMPT)
        return found

    def _send(self, line: str) -> None:
        self.typed.append(re.sub(_ID, "ID", line.replace(str(self.host.dir / "tls"), "/tls")))
        self.shell.sendline(line)


@pytest.fixture(scope="module")
def terminal(make_module_host: Callable[..., TestHost]) -> Iterator[Terminal]:
    """One terminal for the whole manual, since each section goes on from the one before."""
    host = make_module_host()
    host.docker("tag", "busybox", "ubuntu")
    terminal = Terminal(host)
    yield terminal
    terminal.shell.close(force=True)


def _running(terminal: Terminal) -> set[str]:
    return set(terminal.host.docker("ps", "--format", "{{.Names}}").stdout.split())


def _ethwe(terminal: Terminal, container: str) -> list[str]:
    shown = terminal.host.docker("exec", container, "ip", "-4", "-o", "address", "show", "dev", "ethwe").stdout
    return re.findall(r"inet ([0-9./]+)", shown)


def test_setup(terminal: Terminal) -> None:
    """Launching in each of its forms, leading docker to the proxy, and stopping."""
    terminal.type("weave launch")
    assert {"weave", "weaveproxy"} <= _running(terminal)
    terminal.type("weave stop")
    terminal.type("weave launch-router && weave launch-proxy")
    assert {"weave", "weaveproxy"} <= _running(terminal)
    terminal.type("weave stop-proxy")
    terminal.type("weave launch-proxy -H tcp://127.0.0.1:9999")
    assert terminal.type("weave config").strip() == "-H=tcp://127.0.0.1:9999"
    terminal.type("weave stop-proxy")
    terminal.type("weave launch-proxy")
    assert terminal.type("weave env").strip() == \
        f"export DOCKER_HOST=tcp://127.0.0.1:12375 ORIG_DOCKER_HOST={terminal.host.docker_host}"
    terminal.type('eval "$(weave env)"')
    assert "weaveproxy" in terminal.type("docker ps")
    assert "weaveproxy" in terminal.type("docker $(weave config) ps")
    assert 'eval "$(weave env --restore)"' in terminal.type("weave stop-proxy")
    terminal.type('eval "$(weave env --restore)"')
    assert terminal.type("echo $DOCKER_HOST").strip() == terminal.host.docker_host
    terminal.type("weave stop-router")
    assert not _running(terminal)


def test_usage(terminal: Terminal) -> None:
    """Run, or create and start; addresses by WEAVE_CIDR, one and two."""
    terminal.type("weave launch")
    terminal.type('eval "$(weave env)"')
    assert terminal.enter("docker run -ti ubuntu")[0].endswith("/12")
    created = terminal.type("docker create -ti ubuntu").strip()
    assert re.fullmatch(_ID, created)
    assert terminal.type(f"docker start {created}").strip() == created
    assert _ethwe(terminal, created)[0].endswith("/12")
    entrypoint = terminal.host.docker("inspect", "-f", "{{json .Config.Entrypoint}}", created).stdout
    assert json.loads(entrypoint) == ["/dev/w"]
    assert terminal.enter("docker run -e WEAVE_CIDR=10.2.1.1/24 -ti ubuntu") == ["10.2.1.1/24"]
    terminal.host.docker("container", "prune", "-f")
    both = terminal.enter('docker run -e WEAVE_CIDR="10.2.1.1/24 10.2.2.1/24" -ti ubuntu')
    assert set(both) == {"10.2.1.1/24", "10.2.2.1/24"}


def test_automatic_addresses(terminal: Terminal) -> None:
    """By default, of a subnet, none; and with --no-default-ipalloc only what asks."""
    assert terminal.enter("docker run -ti ubuntu")[0].startswith("10.32.")
    assert terminal.enter("docker run -ti -e WEAVE_CIDR=net:10.32.2.0/24 ubuntu")[0].startswith("10.32.2.")
    assert terminal.enter("docker run -ti -e WEAVE_CIDR=none ubuntu") == []
    terminal.type("weave stop-proxy")
    terminal.type("weave launch-proxy --no-default-ipalloc")
    assert terminal.enter("docker run -ti ubuntu") == []
    assert terminal.enter('docker run -ti -e WEAVE_CIDR="" ubuntu')[0].endswith("/12")
    assert terminal.enter("docker run -ti -e WEAVE_CIDR=net:10.32.2.0/24 ubuntu")[0].startswith("10.32.2.")


def test_automatic_discovery(terminal: Terminal) -> None:
    """Containers use weaveDNS while it runs."""
    terminal.type("weave stop-proxy")
    terminal.type("weave launch-proxy")
    assert terminal.type("weave docker-bridge-ip").strip()
    assert "nameserver 169.254.53.1" in terminal.type("docker run --name web ubuntu cat /etc/resolv.conf")


def test_tls(terminal: Terminal) -> None:
    """With certificates of one's own in /tls; docker is told of them each time, or by default."""
    there = terminal.host.dir / "tls"
    certs.create(there, certs.host_names([]), days=10)
    terminal.type("weave stop-proxy")
    terminal.type(f"weave launch-proxy --tls-verify --tls-cacert={there}/ca.pem "
                  f"--tls-cert={there}/server-cert.pem --tls-key={there}/server-key.pem")
    terminal.type(f"cd {shlex.quote(str(there))}")
    assert "Server:" in terminal.type("docker --tlsverify --tlscacert=ca.pem --tlscert=cert.pem --tlskey=key.pem "
                                      "-H=tcp://localhost:12375 version")
    terminal.type("unset DOCKER_CONFIG")
    assert "created directory" in terminal.type("mkdir -pv ~/.docker")
    assert len(terminal.type("cp -v {ca,cert,key}.pem ~/.docker").splitlines()) == 3
    terminal.type('eval "$(weave env)"')
    terminal.type("export DOCKER_TLS_VERIFY=1")
    assert "Server:" in terminal.type("docker version")
    assert "inet 10.32." in terminal.type("docker run --rm ubuntu ip -4 -o address show dev ethwe")
    terminal.type("unset DOCKER_TLS_VERIFY")
    terminal.type("weave stop-proxy")
    terminal.type("weave launch-proxy")


def test_without_the_proxy(terminal: Terminal) -> None:
    """weave run with an address of the router's choice and with one's own, in the background; weave start."""
    terminal.type('eval "$(weave env --restore)"')
    first = terminal.type("weave run -ti ubuntu").strip()
    assert re.fullmatch(_ID, first)
    assert _ethwe(terminal, first)[0].endswith("/12")
    terminal.host.docker("container", "prune", "-f")
    second = terminal.type("weave run 10.2.1.1/24 -ti ubuntu").strip()
    assert _ethwe(terminal, second) == ["10.2.1.1/24"]
    before = _ethwe(terminal, first)
    terminal.type(f"docker stop -t 0 {first}")
    terminal.type(f"weave start {first}")
    assert _ethwe(terminal, first) == before


def test_troubleshooting(terminal: Terminal) -> None:
    """The status ends as the manual shows it; the log is Docker's."""
    assert terminal.type("weave status").rstrip().splitlines()[-1] == "weave proxy is running"
    assert "Listening at" in terminal.type("docker logs weaveproxy")
    terminal.type("weave stop")
    assert not {"weave", "weaveproxy"} & _running(terminal)


def test_no_command_of_the_manual_is_missing(terminal: Terminal) -> None:
    """What the tests above typed holds every command line of the manual, in its order."""
    typed = iter(terminal.typed)
    assert [line for line in _MANUAL if line not in typed] == []
