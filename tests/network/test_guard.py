"""What a port of the bridge lets in, tried with frames that root in a container makes."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
from ipaddress import ip_address, ip_interface

import pytest

from weavemw.network import guard, nftables
from weavemw.network.netlink import NetlinkNetwork, ensure_bridge
from weavemw.network.plan import Plan, host_names
from weavemw.testing import await_true

pytestmark = pytest.mark.root

ID, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4
FOUR, SIX = ip_interface("10.32.0.1/12"), ip_interface("fd00::5/64")
MORE = tuple(ip_interface(f"10.33.0.{n}/12") for n in range(1, 64))
MAC, STRANGE = bytes.fromhex(Plan(ID, ()).mac.replace(":", "")), bytes.fromhex("020000000001")
LINK_LOCAL = bytes.fromhex("fe80000000000000") + bytes([MAC[0] ^ 2, *MAC[1:3], 0xFF, 0xFE, *MAC[3:]])
ALL = b"\xff" * 6


def _packed(address: str) -> bytes:
    return ip_address(address).packed


def _arp(sender: str, *, mac: bytes = MAC, inner: bytes = MAC, head: str = "000108000604", operation: int = 2) -> bytes:
    return ALL + mac + b"\x08\x06" + bytes.fromhex(head) + bytes([0, operation]) + inner + _packed(sender) + ALL \
        + _packed("10.32.0.9")


def _ipv4(sender: str, mac: bytes = MAC) -> bytes:
    ends = _packed(sender) + _packed("10.32.0.9")
    start = bytes.fromhex("4500001c000000004011")
    total = sum(struct.unpack("!9H", start + ends))
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return ALL + mac + b"\x08\x00" + start + checksum.to_bytes(2, "big") + ends + bytes(8)


def _ipv6(sender: bytes, message: bytes = bytes(24), following: int = 58, mac: bytes = MAC) -> bytes:
    return ALL + mac + b"\x86\xdd" + bytes.fromhex("60000000") + len(message).to_bytes(2, "big") \
        + bytes([following, 255]) + sender + _packed("ff02::1") + message


def _neighbour(kind: int, target: str) -> bytes:
    return bytes([kind, 0, 0, 0, 0x60, 0, 0, 0]) + _packed(target)


OWN = _packed("fd00::5")
HOP_BY_HOP = bytes.fromhex("3a00050200000000")
PASSES = {
    "ARP": _arp("10.32.0.1"), "ARP of another address of its own": _arp("10.33.0.63"),
    "ARP that asks whether an address is taken": _arp("0.0.0.0", operation=1),
    "IPv4": _ipv4("10.32.0.1"), "IPv4 from another address of its own": _ipv4("10.33.0.7"),
    "IPv6": _ipv6(OWN, following=17), "IPv6 from its link-local address": _ipv6(LINK_LOCAL),
    "IPv6 that asks whether an address is taken": _ipv6(bytes(16), _neighbour(135, "fd00::5")),
    "a neighbour advertisement": _ipv6(OWN, _neighbour(136, "fd00::5")),
    "another protocol": ALL + MAC + b"\x88\xb5" + bytes(46),
}
DROPPED = {
    "ARP for another": _arp("10.32.0.2"), "ARP for weaveDNS": _arp("169.254.53.1"),
    "a question in ARP in another's name": _arp("10.32.0.2", operation=1),
    "ARP with another MAC in it": _arp("10.32.0.1", inner=STRANGE),
    "ARP from another MAC": _arp("10.32.0.1", mac=STRANGE),
    "ARP with its fields elsewhere": _arp("10.32.0.1", head="000108000804"),
    "IPv4 of another": _ipv4("10.32.0.2"), "IPv4 of nobody": _ipv4("0.0.0.0"),
    "IPv4 of weaveDNS": _ipv4("169.254.53.1"),
    "IPv4 from another MAC": _ipv4("10.32.0.1", STRANGE),
    "IPv6 of another": _ipv6(_packed("fd00::6"), following=17), "IPv6 of another link-local": _ipv6(_packed("fe80::1")),
    "a neighbour advertisement for another": _ipv6(OWN, _neighbour(136, "fd00::6")),
    "the same behind an extension header": _ipv6(OWN, HOP_BY_HOP + _neighbour(136, "fd00::6"), 0),
    "a router advertisement": _ipv6(LINK_LOCAL, _neighbour(134, "::")),
    "a router advertisement behind an extension header": _ipv6(LINK_LOCAL, HOP_BY_HOP + _neighbour(134, "::"), 0),
    "a redirect": _ipv6(LINK_LOCAL, _neighbour(137, "fd00::6")),
    "another MAC": ALL + STRANGE + b"\x88\xb5" + bytes(46),
    "ARP for another behind two VLAN tags":
        (lambda arp: arp[:12] + bytes.fromhex("8100000081000000") + arp[12:])(_arp("10.32.0.2")),
    "ARP for another behind a VLAN tag of no network":
        (lambda arp: arp[:12] + bytes.fromhex("81000000") + arp[12:])(_arp("10.32.0.2")),
}


@pytest.fixture
def network(host):
    ensure_bridge("weave", 1376)
    return NetlinkNetwork("weave", 1376)


def attach(network, pid, container_id=ID, addresses=(FOUR, SIX, *MORE)):
    with network.namespace(pid) as namespace:
        namespace.prepare(Plan(container_id, addresses))
        namespace.commit()


def _seen_by_the_bridge(pid: int, frames: list[bytes]) -> list[bool]:
    """Which of the frames get past the port."""
    send = ("import socket, sys\nwith socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:\n"
            "    s.bind(('ethwe', 0))\n    [s.send(bytes.fromhex(each)) for each in sys.argv[1:]]")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as bridge:
        bridge.bind(("weave", 0))
        bridge.settimeout(1)
        marked = [bytes([3, 0, 0, 0, 0, at]) + frame[6:] for at, frame in enumerate(frames)]
        end = ALL + MAC + b"\x88\xb6" + bytes(46)
        subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "python3", "-c", send, *(each.hex() for each in marked),
                        end.hex()], check=True)
        seen = set()
        with contextlib.suppress(TimeoutError):
            while (frame := bridge.recv(2000)) != end:
                seen.add(frame[:6])
    return [frame[:6] in seen for frame in marked]


def test_what_is_from_its_own_addresses_passes(network, container):
    """All that a container sends in its own name, whichever of 64 addresses it is from."""
    pid = container()
    attach(network, pid)
    found = dict(zip(PASSES, _seen_by_the_bridge(pid, list(PASSES.values())), strict=True))
    assert found == dict.fromkeys(PASSES, True)


def test_what_is_in_the_name_of_others_is_dropped(network, container):
    """Nobody on the bridge sees it, whatever it is disguised as."""
    pid = container()
    attach(network, pid)
    found = dict(zip(DROPPED, _seen_by_the_bridge(pid, list(DROPPED.values())), strict=True))
    assert found == dict.fromkeys(DROPPED, False)


def test_all_of_it_passes_where_that_is_allowed(network, container):
    """With ``allow_spoofing``; frames that were never valid may still be lost."""
    pid = container()
    attach(NetlinkNetwork("weave", 1376, allow_spoofing=True), pid)
    frames = [DROPPED[name] for name in ("ARP for another", "IPv4 of another", "another MAC", "a router advertisement")]
    assert _seen_by_the_bridge(pid, frames) == [True] * 4


def test_two_containers_reach_each_other(network, container, ip):
    """By IPv4 and IPv6, before and after their addresses are others."""
    pids = [container(), container()]
    attach(network, pids[0], ID, (FOUR, SIX))
    attach(network, pids[1], OTHER, (ip_interface("10.32.0.2/12"), ip_interface("fd00::6/64")))
    ping = ["nsenter", f"--net=/proc/{pids[0]}/ns/net", "busybox", "ping", "-c1", "-W5"]
    for address in ("10.32.0.2", "fd00::6"):
        subprocess.run([*ping, address], check=True, stdout=subprocess.DEVNULL)
    network.guard(OTHER, (ip_interface("10.32.0.3/12"),))
    with network.namespace(pids[1]) as namespace:
        namespace.readdress((ip_interface("10.32.0.3/12"),))
    subprocess.run([*ping, "10.32.0.3"], check=True, stdout=subprocess.DEVNULL)
    ip("address", "add", "10.32.0.2/12", "dev", "ethwe", pid=pids[1])
    assert subprocess.run([*ping[:-1], "-W1", "10.32.0.2"], stdout=subprocess.DEVNULL, check=False).returncode


def test_guards_come_and_go_with_their_interfaces(network, container):
    """What was flushed is found; what is left of an interface that is gone, removed; and all of it at the end."""
    pid = container()
    attach(network, pid)
    name = host_names(ID)[0]
    assert guard.guarded("weave") == {name}
    assert network.unguarded() == ()
    guard.remove("weave")
    assert [one.name for one in network.unguarded()] == [name]
    network.guard(ID, (FOUR,))
    assert network.unguarded() == ()
    assert NetlinkNetwork("weave", allow_spoofing=True).unguarded() == ()
    assert guard.guarded("weave") == frozenset()
    network.guard(ID, (FOUR,))
    network.detach(ID)
    assert guard.guarded("weave") == frozenset()
    guard.unguard("weave", name)
    guard.remove("weave")
    guard.remove("weave")
    await_true(lambda: not network.interfaces())


def test_a_kernel_that_cannot_is_complained_of_once(network, container, caplog, monkeypatch):
    """Containers are attached all the same."""
    monkeypatch.setattr(nftables, "_SUBSYSTEM", 99)
    guard._complain.cache_clear()
    for _ in range(2):
        attach(network, container())
    (said,) = caplog.messages
    assert said.startswith("containers can send in the name of others: can't guard vethwe")


@pytest.mark.parametrize("count", [0, 1, 64])
def test_no_rule_is_longer_than_the_kernel_takes(count):
    """128 expressions (NFT_RULE_MAXEXPRS)."""
    addresses = [ip_interface(f"fd00::{n:x}/64") for n in range(1, count + 1)]
    assert max(map(len, guard.rules(Plan(ID, ()).mac, addresses))) <= 128
