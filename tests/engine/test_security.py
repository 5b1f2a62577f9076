"""Attacks on a real engine: by clients of the proxy, and from within containers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host import TestHost
from launched import Launched, eventually

from weavemw.cli.supervisor import PROXY, ROUTER

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture(scope="module")
def weave(engine_host: TestHost) -> Iterator[Launched]:
    """Weave, with a TCP listener too."""
    launched = Launched(engine_host, "-H", "tcp://127.0.0.1:12375", "--log-level=debug")
    yield launched
    launched.weave("stop")


def _curl(weave: Launched, *arguments: str) -> str:
    done = weave.host.run("curl", "-s", "-m", "20", "-i", *arguments, check=False)
    return str(done.stdout)


@pytest.mark.parametrize("attack", [
    "rm -f /dev/w", "echo x > /dev/w", "mv /dev/w /dev/x", "chmod 777 /dev/w", "cp /bin/busybox /dev/w",
    "mount -o remount,rw /dev/w", "umount /dev/w", "mount -t tmpfs none /dev/w", "ln -sf /bin/sh /dev/w",
])
def test_a_container_cannot_alter_the_wait_program(weave: Launched, attack: str) -> None:
    """Not as root in it, with all that Docker gives; the host's file is as it was."""
    files = sorted((weave.host.state_dir / "wait").rglob("w"))
    before = [(file.read_bytes(), file.stat().st_mode) for file in files]
    assert files
    done = weave.docker("run", "--rm", "busybox", "sh", "-c", f"({attack}) 2>/dev/null && exit 0; exit 42", check=False)
    assert done.returncode == 42
    assert [(file.read_bytes(), file.stat().st_mode) for file in files] == before


def test_a_start_with_an_upgrade_is_attached_before_it_is_answered(weave: Launched) -> None:
    """A client can't have a start go by unseen."""
    made = weave.docker("create", "busybox", "sleep", "99").stdout.strip()
    answer = _curl(weave, "--unix-socket", str(weave.socket), "-X", "POST", "-H", "Connection: Upgrade", "-H",
                   "Upgrade: tcp", f"http://docker/containers/{made}/start")
    assert answer.startswith("HTTP/1.1 204")
    assert weave.ethwe(made)
    weave.docker("rm", "-f", made)


@pytest.mark.parametrize("headers", [
    ["Upgrade: tcp", "Connection: Upgrade"], ["Upgrade: h2c", "Connection: Upgrade"], ["Expect: 100-continue"],
    ["Transfer-Encoding: chunked"], ["X-HTTP-Method-Override: GET"],
])
@pytest.mark.parametrize("target", ["/containers/create", "/v1.41/%63ontainers/create", "/containers%2fcreate"])
def test_what_docker_creates_is_held_back(weave: Launched, target: str, headers: list[str]) -> None:
    """However it was asked for: if there is a container then, its command waits for the network."""
    body = {"Image": "busybox", "Cmd": ["true"], "Labels": {"attack": "yes"}}
    words = [word for header in headers for word in ("-H", header)]
    _curl(weave, "--path-as-is", "--unix-socket", str(weave.socket), *words, "-H", "Content-Type: application/json",
          "-d", json.dumps(body), f"http://docker{target}")
    made = weave.host.docker("ps", "-aq", "--filter", "label=attack=yes").stdout.split()
    assert len(made) == 1
    assert weave.host.docker("inspect", "-f", "{{.Path}}", *made).stdout.strip() == "/dev/w"
    weave.host.docker("rm", "-f", *made)


@pytest.mark.parametrize(("headers", "status"), [
    (["Origin: http://evil.example"], 403), (["Origin: null"], 403), (["Host: evil.example:12375"], 403),
    (["Sec-Fetch-Site: cross-site"], 403), ([], 200), (["Host: localhost:12375"], 200), (["Host: host1:12375"], 200),
])
def test_a_browser_cannot_be_made_to_call(weave: Launched, headers: list[str], status: int) -> None:
    """By TCP; refused in the form that docker clients read."""
    answer = _curl(weave, *[word for header in headers for word in ("-H", header)], "http://127.0.0.1:12375/version")
    assert answer.startswith(f"HTTP/1.1 {status}")
    if status == 403:
        assert json.loads(answer.partition("\n\n")[2])["message"]


def test_the_unix_socket_takes_any_host(weave: Launched) -> None:
    """Old clients write a path there."""
    answer = _curl(weave, "--unix-socket", str(weave.socket), "-H", "Host: /var/run/weave.sock", "-H",
                   "Origin: http://portainer.example", "http://docker/version")
    assert answer.startswith("HTTP/1.1 200")


def test_no_secret_reaches_a_log(weave: Launched) -> None:
    """Environment, registry credentials, labels and commands, at debug level too."""
    weave.docker("run", "--rm", "-e", "PASSWORD=hunter2", "-l", "key=hunter2", "busybox", "echo", "hunter2")
    _curl(weave, "--unix-socket", str(weave.socket), "-X", "POST", "-H", "X-Registry-Auth: hunter2",
          "http://docker/images/create?fromImage=nowhere.invalid/x")
    _curl(weave, "--unix-socket", str(weave.socket), "-X", "POST", "-H", "Content-Length: 0",
          "-d", '{"Env":["PASSWORD=hunter2"]}', "http://docker/containers/create")
    assert "hunter2" not in weave.log() + weave.log("weave")


def test_our_processes_have_the_capabilities_that_are_named(weave: Launched) -> None:
    """Those that supervisor.py gives reasons for, in workers too; and the units in conf/ name the same."""
    for program, unit in ((PROXY, "weave-proxy"), (ROUTER, "weave-router")):
        container: Any = json.loads(weave.host.docker("inspect", program.name).stdout)[0]
        assert container["HostConfig"]["CapDrop"] == ["ALL"]
        assert not container["HostConfig"]["Privileged"]
        text = (Path(__file__).parents[2] / f"conf/{unit}.service").read_text()
        (line,) = [line for line in text.splitlines() if line.startswith("CapabilityBoundingSet=")]
        named = {name.removeprefix("CAP_") for name in line.partition("=")[2].split()}
        assert named == set(program.capabilities) - {"SYS_CHROOT"}


def test_a_socket_that_was_left_or_planted(weave: Launched) -> None:
    """A link in our socket's place is refused, and where it leads is left alone."""
    weave.weave("stop-proxy")
    target = weave.host.dir / "precious"
    target.write_text("x")
    weave.socket.symlink_to(target)
    done = weave.weave("launch-proxy", "-H", weave.via, check=False)
    assert done.returncode == 1
    assert "a symbolic link" in done.stderr
    assert target.read_text() == "x"
    weave.socket.unlink()
    weave.weave("launch-proxy", "-H", weave.via)
    assert eventually(lambda: weave.docker("version").returncode == 0)
