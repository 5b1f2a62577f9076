"""Hosts on one underlay, by the kernel alone: what crosses, what does not, and what it costs."""

from __future__ import annotations

import socket
import struct
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.cluster.machines import Container, Machine, Site, captured, vxlan_packets
from weavemw.cluster.forwarding import Forwarding
from weavemw.cluster.peers import Overlay, Peer
from weavemw.errors import NetworkError

pytestmark = pytest.mark.root


@pytest.fixture
def site():
    site = Site(0)
    try:
        yield site
    finally:
        site.close()


def plane(key_file: Path | None = None, **options: object) -> Forwarding:
    towards = (ip_address("10.99.0.250"), ip_address("fd99::250"))
    return Forwarding(Overlay(**options), "weave", towards=towards, key_file=key_file)


def spread(site: Site, *containers: Container, family: int = 4) -> list[Forwarding]:
    """Let every machine know all other machines and containers."""
    planes = []
    for machine in site.machines:
        others = [other for other in site.machines if other is not machine]
        known = {other.id: [one.remote for one in containers if one.machine is other] for other in others}
        here = plane(family=family)
        peers = [other.peer(family=family) for other in others]
        machine.do(lambda here=here, peers=peers: here.peers(peers))
        machine.do(lambda here=here, known=known: here.containers(known))
        planes.append(here)
    return planes


def machines(site: Site, count: int, mtu: int = 1500) -> list[Machine]:
    site.machines = [site.machine(mtu) for _ in range(count)]
    return site.machines


def test_first_ping_is_one_packet_of_the_underlay(site):
    """ARP for a known address is answered by the own host: nothing is asked of others."""
    one, two, *_ = machines(site, 4)
    here, there = site.container(one, "10.32.0.1/12"), site.container(two, "10.32.0.2/12")
    spread(site, here, there)
    with captured(one) as packets:
        assert " 0% packet loss" in here.ping("10.32.0.2")
    sent = [inner for inner in vxlan_packets(packets) if inner[:6].hex(":") == there.mac]
    assert len(sent) == 1
    kinds = (b"\x08\x00", b"\x08\x06")  # IPv4 and ARP: a new interface's IPv6 multicast comes when it comes
    assert len([inner for inner in vxlan_packets(packets) if inner[12:14] in kinds]) == 2  # and the answer


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("a", "b"), [("10.32.0.1/12", "10.32.0.2/12"), ("fd32::1/64", "fd32::2/64")])
def test_both_families_cross_both_underlays(site, family, a, b):
    """Containers reach each other by IPv4 and IPv6, and so do hosts."""
    one, two = machines(site, 2)
    here, there = site.container(one, a), site.container(two, b)
    spread(site, here, there, family=family)
    assert " 0% packet loss" in here.ping(b.partition("/")[0])
    assert " 0% packet loss" in there.ping(a.partition("/")[0])


def test_broadcast_and_multicast_reach_every_host(site):
    """One packet for all is heard by all containers, whichever host they are on."""
    one, two, three = machines(site, 3)
    sender = site.container(one, "10.32.0.1/12")
    others = [site.container(two, "10.32.0.2/12"), site.container(three, "10.32.0.3/12")]
    spread(site, sender, *others)
    for group in ("10.47.255.255", "239.1.2.3"):
        heard = [container.do(lambda group=group: listening(group)) for container in others]
        sender.do(lambda group=group: send(group))
        assert [sock.recv(100) for sock in heard] == [b"hello", b"hello"]
        for sock in heard:
            sock.close()


def listening(group: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.bind(("", 5007))
    if group.startswith("239."):
        member = struct.pack("4s4si", socket.inet_aton(group), bytes(4), socket.if_nametoindex("ethwe"))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    return sock


def send(group: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        by = struct.pack("4s4si", bytes(4), bytes(4), socket.if_nametoindex("ethwe"))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, by)
        sock.sendto(b"hello", (group, 5007))


def test_weavedns_is_each_hosts_own(site):
    """Every host has 169.254.53.1; a container's question is answered by its own, and never leaves it."""
    one, *_ = machines(site, 3)
    here = site.container(one, "10.32.0.1/12")
    spread(site, here)
    here.ip("route", "add", "169.254.53.1/32", "dev", "ethwe")
    with captured(here, "ethwe") as packets, captured(one) as outside:
        here.run("busybox", "arping", "-c", "1", "-w", "1", "-I", "ethwe", "169.254.53.1", check=False)
        here.ping("169.254.53.1")
    answers = [packet for packet in packets if packet[12:14] == b"\x08\x06" and packet[20:22] == b"\0\2"
               and packet[28:32] == bytes((169, 254, 53, 1))]
    assert len({answer[22:28] for answer in answers}) == 1
    assert not [inner for inner in vxlan_packets(outside) if bytes((169, 254, 53, 1)) in inner]


def test_strangers_are_not_let_in(site):
    """A host that nobody listed reaches no container, though it knows all of them; nor is it sent anything."""
    one, two, stranger = machines(site, 3)
    here, there = site.container(one, "10.32.0.1/12"), site.container(two, "10.32.0.2/12")
    of_stranger = site.container(stranger, "10.32.0.3/12")
    spread(site, here, there, of_stranger)
    site.machines = [one, two]
    spread(site, here, there)
    with captured(here, "ethwe") as heard, captured(stranger) as sent:
        assert "100% packet loss" in of_stranger.ping("10.32.0.1")
        assert "100% packet loss" in here.ping("10.32.0.77")
    assert not [packet for packet in heard if of_stranger.mac in packet.hex(":")]
    assert {inner[6:12].hex(":") for inner in vxlan_packets(sent)} == {of_stranger.mac}
    assert " 0% packet loss" in here.ping("10.32.0.2")


def test_senders_are_told_of_a_smaller_path(site):
    """A packet that is too large for the underlay is answered with what fits; then it gets through."""
    one, two = machines(site, 2, 1400)
    here, there = site.container(one, "10.32.0.1/12"), site.container(two, "10.32.0.2/12")
    spread(site, here, there)
    assert here.do(lambda: largest("10.32.0.2")) == 1350
    assert " 0% packet loss" in here.ping("10.32.0.2", "-s", "1340")


def largest(address: str) -> int:
    """The path's MTU, as a sender is told of it (IP_MTU in ip(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        sock.connect((address, 9))
        for _ in range(20):
            try:
                sock.send(bytes(1340))
            except OSError:
                break
            time.sleep(0.1)
        return sock.getsockopt(socket.IPPROTO_IP, 14)


def test_host_that_moves_is_followed(site):
    """After a host got another address, one word leads everything there."""
    one, two = machines(site, 2)
    here, there = site.container(one, "10.32.0.1/12"), site.container(two, "10.32.0.2/12")
    first, _ = spread(site, here, there)
    two.ip("address", "flush", "dev", "u0")
    two.ip("address", "add", "10.99.0.200/24", "dev", "u0")
    two.address = "10.99.0.200"
    one.do(lambda: first.peers([two.peer()]))
    assert " 0% packet loss" in here.ping("10.32.0.2")


@pytest.fixture
def encrypted(site, tmp_path):
    """Makes two hosts of an encrypted network, with a container each."""
    def make(family: int = 4) -> tuple[Container, Container]:
        one, two = machines(site, 2)
        here, there = site.container(one, "10.32.0.1/12"), site.container(two, "10.32.0.2/12")
        planes = {each: plane(tmp_path / each.name, family=family, encrypted=True) for each in (one, two)}
        for each, other, container in ((one, two, there), (two, one, here)):
            peer = Peer(other.id, other.name, other.do(planes[other].underlay))
            each.do(lambda each=each, peer=peer: planes[each].peers([peer]))
            each.do(lambda each=each, container=container: planes[each].containers(
                {container.machine.id: [container.remote]}))
        return here, there

    return make


@pytest.mark.parametrize(("family", "mtu"), [(4, 1440), (6, 1420)])
def test_encrypted_networks_show_nothing(site, encrypted, family, mtu):
    """What containers say to each other is in no packet of the underlay; all of it is WireGuard's."""
    here, _ = encrypted(family)
    with captured(here.machine) as packets:
        assert " 0% packet loss" in here.ping("10.32.0.2", "-p", "5e", "-s", "1000", "-c", "2", "-W", "10")
    assert len([packet for packet in packets if len(packet) > 1000]) >= 2
    assert not vxlan_packets(packets)
    assert not [packet for packet in packets if b"\x5e" * 16 in packet]
    assert f"mtu {mtu} " in here.machine.ip("link", "show", "weave-wg")


def test_encrypted_networks_are_never_plain(site, encrypted):
    """Without the tunnel nothing is sent, whatever routes there are; when all is said again, it is there again."""
    here, there = encrypted()
    here.machine.ip("route", "add", "default", "via", there.machine.address)
    here.machine.ip("link", "delete", "weave-wg")
    with captured(here.machine) as packets:
        assert "100% packet loss" in here.ping("10.32.0.2")
    assert not vxlan_packets(packets)


def test_host_without_key_is_not_spoken_to(site, tmp_path):
    """A host whose key nobody knows is named, and not reached in plain text instead."""
    one, two = machines(site, 2)
    with pytest.raises(NetworkError, match=f"key of WireGuard is known of {two.name}"):
        one.do(lambda: plane(tmp_path / "key", encrypted=True).peers([two.peer()]))
    assert "dst" not in one.run("bridge", "fdb", "show", "dev", "weave-wx")
