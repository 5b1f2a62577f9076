from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest

from weavemw.router.datagrams import Datagrams, Peer


@pytest.fixture(params=["127.0.0.1", "::1"])
def server(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as udp:
        udp.bind((request.param, 0))
        yield udp


@pytest.fixture
def client(server: socket.socket) -> Iterator[Callable[[], socket.socket]]:
    with contextlib.ExitStack() as stack:
        def made() -> socket.socket:
            udp = stack.enter_context(socket.socket(server.family, socket.SOCK_DGRAM))
            udp.settimeout(5)
            udp.connect(server.getsockname())
            return udp

        yield made


def shout(packet: bytes, host: bytes) -> bytes | None:
    return packet.upper() if packet.isalpha() else None


def nobody(packet: bytes, peer: Peer) -> None:
    raise AssertionError(packet)


def test_everyone_gets_the_own_answer(server: socket.socket, client: Callable[[], socket.socket]) -> None:
    """Packets of any length, of several senders, are answered to those who sent them, in one go."""
    clients = [client() for _ in range(5)]
    for number, each in enumerate(clients):
        each.send(b"x" * number + b"y")
        each.send(b"z" * 500)
    assert Datagrams(server).exchange(shout, nobody) == 10
    for number, each in enumerate(clients):
        assert [each.recv(999), each.recv(999)] == [b"X" * number + b"Y", b"Z" * 500]


def test_what_has_no_answer_yet(server: socket.socket, client: Callable[[], socket.socket]) -> None:
    """Packets without an answer are handed on with their sender, and the others are answered all the same."""
    one, two = client(), client()
    for packet in (b"1", b"a", b"", b"b", b"2"):
        one.send(packet)
        two.send(packet)
    others: list[tuple[bytes, Peer]] = []
    assert Datagrams(server).exchange(shout, lambda packet, peer: others.append((packet, peer))) == 4
    assert [each.recv(9) for each in (one, one, two, two)] == [b"A", b"B"] * 2
    assert others == [(packet, each.getsockname()) for packet in (b"1", b"", b"2") for each in (one, two)]


def test_senders_are_known_by_their_address(server: socket.socket, client: Callable[[], socket.socket]) -> None:
    """The address that is asked about is the sender's, packed."""
    client().send(b"x")
    hosts: list[bytes] = []
    Datagrams(server).exchange(lambda packet, host: hosts.append(host) or b"", nobody)  # type: ignore[func-returns-value]
    assert hosts == [socket.inet_pton(server.family, server.getsockname()[0])]


def test_turns(server: socket.socket, client: Callable[[], socket.socket]) -> None:
    """At most so many at a time, and none where there are none; slots are used again."""
    datagrams, one = Datagrams(server, turn=3), client()
    for number in range(7):
        one.send(b"abcdefg"[: number + 1])
    assert [datagrams.exchange(shout, nobody) for _ in range(4)] == [3, 3, 1, 0]
    assert [one.recv(9) for _ in range(7)] == [b"ABCDEFG"[: number + 1] for number in range(7)]


def test_what_is_too_long_is_cut(server: socket.socket, client: Callable[[], socket.socket]) -> None:
    """Of a packet that is too long, the beginning is read: nobody else's slot is written to."""
    datagrams, one = Datagrams(server, largest=8), client()
    for packet in (b"a" * 20, b"b"):
        one.send(packet)
    assert datagrams.exchange(shout, nobody) == 2
    assert [one.recv(99), one.recv(99)] == [b"A" * 8, b"B"]


def test_what_can_not_be_sent_is_lost_alone(server: socket.socket, client: Callable[[], socket.socket]) -> None:
    """An answer that the kernel does not send keeps none of the others back."""
    one = client()
    for packet in (b"a", b"b", b"c"):
        one.send(packet)
    datagrams = Datagrams(server)

    def answer(packet: bytes, host: bytes) -> bytes:
        if packet == b"b":
            datagrams._names[1][2:4] = b"\0\0"  # to port 0: an invalid argument
        return packet

    assert datagrams.exchange(answer, nobody) == 3
    assert [one.recv(9), one.recv(9)] == [b"a", b"c"]


def test_a_closed_socket() -> None:
    """Nothing is read from a socket that is closed, nor from whatever has its number."""
    udp = socket.socket(type=socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    datagrams = Datagrams(udp)
    udp.close()
    assert datagrams.exchange(shout, nobody) == 0
