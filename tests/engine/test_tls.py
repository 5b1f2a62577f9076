"""TLS on a real engine: who gets in with which client, and that everything works that works without."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest
from host import TestHost
from launched import Launched, eventually

from weavemw.serving import certs

pytestmark = [pytest.mark.root, pytest.mark.engine]

_TCP = "tcp://127.0.0.1:12375"
MakeHost = Callable[..., TestHost]
_DOCKER_PY = """
import sys, docker
from docker.tls import TLSConfig
ca, *pair = sys.argv[1:]
client = docker.DockerClient("tcp://127.0.0.1:12375", version="1.41", timeout=20,
                             tls=TLSConfig(client_cert=tuple(pair) or None, ca_cert=ca, verify=True))
print(client.version()["Version"])
"""


@dataclass(frozen=True)
class Tls:
    """Certificates of every kind, and a proxy that speaks TLS."""

    dir: Path
    launched: Launched

    def pair(self, kind: str) -> list[str]:
        return [] if kind == "no cert" else [f"{self.dir}/{kind}/cert.pem", f"{self.dir}/{kind}/key.pem"]

    def docker(self, *arguments: str, kind: str = "right", **options: object) -> subprocess.CompletedProcess[str]:
        return self.launched.host.docker(*self.flags(kind), *arguments, host=_TCP, env={"HOME": "/nonexistent"},
                                         **options)

    def flags(self, kind: str = "right") -> list[str]:
        names = [f"--{name}={path}" for name, path in zip(("tlscert", "tlskey"), self.pair(kind), strict=False)]
        return ["--tlsverify", f"--tlscacert={self.dir}/ca.pem", *names]


def _make_certificates(directory: Path) -> None:
    certs.create(directory, certs.host_names([]), days=10)
    ours, others = certs._load_authority(directory), certs.Authority.new()
    for kind, pair in (("right", ours.client("me", 10)), ("wrong CA", others.client("me", 10)),
                       ("expired", ours.client("me", 0))):
        (directory / kind).mkdir()
        certs._write_pair(directory / kind, "cert.pem", "key.pem", pair)


def _options(directory: Path, mode: str) -> list[str]:
    return ["-H", _TCP, f"--{mode}", f"--tls-cacert={directory}/ca.pem", f"--tls-cert={directory}/server-cert.pem",
            f"--tls-key={directory}/server-key.pem"]


@pytest.fixture(scope="module")
def host(make_module_host: MakeHost) -> TestHost:
    return make_module_host()


@pytest.fixture(scope="module", params=["tls-verify", "tls"])
def tls(host: TestHost, request: pytest.FixtureRequest) -> Iterator[Tls]:
    """A proxy with TLS on its TCP listener and a plain unix socket beside it."""
    directory = host.dir / f"certs-{request.param}"
    _make_certificates(directory)
    launched = Launched(host, *_options(directory, request.param))
    yield Tls(directory, launched)
    launched.weave("stop")


def _by_docker(tls: Tls, kind: str) -> bool:
    return tls.docker("version", kind=kind, check=False).returncode == 0


def _by_curl(tls: Tls, kind: str) -> bool:
    pair = [f"--{name}={path}" for name, path in zip(("cert", "key"), tls.pair(kind), strict=False)]
    pair = [word for each in pair for word in each.split("=", 1)]
    return tls.launched.host.run("curl", "-sf", "-m", "20", "--cacert", tls.dir / "ca.pem", *pair,
                                 "https://127.0.0.1:12375/version", check=False).returncode == 0


def _by_docker_py(tls: Tls, kind: str) -> bool:
    # requests prefers a bundle that the environment names to the one that docker-py gives it.
    bundles = {"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": ""}
    return tls.launched.host.run("python", "-c", _DOCKER_PY, tls.dir / "ca.pem", *tls.pair(kind), check=False,
                                 env=bundles).returncode == 0


@pytest.mark.parametrize("kind", ["no cert", "wrong CA", "expired", "right"])
@pytest.mark.parametrize("gets_in", [_by_docker, _by_curl, _by_docker_py])
def test_who_gets_in(tls: Tls, gets_in: Callable[[Tls, str], bool], kind: str,
                     request: pytest.FixtureRequest) -> None:
    """With --tls-verify those whose certificate is the CA's and valid, with --tls all."""
    verifies = request.node.callspec.params["tls"] == "tls-verify"
    assert gets_in(tls, kind) is (kind == "right" or not verifies)


def test_without_tls_nobody_is_served_there_but_the_unix_socket_is_as_ever(tls: Tls) -> None:
    """Plain HTTP gets no answer at the TCP listener; the unix socket beside it needs no certificate."""
    plain = tls.launched.host.run("curl", "-s", "-m", "20", "http://127.0.0.1:12375/version", check=False)
    assert plain.returncode
    assert b"Version" not in plain.stdout.encode()
    assert tls.launched.docker("version").returncode == 0
    old = tls.launched.host.run("curl", "-s", "-m", "20", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0",
                                "--cacert", tls.dir / "ca.pem", "https://127.0.0.1:12375/version", check=False)
    assert old.returncode


def test_weave_knows_that_it_serves(tls: Tls) -> None:
    """healthcheck and status need no certificate, and env says what docker will need."""
    weave = tls.launched.weave
    assert weave("healthcheck").stdout.startswith("healthy: ")
    assert f"Listener: {_TCP}\n" in weave("status", "proxy").stdout
    said = weave("env")
    assert f"DOCKER_HOST={_TCP}" in said.stdout
    assert "export DOCKER_TLS_VERIFY=1" in said.stderr
    assert weave("env", DOCKER_TLS_VERIFY="1").stderr == ""


def test_a_container_gets_its_network(tls: Tls) -> None:
    """docker run over TLS attaches, and gives its output and its exit status."""
    done = tls.docker("run", "--rm", "busybox", "sh", "-c", "ip -4 -o address show dev ethwe; exit 3", check=False)
    assert done.returncode == 3
    assert "inet 10." in done.stdout


def test_the_end_of_input_arrives_and_the_output_after_it_too(tls: Tls) -> None:
    """`echo hi | docker run -i … cat` ends, with all that the container says after it read to the end."""
    done = tls.docker("run", "--rm", "-i", "busybox", "sh", "-c", "cat; sleep 0.2; echo after", input="hi\n")
    assert done.stdout == "hi\nafter\n"


def test_a_terminal_works(tls: Tls) -> None:
    """docker run -ti, typed into."""
    host = tls.launched.host
    command = host.argv("docker", "-H", _TCP, *tls.flags(), "run", "--rm", "-ti", "busybox", "sh")
    child = pexpect.spawn(command[0], command[1:], env=host.environ({"DOCKER_HOST": _TCP}), timeout=30)
    child.expect("# ")
    child.sendline("echo $((6*7))")
    child.expect("\r\n42\r\n")
    child.sendline("exit 5")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 5


def test_much_goes_up_and_down_whole(tls: Tls) -> None:
    """200 MB into a container and out again."""
    block = os.urandom(1 << 20)
    data = block * 200
    done = tls.docker("run", "--rm", "-i", "-e", "WEAVE_CIDR=none", "busybox", "cat", input=data, text=False,
                      timeout=110)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_streams_cost_no_thread(tls: Tls) -> None:
    """Fifty followers of a log, and the workers' threads are as many as before."""
    tls.docker("run", "-d", "--name", "quiet", "-e", "WEAVE_CIDR=none", "busybox", "sh", "-c", "echo ready; sleep 99")
    with_one = _with_streams(tls, 1, lambda: _threads(tls))
    assert _with_streams(tls, 50, lambda: _threads(tls)) <= with_one + 8
    tls.docker("rm", "-f", "quiet")


def _with_streams(tls: Tls, count: int, look: Callable[[], int]) -> int:
    argv = ["curl", "-sN", "--cacert", f"{tls.dir}/ca.pem", "--cert", tls.pair("right")[0], "--key",
            tls.pair("right")[1], "https://127.0.0.1:12375/containers/quiet/logs?follow=1&stdout=1"]
    streams = [tls.launched.host.popen(*argv, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for stream in streams:
            assert stream.stdout is not None
            assert b"ready" in stream.stdout.readline()
        return look()
    finally:
        for stream in streams:
            stream.kill()
            stream.wait()
            stream.stdout.close()  # type: ignore[union-attr]


def _threads(tls: Tls) -> int:
    pid = int(tls.launched.host.docker("inspect", "-f", "{{.State.Pid}}", "weaveproxy").stdout)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(len(list(Path(f"/proc/{child}/task").iterdir())) for child in children)


def test_a_renewed_certificate_is_taken_up(tls: Tls) -> None:
    """New connections see it without a restart; a half-done renewal changes nothing; open streams go on."""
    old = _serial(tls)
    stream = tls.launched.host.popen("docker", *tls.flags(), "-H", _TCP, "run", "--rm", "-i", "busybox", "cat",
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert stream.stdin is not None
    assert stream.stdout is not None
    stream.stdin.write(b"open\n")
    stream.stdin.flush()
    assert stream.stdout.readline() == b"open\n"
    certificate = tls.dir / "server-cert.pem"
    before = certificate.read_bytes()
    certs.renew(tls.dir, certs.host_names([]), days=20)
    renewed = certificate.read_bytes()
    certificate.write_bytes(before)  # as if only the key had been written
    assert {_serial(tls) for _ in range(5)} == {old}
    certificate.write_bytes(renewed)
    assert eventually(lambda: _serial(tls) != old)
    assert stream.communicate(b"still there", timeout=30)[0] == b"still there"
    assert "kept the certificate as it was" in tls.launched.log()


def _serial(tls: Tls) -> str:
    shown = tls.launched.host.run("openssl", "s_client", "-connect", "127.0.0.1:12375", input="", check=False)
    return str(tls.launched.host.run("openssl", "x509", "-noout", "-serial", input=shown.stdout).stdout)


def test_a_silent_client_is_sent_away(tls: Tls) -> None:
    """Connections without a handshake neither keep others out nor stay."""
    held = [tls.launched.host.popen("python", "-c", "import socket, time\n"
            "ss = [socket.create_connection(('127.0.0.1', 12375)) for _ in range(400)]\nprint(flush=True)\n"
            "for s in ss: s.settimeout(60); assert s.recv(1) == b''", stdout=subprocess.PIPE)]
    held[0].stdout.readline()  # type: ignore[union-attr]
    assert tls.docker("version").returncode == 0
    assert held[0].wait(60) == 0
    held[0].stdout.close()  # type: ignore[union-attr]


def test_many_at_once_get_their_own_answers(tls: Tls) -> None:
    """Twenty clients, none of whom reads another's."""
    wrong: list[str] = []

    def run(number: int) -> None:
        done = tls.docker("run", "--rm", "-i", "-e", "WEAVE_CIDR=none", "busybox", "cat", input=f"client {number}")
        if done.stdout != f"client {number}":
            wrong.append(done.stdout)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
