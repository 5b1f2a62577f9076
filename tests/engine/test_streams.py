"""Streams of a real engine through the proxy's own server: how they end, and what they must not disturb."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from host import TestHost

from weavemw.dockerapi.hosts import Unix
from weavemw.serving import listeners

pytestmark = [pytest.mark.root, pytest.mark.engine]

_ROOT = Path(__file__).parents[2]
_PORT = 12375


class Server:
    """``python -m weavemw.server`` on a host, by a unix socket and by TCP."""

    def __init__(self, host: TestHost, **environ: str) -> None:
        self.host = host
        self.path = host.dir / "weave.sock"
        self.via = f"unix://{self.path}"
        self.tcp = f"tcp://127.0.0.1:{_PORT}"
        self.log = host.dir / "proxy.log"
        with self.log.open("wb") as output:
            self.process = host.popen(
                "python", "-m", "weavemw.server", "-H", self.via, "-H", self.tcp, stdout=output, stderr=output,
                env={"PYTHONPATH": str(_ROOT), "WEAVEMW_DEFAULT_IPALLOC": "no", **environ})
        assert eventually(lambda: listeners.ping(Unix(str(self.path)))), self.log.read_text()

    def docker(self, *args: str, **options: object) -> subprocess.CompletedProcess[str]:
        """The docker CLI through the proxy."""
        return self.host.docker(*args, host=self.via, **options)

    def stream(self, *args: str, via: str = "") -> subprocess.Popen[bytes]:
        """A docker CLI that goes on, its input and output at hand."""
        return self.host.popen("docker", *args, env={"DOCKER_HOST": via or self.via}, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def send(self, request: str) -> socket.socket:
        """A connection on which a request was sent."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(str(self.path))
        sock.sendall(f"{request} HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
        return sock


def eventually(condition: Callable[[], object], within: float = 20) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def server(fresh_host: TestHost) -> Iterator[Server]:
    """The server, on a host that a test may do anything to."""
    started = Server(fresh_host)
    yield started
    started.process.kill()


def _head_of(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        assert piece, data
        data += piece
    return data


def _read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def _open_streams(server: Server, stack: contextlib.ExitStack) -> list[socket.socket]:
    """Ten streams of four kinds, each with its head read; the last two are hijacked."""
    box = server.docker("run", "-di", "busybox", "cat").stdout.strip()
    targets = ["GET /events"] * 3 + [f"GET /containers/{box}/logs?follow=1&stdout=1"] * 3 + \
        [f"GET /containers/{box}/stats"] * 2 + [f"POST /containers/{box}/attach?stream=1&stdout=1&stdin=1"] * 2
    streams = [stack.enter_context(server.send(target)) for target in targets]
    assert all(_head_of(stream).startswith(b"HTTP/1.1 200 ") for stream in streams)
    return streams


def test_stop_ends_ten_streams_cleanly_within_five_seconds(server: Server) -> None:
    """SIGTERM: the chunked ones end with their last chunk, all with EOF, and the status is 0."""
    with contextlib.ExitStack() as stack:
        streams = _open_streams(server, stack)
        server.process.send_signal(signal.SIGTERM)
        *http, attached, other = [_read_all(stream) for stream in streams]
        assert all(body.endswith(b"0\r\n\r\n") for body in http)
        assert attached == other == b""
        assert server.process.wait(5) == 0
    assert "Traceback" not in server.log.read_text()


def test_reload_serves_on_while_streams_end(server: Server) -> None:
    """SIGHUP: new processes serve at once; streams of the old ones end cleanly, as with a stop."""
    with contextlib.ExitStack() as stack:
        streams = _open_streams(server, stack)
        server.process.send_signal(signal.SIGHUP)
        bodies = [_read_all(stream) for stream in streams]
        assert all(body.endswith(b"0\r\n\r\n") for body in bodies[:-2])
        assert server.docker("ps", "-q").stdout


def test_daemon_that_goes_ends_its_streams_and_comes_back(server: Server) -> None:
    """Streams end when dockerd is killed; requests get 502 with a message; a new daemon is served at once."""
    with contextlib.ExitStack() as stack:
        streams = _open_streams(server, stack)
        server.host.kill_dockerd()
        bodies = [_read_all(stream) for stream in streams]
        assert not any(body.endswith(b"0\r\n\r\n") for body in bodies), "a stream that was cut must not look complete"
    with server.send("GET /info") as refused:
        assert b" 502 " in _head_of(refused)
        assert b'{"message": "Cannot connect to the Docker daemon' in refused.recv(4096)
    server.host.start_dockerd()
    assert server.docker("version").returncode == 0


def test_streams_by_tcp_half_close_too(server: Server) -> None:
    """Input ends, and the output that follows arrives: run -i and exec -i, by TCP."""
    data = b"x" * (5 << 20)
    for command in (["run", "--rm", "-i", "busybox", "sha256sum"], ["exec", "-i", "box", "sha256sum"]):
        server.docker("run", "-d", "--name", "box", "busybox", "sleep", "999", check=False)
        through, direct = (server.host.docker(*command, host=where, input=data, text=False).stdout
                           for where in (server.tcp, server.host.docker_host))
        assert through == direct
        assert len(direct.split()[0]) == 64


def test_a_client_that_leaves_ends_what_the_daemon_does_for_it(server: Server) -> None:
    """After the clients are gone, no stream of theirs is open: neither here nor at the daemon."""
    with contextlib.ExitStack() as stack:
        streams = _open_streams(server, stack)
        opened = _connections(server)
    assert eventually(lambda: _connections(server) <= opened - 2 * len(streams)), _connections(server)


def _connections(server: Server) -> int:
    """How many connections the server's processes have."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return sum(_is_socket(fd) for pid in children for fd in Path(f"/proc/{pid}/fd").iterdir())


def _is_socket(fd: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # closed since it was listed
        return os.readlink(fd).startswith("socket:")
    return False


#: A router whose peers have not agreed yet: whoever asks it for an address waits.
_UNDECIDED = """
import http.server, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)
    def do_DELETE(self):
        self.send_response(204)
        self.end_headers()
    def do_POST(self):
        time.sleep(999)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 6784), Handler)
print(flush=True)
server.serve_forever()
"""


def test_a_client_that_leaves_while_it_waits_for_an_address_is_noticed(fresh_host: TestHost) -> None:
    """The start ends with its client, though the router has not answered; the container stays created."""
    router = fresh_host.popen("python", "-c", _UNDECIDED, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert router.stdout is not None
    router.stdout.readline()
    server = Server(fresh_host, WEAVEMW_WITH_DNS="no")
    box = server.docker("create", "-e", "WEAVE_CIDR=net:default", "busybox", "true").stdout.strip()
    with server.send(f"POST /containers/{box}/start"):
        assert eventually(lambda: _locked(server)), server.log.read_text()
    assert eventually(lambda: not _locked(server), 3), server.log.read_text()
    assert server.docker("inspect", "-f", "{{.State.Status}}", box).stdout == "created\n"
    server.process.terminate()
    assert server.process.wait(5) == 0


def _locked(server: Server) -> bool:
    """Whether a container's lock is held."""
    inodes = {str(path.stat().st_ino) for path in server.host.run_dir.rglob("*") if len(path.stem) == 64}
    return any(line.split()[-3].rpartition(":")[2] in inodes for line in Path("/proc/locks").read_text().splitlines())


@pytest.mark.parametrize("detour", ["same", "symlink", "hard link", "symlinked directory"])
def test_a_proxy_that_would_forward_to_itself_is_refused(fresh_host: TestHost, detour: str) -> None:
    """Whatever name leads from the Docker host back to a listener."""
    listener, there = fresh_host.socket, fresh_host.dir / "other.sock"
    if detour == "same":
        there = listener
    elif detour == "symlink":
        there.symlink_to(listener)
    elif detour == "hard link":
        there.hardlink_to(listener)
    else:
        (fresh_host.dir / "link").symlink_to(fresh_host.dir)
        there = fresh_host.dir / "link" / listener.name
    done = fresh_host.run("python", "-m", "weavemw.server", "-H", f"unix://{there}", check=False, timeout=20,
                          env={"PYTHONPATH": str(_ROOT)})
    assert done.returncode == 1
    assert "would talk to itself" in done.stderr or "listens there already" in done.stderr, done.stderr
    assert fresh_host.docker("version").returncode == 0, "and the Docker socket is what it was"
