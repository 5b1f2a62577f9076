from __future__ import annotations

import pytest

from weavemw.network import vxlan, vxlan_messages
from weavemw.network.vxlan import Changes, Entries
from weavemw.network.vxlan_messages import delete_entry, delete_flood, delete_neighbour, delete_nexthop, flood, nexthop

WX, BRIDGE = 7, 5
A, B = bytes((10, 99, 0, 2)), bytes((10, 99, 0, 3))
MAC, OTHER = bytes((2, 1, 1, 1, 1, 1)), bytes((2, 2, 2, 2, 2, 2))
IP = bytes((10, 32, 0, 5))


def entry(mac, host):
    return vxlan_messages.replace_entry(WX, mac, host)


def neighbour(address, mac):
    return vxlan_messages.neighbour(BRIDGE, address, mac)


@pytest.mark.parametrize(("hosts", "present", "coming", "going"), [
    pytest.param({1: A}, Entries(), [*nexthop(1, A), flood(WX, A)], [], id="new host"),
    pytest.param({1: A}, Entries({1: A}, {A}), [], [], id="known host"),
    pytest.param({1: B}, Entries({1: A}, {A}), [*nexthop(1, B), flood(WX, B)], [delete_flood(WX, A)], id="moved host"),
    pytest.param({}, Entries({1: A}, {A}), [], [delete_flood(WX, A), delete_nexthop(1)], id="host that is gone"),
    pytest.param({1: A}, Entries({1: A}), [flood(WX, A)], [], id="half of a host"),
])
def test_hosts_become_what_they_should_be(hosts, present, coming, going):
    """Nexthops and broadcast for exactly these hosts: what comes, then what goes."""
    found = vxlan.host_changes(WX, hosts, set(hosts.values()), present)
    assert found == Changes(tuple(coming), tuple(going))
    present.settle_hosts(hosts, set(hosts.values()))
    assert vxlan.host_changes(WX, hosts, set(hosts.values()), present) == Changes()


KNOWN = {"tunnels": {MAC: 1}, "ports": {MAC}, "neighbours": {IP: MAC}}


@pytest.mark.parametrize(("macs", "addresses", "present", "coming", "going"), [
    pytest.param({MAC: 1}, {IP: MAC}, {}, [entry(MAC, 1), neighbour(IP, MAC)], [], id="new container"),
    pytest.param({MAC: 1}, {IP: MAC}, KNOWN, [], [], id="known container"),
    pytest.param({MAC: 2}, {IP: MAC}, KNOWN, [entry(MAC, 2)], [], id="container on another host"),
    pytest.param({MAC: 0, OTHER: 2}, {IP: OTHER}, KNOWN, [entry(OTHER, 2), neighbour(IP, OTHER)],
                 [delete_entry(WX, MAC)], id="address of another container"),
    pytest.param({MAC: 0}, {IP: b""}, KNOWN, [], [delete_neighbour(BRIDGE, IP), delete_entry(WX, MAC)], id="gone"),
    pytest.param({MAC: 0}, {IP: b""}, {}, [], [], id="gone already"),
    pytest.param({MAC: 1}, {}, {"tunnels": {MAC: 1}}, [entry(MAC, 1)], [], id="not known to the bridge"),
    pytest.param({MAC: 0}, {}, {"tunnels": {MAC: 1}}, [], [delete_entry(WX, MAC, of_bridge=False)], id="half of it"),
    pytest.param({MAC: 0}, {}, {"ports": {MAC}}, [], [delete_entry(WX, MAC, of_device=False)], id="other half of it"),
])
def test_containers_become_what_they_should_be(macs, addresses, present, coming, going):
    """Entries of exactly these containers; what is not named stays; what comes comes before what goes."""
    entries = Entries(**{name: value.copy() for name, value in present.items()})
    found = vxlan.container_changes(WX, BRIDGE, macs, addresses, entries)
    assert found == Changes(tuple(coming), tuple(going))
    entries.settle_containers(macs, addresses)
    assert vxlan.container_changes(WX, BRIDGE, macs, addresses, entries) == Changes()


@pytest.mark.parametrize(("endpoints", "known", "present", "expected"), [
    pytest.param({"a": A, "b": B}, {}, {}, {"a": 1, "b": 2}, id="new"),
    pytest.param({"a": B, "b": A}, {"a": 1, "b": 2}, {1: A, 2: B}, {"a": 1, "b": 2}, id="known, addresses swapped"),
    pytest.param({"a": A, "b": B}, {}, {2: A, 5: B}, {"a": 2, "b": 5}, id="after a restart"),
    pytest.param({"a": A, "b": B}, {}, {1: bytes(4), 2: bytes(4)}, {"a": 3, "b": 4}, id="after a restart, both moved"),
    pytest.param({"a": A, "b": A}, {}, {1: A}, {"a": 1, "b": 2}, id="two with one address"),
])
def test_hosts_keep_their_numbers(endpoints, known, present, expected):
    """A host has the number that it had, also after a restart if its address is the same; nobody gets another's."""
    assert vxlan.numbers(endpoints, known, present) == expected


def test_what_the_kernel_forgets_by_itself_is_forgotten():
    """The entries that name a host go with its nexthop."""
    entries = Entries({1: A, 2: B}, {A, B}, {MAC: 1, OTHER: 2}, {MAC, OTHER}, {IP: MAC})
    entries.settle_hosts({2: B}, {B})
    assert entries.tunnels == {OTHER: 2}
    assert entries.of_hosts({0}) == ({MAC}, {IP})
