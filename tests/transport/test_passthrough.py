"""The transport, between a client's bytes and a daemon's, under real WSGI servers."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPResponse, IncompleteRead
from pathlib import Path

import pytest
from fakedaemon import FakeDaemon, Request
from fakedaemon import plain as plain_answer

GUNICORN = [sys.executable, "-m", "gunicorn", "--no-control-socket", "--limit-request-line", "0",
            "--limit-request-field_size", "1048576", "--graceful-timeout", "2"]
WERKZEUG = "import sys, serving; from werkzeug.serving import run_simple; " \
           "run_simple('unix://' + sys.argv[1], 0, getattr(serving, sys.argv[2]), threaded=True)"

SERVERS = {
    "ours": [*GUNICORN, "-k", "weavemw.serving.worker.Worker", "--threads", "4", "-w", "1", "-b", "unix:{path}",
             "serving:{app}"],
    "gthread": [*GUNICORN, "-k", "gthread", "--threads", "4", "-w", "1", "-b", "unix:{path}", "serving:{app}"],
    "sync": [*GUNICORN, "-k", "sync", "-b", "unix:{path}", "serving:{app}"],
    "werkzeug": [sys.executable, "-c", WERKZEUG, "{path}", "{app}"],
}


@dataclass
class Proxy:
    """A server with a stack of serving.py, and the daemon behind it."""

    path: Path
    daemon: FakeDaemon
    process: subprocess.Popen[bytes]
    log: Path

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(15)
        try:
            client.connect(str(self.path))
        except OSError:
            client.close()
            raise
        return client

    def exchange(self, request: bytes) -> bytes:
        """Send a request that asks to close, and return all that comes back."""
        with self.connect() as client:
            client.sendall(request)
            return read_all(client)

    def get(self, target: str, *headers: str, method: str = "GET") -> bytes:
        return self.exchange(request(method, target, *headers, "Connection: close"))


def request(method: str, target: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: docker", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def read_all(sock: socket.socket) -> bytes:
    pieces = []
    try:
        while piece := sock.recv(1 << 20):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        piece = sock.recv(1)
        assert piece, f"the connection ended after {data!r}"
        data += piece
    return data


def read_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, f"the connection ended after {len(data)} bytes"
        data += piece
    return data


def eventually(condition: Callable[[], object], within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while not (held := condition()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(held)


def serve(directory: Path, server: str, app: str) -> Iterator[Proxy]:
    path, log = directory / "proxy.sock", directory / "log"
    with FakeDaemon(directory / "daemon.sock") as daemon, log.open("wb") as output:
        argv = [arg.format(path=path, app=app) for arg in SERVERS[server]]
        here = Path(__file__).parent
        process = subprocess.Popen(argv, stderr=output, stdout=output, cwd=here,
                                   env={**os.environ, "UPSTREAM": str(daemon.path), "HOME": str(directory),
                                        "PYTHONPATH": f"{here.parent}{os.pathsep}{here}"})
        try:
            proxy = Proxy(path, daemon, process, log)
            assert eventually(lambda: _answers(proxy)), log.read_text()
            daemon.requests.clear()
            yield proxy
        finally:
            process.terminate()
            try:
                process.wait(10)
            finally:
                process.kill()


def _answers(proxy: Proxy) -> bool:
    try:
        return b"200 OK" in proxy.get("/_ping")
    except OSError:
        return False


@pytest.fixture(scope="module", params=[("ours", "plain"), ("ours", "wrapped"), ("ours", "iterated"),
                                        ("gthread", "plain"), ("sync", "plain"), ("werkzeug", "plain")], ids="-".join)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    yield from serve(tmp_path_factory.mktemp("served"), *request.param)


@pytest.fixture
def proxy(served: Proxy) -> Iterator[Proxy]:
    """Every server and every way of embedding, with a daemon that answers ``{}``."""
    served.daemon.requests.clear()
    served.daemon.handlers.clear()
    yield served
    assert served.process.poll() is None, served.log.read_text()


@pytest.fixture(scope="module")
def plain_served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    yield from serve(tmp_path_factory.mktemp("plain"), "ours", "plain")


@pytest.fixture
def plain(plain_served: Proxy) -> Proxy:
    """The stack as it is shipped, under our own worker."""
    plain_served.daemon.requests.clear()
    plain_served.daemon.handlers.clear()
    return plain_served


# What is forwarded

@pytest.mark.parametrize("target", [
    "/v1.41/containers/json?all=1",
    "/images/registry.example%2Fname%3Atag/json",
    "/images/a//b/json",
    "/v1.41/../containers/json",
    "/containers/%63reate%20x/json",
    "/no/such/call?x=%ff",
    "/containers/json?filters=" + "x" * 100_000,
], ids=lambda target: target[:40])
def test_target_is_forwarded_as_it_came(proxy, target):
    """The daemon sees the client's own spelling of path and query."""
    if "werkzeug" in str(proxy.process.args):
        target = target[:60_000]  # Werkzeug's own limit
    assert b" 200 OK\r\n" in proxy.get(target)
    assert proxy.daemon.requests[-1].line == f"GET {target} HTTP/1.1"


def test_absolute_form_becomes_origin_form(proxy):
    """A target that names a host is forwarded without it (RFC 9112 section 3.2.2)."""
    proxy.get("http://docker/info?a=b")
    assert proxy.daemon.requests[-1].line == "GET /info?a=b HTTP/1.1"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH", "PROPFIND"])
def test_methods_pass(proxy, method):
    """Any method reaches the daemon, whether we know it or not."""
    reply = proxy.get("/unknown", method=method)
    assert b" 200 OK\r\n" in reply
    assert reply.endswith(b"\r\n\r\n" if method == "HEAD" else b"{}")
    assert proxy.daemon.requests[-1].line.startswith(f"{method} /unknown ")


def test_long_headers_pass(proxy):
    """A registry configuration of 100 KB arrives whole."""
    value = "x" * 100_000 if "werkzeug" not in str(proxy.process.args) else "x" * 60_000
    proxy.get("/_ping", f"X-Registry-Config: {value}")
    assert proxy.daemon.requests[-1].header("x-registry-config") == value


def test_connection_headers_are_not_forwarded(proxy):
    """What the client says of its own connection stays there."""
    proxy.get("/_ping", "Keep-Alive: 5", "TE: trailers", "Proxy-Connection: x")
    names = {name for name, _ in proxy.daemon.requests[-1].headers}
    assert not names & {"keep-alive", "te", "proxy-connection"}


@pytest.mark.parametrize("host", ["/var/run/docker.sock", "", "[::1", "a b"], ids=repr)
def test_malformed_host_is_replaced(plain, host):
    """Old clients send a Host that the daemon would refuse; it never sees it."""
    reply = plain.exchange(f"GET /_ping HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert b"200 OK" in reply
    assert plain.daemon.requests[-1].header("host") == "docker"


def test_repeated_headers_stay_apart(plain):
    """BuildKit's session announces its methods in repeated headers."""
    plain.get("/_ping", "X-Method: /a/b", "X-Method: /c/d")
    assert [value for name, value in plain.daemon.requests[-1].headers if name == "x-method"] == ["/a/b", "/c/d"]


def test_server_and_date_are_the_daemons(plain):
    """No header tells a client that it is not talking to the daemon."""
    reply = plain.get("/_ping")
    assert b"\r\nServer: Docker/28.5.2 (linux)\r\n" in reply
    assert b"\r\nDate: Tue, 01 Jan 2030 00:00:00 GMT\r\n" in reply
    assert b"gunicorn" not in reply


def test_short_answers_come_as_the_daemon_sent_them(plain):
    """On a kept connection, each is the daemon's own bytes, order and spelling of its headers included."""
    head = b"HTTP/1.1 299 Odd  Reason\r\nx-LOWER: a\r\nContent-Length: 3\r\nX-Again: 1\r\nX-Again: 2\r\n\r\n"
    plain.daemon.handlers["/_ping"] = lambda request: request.connection.sendall(
        head if request.line.startswith("HEAD") else head + b"abc")
    with plain.connect() as client:
        for method, expected in (("GET", head + b"abc"), ("HEAD", head), ("GET", head + b"abc")):
            client.sendall(request(method, "/_ping"))
            assert read_exactly(client, len(expected)) == expected


def test_kept_connection_of_http_1_0(plain):
    """A client of HTTP/1.0 that wants to keep its connection is told that it may."""
    with plain.connect() as client:
        for _ in range(2):
            client.sendall(b"GET /info HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert b"\r\nConnection: keep-alive\r\n" in read_until(client, b"{}")


def test_embedding_middleware_sees_the_response(tmp_path):
    """A middleware that replaces start_response is heeded, for streams too."""
    for proxy in serve(tmp_path, "gthread", "wrapped"):
        assert b"X-Embedded: yes" in proxy.get("/_ping")
        assert b"X-Embedded: yes" in proxy.get("/events")


# Bodies

@pytest.mark.parametrize("target", ["/containers/x/rename", "/build"])
def test_body_with_a_length(proxy, target):
    """A body of 10 MB arrives whole, with its length."""
    bodies = record_bodies(proxy)
    body = os.urandom(1 << 20) * 10
    proxy.exchange(request("POST", target, "Connection: close", body=body))
    assert hashlib.sha256(bodies[0]).digest() == hashlib.sha256(body).digest()
    assert proxy.daemon.requests[-1].header("content-length") == str(len(body))


@pytest.mark.parametrize("target", ["/containers/x/rename", "/build"])
def test_chunked_body(proxy, target):
    """A chunked body arrives whole, chunked."""
    bodies = record_bodies(proxy)
    body = os.urandom(100_000)
    extension = b"" if "werkzeug" in str(proxy.process.args) else b";ext=1"  # Werkzeug reads none
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece)
                      for piece in (body[:1], body[1:70_000], body[70_000:]))
    proxy.exchange(request("POST", target, "Connection: close", "Transfer-Encoding: chunked")
                   + chunks + b"0\r\n\r\n")
    assert bodies == [body]
    assert proxy.daemon.requests[-1].header("transfer-encoding") == "chunked"


def record_bodies(proxy: Proxy) -> list[bytes]:
    bodies: list[bytes] = []

    def handler(request: Request) -> None:
        bodies.append(request.read_body())
        request.answer()

    proxy.daemon.handlers[""] = handler
    return bodies


@pytest.mark.parametrize("target", ["/containers/x/rename", "/build"])
def test_refusal_reaches_a_client_that_still_sends(proxy, target):
    """The daemon's early error is read although the upload has not ended."""
    def refuse(request: Request) -> None:
        request.answer(b'{"message":"no"}', "409 Conflict", "Connection: close")
        raise ConnectionError

    proxy.daemon.handlers[""] = refuse
    with proxy.connect() as client:
        client.sendall(request("POST", target, "Content-Length: 100000000"))
        sender = threading.Thread(target=send_until_refused, args=(client,))
        sender.start()
        assert b"409 Conflict" in read_until(client, b"\r\n\r\n")
        assert read_exactly(client, 16) == b'{"message":"no"}'
        client.shutdown(socket.SHUT_RDWR)
        sender.join()


def send_until_refused(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        for _ in range(1500):
            client.sendall(b"x" * 65536)


def test_expect_continue(proxy):
    """A client that waits for 100 Continue gets it, and its body arrives."""
    bodies = record_bodies(proxy)
    with proxy.connect() as client:
        client.sendall(request("PUT", "/containers/x/archive", "Expect: 100-continue", "Content-Length: 4"))
        assert b"100 Continue" in read_until(client, b"\r\n\r\n")
        client.sendall(b"body")
        assert b"200 OK" in read_until(client, b"{}")
    assert bodies == [b"body"]


@pytest.mark.parametrize("target", ["/containers/x/rename", "/build"])
def test_length_and_chunked_together_are_refused(proxy, target):
    """A request that could be read in two ways never reaches the daemon (RFC 9112 section 6.1)."""
    reply = proxy.exchange(request("POST", target, "Content-Length: 2", "Transfer-Encoding: chunked")
                           + b"0\r\n\r\n")
    assert b" 400 " in reply.split(b"\r\n")[0]
    assert proxy.daemon.requests == []


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("target", ["/info", "/images/get"])
def test_response_bodies(proxy, framing, target):
    """A body of 5 MB comes back whole, however the daemon frames it."""
    body = os.urandom(1 << 20) * 5

    def answer(request: Request) -> None:
        request.read_body()
        head = {"length": f"Content-Length: {len(body)}", "chunked": "Transfer-Encoding: chunked",
                "close": "Connection: close"}[framing]
        request.connection.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
        if framing == "chunked":
            request.connection.sendall(b"1\r\n" + body[:1] + b"\r\n%x\r\n" % (len(body) - 1) + body[1:]
                                       + b"\r\n0\r\nX-Trailer: 1\r\n\r\n")
        else:
            request.connection.sendall(body)
        if framing == "close":
            raise ConnectionError

    proxy.daemon.handlers[""] = answer
    import http.client
    connection = http.client.HTTPConnection("docker")
    connection.sock = proxy.connect()
    connection.request("GET", target)
    reply = connection.getresponse()
    assert reply.read() == body
    connection.close()


@pytest.mark.parametrize("target", ["/info", "/events"])
def test_head_comes_before_the_body_and_every_piece_at_once(proxy, target):
    """A client sees the head of a silent stream, and each event when it happens."""
    step = threading.Semaphore(0)

    def stream(request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in (b"one", b"two"):
            step.acquire(timeout=15)
            request.connection.sendall(b"3\r\n" + event + b"\r\n")
        request.connection.sendall(b"0\r\n\r\n")

    proxy.daemon.handlers[""] = stream
    with proxy.connect() as client:
        client.sendall(request("GET", target))
        assert b" 200 OK" in read_until(client, b"\r\n\r\n")
        for event in (b"one", b"two"):
            step.release()
            read_until(client, event)
        read_until(client, b"0\r\n\r\n")


@pytest.mark.parametrize("target", ["/info", "/build"])
def test_memory_does_not_grow_with_the_body(proxy, target):
    """256 MB up and 256 MB down: the server's memory stays what it was, but for a few blocks."""
    size, block = 256 << 20, bytes(1 << 20)

    def handler(request: Request) -> None:
        left = size - len(request.rest)
        while left:
            left -= len(request.connection.recv(min(left, 1 << 20)))
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 20):
            request.connection.sendall(block)

    proxy.get("/_ping")
    before = peak_memory(proxy)
    proxy.daemon.handlers[target] = handler
    with proxy.connect() as client:
        client.sendall(request("POST", target, f"Content-Length: {size}", "Connection: close"))
        for _ in range(size >> 20):
            client.sendall(block)
        read_until(client, b"\r\n\r\n")
        assert sum(map(len, iter(lambda: client.recv(1 << 20), b""))) == size
    assert peak_memory(proxy) - before < 32 << 20


def peak_memory(proxy: Proxy) -> int:
    """The most that any of the server's processes ever held in memory, in bytes."""
    pids = [proxy.process.pid, *children(proxy.process.pid)]
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return max(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def test_trailers_of_streams_arrive(plain):
    """What the relay carries is not parsed: trailers come through, both ways (RFC 9110 section 6.5)."""
    def handler(request: Request) -> None:
        body = request.rest
        while not body.endswith(b"0\r\nX-Up: 1\r\n\r\n"):
            body += request.connection.recv(100)
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Down\r\n\r\n"
                                   b"0\r\nX-Down: 1\r\n\r\n")
        raise ConnectionError

    plain.daemon.handlers["/build"] = handler
    reply = plain.exchange(request("POST", "/build", "Transfer-Encoding: chunked") + b"0\r\nX-Up: 1\r\n\r\n")
    assert reply.endswith(b"0\r\nX-Down: 1\r\n\r\n")


# Connections that stop being HTTP

UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n" \
           b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def echo_upgraded(request: Request) -> None:
    """Upgrade, echo until EOF, then say how much it was."""
    request.read_body()
    request.connection.sendall(UPGRADED)
    data, total = request.rest or request.connection.recv(1 << 20), 0
    while data:
        total += len(data)
        request.connection.sendall(data)
        data = request.connection.recv(1 << 20)
    request.connection.sendall(b"total %d" % total)
    raise ConnectionError


@pytest.mark.parametrize("target", ["/containers/x/attach?stream=1", "/v1.41/exec/x/start", "/session", "/grpc",
                                    "/some/future/call"])
def test_upgrade(proxy, target):
    """The 101 arrives as it was sent; bytes in the request's packet, half-close and the output after it work."""
    proxy.daemon.handlers[""] = echo_upgraded
    with proxy.connect() as client:
        client.sendall(request("POST", target, "Connection: Upgrade", "Upgrade: tcp", body=b"{}") + b"early ")
        assert read_until(client, b"\r\n\r\n") == UPGRADED
        assert read_exactly(client, 6) == b"early "
        client.sendall(b"late")
        assert read_exactly(client, 4) == b"late"
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"total 10", "and nothing follows"
    sent = proxy.daemon.requests[-1]
    assert (sent.header("upgrade"), sent.header("connection")) == ("tcp", "Upgrade")


@pytest.mark.parametrize(("method", "target"), [("POST", "/containers/create"), ("POST", "/containers/x/start"),
                                                ("GET", "/version")])
def test_calls_that_are_never_upgraded_are_not_asked_to_be(proxy, method, target):
    """`Upgrade: h2c` of curl, or of somebody who wants an answer unseen: the call is an ordinary one."""
    answer = proxy.get(target, "Connection: Upgrade, close", "Upgrade: tcp", method=method)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert proxy.daemon.requests[-1].header("upgrade") is None


def test_nothing_passes_behind_an_upgrade_that_is_refused(proxy):
    """The daemon keeps its connection: what the client sends next is read by the server, never by the daemon alone."""
    def handler(request: Request) -> None:
        if request.path == "/containers/x/attach":
            request.read_body()
            request.answer(b'{"message":"No such container: x"}', "404 Not Found")
        else:
            plain_answer(request)

    proxy.daemon.handlers[""] = handler
    with proxy.connect() as client:
        client.sendall(request("POST", "/containers/x/attach", "Connection: Upgrade", "Upgrade: tcp", body=b"{}")
                       + request("POST", "/containers/create", "Connection: close", body=b"{}"))
        assert b" 404 Not Found\r\n" in read_until(client, b"No such container: x")
        read_all(client)
    first, *others = proxy.daemon.requests
    assert all(seen.connection is not first.connection for seen in others)


def test_a_refused_upgrade_leaves_the_connection(plain):
    """The answer is an ordinary one, and the next request is another."""
    plain.daemon.handlers["/containers/x/attach"] = lambda request: request.answer(b"no", "409 Conflict")
    with plain.connect() as client:
        for _ in range(2):
            client.sendall(request("POST", "/containers/x/attach", "Connection: Upgrade", "Upgrade: tcp"))
            assert b" 409 Conflict\r\n" in read_until(client, b"\r\n\r\nno")
        client.sendall(request("GET", "/info"))
        assert b" 200 OK" in read_until(client, b"{}")


def test_an_engine_that_hijacks_without_101(proxy):
    """Asked for an upgrade, some answer 200 and go on raw all the same: the response ends with the connection."""
    def handler(request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n")
        request.connection.sendall(b"out: " + request.connection.recv(100))
        raise ConnectionError

    proxy.daemon.handlers["/containers/x/attach"] = handler
    with proxy.connect() as client:
        client.sendall(request("POST", "/containers/x/attach", "Connection: Upgrade", "Upgrade: tcp"))
        read_until(client, b"raw-stream\r\n\r\n")
        client.sendall(b"in")
        assert read_all(client) == b"out: in"


def test_attach_without_asking_for_an_upgrade(proxy):
    """Old clients get 200 and then the raw stream, both ways."""
    def handler(request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n")
        request.connection.sendall(b"out: " + request.connection.recv(100))
        raise ConnectionError

    proxy.daemon.handlers["/containers/x/attach"] = handler
    with proxy.connect() as client:
        client.sendall(request("POST", "/containers/x/attach"))
        read_until(client, b"raw-stream\r\n\r\n")
        client.sendall(b"in")
        assert read_all(client) == b"out: in"


def test_nothing_passes_behind_a_stream(proxy):
    """A second request on a connection that went to the relay never reaches the daemon unseen."""
    proxy.daemon.handlers["/events"] = lambda request: request.answer(b"done")
    with proxy.connect() as client:
        client.sendall(request("GET", "/events") + request("POST", "/containers/create", body=b"{}"))
        read_until(client, b"done")
        client.shutdown(socket.SHUT_WR)
        read_all(client)
    seen_by_stack = [] if "serving:plain" in proxy.process.args or "plain" in proxy.process.args \
        else ["POST /containers/create HTTP/1.1"]
    assert [seen.line for seen in proxy.daemon.requests] == ["GET /events HTTP/1.1", *seen_by_stack]


def test_many_streams_hold_no_thread(plain):
    """Fifty silent streams on four threads: other requests are answered."""
    def silent(request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        request.connection.recv(1)

    plain.daemon.handlers["/events"] = silent
    clients = []
    for _ in range(50):
        client = plain.connect()
        client.sendall(request("GET", "/events"))
        read_until(client, b"\r\n\r\n")
        clients.append(client)
    assert b"200 OK" in plain.get("/_ping")
    threads = [len(os.listdir(f"/proc/{pid}/task")) for pid in children(plain.process.pid)]
    assert max(threads) <= 1 + 4 + 1 + 1  # main, the server's, its deputy, the relay
    for client in clients:
        client.close()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# Ends

@pytest.mark.parametrize("target", ["/info", "/containers/x/start", "/events"])
@pytest.mark.parametrize("when", ["before the head", "after the head"])
def test_client_that_leaves_ends_the_request_at_the_daemon(plain, target, when):
    """The daemon's connection is closed when the client's is."""
    asked, left = threading.Event(), threading.Event()

    def wait(request: Request) -> None:
        if when == "after the head":
            request.connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        asked.set()
        while when == "after the head" and target == "/info" and not left.wait(0.05):
            request.connection.sendall(b"1\r\nx\r\n")  # who iterates notices when it writes
            if request.connection.recv(1, socket.MSG_DONTWAIT) == b"":
                left.set()
        request.connection.settimeout(10)
        assert request.connection.recv(1) == b""
        left.set()

    def guarded(request: Request) -> None:
        try:
            wait(request)
        except BlockingIOError:
            wait_for_end(request, left)
        except ConnectionError:
            left.set()

    plain.daemon.handlers[target] = guarded
    with plain.connect() as client:
        client.sendall(request("GET", target))
        assert asked.wait(5)
    assert left.wait(5)


def wait_for_end(request: Request, left: threading.Event) -> None:
    try:
        while True:
            request.connection.sendall(b"1\r\nx\r\n")
            time.sleep(0.02)
    except ConnectionError:
        left.set()


@pytest.mark.parametrize("target", ["/info", "/containers/create", "/containers/x/rename"])
def test_client_that_half_closes_gets_its_answer(proxy, target):
    """As `printf … | socat - UNIX:…` and `nc -N` do: what took effect is answered."""
    half_closed = threading.Event()

    def answer_late(request: Request) -> None:
        assert half_closed.wait(5)
        time.sleep(0.1)
        plain_answer(request)

    proxy.daemon.handlers[target] = answer_late
    with proxy.connect() as client:
        client.sendall(request("POST", target, body=b"{}"))
        client.shutdown(socket.SHUT_WR)
        half_closed.set()
        assert read_all(client).startswith(b"HTTP/1.1 200 OK\r\n")


def test_daemon_that_leaves_ends_the_stream(proxy):
    """A stream ends at the client when the daemon goes away."""
    def leave(request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        raise ConnectionError

    proxy.daemon.handlers["/events"] = leave
    with proxy.connect() as client:
        client.sendall(request("GET", "/events"))
        read_until(client, b"one")
        assert b"0\r\n\r\n" not in read_all(client), "a cut stream must not look complete"


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("said", [
    pytest.param(b"", id="nothing"),
    pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
    pytest.param(bytes(range(256)) * 12 + b"\r\n\r\n", id="garbage"),
    pytest.param(OK + b"Content-Le", id="a head cut off"),
    pytest.param(OK + b"X: " + b"a" * (2 << 20), id="a head without an end"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 50_000, id="interim heads without an end"),
    pytest.param(OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nabcde", id="two lengths"),
    pytest.param(OK + b"Content-Length: 2, 2\r\n\r\nab", id="a list of lengths"),
    pytest.param(OK + b"Content-Length: +2\r\n\r\nab", id="a signed length"),
    pytest.param(OK + b"Content-Length:\r\n\r\n", id="an empty length"),
    pytest.param(OK + b"Transfer-Encoding: gzip\r\n\r\nab", id="another coding"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", id="a bad chunk"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n", id="a chunk too long"),
    pytest.param(OK + b"X : y\r\nContent-Length: 0\r\n\r\n", id="a space before the colon"),
    pytest.param(OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n", id="a NUL"),
    pytest.param(OK + b"X: a\n b\r\nContent-Length: 0\r\n\r\n", id="a bare line feed"),
    pytest.param(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\n\r\n", id="an upgrade unasked"),
])
@pytest.mark.parametrize(("method", "target"), [("GET", "/info"), ("POST", "/containers/x/rename"),
                                                ("GET", "/events")])
def test_a_daemon_that_speaks_no_http_is_a_bad_gateway(proxy, method, target, said):
    """Whatever it says, the client gets 502 with a message, once the daemon has said it."""
    def handler(request: Request) -> None:
        request.connection.sendall(said)
        raise ConnectionError

    proxy.daemon.handlers[""] = handler
    head, _, body = proxy.get(target, method=method).partition(b"\r\n\r\n")
    if b"chunk" in said and " 200 " in head.decode().split("\r\n")[0]:
        return  # a stream's body is the client's to read
    assert b" 502 " in head.split(b"\r\n")[0]
    assert b"gave no proper answer" in body
    assert json.loads(body)["message"].isprintable()
    assert "Traceback" not in proxy.log.read_text()


@pytest.mark.parametrize(("said", "body"), [
    pytest.param(b"Content-Length: 2\r\ncontent-length:  2 \r\n\r\nab", b"ab", id="the same length twice"),
    pytest.param(b"Content-Length: 9\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", b"ab",
                 id="a length and chunks"),
    pytest.param(b"Content-Length: 2\r\n\r\nabcdHTTP/1.1 200 OK\r\n\r\n", b"ab", id="more than its length"),
    pytest.param(b"Transfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n01 \r\nb\r\n0\r\nX: y\r\n\r\nabc", b"ab",
                 id="more than its chunks"),
])
def test_what_go_accepts_is_accepted(proxy, said, body):
    """And what the daemon says beyond the end of its answer never becomes part of another one."""
    proxy.daemon.handlers["/info"] = lambda request: request.connection.sendall(OK + said)
    for _ in range(2):
        reply = HTTPResponse(OneReply(proxy.get("/info")))
        reply.begin()
        assert (reply.status, reply.read()) == (200, body)
    assert b"{}" in proxy.get("/version")


class OneReply:
    """A connection for http.client that gives what was received."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def test_a_body_of_an_answer_that_has_none_is_not_the_next_answer(plain):
    """A daemon that answers HEAD with a body: its connection is not used again."""
    plain.daemon.handlers["/info"] = lambda request: request.connection.sendall(
        OK + b"Content-Length: 31\r\n\r\nHTTP/1.1 500 Not an answer\r\n\r\n\r\n")
    plain.get("/info", method="HEAD")
    assert b" 200 OK" in plain.get("/version")


@pytest.mark.parametrize("cut", [b"Content-Length: 9\r\n\r\nab", b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
                                 b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\nz\r\n\r\n"])
def test_an_answer_that_breaks_off_does_not_look_whole(proxy, cut):
    """The client sees that something is missing; the log says so in a line."""
    sent = threading.Event()

    def handler(request: Request) -> None:
        head, end, body = (OK + cut).partition(b"ab")
        request.connection.sendall(head + end)
        sent.wait(0.2)
        request.connection.sendall(body)
        raise ConnectionError

    proxy.daemon.handlers["/info"] = handler
    answer = HTTPResponse(OneReply(proxy.get("/info")))
    answer.begin()
    with pytest.raises(IncompleteRead):
        answer.read()
    assert "Traceback" not in proxy.log.read_text()


def test_a_client_may_leave_a_silent_daemon(plain):
    """There is no time limit: waiting ends with the daemon's answer, or with the client."""
    left = threading.Event()
    plain.daemon.handlers["/containers/create"] = lambda request: left.set() if not request.connection.recv(1) else None
    with plain.connect() as client:
        client.sendall(request("POST", "/containers/create"))
        assert eventually(lambda: plain.daemon.requests)
    assert left.wait(5)


def test_no_daemon(tmp_path):
    """Without a daemon: 502 with a message, at once, and again, and all is well when it is there."""
    for proxy in serve(tmp_path, "gthread", "plain"):
        proxy.daemon.stop()
        for target in ("/info", "/events", "/containers/x/attach"):
            head, _, body = proxy.get(target).partition(b"\r\n\r\n")
            assert b" 502 " in head
            assert b"Content-Type: application/json" in head
            assert "Is the docker daemon running?" in json.loads(body)["message"]
        proxy.daemon._listen()
        assert b"200 OK" in proxy.get("/info")


# Kept-alive connections

def test_connections_are_kept_on_both_sides(plain):
    """Requests one after the other use one connection here and one there."""
    before = plain.daemon.connections
    with plain.connect() as client:
        for _ in range(5):
            client.sendall(request("GET", "/info"))
            assert b"200 OK" in read_until(client, b"{}")
    assert plain.daemon.connections - before <= 1


def test_daemon_replaced_under_us(plain):
    """A kept connection to a daemon that is gone is not used again."""
    assert b"200 OK" in plain.get("/info")
    plain.daemon.restart()
    assert b"200 OK" in plain.get("/info")


def test_stale_connection_is_retried_only_when_that_is_safe(plain):
    """A kept connection that breaks under a GET is replaced; a POST never travels on a kept one."""
    plain.get("/info")
    stale = [seen.connection for seen in plain.daemon.requests]
    plain.daemon.handlers["/version"] = lambda request: drop_if(request, stale)
    assert b"200 OK" in plain.get("/version")
    plain.daemon.handlers["/containers/x/rename"] = lambda request: drop_if(request, stale)
    plain.get("/info")
    assert b"200 OK" in plain.exchange(request("POST", "/containers/x/rename", "Connection: close", body=b"{}"))
    assert sum("rename" in seen.line for seen in plain.daemon.requests) == 1


def drop_if(request: Request, stale: list[socket.socket]) -> None:
    if request.connection in stale:
        raise ConnectionError
    request.read_body()
    request.answer()


def test_http_1_0(plain):
    """A client of HTTP/1.0 gets an answer that it understands, and the end of the connection."""
    reply = plain.exchange(b"GET /info HTTP/1.0\r\n\r\n")
    assert b" 200 OK" in reply
    assert reply.endswith(b"{}")


# Answers that are waited for without a thread

def held(plain: Proxy, path: str = "/info") -> threading.Event:
    """Have the daemon answer there only once the event is set."""
    release = threading.Event()

    def answer(request: Request) -> None:
        release.wait(15)
        request.answer()

    plain.daemon.handlers[path] = answer
    return release


def asked(plain: Proxy, path: str = "/info") -> Callable[[], int]:
    return lambda: sum(seen.path == path for seen in plain.daemon.requests)


def test_slow_answers_hold_no_thread(plain):
    """A hundred of them on four threads: another request is answered meanwhile, and all of them in the end."""
    release = held(plain)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(plain.connect()) for _ in range(100)]
        for client in clients:
            client.sendall(request("GET", "/info"))
        assert eventually(lambda: asked(plain)() == 100)
        assert b"200 OK" in plain.get("/_ping")
        release.set()
        assert all(b"200 OK" in read_until(client, b"{}") for client in clients)


def test_slow_answer_to_a_body(plain):
    """What has a body that is here is waited for in the same way."""
    release = held(plain, "/containers/x/exec")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(plain.connect()) for _ in range(20)]
        for client in clients:
            client.sendall(request("POST", "/containers/x/exec", body=b'{"Cmd":["x"]}'))
        assert eventually(lambda: asked(plain, "/containers/x/exec")() == 20)
        assert b"200 OK" in plain.get("/_ping")
        release.set()
        assert all(b"200 OK" in read_until(client, b"{}") for client in clients)


def test_slow_upgrades_hold_no_thread(plain):
    """The daemon has yet to agree to twenty of them; then they are joined."""
    release = threading.Event()

    def agree(request: Request) -> None:
        release.wait(15)
        echo_upgraded(request)

    plain.daemon.handlers["/containers/x/attach"] = agree
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(plain.connect()) for _ in range(20)]
        for client in clients:
            client.sendall(request("POST", "/containers/x/attach", "Connection: Upgrade", "Upgrade: tcp"))
        assert eventually(lambda: asked(plain, "/containers/x/attach")() == 20)
        assert b"200 OK" in plain.get("/_ping")
        release.set()
        assert all(read_until(client, b"\r\n\r\n") == UPGRADED for client in clients)


def test_pipelined_requests_are_answered_in_turn(plain):
    """Also where the first takes its time, and the second fails."""
    release = held(plain)
    plain.daemon.handlers["/version"] = lambda request: request.answer(b"", "409 Conflict")
    with plain.connect() as client:
        client.sendall(request("GET", "/info") + request("GET", "/version") + request("HEAD", "/_ping")
                       + request("GET", "/_ping", "Connection: close"))
        assert eventually(asked(plain))
        release.set()
        statuses = [line.split(b" ")[1] for line in read_all(client).split(b"\r\n") if b"HTTP/1.1 " in line]
    assert statuses == [b"200", b"409", b"200", b"200"]
    assert [seen.path for seen in plain.daemon.requests] == ["/info", "/version", "/_ping", "/_ping"]


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Le", b"nonsense\r\n\r\n",
                                  b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"], ids=repr)
def test_daemon_that_dies_before_its_answer(plain, said):
    """The client is told, and can go on using its connection."""
    def die(request: Request) -> None:
        request.connection.sendall(said)
        raise ConnectionError

    plain.daemon.handlers["/info"] = die
    with plain.connect() as client:
        client.sendall(request("GET", "/info"))
        head = read_until(client, b"\r\n\r\n")
        assert b" 502 Bad Gateway\r\n" in head
        assert "no proper answer" in json.loads(read_until(client, b"}\n"))["message"]
        client.sendall(request("GET", "/_ping"))
        assert b" 200 OK\r\n" in read_until(client, b"{}")
    assert b"GET /info: 502" in plain.log.read_bytes()


def test_daemon_that_dies_within_its_answer(plain):
    """Nothing makes what the client got look whole."""
    def die(request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun")
        raise ConnectionError

    plain.daemon.handlers["/info"] = die
    with plain.connect() as client:
        client.sendall(request("GET", "/info"))
        assert read_all(client) == b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun"


def test_answer_that_comes_byte_by_byte(plain):
    """Each is passed on when it comes, and the next request goes over the same connections."""
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n"

    def drop(request: Request) -> None:
        for byte in answer:
            request.connection.sendall(bytes([byte]))
            time.sleep(0.001)

    plain.daemon.handlers["/info"] = drop
    with plain.connect() as client:
        for _ in range(2):
            client.sendall(request("GET", "/info"))
            assert read_until(client, b"0\r\n\r\n") == answer.partition(b"\r\n\r\n")[2]
    assert plain.daemon.requests[0].connection is plain.daemon.requests[1].connection


def test_client_that_leaves_ends_the_exchange(plain):
    """The daemon sees it go; one that has only ended what it sends gets its answer."""
    ended = threading.Event()
    plain.daemon.handlers["/info"] = lambda request: ended.set() if request.connection.recv(1) == b"" else None
    with plain.connect() as client:
        client.sendall(request("GET", "/info"))
        assert eventually(asked(plain))
    assert ended.wait(15)
    release = held(plain, "/version")
    with plain.connect() as client:
        client.sendall(request("GET", "/version"))
        client.shutdown(socket.SHUT_WR)
        assert eventually(asked(plain, "/version"))
        release.set()
        assert read_all(client).endswith(b"{}")


def test_client_that_leaves_within_its_answer(plain):
    """The daemon need not go on: its connection is closed, and used no more."""
    ended = threading.Event()

    def go_on(request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\nbegun")
        try:
            while True:
                request.connection.sendall(bytes(65536))
        except OSError:
            ended.set()
            raise

    plain.daemon.handlers["/info"] = go_on
    with plain.connect() as client:
        client.sendall(request("GET", "/info"))
        read_until(client, b"begun")
    assert ended.wait(15)
    assert b"200 OK" in plain.get("/_ping")


def test_worker_that_stops_waits_for_answers(tmp_path):
    """SIGTERM while the daemon has yet to answer: the client gets its answer, if it comes soon."""
    for proxy in serve(tmp_path, "ours", "plain"):
        release = held(proxy)
        with proxy.connect() as client:
            client.sendall(request("GET", "/info"))
            assert eventually(asked(proxy))
            proxy.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            release.set()
            assert b"200 OK" in read_until(client, b"{}")
        proxy.process.wait(10)


def test_worker_that_stops_does_not_wait_for_ever(tmp_path):
    """An exchange that never ends, ends with the worker."""
    for proxy in serve(tmp_path, "ours", "plain"):
        release = held(proxy)
        with proxy.connect() as client:
            client.sendall(request("GET", "/info"))
            assert eventually(asked(proxy))
            proxy.process.send_signal(signal.SIGTERM)
            assert read_all(client) == b""
            proxy.process.wait(10)
            release.set()
        assert b"Traceback" not in proxy.log.read_bytes()


@pytest.fixture(scope="module", params=["ours", "gthread"])
def hiding_served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    yield from serve(tmp_path_factory.mktemp("hiding"), request.param, "hiding")


@pytest.fixture
def hiding(hiding_served: Proxy) -> Proxy:
    """A middleware that wants to revise answers, without waiting for them."""
    hiding_served.daemon.requests.clear()
    hiding_served.daemon.handlers.clear()
    return hiding_served


def listed(proxy: Proxy, body: bytes, *headers: str, chunks: int = 0) -> bytes:
    """A list of containers as a client gets it, whose answer the daemon sends at once or in so many chunks."""
    def answer(request: Request) -> None:
        size = -(-len(body) // max(1, chunks))
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        framing = "Transfer-Encoding: chunked" if chunks else f"Content-Length: {len(body)}"
        lines = ["HTTP/1.1 200 OK", "Content-Type: application/json", framing, *headers, "", ""]
        request.connection.sendall("\r\n".join(lines).encode())
        for piece in pieces:
            request.connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunks else piece)
        request.connection.sendall(b"0\r\n\r\n" if chunks else b"")

    proxy.daemon.handlers["/containers/json"] = answer
    with proxy.connect() as client:
        client.sendall(request("GET", "/containers/json"))
        reply = HTTPResponse(client)
        reply.begin()
        assert reply.getheader("Content-Type") == "application/json"
        return reply.read()


MOUNT = b'{"Source":"/var/lib/weavemw/wait/0123456789ab/w","Destination":"/dev/w","Mode":"ro","RW":false}'
ROW = b'[%b{"Id":"c","Command":"%b","Mounts":[%b],"Filler":"' + b"x" * 100_000 + b'"}]%b'


@pytest.mark.parametrize("chunks", [0, 1, 20])
def test_answer_is_revised_when_all_of_it_is_here(hiding, chunks):
    """What is ours is taken out; what holds nothing of ours comes as it was sent."""
    shown = ROW % (b" ", b"/dev/w sh", MOUNT, b"")
    assert listed(hiding, shown, chunks=chunks) == ROW % (b"", b"sh", b"", b"\n")
    assert listed(hiding, ROW % (b" ", b"sh", b"", b""), chunks=chunks) == ROW % (b" ", b"sh", b"", b"")
    assert listed(hiding, shown, "Content-Encoding: identity", chunks=chunks) == shown


def test_daemon_that_dies_within_what_is_revised(hiding):
    """Nothing was sent to the client yet: so it is told, or its connection ends."""
    def die(request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[")
        raise ConnectionError

    hiding.daemon.handlers["/containers/json"] = die
    assert b" 502 Bad Gateway\r\n" in hiding.get("/containers/json")


# Stopping

@pytest.mark.parametrize("server", ["gthread", "sync"])
def test_stop_ends_streams_cleanly_and_soon(tmp_path, server):
    """With ten streams and a kept connection open, SIGTERM ends the server soon, and clients see the streams' end."""
    def stream(request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        assert request.connection.recv(1) == b""
        request.connection.sendall(b"0\r\n\r\n")
        raise ConnectionError

    for proxy in serve(tmp_path, server, "plain"):
        proxy.daemon.handlers["/events"] = stream
        with contextlib.ExitStack() as stack:
            kept, *clients = [stack.enter_context(proxy.connect()) for _ in range(11)]
            kept.sendall(request("GET", "/info"))
            read_until(kept, b"{}")
            for client in clients:
                client.sendall(request("GET", "/events"))
                read_until(client, b"one")
            proxy.process.send_signal(signal.SIGTERM)
            assert all(read_all(client).endswith(b"0\r\n\r\n") for client in clients)
            proxy.process.wait(5)
