from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from ipaddress import ip_interface, ip_network
from typing import Any

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from weavemw.router.client import RouterClient
from weavemw.router.dns import Verdict
from weavemw.router.dns_server import Clients, Pace, refused


class Dns:
    """A router with its DNS, and a client of both."""

    def __init__(self, router: Any) -> None:
        self.port = router.settings.dns_port
        self.client = RouterClient(router.address)

    def ask(self, name: str, kind: str = "A", tcp: bool = False, **options: Any) -> dns.message.Message:
        query = dns.message.make_query(name, kind, **options)
        return (dns.query.tcp if tcp else dns.query.udp)(query, "127.0.0.1", port=self.port, timeout=5)

    def dig(self, *arguments: str) -> list[str]:
        command = ["dig", "@127.0.0.1", "-p", str(self.port), "+tries=1", "+timeout=5", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture
def server(start: Callable[..., Any]) -> Dns:
    return Dns(start())


def test_from_register_to_gone(server: Dns) -> None:
    """A name resolves as soon as its registration is answered, both ways, and is gone as soon as its removal is."""
    address = server.client.allocate("abc")
    server.client.register("abc", address, "Web.weave.local")
    assert server.dig("+short", "web.weave.local") == ["10.32.0.1"]
    assert server.dig("+short", "+tcp", "web") == ["10.32.0.1"]
    assert server.dig("+short", "-x", "10.32.0.1") == ["Web.weave.local."]
    assert server.dig("+short", "AAAA", "web.weave.local") == []
    server.client.deregister("abc")
    assert server.ask("web.weave.local.").rcode() == dns.rcode.NXDOMAIN
    assert server.ask("1.0.32.10.in-addr.arpa.", "PTR").rcode() == dns.rcode.NXDOMAIN


def test_hundred_addresses(server: Dns) -> None:
    """A hundred addresses resolve: dig is told that UDP is too small, and asks by TCP."""
    for number in range(100):
        server.client.register(f"c{number}", ip_interface(f"10.32.1.{number}/12"), "many.weave.local")
    assert len(set(server.dig("+short", "many.weave.local"))) == 100
    assert server.ask("many.weave.local.").flags & dns.flags.TC


@pytest.mark.parametrize("tcp", [False, True])
def test_forwards(start: Callable[..., Any], resolver: Callable[..., Any], tcp: bool) -> None:
    """The rest goes to the resolvers that were given, by the transport that it came with."""
    upstream = resolver()
    server = Dns(start(upstream=("{}:{}".format(*upstream.address),)))
    assert str(server.ask("www.example.com.", tcp=tcp).answer[0][0]) == "192.0.2.1"
    assert [by_tcp for _, by_tcp in upstream.asked] == [tcp]


def test_answers_while_resolvers_are_silent(start: Callable[..., Any], resolver: Callable[..., Any]) -> None:
    """Questions that wait for a silent resolver delay no other."""
    upstream = resolver(lambda query, tcp: None)
    server = Dns(start(upstream=("{}:{}".format(*upstream.address),)))
    server.client.register("abc", ip_interface("10.32.0.1/12"), "web.weave.local")
    with socket.socket(type=socket.SOCK_DGRAM) as flood:
        for _ in range(20):
            for _ in range(50):  # as many as a socket's buffer surely holds
                flood.sendto(dns.message.make_query("www.example.com.", "A").to_wire(), ("127.0.0.1", server.port))
            assert str(server.ask("web.weave.local.").answer[0][0]) == "10.32.0.1"


def test_a_flood_takes_no_answer_from_others(start: Callable[..., Any], resolver: Callable[..., Any],
                                             answers: Callable[..., Any]) -> None:
    """While one client has hundreds of questions that no resolver answers, each of another's is answered."""
    upstream = resolver(lambda query, tcp: None if b"slow" in query else answers("192.0.2.1")(query, tcp))
    server = Dns(start(upstream=("{}:{}".format(*upstream.address),)))
    with socket.socket(type=socket.SOCK_DGRAM) as flood:
        flood.bind(("127.0.0.2", 0))
        flood.settimeout(5)
        for number in range(400):
            query = dns.message.make_query(f"slow{number}.example.com.", "A")
            flood.sendto(query.to_wire(), ("127.0.0.1", server.port))
            if number >= 256:  # refused, and so all before it are under way
                flood.recv(999)
    for number in range(20):
        for ask in (dns.query.udp, dns.query.tcp):
            query = dns.message.make_query(f"quick{number}.example.com.", "A")
            reply = ask(query, "127.0.0.1", port=server.port, source="127.0.0.3", timeout=5)
            assert reply.rcode() == dns.rcode.NOERROR


def test_hostile_packets(server: Dns) -> None:
    """Malformed packets, by UDP and TCP, leave the server as it was."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        for length in range(0, 600, 7):
            udp.sendto(bytes(range(256))[:length % 256] * 3, ("127.0.0.1", server.port))
    for data in (b"", b"\0", b"\0\0", b"\xff\xff" + b"x" * 10, b"\0\5hello", b"\0\x11" + b"\x12\x34\x01" + b"\0" * 14):
        with socket.create_connection(("127.0.0.1", server.port)) as tcp:
            tcp.sendall(data)
    assert server.ask("nobody.weave.local.").rcode() == dns.rcode.NXDOMAIN
    assert server.ask("nobody.weave.local.", tcp=True).rcode() == dns.rcode.NXDOMAIN


def test_several_questions_on_one_connection(server: Dns) -> None:
    """A TCP connection carries question after question (RFC 7766)."""
    server.client.register("abc", ip_interface("10.32.0.1/12"), "web.weave.local")
    with socket.create_connection(("127.0.0.1", server.port)) as tcp:
        for _ in range(3):
            dns.query.send_tcp(tcp, dns.message.make_query("web.weave.local.", "A"))
            assert str(dns.query.receive_tcp(tcp)[0].answer[0][0]) == "10.32.0.1"


def test_connections_are_limited(server: Dns) -> None:
    """Beyond the limit, each connection takes the place of the oldest: whoever is new is answered at once."""
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(140)]
    for oldest in held[:12]:
        oldest.settimeout(5)
        assert oldest.recv(1) == b""
    assert server.ask("nobody.weave.local.", tcp=True).rcode() == dns.rcode.NXDOMAIN
    dns.query.send_tcp(held[-1], dns.message.make_query("nobody.weave.local.", "A"))
    assert dns.query.receive_tcp(held[-1])[0].rcode() == dns.rcode.NXDOMAIN
    for connection in held:
        connection.close()


def test_connections_of_others_stay(server: Dns) -> None:
    """A client with very many connections takes the place of its own, and not of another's."""
    query = dns.message.make_query("nobody.weave.local.", "A")
    with socket.create_connection(("127.0.0.1", server.port), source_address=("127.0.0.3", 0)) as other:
        dns.query.send_tcp(other, query)
        dns.query.receive_tcp(other)
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
        dns.query.send_tcp(held[-1], query)
        dns.query.receive_tcp(held[-1])
        dns.query.send_tcp(other, query)
        assert dns.query.receive_tcp(other)[0].rcode() == dns.rcode.NXDOMAIN
        for connection in held:
            connection.close()


def test_who_does_not_read_is_dropped(server: Dns) -> None:
    """A connection whose peer takes no answers ends like any other, and holds nothing of ours."""
    for number in range(100):
        server.client.register(f"c{number}", ip_interface(f"10.32.1.{number}/12"), "many.weave.local")
    server.ask("many.weave.local", tcp=True)
    before = len(os.listdir("/proc/self/fd"))
    query = dns.message.make_query("many.weave.local.", "A").to_wire()
    with socket.create_connection(("127.0.0.1", server.port)) as deaf:
        deaf.settimeout(0.5)
        with pytest.raises(TimeoutError):  # answers are stuck, and then questions
            deaf.sendall((len(query).to_bytes(2, "big") + query) * 1_000_000)
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(140)]
        for connection in held:
            connection.close()
        assert eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 1)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("pieces", [
    pytest.param([1] * 40, id="byte by byte"),
    pytest.param([2, 40], id="length first"),
    pytest.param([1, 41], id="within the length"),
])
def test_slow_tcp(server: Dns, pieces: list[int]) -> None:
    """A question over TCP may come in any pieces, while others are answered."""
    query = dns.message.make_query("nobody.weave.local.", "A").to_wire()
    data = len(query).to_bytes(2, "big") + query
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for size in pieces:
            slow.sendall(data[:size])
            data = data[size:]
            assert server.ask("nobody.weave.local.").rcode() == dns.rcode.NXDOMAIN
        assert dns.query.receive_tcp(slow, time.time() + 5)[0].rcode() == dns.rcode.NXDOMAIN


def test_all_addresses_of_both_families(start: Callable[..., Any], port: int) -> None:
    """Listening on all addresses of IPv4 and of IPv6 go together, and a client is known by its own address."""
    start(dns_listen=("0.0.0.0", "::"), dns_port=port)
    query = dns.message.make_query("nobody.weave.local.", "A")
    for address in ("127.0.0.1", "::1"):
        for ask in (dns.query.udp, dns.query.tcp):
            assert ask(query, address, port=port, timeout=5).rcode() == dns.rcode.NXDOMAIN


def test_stops_with_connections_open(start: Callable[..., Any]) -> None:
    """Stopping waits for nobody: connections are closed, long before they have been idle for too long."""
    router = start()
    server = Dns(router)
    with socket.create_connection(("127.0.0.1", server.port)) as tcp:
        tcp.settimeout(5)
        dns.query.send_tcp(tcp, dns.message.make_query("nobody.weave.local.", "A"))
        dns.query.receive_tcp(tcp)
        thread = threading.Thread(target=router.stop)
        thread.start()
        assert tcp.recv(1) == b""
        thread.join()


@pytest.mark.parametrize(("host", "allowed"), [
    ("10.32.0.9", True), ("10.48.0.1", False), ("fd00::9", True), ("fe80::1%lo", False), ("192.0.2.1", False),
])
def test_clients(host: str, allowed: bool) -> None:
    """Clients are those of the given networks; what was said of a host is forgotten when the networks change."""
    clients = Clients([ip_network("10.32.0.0/12"), ip_network("fd00::/64")])
    assert clients[host] is allowed
    assert clients[host] is allowed
    clients.allow([])
    assert clients[host] is False


def test_strangers_are_refused() -> None:
    """A stranger's question is refused, whatever it asks, at no more than its own length; other packets get nothing."""
    query = dns.message.make_query("www.example.com.", "A", use_edns=0).to_wire()
    reply = refused(query)
    assert isinstance(reply, bytes)
    assert len(reply) <= len(query)
    assert dns.message.from_wire(reply).rcode() == dns.rcode.REFUSED
    for packet in (b"", b"\0" * 12, b"nonsense" * 4, query[:2] + b"\x80" + query[3:]):
        assert refused(packet) is Verdict.DROP


@pytest.mark.parametrize(("reads", "pauses"), [
    pytest.param([(0, 1), (1, 1), (2, 1)], 0, id="a thousand a second"),
    pytest.param([(0, 1), (0.1, 1), (0.5, 2), (0.7, 1)], 2, id="ten thousand a second"),
    pytest.param([(0, 30), (0.1, 40), (0.2, 64)], 0, id="many at a time"),
    pytest.param([(0, 64), (0.1, 1), (0.2, 1)], 1, id="the last of many"),
])
def test_a_moment_is_waited_for_more(reads: list[tuple[float, int]], pauses: int) -> None:
    """Only where packets follow each other quickly, a few at a time, given in milliseconds and packets."""
    now, slept = 0.0, []
    pace = Pace(lambda: now, slept.append)
    for now, count in reads:
        now /= 1000
        pace.wait()
        pace.has_read(count)
    assert len(slept) == pauses
