from __future__ import annotations

import json
import subprocess
from ipaddress import ip_address, ip_interface

import pytest

from tests.network.conftest import host  # noqa: F401  # a fixture
from weavemw.cluster import forwarding
from weavemw.cluster.forwarding import Forwarding
from weavemw.cluster.peers import Overlay, Peer, RemoteContainer, Underlay
from weavemw.errors import NetworkError
from weavemw.network.netlink import ensure_bridge

pytestmark = pytest.mark.root

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
MAC, OTHER_MAC = "02:11:11:11:11:11", "02:22:22:22:22:22"


def peer(name=A, endpoint="10.99.0.2"):
    return Peer(name, "host-" + name[-1], Underlay((ip_address(endpoint),), 1500))


def container(name=A, mac=MAC, *addresses, owner="c1"):
    return RemoteContainer(owner, name, mac, tuple(map(ip_interface, addresses or ("10.32.0.5/12", "fd00::5/64"))))


@pytest.fixture
def make(host):  # noqa: F811
    ensure_bridge("weave", 1376)
    return lambda **options: Forwarding(Overlay(**options), "weave", towards=(ip_address("10.99.0.9"),))


def run(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def link():
    return json.loads(run("ip", "-j", "-d", "link", "show", "weave-wx"))[0]


def forwarded():
    """MAC addresses that lead to other hosts, in the VXLAN device and in the bridge."""
    shown = json.loads(run("bridge", "-j", "fdb", "show", "dev", "weave-wx"))
    real = [one for one in shown if one["mac"] != "00:00:00:00:00:00" and one["state"] != "permanent"]
    return ({one["mac"] for one in real if "self" in one["flags"]},
            {one["mac"] for one in real if "master" in one})


def flooded():
    return {one["dst"] for one in json.loads(run("bridge", "-j", "fdb", "show", "dev", "weave-wx"))
            if one["mac"] == "00:00:00:00:00:00"}


def neighbours():
    found = json.loads(run("ip", "-j", "neigh", "show", "dev", "weave", "nud", "permanent"))
    return {one["dst"]: one["lladdr"] for one in found}


def endpoints():
    return {one["gateway"] for one in json.loads(run("ip", "-j", "nexthop")) if "gateway" in one}


ALL = {"10.32.0.5": MAC, "fd00::5": MAC}


def test_device_is_made_as_it_should_be(make):
    """Unbound, so that path MTU is told; no learning; ARP is answered for known neighbours; no address of its own."""
    make().peers([])
    shown = link()
    data, port = shown["linkinfo"]["info_data"], shown["linkinfo"]["info_slave_data"]
    assert (data["id"], data["port"], data["learning"], data.get("link")) == (6784, 6784, False, None)
    assert (port["learning"], port["flood"], port["neigh_suppress"]) == (False, False, True)
    assert (shown["mtu"], shown["master"]) == (1500, "weave")
    assert "UP" in shown["flags"]
    assert "inet6" not in run("ip", "address", "show", "weave-wx")


def test_containers_of_peers_are_forwarded_to(make):
    """Each container has its entries; broadcast reaches each host."""
    plane = make()
    plane.peers([peer(), peer(B, "10.99.0.3")])
    plane.containers({A: [container()], B: []})
    assert (forwarded(), neighbours(), flooded()) == (({MAC}, {MAC}), ALL, {"10.99.0.2", "10.99.0.3"})
    plane.containers({A: []})
    assert (forwarded(), neighbours(), flooded()) == ((set(), set()), {}, {"10.99.0.2", "10.99.0.3"})


def test_containers_may_come_before_their_host(make):
    """The order of the two calls makes no difference."""
    plane = make()
    plane.containers({A: [container()]})
    plane.peers([peer()])
    assert (forwarded(), neighbours()) == (({MAC}, {MAC}), ALL)


def test_host_that_moves_takes_its_containers_along(make):
    """A new address of a host moves one nexthop, and broadcast; the entries of its containers stay."""
    plane = make()
    plane.peers([peer()])
    plane.containers({A: [container()]})
    before = run("bridge", "fdb", "show", "dev", "weave-wx")
    plane.peers([peer(endpoint="10.99.0.7")])
    after = run("bridge", "fdb", "show", "dev", "weave-wx")
    assert (endpoints(), flooded()) == ({"10.99.0.7"}, {"10.99.0.7"})
    assert after == before.replace("10.99.0.2", "10.99.0.7")


def test_host_that_is_gone_leaves_nothing(make):
    """A host that is no longer said goes with all that it had; when it comes back, so does that."""
    plane = make()
    plane.peers([peer()])
    plane.containers({A: [container()]})
    plane.peers([])
    assert (forwarded(), neighbours(), flooded(), endpoints()) == ((set(), set()), {}, set(), set())
    plane.peers([peer()])
    assert (forwarded(), neighbours()) == (({MAC}, {MAC}), ALL)


def test_address_that_moves_is_never_away(make):
    """An address of another container is that one's; the end of the old one leaves it alone."""
    plane = make()
    plane.peers([peer(), peer(B, "10.99.0.3")])
    plane.containers({A: [container()]})
    plane.containers({B: [container(B, OTHER_MAC, owner="c2")]})
    assert neighbours() == dict.fromkeys(ALL, OTHER_MAC)
    plane.containers({A: []})
    assert neighbours() == dict.fromkeys(ALL, OTHER_MAC)
    assert forwarded() == ({OTHER_MAC}, {OTHER_MAC})


def test_restart_reconciles_and_does_not_flush(make):
    """A new process leaves what is in the kernel until its owner is named, and then removes only what is stale."""
    plane = make()
    plane.peers([peer(), peer(B, "10.99.0.3")])
    stale = container(A, OTHER_MAC, "10.32.0.9/12", owner="c2")
    of_b = container(B, "02:33:33:33:33:33", "10.32.0.7/12", owner="c3")
    plane.containers({A: [container(), stale], B: [of_b]})
    index, before = link()["ifindex"], (forwarded(), neighbours())
    anew = make()
    anew.peers([peer(), peer(B, "10.99.0.3")])
    assert (forwarded(), neighbours(), link()["ifindex"]) == (*before, index)
    anew.containers({A: [container()]})
    assert (forwarded()[0], neighbours()) == ({MAC, of_b.mac}, {**ALL, "10.32.0.7": of_b.mac})


@pytest.mark.parametrize("damage", [
    pytest.param(("ip", "link", "delete", "weave-wx"), id="device"),
    pytest.param(("ip", "nexthop", "flush"), id="nexthops"),
    pytest.param(("ip", "neigh", "del", "10.32.0.5", "dev", "weave"), id="neighbour"),
    pytest.param(("bridge", "fdb", "del", MAC, "dev", "weave-wx", "master"), id="entry of the bridge"),
    pytest.param(("bridge", "fdb", "del", MAC, "dev", "weave-wx", "self"), id="entry of the device"),
])
def test_what_is_said_again_is_repaired(make, damage):
    """Somebody removed some of it: it is there again when the same is said again."""
    plane = make()
    now = 0.0
    plane._clock = lambda: now
    plane.peers([peer()])
    plane.containers({A: [container()]})
    subprocess.run(damage, check=True)
    now = 1000.0
    plane.peers([peer()])
    plane.containers({A: [container()]})
    assert (forwarded(), neighbours(), flooded()) == (({MAC}, {MAC}), ALL, {"10.99.0.2"})


def test_half_an_entry_goes_whole(make):
    """An entry of which somebody removed half is removed without complaint."""
    plane = make()
    plane.peers([peer()])
    plane.containers({A: [container()]})
    run("bridge", "fdb", "del", MAC, "dev", "weave-wx", "master")
    make().peers([peer()])
    anew = make()
    anew.peers([peer()])
    anew.containers({A: []})
    assert (forwarded(), neighbours()) == ((set(), set()), {})


def test_ipv6_underlay(make):
    """The underlay may be IPv6; what has no address of that family is named, and all others are served."""
    plane = make(family=6)
    with pytest.raises(NetworkError, match=r"IPv6 .* host-b \(02:00:00:00:00:0b\)"):
        plane.peers([peer(endpoint="fd99::2"), peer(B, "10.99.0.3")])
    index = link()["ifindex"]
    plane.containers({A: [container()]})
    assert (forwarded(), flooded(), endpoints()) == (({MAC}, {MAC}), {"fd99::2"}, {"fd99::2"})
    assert link()["ifindex"] == index


def test_fixed_peers_are_learned_from(host):  # noqa: F811
    """Without anybody who says where containers are, the kernel learns it, and floods what it does not know."""
    ensure_bridge("weave", 1376)
    plane = Forwarding(Overlay(), "weave", learning=True)
    plane.peers([peer()])
    plane.containers({A: [container()]})
    shown = link()["linkinfo"]
    port = shown["info_slave_data"]
    assert (shown["info_data"]["learning"], port["learning"], port["flood"], port["neigh_suppress"]) == (
        True, True, True, False)
    assert (flooded(), neighbours()) == ({"10.99.0.2"}, {})


def test_only_listed_hosts_are_let_in(make):
    """The filter names the peers' addresses, and follows them."""
    plane = make()
    plane.peers([peer(), peer(B, "10.99.0.3")])
    assert "10.99.0.2, 10.99.0.3" in run("nft", "list", "ruleset")
    plane.peers([peer()])
    assert "10.99.0.3" not in run("nft", "list", "ruleset")


def test_removal_leaves_nothing(make):
    """After the removal there is neither device nor entry nor rule."""
    plane = make()
    plane.peers([peer()])
    plane.containers({A: [container()]})
    forwarding.remove("weave")
    assert "weave-wx" not in run("ip", "link")
    assert (neighbours(), endpoints(), run("nft", "list", "ruleset")) == ({}, set(), "")
    forwarding.remove("weave")


def test_underlay_is_the_way_to_others(make):
    """Others are told the address that packets to them have, and the MTU of the interface; or what is advertised."""
    run("ip", "link", "add", "u0", "mtu", "1400", "type", "veth", "peer", "name", "u1")
    run("ip", "address", "add", "10.99.0.1/24", "dev", "u0")
    run("ip", "address", "add", "240.1.2.3/4", "dev", "u1")
    run("ip", "link", "set", "u0", "up")
    run("ip", "link", "set", "u1", "up")
    assert make().underlay() == Underlay((ip_address("10.99.0.1"),), 1400)
    advertised = Forwarding(Overlay(), advertise=[ip_address("198.51.100.7")], towards=[ip_address("10.99.0.9")])
    assert advertised.underlay().endpoints == (ip_address("198.51.100.7"), ip_address("10.99.0.1"))
    nowhere = Forwarding(Overlay(), towards=[ip_address("198.51.100.1")])
    assert nowhere.underlay().endpoints == (ip_address("10.99.0.1"),)  # and not that of the tunnel
    with pytest.raises(NetworkError, match="no IPv6 address"):
        make(family=6).underlay()
