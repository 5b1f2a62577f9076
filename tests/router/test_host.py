from __future__ import annotations

import subprocess
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from tests.network.conftest import host as namespace  # noqa: F401  # fixtures
from weavemw.network.messages import AF_INET, IFA_ADDRESS, RTA_DST, attribute, read_address
from weavemw.router.host import (
    HostBridge,
    Route,
    _route,
    addresses_of,
    bridges,
    client_networks,
    objection,
    overlapping,
    routes,
)

RANGES = [ip_network("10.32.0.0/12"), ip_network("fd00::/48")]


@pytest.mark.parametrize(("network", "device", "overlaps"), [
    pytest.param("10.40.0.0/16", "eth0", True, id="within"),
    pytest.param("10.0.0.0/8", "vpn0", True, id="around"),
    pytest.param("10.32.0.0/12", "eth0", True, id="the same"),
    pytest.param("10.48.0.0/12", "eth0", False, id="beside"),
    pytest.param("fd00::/64", "eth0", True, id="IPv6"),
    pytest.param("10.32.0.0/12", "weave", False, id="of our own bridge"),
    pytest.param("0.0.0.0/0", "eth0", False, id="default route"),
    pytest.param("0.0.0.0/1", "vpn0", False, id="half of everything"),
])
def test_overlapping(network: str, device: str, overlaps: bool) -> None:
    """A route overlaps the range if they share an address, unless it is the bridge's own, or leads everywhere."""
    route = Route(ip_network(network), device)
    others = [Route(ip_network("192.0.2.0/24"), "eth0")]
    assert overlapping(RANGES, [*others, route], "weave") == (route if overlaps else None)


BRIDGES = [HostBridge("docker0", (ip_interface("172.17.0.1/16"), ip_interface("fe80::1/64"))),
           HostBridge("br-0123456789ab", (ip_interface("172.18.0.1/16"),)),
           HostBridge("br0", (ip_interface("192.0.2.1/24"),))]


def test_client_networks() -> None:
    """The networks of Docker's bridges are answered, those of other bridges are not: they may be the world's."""
    assert client_networks(BRIDGES, "docker0", "weave") == (
        ip_network("172.17.0.0/16"), ip_network("fe80::/64"), ip_network("172.18.0.0/16"))
    assert client_networks(BRIDGES[2:], subnets={ip_network("192.0.2.0/24")}) == (ip_network("192.0.2.0/24"),)


def test_addresses_of() -> None:
    """A bridge's addresses, without link-local ones, in its order."""
    assert addresses_of("docker0", BRIDGES) == ("172.17.0.1",)
    assert addresses_of("weave", BRIDGES) == ()


def test_reading_needs_no_rights() -> None:
    """Routes and bridges of the host can be read by anyone."""
    assert all(route.network.prefixlen <= 128 for route in routes())
    assert all(bridge.name for bridge in bridges())


AF_MPLS, AF_MCTP = 28, 45


def test_what_is_no_ip_is_left_out() -> None:
    """A label of MPLS is no network, and the one byte of MCTP no address: other families are listed with them."""
    label, eight = attribute(RTA_DST, bytes((0, 6, 0x41, 0))), attribute(RTA_DST, bytes((10, 0, 0, 0)))
    unicast = bytes((0, 0, 254, 3, 0, 1)) + bytes(4)
    assert _route(bytes((AF_MPLS, 20)) + unicast + label, {}) is None
    assert _route(bytes((AF_INET, 8)) + unicast + eight, {}) == Route(ip_network("10.0.0.0/8"), "?")
    assert read_address(bytes((AF_MCTP, 0, 0, 0)) + bytes(4) + attribute(IFA_ADDRESS, b"\x08")) is None


def ip(*args: str) -> None:
    subprocess.run(["ip", *args], check=True)


@pytest.mark.root
@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize(("address", "why"), [
    ("172.17.0.1", "172.17.0.1 is an address of this host"), ("172.17.255.255", "172.17.255.255 is an address of"),
    ("172.17.0.9", "172.17.0.9 is in the network of the bridge docker0 of this host"),
    ("10.32.0.1", "10.32.0.1 is an address of this host"), ("10.32.0.9", ""),
    ("169.254.53.1", "169.254.53.1 is an address of this host"), ("192.0.2.1", "192.0.2.1 is an address of this host"),
    ("192.0.2.7", ""), ("203.0.113.1", ""),
    ("fd00:17::1", "fd00:17::1 is an address of this host"),
    ("fd00:17::9", "fd00:17::9 is in the network of the bridge docker0 of this host"), ("fd00:18::9", ""),
])
def test_what_the_host_objects_to(address: str, why: str) -> None:
    """Addresses that the host has, and those of bridges besides ours; what is beyond its router, or a LAN, is free."""
    for name, kind in (("docker0", "bridge"), ("weave", "bridge"), ("eth0", "veth")):
        ip("link", "add", name, "type", kind)
        ip("link", "set", name, "up")
    for device, own in (("docker0", "172.17.0.1/16"), ("docker0", "fd00:17::1/64"), ("weave", "10.32.0.1/12"),
                        ("weave", "169.254.53.1/32"), ("eth0", "192.0.2.1/24")):
        ip("addr", "add", own, "dev", device, *(["nodad"] if ":" in own else []))
    ip("route", "add", "default", "via", "192.0.2.254")
    assert objection(ip_address(address), "weave").startswith(why)
    assert bool(objection(ip_address(address), "weave")) == bool(why)
