"""Attacks by a remote client, by root in a container, a user of the host, or an image; docs/attacks.md lists all."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from host import TestHost
from launched import Launched, eventually

pytestmark = [pytest.mark.root, pytest.mark.engine]

#: Answers ARP and neighbour solicitations for an address, from the interface ethwe, whoever asks, and unasked.
_SPOOF = """
import ipaddress, socket, sys, time
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as s:
    s.bind(("ethwe", 0))
    own, all, claimed = s.getsockname()[4], b"\\xff" * 6, ipaddress.ip_address(sys.argv[1]).packed
    def arp(to, operation, target, address):
        s.send(to + own + bytes.fromhex("0806000108000604") + bytes([0, operation]) + own + claimed + target + address)
    end = time.monotonic() + float(sys.argv[2])
    s.settimeout(0.1)
    while time.monotonic() < end:
        arp(all, 2, all, claimed)
        arp(all, 1, bytes(6), claimed)
        try:
            asked = s.recv(2000)
        except TimeoutError:
            continue
        if asked[12:14] == b"\\x08\\x06" and asked[38:42] == claimed and asked[6:12] != own:
            arp(asked[6:12], 2, asked[22:28], asked[28:32])
"""

#: Asks weaveDNS as fast as it can, for names that there are, and for those that there are not.
_FLOOD = """
import socket
questions = [bytes.fromhex("abcd01000001000000000000") + name + b"\\x05weave\\x05local" + bytes(1)
             + bytes([0, 1, 0, 1]) for name in (b"\\x06victim", b"\\x06nobody")]
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.connect(("169.254.53.1", 53))
    while True:
        for question in questions:
            try:
                s.send(question)
            except OSError:
                pass
"""

_HOLD = """
import resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (2000, 4096))
held = [socket.create_connection(("127.0.0.1", 6784)) for _ in range(1200)]
print(len(held), flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def weave(engine_host: TestHost) -> Iterator[Launched]:
    """Weave, with a TCP listener too, and three containers: victim, its client, and evil, who is root in it."""
    launched = Launched(engine_host, "-H", "tcp://127.0.0.1:12375", "--log-level=debug")
    for name in ("victim", "client", "evil"):
        launched.docker("run", "-d", "--name", name, "--net=none", "busybox", "sleep", "9999")
    yield launched
    engine_host.docker("rm", "-f", "victim", "client", "evil", check=False)
    launched.weave("stop")


def _pid(weave: Launched, container: str) -> str:
    return str(weave.host.docker("inspect", "-f", "{{.State.Pid}}", container).stdout.strip())


def _address(weave: Launched, container: str) -> str:
    return weave.ethwe(container).partition("/")[0]


def _exchange(weave: Launched, data: bytes, *, tcp: bool = False) -> bytes:
    """What comes back, by the proxy's unix socket or by TCP (where curl can't say it, nc does)."""
    if tcp:
        command = ["busybox", "nc", "-w", "5", "127.0.0.1", "12375"]
        return bytes(weave.host.run(*command, input=data, text=False, check=False).stdout)
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(30)
        client.connect(str(weave.socket))
        answer = b""
        try:
            client.sendall(data)
            while more := client.recv(65536):
                answer += more
        except ConnectionError:
            pass
        return answer


def _pings(weave: Launched) -> bool:
    return b"200 OK" in _exchange(weave, b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")


def _connected(weave: Launched, stack: ExitStack, data: bytes) -> None:
    client = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
    client.connect(str(weave.socket))
    client.sendall(data)


# Root in a container

@pytest.fixture
def spoofing(weave: Launched) -> Iterator[Callable[[str], None]]:
    """Lets evil answer for an address while the test runs."""
    children: list[subprocess.Popen[bytes]] = []

    def start(address: str) -> None:
        children.append(subprocess.Popen(["nsenter", f"--net=/proc/{_pid(weave, 'evil')}/ns/net", "python3", "-c",
                                          _SPOOF, address, "120"]))
        time.sleep(0.5)

    yield start
    for child in children:
        child.kill()
        child.wait()


def test_a_container_cannot_answer_for_another(weave: Launched, spoofing: Callable[[str], None]) -> None:
    """Who looks for the victim finds it, and never evil's MAC address."""
    victim = _address(weave, "victim")
    spoofing(victim)
    evil = weave.host.docker("exec", "evil", "cat", "/sys/class/net/ethwe/address").stdout.strip()
    for _ in range(5):
        weave.host.docker("exec", "client", "ip", "neigh", "flush", "dev", "ethwe", check=False)
        assert weave.host.docker("exec", "client", "ping", "-c1", "-W5", victim, check=False).returncode == 0
        assert evil not in weave.host.docker("exec", "client", "ip", "neigh").stdout


def test_a_container_cannot_answer_for_weavedns(weave: Launched, spoofing: Callable[[str], None]) -> None:
    """Names are answered as they are, to who asked before and to who is new."""
    spoofing("169.254.53.1")
    for container in ("client", "evil"):
        shown = weave.host.docker("exec", container, "nslookup", "-type=a", "victim.weave.local", check=False).stdout
        assert _address(weave, "victim") in shown
    new = weave.docker("run", "--rm", "--net=none", "busybox", "nslookup", "-type=a", "victim.weave.local", check=False)
    assert _address(weave, "victim") in new.stdout


def test_a_container_cannot_take_an_address_that_it_was_not_given(weave: Launched) -> None:
    """Not by adding it; what it was given goes on working."""
    stolen = "10.47.255.1"
    weave.host.run("nsenter", f"--net=/proc/{_pid(weave, 'evil')}/ns/net", "ip", "address", "add", f"{stolen}/12",
                   "dev", "ethwe")
    assert weave.host.docker("exec", "client", "ping", "-c1", "-W1", stolen, check=False).returncode != 0
    assert weave.host.docker("exec", "client", "ping", "-c1", "-W5", _address(weave, "evil"),
                             check=False).returncode == 0


def test_guards_that_were_flushed_come_back(weave: Launched) -> None:
    """As `nft flush ruleset` does it; a relaunch looks at once."""
    def guarded(action: str) -> str:
        return str(weave.host.run("python", "-c", f"from weavemw.network import guard; print({action})",
                                  env={"PYTHONPATH": str(Path(__file__).parents[2])}).stdout)

    guarded("guard.remove('weave')")
    assert guarded("len(guard.guarded('weave'))") == "0\n"
    weave.weave("relaunch")
    assert eventually(lambda: guarded("len(guard.guarded('weave'))") == "3\n")


def test_a_flood_of_questions_leaves_others_answered(weave: Launched) -> None:
    """As many as one container can send, from its own address and from others'."""
    child = subprocess.Popen(["nsenter", f"--net=/proc/{_pid(weave, 'evil')}/ns/net", "python3", "-c", _FLOOD])
    try:
        time.sleep(0.5)
        for _ in range(10):
            shown = weave.host.docker("exec", "client", "nslookup", "-type=a", "victim.weave.local").stdout
            assert _address(weave, "victim") in shown
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("claim", ["169.254.53.1/32", "net:default 169.254.53.1/32", "127.0.0.1/8", "0.0.0.1/8",
                                   "224.0.0.5/24", "172.17.0.1/16"])
def test_an_image_cannot_claim_what_is_ours(weave: Launched, claim: str) -> None:
    """Its ENV is read as anybody's wish, and refused; nobody has the address."""
    root = weave.host.run("sh", "-c", "docker export $(docker create busybox true)", text=False).stdout
    weave.host.docker("import", "-c", f'ENV WEAVE_CIDR="{claim}"', "-c", 'CMD ["sleep", "99"]', "-", "claimer",
                      input=root, text=False)
    done = weave.docker("run", "-d", "--name", "claimer", "--net=none", "claimer", check=False)
    weave.host.docker("rm", "-f", "claimer", check=False)
    assert done.returncode


def test_a_container_of_thousands_of_addresses_breaks_nothing(weave: Launched) -> None:
    """It alone sees them: others are attached, status answers, and it is detached."""
    batch = "".join(f"address add 10.200.{n >> 8}.{n & 255}/32 dev lo\n" for n in range(12_000))
    weave.docker("run", "-d", "--name", "many", "busybox", "sleep", "999")
    weave.host.run("nsenter", f"--net=/proc/{_pid(weave, 'many')}/ns/net", "ip", "-batch", "-", input=batch,
                   timeout=600)
    weave.docker("run", "--rm", "busybox", "true")
    assert weave.weave("attach", "10.2.7.7/24", "many").returncode == 0
    assert weave.weave("status").returncode == 0
    weave.docker("rm", "-f", "many")
    assert eventually(lambda: len(weave.veths()) == 3)


def test_a_start_with_thousands_of_claims_is_refused(weave: Launched) -> None:
    """At create; nothing is held."""
    before = weave.held()
    claims = " ".join(f"10.2.{n >> 8}.{n & 255}/16" for n in range(1, 6000))
    body = json.dumps({"Image": "busybox", "Cmd": ["true"], "Env": [f"WEAVE_CIDR={claims}"]}).encode()
    answer = _exchange(weave, b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
                       b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert answer.startswith(b"HTTP/1.1 400")
    assert set(weave.held()) <= set(before)  # what another test left may go meanwhile


def test_an_address_that_was_taken_away_is_given_anew(weave: Launched) -> None:
    """By anybody on the host who can reach the router's port: the container's own interface follows."""
    made = weave.docker("run", "-d", "--net=none", "--name", "re", "busybox", "sleep", "999").stdout.strip()
    weave.host.run("curl", "-s", "-X", "DELETE", f"http://127.0.0.1:6784/ip/{made}")
    weave.docker("start", "re")
    assert eventually(lambda: [weave.ethwe("re")[:9]] == [each[:9] for each in weave.held().get(made, ())])
    assert weave.host.docker("exec", "client", "ping", "-c1", "-W5", _address(weave, "re"), check=False).returncode == 0
    weave.docker("rm", "-f", "re")


def test_an_image_cannot_pass_for_that_of_our_containers(weave: Launched) -> None:
    """Whoever loads or pulls one with its name and labels would run it as root at the next launch."""
    def image(field: str) -> str:
        return str(weave.host.docker("image", "inspect", "-f", f"{{{{json {field}}}}}", name).stdout)

    name = weave.host.docker("inspect", "-f", "{{.Config.Image}}", "weaveproxy").stdout.strip()
    made, layers, label = image(".Id"), image(".RootFS.Layers"), json.loads(image(".Config.Labels"))["weavemw"]
    weave.weave("relaunch")
    assert image(".Id") == made, "it is made once"
    root = weave.host.run("sh", "-c", "docker export $(docker create busybox true)", text=False).stdout
    weave.host.docker("import", "-c", f"LABEL weavemw={label}", "-c", 'ENTRYPOINT ["/enter"]', "-", name, input=root,
                      text=False)
    assert image(".RootFS.Layers") != layers
    weave.weave("relaunch")
    assert image(".RootFS.Layers") == layers
    assert weave.docker("version").returncode == 0


# A client, by TCP or by the unix socket

@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_page_of_a_name_without_a_dot_reaches_nothing(weave: Launched, method: str) -> None:
    """A hostile network's DNS makes it point here; a browser sends Origin with what changes something, else not."""
    origin = "Origin: http://login:12375\r\n" if method == "POST" else ""
    target = "/containers/create" if method == "POST" else "/containers/json"
    answer = _exchange(weave, f"{method} {target} HTTP/1.1\r\nHost: login:12375\r\n{origin}Accept-Language: en\r\n"
                       "User-Agent: Mozilla/5.0\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}".encode(), tcp=True)
    assert answer.startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("beginning", [b"GET /_ping HTTP/1.1\r\nX: ", b"GET /_ping?"])
def test_a_head_without_an_end_is_refused(weave: Launched, beginning: bytes) -> None:
    """After a megabyte, while others are served."""
    answer = _exchange(weave, beginning + b"a" * (8 << 20))
    assert not answer or answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 414"))
    assert _pings(weave)


def test_half_heads_hold_no_threads(weave: Launched) -> None:
    """Four hundred of them; the proxy has 128 threads."""
    with ExitStack() as stack:
        for _ in range(400):
            _connected(weave, stack, b"GET /_pi")
        assert _pings(weave)


def test_kept_connections_hold_no_threads(weave: Launched) -> None:
    """Four hundred that were answered, and say nothing more."""
    with ExitStack() as stack:
        for _ in range(400):
            _connected(weave, stack, b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        assert _pings(weave)


def test_large_creates_do_not_keep_others_waiting(weave: Launched) -> None:
    """Four of 15 MB of JSON at once."""
    body = b'{"Image":"busybox","Cmd":["true"],"x":[' + b"0," * (15 << 19) + b"0]}"
    head = (b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n")
    with ExitStack() as stack:
        for _ in range(4):
            _connected(weave, stack, head % len(body) + body)
        assert _pings(weave)
    made = weave.host.docker("ps", "-aq", "--filter", "status=created").stdout.split()
    weave.host.docker("rm", "-f", *made, check=False)


def test_broken_framing_puts_no_secret_into_a_log(weave: Launched) -> None:
    """Whatever of a body is read as a size, a trailer or a head."""
    body = b'{"Image":"busybox","Env":["PASSWORD=hunter2"],"Cmd":["true"]}'
    head = (b"POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
    for data in (body + b"\r\n0\r\n\r\n", b'3\r\n{"I\r\n0\r\n' + body + b": x\r\n\r\n"):
        _exchange(weave, head + data)
    assert "hunter2" not in weave.log()


# Users of the host

def test_idle_connections_take_nothing_from_the_router(weave: Launched) -> None:
    """Twelve hundred of them by nobody, to its TCP port."""
    child = weave.host.popen("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c",
                             _HOLD, stdout=subprocess.PIPE)
    assert child.stdout
    assert child.stdout.readline() == b"1200\n"
    assert weave.ask("/ip")
    weave.docker("run", "--rm", "busybox", "true")
    child.kill()
    child.stdout.close()
    child.wait()
