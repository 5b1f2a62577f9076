"""The relay: joined connections, half-close, back-pressure, ends, and what they cost."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from weavemw.ops.tally import REQUESTS, STREAM_BYTES, STREAMS, STREAMS_ENDED, Tally
from weavemw.transport.relay import Relay, Stream


@pytest.fixture
def relay() -> Iterator[Relay]:
    made = Relay()
    yield made
    made.stop(0)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        return near, server.accept()[0]


@pytest.fixture(params=["unix", "tcp"])
def ends(request: pytest.FixtureRequest, relay: Relay) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's end and the daemon's end of a stream that the relay carries."""
    client, client_side = socket.socketpair() if request.param == "unix" else tcp_pair()
    daemon_side, daemon = socket.socketpair()
    relay.add(Stream(client_side, daemon_side, to_upstream=b"early", code="101"))
    for sock in (client, daemon):
        sock.settimeout(10)
    yield client, daemon
    client.close()
    daemon.close()


@pytest.mark.parametrize(("answer", "code"), [
    pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", "204", id="an answer"),
    pytest.param(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n\r\nbytes", "200", id="after an interim one"),
])
def test_streams_are_counted(answer: bytes, code: str) -> None:
    """By what was asked and answered, with the bytes of each direction; what has ended is not open."""
    tally = Tally()
    assert carried(tally, answer) == answer
    assert tally.numbers() == {(STREAMS, ()): 1, (STREAMS_ENDED, ()): 1, (REQUESTS, ("container_wait", code)): 1,
                               (STREAM_BYTES, ("to_docker",)): 9, (STREAM_BYTES, ("to_client",)): len(answer)}


@pytest.mark.parametrize("answer", [
    pytest.param(b"", id="none"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="half a head"),
    pytest.param(b"SSH-2.0-x y z\r\n", id="no HTTP"),
    pytest.param(b"HTTP/1.1 101 UPGRADED\r\n\r\nbytes", id="an upgrade that nobody asked for"),
    pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", id="two lengths"),
])
def test_what_is_no_answer_is_a_bad_gateway(answer: bytes) -> None:
    """The client is told in Docker's form, and the numbers say so."""
    tally = Tally()
    head, _, body = carried(tally, answer).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert "the Docker daemon gave no proper answer: " in json.loads(body)["message"]
    assert tally.numbers()[REQUESTS, ("container_wait", "502")] == 1


def test_a_head_may_come_in_pieces(relay: Relay) -> None:
    """It goes on once it is whole, with what came behind it."""
    client, client_side = socket.socketpair()
    daemon_side, daemon = socket.socketpair()
    answer = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nbytes"
    with client, daemon:
        client.settimeout(10)
        relay.add(Stream(client_side, daemon_side))
        for byte in answer:
            daemon.sendall(bytes([byte]))
            time.sleep(0.001)
        daemon.close()
        assert read_all(client) == answer


def carried(tally: Tally, answer: bytes) -> bytes:
    """What a client gets of the daemon's answer."""
    relay = Relay(tally)
    client, client_side = socket.socketpair()
    daemon_side, daemon = socket.socketpair()
    with client, daemon:
        relay.add(Stream(client_side, daemon_side, to_upstream=b"early", call="container_wait"))
        client.sendall(b"late")
        client.shutdown(socket.SHUT_WR)
        assert read_all(daemon) == b"earlylate"
        daemon.sendall(answer)
        daemon.close()
        found = read_all(client)
    assert eventually(lambda: tally.numbers().get((STREAMS_ENDED, ())) == 1)
    relay.stop(0)
    return found


def read_all(sock: socket.socket) -> bytes:
    pieces = []
    while piece := sock.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def eventually(condition: object) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.01)
    return False


def test_bytes_read_ahead_come_first(ends):
    """What the server had read beyond the head reaches the daemon before anything else."""
    client, daemon = ends
    client.sendall(b" late")
    client.shutdown(socket.SHUT_WR)
    assert read_all(daemon) == b"early late"


def test_each_direction_ends_on_its_own(ends):
    """After the client's EOF, the daemon's output still arrives."""
    client, daemon = ends
    client.shutdown(socket.SHUT_WR)
    assert read_all(daemon) == b"early"
    daemon.sendall(b"output")
    daemon.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"output"


def test_daemon_may_end_first(ends):
    """After the daemon's EOF, the client's input still arrives."""
    client, daemon = ends
    daemon.shutdown(socket.SHUT_WR)
    assert read_all(client) == b""
    client.sendall(b" input")
    client.shutdown(socket.SHUT_WR)
    assert read_all(daemon) == b"early input"


def test_much_goes_through_unharmed_both_ways_at_once(ends):
    """40 MB in each direction, with slow readers, arrive complete."""
    client, daemon = ends
    data = os.urandom(1 << 20) * 40
    sums = {}

    def send(sock: socket.socket) -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    def receive(name: str, sock: socket.socket) -> None:
        sums[name] = hashlib.sha256(read_all(sock)).hexdigest()

    threads = [threading.Thread(target=send, args=(end,)) for end in ends]
    threads += [threading.Thread(target=receive, args=item) for item in (("client", client), ("daemon", daemon))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == {"client": hashlib.sha256(data).hexdigest(),
                    "daemon": hashlib.sha256(b"early" + data).hexdigest()}


def test_client_that_leaves_ends_the_stream(ends, relay):
    """When the client closes, the daemon reads EOF, and when it closes too nothing is left."""
    client, daemon = ends
    client.close()
    assert read_all(daemon) == b"early"
    daemon.close()
    assert eventually(lambda: len(relay) == 0)


def test_daemon_that_leaves_ends_the_stream(ends, relay):
    """When the daemon closes, the client reads what was sent and then EOF."""
    client, daemon = ends
    assert daemon.recv(5) == b"early"
    daemon.sendall(b"last words")
    daemon.close()
    assert read_all(client) == b"last words"
    client.close()
    assert eventually(lambda: len(relay) == 0)


def test_early_refusal_reaches_a_client_that_still_sends(ends):
    """A daemon that answers and closes in the middle of an upload is heard."""
    client, daemon = ends
    client.setblocking(False)
    try:
        while True:
            client.send(b"x" * 65536)
    except BlockingIOError:
        pass
    daemon.sendall(b"HTTP/1.1 409 Conflict")
    daemon.close()
    client.settimeout(10)
    assert client.recv(100) == b"HTTP/1.1 409 Conflict"


def test_slow_reader_holds_the_sender_back(ends):
    """What nobody reads is not taken in: the sender blocks, and memory does not grow."""
    _, daemon = ends
    daemon.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 32 << 20:
            sent += daemon.send(b"x" * 65536)
    assert sent < 32 << 20


def test_quiet_streams_cost_two_descriptors_each_and_no_thread(relay):
    """Two hundred quiet streams: no thread more than one, no descriptor more than their sockets."""
    keep = [socket.socketpair(), socket.socketpair()]
    relay.add(Stream(keep[0][0], keep[1][0], code="101"))
    assert eventually(lambda: len(relay) == 1)
    threads, before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    pairs = [socket.socketpair() for _ in range(400)]
    for near, far in zip(pairs[::2], pairs[1::2], strict=True):
        relay.add(Stream(near[0], far[0], code="101"))
    assert eventually(lambda: len(relay) == 201)
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) - before <= 800 + 2, "their own, and one pipe that all share"
    for pair in [*pairs, *keep]:
        pair[1].close()
    assert eventually(lambda: len(relay) == 0)
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_stream_that_fails_ends_alone(relay, caplog):
    """Without a descriptor for a pipe, the stream that wants one is closed; others live, and work when there are."""
    with contextlib.ExitStack() as stack:
        blocked, quiet, failing = (joined(relay, stack) for _ in range(3))
        for end in blocked:
            fill(end)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            failing[0].sendall(b"x")
            with contextlib.suppress(ConnectionResetError):  # what it sent was never read
                assert failing[0].recv(1) == b""
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "closed early" in caplog.text
        quiet[0].sendall(b"x")
        assert quiet[1].recv(1) == b"x"


def joined(relay, stack):
    """The two ends of a stream through which a byte has come."""
    (client, near), (far, daemon) = socket.socketpair(), socket.socketpair()
    relay.add(Stream(near, far, to_upstream=b"x", code="101"))
    for sock in (client, daemon):
        sock.settimeout(10)
        stack.enter_context(sock)
    assert daemon.recv(1) == b"x"
    return client, daemon


def fill(sock):
    """Send until nobody takes any more, the relay included: whose pipe stays lent."""
    sock.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while True:
            sock.send(b"x" * 65536)


def test_stop_lets_the_daemon_end_its_response():
    """On stop the daemon reads EOF, and what it says then still reaches the client."""
    relay = Relay()
    (client, near), (far, daemon) = socket.socketpair(), socket.socketpair()
    relay.add(Stream(near, far, code="101"))
    stopping = threading.Thread(target=relay.stop, args=(5,))
    stopping.start()
    assert read_all(daemon) == b""
    daemon.sendall(b"0\r\n\r\n")
    daemon.close()
    assert read_all(client) == b"0\r\n\r\n"
    client.close()
    stopping.join()


def test_stop_does_not_wait_for_ever():
    """A stream that does not end is closed when its time is over."""
    relay = Relay()
    (client, near), (far, daemon) = socket.socketpair(), socket.socketpair()
    relay.add(Stream(near, far, code="101"))
    relay.stop(0.1)
    assert read_all(client) == b""
    client.close()
    daemon.close()


def test_what_the_daemon_sends_may_go_through_a_filter(relay: Relay) -> None:
    """What the filter gives goes on at once, and what it gives at the end before the end; the client's bytes don't."""
    client, client_side = socket.socketpair()
    daemon_side, daemon = socket.socketpair()
    client.settimeout(10)
    with client, daemon:
        relay.add(Stream(client_side, daemon_side, through=lambda data: data.upper() or b"!"))
        client.sendall(b"up")
        assert daemon.recv(9) == b"up"
        daemon.sendall(b"HTTP/1.1 200 OK\r\n\r\ndown")
        assert client.recv(99) == b"HTTP/1.1 200 OK\r\n\r\nDOWN"
        sent = b"x" * (3 << 20)
        threading.Thread(target=lambda: (daemon.sendall(sent), daemon.shutdown(socket.SHUT_WR))).start()
        assert read_all(client) == sent.upper() + b"!"
