from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from weavemw.serving import certs, tls_front
from weavemw.serving.tls_files import Contexts, Files
from weavemw.serving.tls_front import Front

Serve = Callable[[socket.socket], None]


@dataclass
class Server:
    """A front, and a server behind it that serves each connection with ``serve`` in a thread."""

    files: Files
    front: Front
    serve: Serve
    connected: int = 0
    lost: int = 0
    threads: list[threading.Thread] = field(default_factory=list)

    def connect(self) -> socket.socket:
        """A client's TCP connection that the front has accepted."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
        client.settimeout(20)
        self.front.add(accepted, self._connected, self._lost)
        return client

    def _connected(self, sock: socket.socket) -> None:
        self.connected += 1
        thread = threading.Thread(target=self._run, args=(sock,))
        self.threads.append(thread)
        thread.start()

    def _run(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(ConnectionError):
            sock.settimeout(20)
            self.serve(sock)

    def _lost(self) -> None:
        self.lost += 1


class Client:
    """TLS at the client's end, with half-close, which Python's SSLSocket has not."""

    def __init__(self, sock: socket.socket, files: Files, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self.sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=files.cacert)
        context.maximum_version = version
        context.load_cert_chain(files.cert.replace("server-cert", "cert"), files.key.replace("server-key", "key"))
        self.tls = context.wrap_bio(self._in, self._out, server_hostname="127.0.0.1")
        self._do(self.tls.do_handshake)

    def send(self, data: bytes) -> None:
        self._do(lambda: self.tls.write(data))

    def end(self) -> None:
        """close_notify, and still reading."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self._flush()

    def read(self) -> bytes:
        """Everything until the server's close_notify."""
        data = b""
        with contextlib.suppress(ssl.SSLZeroReturnError):
            while piece := self._do(lambda: self.tls.read(65536)):
                data += piece
        return data

    def read_some(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self._do(lambda: self.tls.read(count - len(data)))  # noqa: B023
        return data

    def _flush(self) -> None:
        if self._out.pending:
            self.sock.sendall(self._out.read())

    def _do(self, action: Callable[[], bytes | int | None]) -> bytes:
        while True:
            try:
                done = action()
                break
            except ssl.SSLWantReadError:
                self._flush()
                data = self.sock.recv(65536)
                self._in.write(data) if data else self._in.write_eof()
        self._flush()
        return done if isinstance(done, bytes) else b""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    directory: Path = tmp_path_factory.mktemp("tls")
    certs.create(directory, ["127.0.0.1"], days=10)
    return Files(f"{directory}/server-cert.pem", f"{directory}/server-key.pem", f"{directory}/ca.pem")


def _echo(sock: socket.socket) -> None:
    total = 0
    while data := sock.recv(65536):
        total += len(data)
        sock.sendall(data)
    sock.sendall(b"total %d" % total)


@pytest.fixture
def server(files: Files) -> Iterator[Server]:
    """It echoes, and says at the end of input how much it was."""
    made = Server(files, Front(Contexts(files)), _echo)
    yield made
    made.front.stop(5)
    for thread in made.threads:
        thread.join(20)


def _eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_each_direction_ends_on_its_own(server: Server, version: ssl.TLSVersion) -> None:
    """The client's close_notify ends the input, and what is said after it arrives, with a close_notify at its end."""
    with server.connect() as sock:
        client = Client(sock, server.files, version)
        client.send(b"hello")
        assert client.read_some(5) == b"hello"
        client.end()
        assert client.read() == b"total 5"
    assert _eventually(lambda: len(server.front) == 0)


def test_the_server_may_end_first(server: Server) -> None:
    """Its end arrives as a close_notify, and what the client sends afterwards still reaches it."""
    heard: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"bye")
        sock.shutdown(socket.SHUT_WR)
        heard.extend(iter(lambda: sock.recv(65536), b""))

    server.serve = serve
    with server.connect() as sock:
        client = Client(sock, server.files)
        client.send(b"hi")
        assert client.read() == b"bye"
        client.send(b"still here")
        client.end()
        assert _eventually(lambda: b"".join(heard) == b"histill here")


def test_what_the_server_said_arrives_although_it_closed_without_reading(server: Server) -> None:
    """An upload that is refused: the answer is read to its end."""
    server.serve = lambda sock: sock.sendall(b"no" * 100_000)
    with server.connect() as sock:
        client = Client(sock, server.files)
        client.send(b"x" * 100_000)
        assert client.read() == b"no" * 100_000


def test_the_end_of_tcp_alone_is_an_end_too(server: Server) -> None:
    """A client that shuts down without close_notify gets what is left."""
    with server.connect() as sock:
        client = Client(sock, server.files)
        client.send(b"hello")
        sock.shutdown(socket.SHUT_WR)
        assert client.read() == b"hellototal 5"


def test_much_goes_both_ways_whole(server: Server) -> None:
    """Turn by turn, and the count at the end is right."""
    data = bytes(range(256)) * 4096
    with server.connect() as sock:
        client = Client(sock, server.files)
        client.send(b"begin")
        assert client.read_some(5) == b"begin"
        for _ in range(30):
            client.send(data[:65536])
            assert client.read_some(65536) == data[:65536]
        client.end()
        assert client.read() == b"total %d" % (5 + 30 * 65536)


def test_a_reader_that_does_not_read_holds_the_server_up(server: Server) -> None:
    """Nothing is stored for it beyond a block and what the sockets hold."""
    sent: list[int] = []

    def serve(sock: socket.socket) -> None:
        sock.recv(5)
        sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while True:
                sent.append(sock.send(b"x" * 65536))

    server.serve = serve
    with server.connect() as sock:
        Client(sock, server.files).send(b"begin")
        assert _eventually(lambda: server.threads and not server.threads[0].is_alive())
        assert sum(sent) < 32 << 20


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 99, b"\0" * 50_000])
def test_garbage_never_reaches_the_server(server: Server, data: bytes) -> None:
    """The client gets an alert or nothing, and is cut off."""
    with server.connect() as sock:
        sock.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(65536):
                pass
    assert _eventually(lambda: server.lost == 1)
    assert server.connected == 0


def test_silence_costs_the_server_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client without a handshake is closed; one that says nothing after it may, and is not the server's business."""
    monkeypatch.setattr(tls_front, "_HANDSHAKE", 0.2)
    with server.connect() as silent, server.connect() as sock:
        client = Client(sock, server.files)
        assert silent.recv(1) == b""
        assert _eventually(lambda: (server.lost, server.connected, len(server.front)) == (1, 0, 1))
        with contextlib.suppress(ssl.SSLEOFError):
            client.sock.close()
    assert _eventually(lambda: (server.lost, len(server.front)) == (2, 0))


def test_only_so_many_handshakes_are_under_way(files: Files) -> None:
    """The oldest of them ends; who has shaken hands stays, and a client that means it gets in."""
    made = Server(files, Front(Contexts(files), limit=3), _echo)
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(made.connect())
        client = Client(sock, files)
        silent = [stack.enter_context(made.connect()) for _ in range(5)]
        assert [each.recv(1) for each in silent[:2]] == [b"", b""]
        Client(stack.enter_context(made.connect()), files)
        client.send(b"hello")
        assert client.read_some(5) == b"hello"
        assert _eventually(lambda: len(made.front) == 4)
    made.front.stop(5)


#: Prints by how much memory, in KB, half handshakes made a process grow: while there are, and when they are gone.
_HALF = """
import resource, socket, ssl, sys, time
from weavemw.serving.tls_files import Contexts, Files
from weavemw.serving.tls_front import Front

def used():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() // 1024

resource.setrlimit(resource.RLIMIT_NOFILE, (4000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
front, sent, clients = Front(Contexts(Files(*sys.argv[1:]))), ssl.MemoryBIO(), []
try:
    ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname="x").do_handshake()
except ssl.SSLWantReadError:
    hello = sent.read()
listener = socket.create_server(("127.0.0.1", 0))
before = used()
for _ in range(1000):
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    clients.append(client)
    front.add(server, lambda sock: None, lambda: None)
    client.send(hello)
    client.recv(1)
during = used()
for client in clients:
    client.close()
while len(front):
    time.sleep(0.01)
time.sleep(0.5)
print(during - before, used() - before)
"""


def test_half_handshakes_give_their_memory_back(files: Files) -> None:
    """A thousand of them take tens of megabytes, as long as they last."""
    done = subprocess.run([sys.executable, "-c", _HALF, files.cert, files.key, files.cacert], check=True, text=True,
                          stdout=subprocess.PIPE)
    during, after = map(int, done.stdout.split())
    assert during > 15_000
    assert after < during / 3


def test_a_client_that_vanishes_takes_its_connection_along(server: Server) -> None:
    """A reset ends the server's side at once."""
    with server.connect() as sock:
        client = Client(sock, server.files)
        client.send(b"hello")
        client.read_some(5)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert _eventually(lambda: len(server.front) == 0)
    server.threads[0].join(10)
    assert not server.threads[0].is_alive()


def test_many_connections_cost_one_thread(server: Server) -> None:
    """Those that have said nothing yet, two hundred of them."""
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(200)]
        assert threading.active_count() <= before + 1
        Client(clients[-1], server.files)
    assert _eventually(lambda: len(server.front) == 0)
