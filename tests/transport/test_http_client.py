"""The client for our own questions: one answer, within its limit, however the server behaves; asked twice only if
nothing was done."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from fakedaemon import FakeDaemon, Request

from weavemw.dockerapi.hosts import Tcp, Unix
from weavemw.errors import NoAnswer
from weavemw.transport.http_client import HttpClient

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(tmp_path / "d.sock") as daemon:
        yield daemon


@pytest.fixture
def client(daemon: FakeDaemon) -> HttpClient:
    return HttpClient(Unix(str(daemon.path)))


def says(data: bytes, *, close: bool = False) -> Callable[[Request], None]:
    """Answers with these bytes; ``close`` ends the connection then."""
    def answer(request: Request) -> None:
        request.read_body()
        request.connection.sendall(data)
        if close:
            request.connection.shutdown(socket.SHUT_RDWR)
    return answer


def test_a_question_and_its_answer(daemon: FakeDaemon, client: HttpClient) -> None:
    """Method, target, headers and body go out as they are; the whole answer comes back."""
    daemon.handlers["/a"] = lambda request: request.answer(request.read_body(), "201 Created")
    answer = client.ask("POST", "/a?b=%20", timeout=5, body=b"xyz", headers={"Content-Type": "text/plain"})
    assert (answer.status, answer.body, answer.text) == (201, b"xyz", "xyz")
    sent = daemon.requests[0]
    assert sent.line == "POST /a?b=%20 HTTP/1.1"
    assert dict(sent.headers) == {"host": "docker", "content-type": "text/plain", "content-length": "3"}


@pytest.mark.parametrize(("data", "body"), [
    pytest.param(OK, b"hi", id="length"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1;x=y\r\ni\r\n0\r\nT: t\r\n\r\n",
                 b"hi", id="chunked"),
    pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="none"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"hi", id="after an interim answer"),
])
def test_connections_are_kept(daemon: FakeDaemon, client: HttpClient, data: bytes, body: bytes) -> None:
    """However the body is framed, the next question goes over the same connection."""
    daemon.handlers[""] = says(data)
    assert [client.ask("GET", "/", timeout=5).body for _ in range(3)] == [body] * 3
    assert daemon.connections == 1


@pytest.mark.parametrize("data", [
    pytest.param(b"HTTP/1.1 200 OK\r\n\r\nhi", id="until the end"),
    pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", id="said"),
    pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", id="HTTP/1.0"),
])
def test_a_connection_that_ends_is_not_kept(daemon: FakeDaemon, client: HttpClient, data: bytes) -> None:
    daemon.handlers[""] = says(data, close=True)
    assert [client.ask("GET", "/", timeout=5).body for _ in range(3)] == [b"hi"] * 3
    assert daemon.connections == 3


class Unlucky:
    """Answers the first request of its first connection, and hangs up on the second after these bytes."""

    def __init__(self, last: bytes) -> None:
        self.last = last
        self.count = itertools.count(1)

    def __call__(self, request: Request) -> None:
        request.read_body()
        if next(self.count) == 2:
            request.connection.sendall(self.last)
            request.connection.shutdown(socket.SHUT_RDWR)
        else:
            request.connection.sendall(OK)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_connection_that_went_stale_under_a_question_is_no_failure(daemon: FakeDaemon, client: HttpClient,
                                                                     method: str) -> None:
    """It is asked once more, since not a byte came back and the question may be asked twice."""
    daemon.handlers[""] = Unlucky(b"")
    assert [client.ask(method, "/", timeout=5).body for _ in range(2)] == [b"hi"] * 2
    assert (len(daemon.requests), daemon.connections) == (3, 2)


def test_a_question_that_changes_something_is_not_asked_over_a_kept_connection(daemon: FakeDaemon,
                                                                               client: HttpClient) -> None:
    """So it can't go stale under it; unless the caller knows that it may be asked twice."""
    for _ in range(3):
        client.ask("POST", "/", timeout=5)
    assert daemon.connections == 3
    daemon.handlers[""] = Unlucky(b"")
    client.ask("GET", "/", timeout=5)
    assert client.ask("POST", "/", timeout=5, repeatable=True).body == b"hi"


@pytest.mark.parametrize(("data", "said"), [
    pytest.param(b"", "it closed the connection without an answer", id="nothing"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent", "closed the connection", id="half a head"),
    pytest.param(OK[:-1], "1 bytes early", id="half a body"),
    pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", "not a status line", id="another protocol"),
    pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "not a chunk size", id="no chunk"),
])
def test_what_is_no_answer_is_asked_for_once(daemon: FakeDaemon, client: HttpClient, data: bytes, said: str) -> None:
    """On a new connection nothing went stale: the server itself is broken, and the reason is told."""
    daemon.handlers[""] = says(data, close=True)
    with pytest.raises(NoAnswer, match=said) as raised:
        client.ask("GET", "/", timeout=5)
    assert len(daemon.requests) == 1
    assert not raised.value.timed_out


@pytest.mark.parametrize("last", [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", b"HTT", b"?\r\n\r\n"])
def test_an_answer_that_began_is_not_asked_for_again(daemon: FakeDaemon, client: HttpClient, last: bytes) -> None:
    daemon.handlers[""] = Unlucky(last)
    client.ask("GET", "/", timeout=5)
    with pytest.raises(NoAnswer):
        client.ask("GET", "/", timeout=5)
    assert len(daemon.requests) == 2


def silent(request: Request) -> None:
    time.sleep(5)


def trickling(request: Request) -> None:
    """Says something all the time, and never enough."""
    request.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(1000):
        time.sleep(0.02)
        request.connection.sendall(b"x")


@pytest.mark.parametrize("handler", [silent, trickling])
def test_the_limit_is_of_the_whole_call(daemon: FakeDaemon, client: HttpClient,
                                        handler: Callable[[Request], None]) -> None:
    """Also where bytes come often enough that no single wait is long."""
    daemon.handlers[""] = handler
    with pytest.raises(NoAnswer, match="no answer in time") as raised:
        client.ask("GET", "/", timeout=0.2)
    assert raised.value.timed_out


def test_a_server_that_takes_no_connection_is_waited_for_no_longer(tmp_path: Path) -> None:
    """Its queue is full; it never took the question."""
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as waiting:
        full.bind(str(tmp_path / "s"))
        full.listen(0)
        waiting.connect(str(tmp_path / "s"))
        with pytest.raises(NoAnswer, match="no answer in time") as raised:
            HttpClient(Unix(str(tmp_path / "s"))).ask("GET", "/", timeout=0.2)
    assert not raised.value.timed_out


def test_who_is_not_there_is_told_in_the_systems_words(tmp_path: Path) -> None:
    """With the system's number, so that nobody needs to read the words."""
    with pytest.raises(NoAnswer, match="No such file or directory") as missing:
        HttpClient(Unix(str(tmp_path / "none"))).ask("GET", "/", timeout=1)
    with pytest.raises(NoAnswer, match="Connection refused") as refused:
        HttpClient(Tcp("127.0.0.1", 1)).ask("GET", "/", timeout=1)
    assert (missing.value.errno, refused.value.errno) == (errno.ENOENT, errno.ECONNREFUSED)


def test_an_answer_before_the_question_was_sent_is_heard(daemon: FakeDaemon, client: HttpClient) -> None:
    """A server that refuses a large body reads no more of it."""
    daemon.handlers[""] = lambda request: (request.answer(b"no", "413 Too Large"),
                                           request.connection.shutdown(socket.SHUT_RD))[0]
    assert client.ask("POST", "/", timeout=5, body=bytes(4_000_000)).status == 413


def test_a_stream_comes_as_it_is_said(daemon: FakeDaemon, client: HttpClient) -> None:
    """Piece by piece, for longer than the limit for its head; it ends with the server, without an error."""
    go_on, listened = threading.Event(), []

    def stream(request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        go_on.wait(10)
        request.connection.sendall(b"2\r\nho\r\n")
        request.connection.shutdown(socket.SHUT_RDWR)

    daemon.handlers[""] = stream
    with client.stream("/events", timeout=0.5) as (status, pieces):
        for piece in pieces:
            listened.append(piece)
            time.sleep(0.6 if piece == b"hi" else 0)
            go_on.set()
    assert (status, listened) == (200, [b"hi", b"ho"])


def test_who_stops_listening_to_a_stream_closes_it(daemon: FakeDaemon, client: HttpClient) -> None:
    """Its connection is of no use to others."""
    ended = threading.Event()

    def stream(request: Request) -> None:
        request.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\nhi")
        assert request.connection.recv(1) == b""
        ended.set()

    daemon.handlers["/events"] = stream
    with client.stream("/events", timeout=5) as (_, pieces):
        assert next(pieces) == b"hi"
    assert ended.wait(5)


@contextmanager
def tcp_server() -> Iterator[tuple[Tcp, list[socket.socket]]]:
    """Answers on TCP, a thread per connection."""
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with suppress(OSError):  # it is closed at the end
            while connection.recv(4096):
                connection.sendall(OK)

    def accept() -> None:
        while True:
            try:
                connections.append(listener.accept()[0])
            except OSError:
                return
            threading.Thread(target=serve, args=(connections[-1],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield Tcp("127.0.0.1", listener.getsockname()[1]), connections
        listener.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()


def test_over_tcp_too() -> None:
    with tcp_server() as (host, connections):
        client = HttpClient(host)
        assert [client.ask("GET", "/", timeout=5).text for _ in range(3)] == ["hi"] * 3
        assert client.where == f"127.0.0.1:{host.port}"
        assert len(connections) == 1


def test_it_is_seen_whether_the_server_is_the_same() -> None:
    """While a connection lives, it is; one that has been closed, or a further one, may lead to another."""
    with tcp_server() as (host, connections):
        client = HttpClient(host)
        assert client.unbroken() == 0
        client.ask("GET", "/", timeout=5)
        first = client.unbroken()
        client.ask("GET", "/", timeout=5)
        assert client.unbroken() == first != 0
        connections[0].shutdown(socket.SHUT_RDWR)
        assert client.unbroken() == 0
        client.ask("GET", "/", timeout=5)
        assert client.unbroken() not in (0, first)


def test_many_threads_at_once(daemon: FakeDaemon, client: HttpClient) -> None:
    """Each gets its own answer; no more connections stay than are needed, and none leaks."""
    daemon.handlers[""] = lambda request: request.answer(request.path.encode())
    with ThreadPoolExecutor(32) as pool:
        paths = [f"/{number}" for number in range(500)]
        assert list(pool.map(lambda path: client.ask("GET", path, timeout=20).text, paths)) == paths
        before = len(os.listdir("/proc/self/fd"))
        list(pool.map(lambda path: client.ask("GET", path, timeout=20).text, paths))
    assert len(os.listdir("/proc/self/fd")) <= before + 64  # both ends are this process's
