"""Our WSGI server: what clients see, and that no client can keep the others waiting."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from weavemw import context
from weavemw.serving import http_server
from weavemw.serving.http_server import HttpServer

_THREADS = 4


class App:
    """Answers by path; ``seen`` are the requests' environs."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.closed = 0
        self.asked: list[socket.socket] = []
        self.release = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        self.seen.append(environ)
        return getattr(self, environ["PATH_INFO"].strip("/").partition("/")[0] or "ping")(environ, start_response)

    def ping(self, environ, start_response):
        start_response("200 OK", [("Content-Length", "2")])
        return [b"OK"]

    def echo(self, environ, start_response):
        data = b"".join(iter(lambda: environ["wsgi.input"].read(1000), b""))
        start_response("200 OK", [])
        return [data]

    def ignores(self, environ, start_response):
        start_response("200 OK", [])
        return [b"not read"]

    def pieces(self, environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        yield b"one"
        yield b""
        yield b"two"

    def huge(self, environ, start_response):
        start_response("200 OK", [])
        return self._huge()

    def _huge(self):
        try:
            for _ in range(1000):
                yield b"x" * 65536
        finally:
            self.closed += 1

    def fails(self, environ, start_response):
        raise RuntimeError("secret")

    def fails_late(self, environ, start_response):
        start_response("200 OK", [])
        yield b"begun"
        raise RuntimeError("secret")

    def splits(self, environ, start_response):
        start_response("200 OK", [("X", "a\r\nSet-Cookie: b")])
        return []

    def nothing(self, environ, start_response):
        start_response("204 No Content", [])
        return []

    def writes(self, environ, start_response):
        write = start_response("200 OK", [])
        write(b"written ")
        write(b"twice, ")
        return [b"and returned"]

    def asks(self, environ, start_response):
        """Waits for a byte of somebody else's, and answers with it."""
        connection = environ[context.CONNECTION]
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        connection.ask(ours)
        connection.answer(self._asked(connection, ours, start_response))
        self.asked.append(theirs)
        return Closing(ours)

    def _asked(self, connection, ours, start_response):
        yield b""
        said = ours.recv(1)
        if said == b"!":
            raise RuntimeError("secret")
        start_response("200 OK", [])
        yield from connection.framed([said, b"", b"end"])

    def blocks(self, environ, start_response):
        self.release.wait(15)
        return self.ping(environ, start_response)

    def takes(self, environ, start_response):
        sock, read_ahead = environ[context.CONNECTION].take()
        sock.setblocking(True)
        sock.sendall(b"taken: " + read_ahead)
        sock.close()
        start_response("200 OK", [])
        return []


class Closing:
    """What an app returns that answers otherwise; closing it closes a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def __iter__(self) -> Iterator[bytes]:
        raise AssertionError("it is not iterated")

    def close(self) -> None:
        self.sock.close()


class Served:
    def __init__(self, path: Path) -> None:
        self.app = App()
        self.clients: list[socket.socket] = []
        self.path = str(path)
        self.server = HttpServer(self.app, threads=_THREADS)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1024)
        self.server.listen(self.listener)
        self.server.start()

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(self.path)
        return client

    def ask(self, data: bytes, *, end: bool = True) -> bytes:
        """What comes back for these bytes until the connection ends."""
        with self.connect() as client:
            client.sendall(data)
            if end:
                client.shutdown(socket.SHUT_WR)
            return read_all(client)

    def pings(self) -> bool:
        return self.ask(get("/ping")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "s")
    yield made
    made.server.stop(0.1)
    for each in (made.listener, *made.app.asked, *made.clients):
        each.close()


def get(path: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: d", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def read_all(sock: socket.socket) -> bytes:
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(1 << 20):
            pieces.append(piece)
    return b"".join(pieces)


def read_until(sock: socket.socket, end: bytes) -> bytes:
    data = b""
    while not data.endswith(end):
        piece = sock.recv(1)
        assert piece, f"the connection ended after {data!r}"
        data += piece
    return data


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 15
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


# What clients see

def test_a_connection_carries_one_request_after_the_other(served: Served) -> None:
    """Those sent at once are answered in their order."""
    reply = served.ask(get("/ping") + get("/echo", "Content-Length: 3", method="POST", body=b"abc") + get("/ping"))
    assert reply.count(b"HTTP/1.1 200 OK") == 3
    assert b"Content-Length: 3" in reply
    assert [each["PATH_INFO"] for each in served.app.seen] == ["/ping", "/echo", "/ping"]


def test_the_environment_is_that_of_wsgi(served: Served) -> None:
    """CGI's variables, the raw target, the headers one by one; names with an underscore pass for no others."""
    served.ask(get("/ping/a%2Fb?x=%20y", "X-Two: 1", "x-two: 2", "X_Two: 3", "Content-Type: t", "Content-Length: 0"))
    [environ] = served.app.seen
    expected = {"REQUEST_METHOD": "GET", "PATH_INFO": "/ping/a/b", "QUERY_STRING": "x=%20y", "SCRIPT_NAME": "",
                "RAW_URI": "/ping/a%2Fb?x=%20y", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_X_TWO": "1,2",
                "CONTENT_TYPE": "t", "CONTENT_LENGTH": "0", "REMOTE_ADDR": "", "wsgi.url_scheme": "http"}
    assert {key: environ[key] for key in expected} == expected
    assert "HTTP_CONTENT_LENGTH" not in environ
    assert ("X_Two", "3") in environ[context.HEADERS]


@pytest.mark.parametrize(("request_", "expected"), [
    pytest.param(get("/pieces"), b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n", id="no length: chunked"),
    pytest.param(b"GET /pieces HTTP/1.0\r\n\r\n", b"Connection: close\r\nDate", id="HTTP/1.0: until the end"),
    pytest.param(b"GET /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"Connection: keep-alive",
                 id="HTTP/1.0 is kept"),
    pytest.param(get("/ping", method="HEAD"), b"Content-Length: 2\r\n", id="HEAD"),
    pytest.param(get("/writes"), b"8\r\nwritten \r\n7\r\ntwice, \r\nc\r\nand returned\r\n0\r\n\r\n", id="write()"),
    pytest.param(get("/ping").replace(b"\r\n", b"\n"), b"\r\n\r\nOK", id="bare line feeds"),
    pytest.param(get("/echo", "Transfer-Encoding: chunked", method="POST", body=b"3\r\nabc\r\n0\r\nT: x\r\n\r\n"),
                 b"\r\n\r\nabc", id="a chunked body"),
    pytest.param(get("/splits"), b"HTTP/1.1 500 ", id="a line end in a header"),
    pytest.param(get("/fails"), b'{"message": "the weave proxy failed; its log says why"}', id="the app fails"),
])
def test_answers(served: Served, request_: bytes, expected: bytes) -> None:
    """In the framing that the client understands."""
    reply = served.ask(request_)
    assert expected in reply
    assert b"secret" not in reply


def test_what_has_no_body_has_none(served: Served) -> None:
    """After HEAD and 204 the next answer begins at once."""
    reply = served.ask(get("/ping", method="HEAD") + get("/nothing") + get("/ping"))
    assert reply.count(b"\r\n\r\nHTTP/1.1") == 2
    assert reply.endswith(b"OK")


def test_an_answer_that_fails_when_it_has_begun_is_cut_off(served: Served) -> None:
    """So that the client does not take it for whole."""
    reply = served.ask(get("/fails_late"))
    assert b"begun" in reply
    assert not reply.endswith(b"0\r\n\r\n")


def test_a_client_that_waits_for_100_is_told_to_go_on(served: Served) -> None:
    """And gets its answer then."""
    with served.connect() as client:
        client.sendall(get("/echo", "Expect: 100-continue", "Content-Length: 3", method="POST"))
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).endswith(b"abc")


def test_a_body_that_nobody_reads_is_no_request(served: Served) -> None:
    """The connection is kept if all of it is there, and ends otherwise."""
    whole = get("/ignores", "Content-Length: 20", method="POST", body=b"GET /evil HTTP/1.1\r\n")
    assert served.ask(whole + get("/ping")).endswith(b"OK")
    part = get("/ignores", "Content-Length: 99999999", method="POST", body=b"GET /evil HTTP/1.1\r\n\r\n")
    with served.connect() as client:
        client.sendall(part)
        reply = read_all(client)
    assert b"Connection: close" in reply
    assert {each["PATH_INFO"] for each in served.app.seen} == {"/ignores", "/ping"}


def test_a_large_body_is_read_as_it_comes(served: Served) -> None:
    """16 MB, by length and in chunks."""
    data = bytes(range(256)) * 65536
    reply = served.ask(get("/echo", f"Content-Length: {len(data)}", method="POST", body=data))
    assert reply.endswith(data)
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(data[at : at + 99999]), data[at : at + 99999])
                       for at in range(0, len(data), 99999)) + b"0\r\n\r\n"
    assert served.ask(get("/echo", "Transfer-Encoding: chunked", method="POST", body=chunked)).endswith(data)


@pytest.mark.parametrize("body", [b"zz\r\npassword", b"5\r\nhello password\r\n0\r\n\r\n"])
@pytest.mark.parametrize("path", ["/echo", "/containers/create"])
def test_broken_chunks_are_400_and_not_logged(served: Served, body: bytes, path: str,
                                              caplog: pytest.LogCaptureFixture) -> None:
    """Not one byte of a body reaches the log."""
    served.app.containers = served.app.echo  # type: ignore[attr-defined]
    with caplog.at_level(logging.DEBUG):
        reply = served.ask(get(path, "Transfer-Encoding: chunked", method="POST", body=body))
    if path == "/containers/create":  # refused by the server; the other one by the app, here without an ErrorResponder
        assert reply.startswith(b"HTTP/1.1 400 ")
        assert json.loads(reply.partition(b"\r\n\r\n")[2])["message"].startswith("malformed chunked encoding")
    assert "password" not in caplog.text
    assert "hello" not in caplog.text


@pytest.mark.parametrize("body", [b"12345", b"5\r\n12345\r\n0\r\n\r\n"], ids=["by length", "in chunks"])
def test_a_connection_is_taken_with_all_that_was_read(served: Served, body: bytes) -> None:
    """The body in its framing, and what came behind it, and nothing of the server's."""
    framing = "Transfer-Encoding: chunked" if b"\r" in body else f"Content-Length: {len(body)}"
    assert served.ask(get("/takes", framing, method="POST", body=body + b"more")) == b"taken: " + body + b"more"
    assert eventually(lambda: len(served.server) == 0)


# What clients can't do to others

def test_half_heads_and_silence_cost_no_thread(served: Served) -> None:
    """1,200 connections on four threads, and others are answered."""
    with contextlib.ExitStack() as stack:
        for number in range(1200):
            client = stack.enter_context(served.connect())
            if number % 2:
                client.sendall(b"GET /pi" if number % 4 == 1 else get("/echo", "Content-Length: 9", method="POST"))
        assert eventually(lambda: len(served.server) == 1200)
        assert served.pings()


def test_clients_that_do_not_read_cost_no_thread(served: Served) -> None:
    """A hundred that are sent 64 MB each: others are answered; one that reads then gets all of it."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(served.connect()) for _ in range(100)]
        for client in clients:
            client.sendall(get("/huge"))
        assert eventually(lambda: len(served.app.seen) == 100)
        assert served.pings()
        clients[50].shutdown(socket.SHUT_WR)
        assert len(read_all(clients[50])) > 1000 * 65536
    assert eventually(lambda: served.app.closed == 100)
    assert eventually(lambda: len(served.server) == 0)


@pytest.mark.parametrize("data", [
    b"GET /ping HT", get("/echo", "Content-Length: 9", method="POST", body=b"123"),
    get("/containers/create", "Transfer-Encoding: chunked", method="POST", body=b"5\r\n"),
], ids=["head", "body", "chunks"])
def test_a_request_that_makes_no_progress_ends(served: Served, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """With 408; a connection without a request under way does not."""
    monkeypatch.setattr(http_server, "PATIENCE", 0.2)
    with served.connect() as idle, served.connect() as client:
        idle.sendall(get("/ping"))
        assert idle.recv(1000).endswith(b"OK")
        client.sendall(data)
        time.sleep(0.5)
        served.server.tick()
        assert read_all(client).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        served.server.tick()
        idle.sendall(get("/ping"))
        assert idle.recv(1000).endswith(b"OK")
    assert "/echo" not in [each["PATH_INFO"] for each in served.app.seen]


def test_a_head_that_never_ends_is_refused(served: Served) -> None:
    """With 431, after 1 MB; the client gets the answer although it goes on sending."""
    reply = served.ask(b"GET / HTTP/1.1\r\nX: " + b"y" * (3 << 20), end=False)
    assert reply.startswith(b"HTTP/1.1 431 ")


def test_when_there_are_too_many_the_longest_idle_one_goes(served: Served) -> None:
    """And the newest is served."""
    served.server.most = 50
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(served.connect()) for _ in range(51)]
        assert read_all(clients[0]) == b""
        clients[-1].sendall(get("/ping"))
        assert clients[-1].recv(1000).endswith(b"OK")


def test_no_descriptor_left_is_survived(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest idle connections make room."""
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(served.connect()) for _ in range(20)]
        assert eventually(lambda: len(served.server) == 20)
        failing = iter([OSError(errno.EMFILE, "Too many open files")] * 2)
        accept = socket.socket.accept

        def sometimes(self: socket.socket) -> Any:
            if self is served.listener and (error := next(failing, None)):
                raise error
            return accept(self)

        monkeypatch.setattr(socket.socket, "accept", sometimes)
        assert served.pings()
        assert read_all(idle[0]) == b""


def test_memory_goes_back(served: Served) -> None:
    """Two thousand requests on a connection each leave nothing."""
    for _ in range(200):
        served.ask(get("/ping"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2000):
        served.ask(get("/ping"))
    assert len(served.server) <= 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_it_stops_when_all_is_answered(served: Served) -> None:
    """What is being answered has its time, what is idle ends, nothing more is accepted."""
    begun, may_end = threading.Event(), threading.Event()

    def slow(environ: Any, start_response: Any) -> Any:
        begun.set()
        may_end.wait(15)
        return App.ping(served.app, environ, start_response)

    served.app.slow = slow  # type: ignore[attr-defined]
    with served.connect() as idle, served.connect() as client:
        client.sendall(get("/slow"))
        begun.wait(15)
        stopping = threading.Thread(target=served.server.stop, args=(10,))
        stopping.start()
        assert read_all(idle) == b""
        may_end.set()
        assert client.recv(1000).endswith(b"OK")
        stopping.join(15)
        assert not stopping.is_alive()


# -- answers that wait for another

def asking(served: Served) -> tuple[socket.socket, socket.socket]:
    """A client whose answer waits for another, and that other."""
    before = len(served.app.asked)
    client = served.connect()
    served.clients.append(client)
    client.sendall(get("/asks"))
    assert eventually(lambda: len(served.app.asked) > before)
    return client, served.app.asked[-1]


def test_an_answer_waits_without_a_thread(served):
    """More than there are threads; an empty piece means to wait again, until the other has said something."""
    client, other = [asking(served) for _ in range(_THREADS + 1)][-1]
    assert served.pings()
    other.sendall(b"x")
    assert read_until(client, b"1\r\nx\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
    other.sendall(b"more")
    assert read_until(client, b"3\r\nend\r\n0\r\n\r\n")
    assert is_closed(other)


def is_closed(other: socket.socket) -> bool:
    """Whether the other end was closed, read or unread."""
    other.settimeout(15)
    return read_all(other) == b""


def test_a_client_that_leaves_closes_what_waits(served):
    """Who half-closes has not left."""
    client, other = asking(served)
    client.shutdown(socket.SHUT_WR)
    other.sendall(b"xy")
    assert read_until(client, b"0\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
    client, other = asking(served)
    client.close()
    assert is_closed(other)


def test_an_answer_that_fails_after_it_waited(served):
    """A 500 in Docker's form, and the response is closed."""
    client, other = asking(served)
    other.sendall(b"!")
    assert read_all(client).startswith(b"HTTP/1.1 500 ")
    assert is_closed(other)


def test_no_more_wait_than_may(served, monkeypatch):
    """An app is told that there are too many."""
    monkeypatch.setattr(http_server, "_ASKED_AT_MOST", 1)
    client, _ = asking(served)
    assert eventually(lambda: not served.server.can_wait)
    client.close()
    assert eventually(lambda: served.server.can_wait)


def test_an_app_that_blocks_keeps_nobody_waiting(served):
    """But for who asked it; as long as there is a thread left."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(served.connect()) for _ in range(_THREADS - 1)]
        for client in clients:
            client.sendall(get("/blocks"))
        assert served.pings()
        served.app.release.set()
        assert all(read_until(client, b"OK") for client in clients)


def test_stop_closes_what_waits(served):
    """And does not wait for it for ever."""
    client, other = asking(served)
    served.server.stop(0.1)
    assert read_all(client) == b""
    assert is_closed(other)
