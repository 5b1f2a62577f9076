from __future__ import annotations

import dataclasses
from ipaddress import ip_interface, ip_network

import pytest

from weavemw.network.condition import Changes, attached_owners, faults, is_broken
from weavemw.network.messages import IFF_LOWER_UP, IFF_UP, Link
from weavemw.network.plan import Change, Condition, Ethwe, HostInterface, Plan

ID = "0123456789abcdef" * 4
A, B, SIX = ip_interface("10.32.0.1/12"), ip_interface("10.32.0.2/12"), ip_interface("fd00::5/64")
PLAN = Plan(ID, (A, SIX), dns_route=True)
WAYS = frozenset((ip_network("224.0.0.0/4"), ip_network("169.254.53.1/32")))
GOOD = Condition(Ethwe(PLAN.mac, True, (A, SIX)), WAYS, HostInterface("vethwe012345678", ID))


def with_ethwe(**changed):
    assert GOOD.ethwe
    return dataclasses.replace(GOOD, ethwe=dataclasses.replace(GOOD.ethwe, **changed))


@pytest.mark.parametrize(("found", "wrong", "broken"), [
    (GOOD, (), False),
    (with_ethwe(addresses=(A, SIX, B)), (), False),
    (Condition(None), ("its interface ethwe is gone",), True),
    (dataclasses.replace(GOOD, outside=None), ("the host's end of ethwe is gone",), True),
    (dataclasses.replace(GOOD, outside=HostInterface("vethwe012345678", ID, is_port=False)),
     ("vethwe012345678 is not on the bridge",), True),
    (with_ethwe(attached=False), ("ethwe is down, or has no carrier",), True),
    (with_ethwe(addresses=()), ("ethwe lacks 10.32.0.1/12 fd00::5/64",), False),
    (with_ethwe(addresses=(A,)), ("ethwe lacks fd00::5/64",), False),
    (with_ethwe(addresses=(ip_interface("10.32.0.1/24"), SIX)), ("ethwe lacks 10.32.0.1/12",), False),
    (dataclasses.replace(GOOD, routes=frozenset()),
     ("no route for multicast leads by ethwe", "no route to weaveDNS leads by ethwe"), False),
])
def test_what_is_beside_what_should_be(found, wrong, broken):
    """Each fault is named; only those of the pair need another pair. What was added inside is no fault."""
    said = faults(found, PLAN)
    assert tuple(map(str, said)) == wrong
    assert is_broken(said) is broken


def test_routes_that_are_not_wanted_are_not_missed():
    """Without the multicast route, or Docker's DNS, nothing is to lead there."""
    plan = Plan(ID, (A,), multicast_route=False)
    assert faults(dataclasses.replace(GOOD, routes=frozenset()), plan) == ()


def test_who_is_attached():
    """Whose interface is on the bridge; one that is not committed is nobody's."""
    found = [HostInterface("a", "1"), HostInterface("b", "2", is_port=False), HostInterface("c")]
    assert attached_owners(found) == {"1"}


UP = IFF_UP | IFF_LOWER_UP
VETH = Link(7, "vethwe012345678", UP, master=3, kind="veth")
DOCKERS = Link(8, "veth0123456", UP, master=4, kind="veth")
BRIDGE = Link(3, "weave", UP, kind="bridge")
ETHWE = Link(2, "ethwe", UP, kind="veth")


@pytest.mark.parametrize(("namespace", "links", "told"), [
    (None, [dataclasses.replace(VETH, flags=0), VETH], [None, None]),
    (None, [VETH, dataclasses.replace(VETH, master=0)], [None, Change()]),
    (None, [VETH, dataclasses.replace(VETH, flags=IFF_UP)], [None, Change()]),
    (None, [dataclasses.replace(VETH, master=0), VETH], [None, None]),
    (None, [Link(1, "lo", UP), Link(1, "lo", 0)], [None, None]),
    (None, [DOCKERS, dataclasses.replace(DOCKERS, flags=0), dataclasses.replace(DOCKERS, master=0)], [None] * 3),
    (None, [BRIDGE, dataclasses.replace(BRIDGE, flags=IFF_UP)], [None, None]),
    (None, [BRIDGE, dataclasses.replace(BRIDGE, flags=0)], [None, Change()]),
    (4, [dataclasses.replace(ETHWE, flags=0), ETHWE], [None, None]),
    (4, [ETHWE, dataclasses.replace(ETHWE, flags=0)], [None, Change(4)]),
    (4, [dataclasses.replace(ETHWE, name="eth0"), dataclasses.replace(ETHWE, name="eth0", flags=0)], [None, None]),
])
def test_what_gets_worse_is_told(namespace, links, told):
    """What an attach makes happen is not."""
    changes = Changes()
    assert [changes.of_link(namespace, link, gone=False) for link in links] == told


@pytest.mark.parametrize(("changed", "flags", "told"), [
    (IFF_UP, 0, Change(4)), (0xFFFFFFFF, 0, None), (IFF_UP, IFF_UP, None), (0, 0, None)])
def test_what_is_first_heard_of_as_it_goes_down_is_told(changed, flags, told):
    """Who listens since a moment ago has not heard that it was up."""
    assert Changes().of_link(4, dataclasses.replace(ETHWE, changed=changed, flags=flags), gone=False) == told


def test_what_goes_is_told():
    """Whether it was heard of before or not."""
    changes = Changes()
    assert changes.of_link(None, VETH, gone=True) == Change()
    assert changes.of_link(4, ETHWE, gone=True) == Change(4)
    assert changes.of_link(4, dataclasses.replace(ETHWE, name="eth0"), gone=True) is None
    assert changes.of_link(None, DOCKERS, gone=True) is None
    assert changes.of_link(None, BRIDGE, gone=True) == Change()


def test_a_pair_that_was_renamed_is_still_ours():
    changes = Changes()
    changes.of_link(None, VETH, gone=False)
    assert changes.of_link(None, dataclasses.replace(VETH, name="other"), gone=False) is None
    assert changes.of_link(None, dataclasses.replace(VETH, name="other", flags=0), gone=False) == Change()


@pytest.mark.parametrize(("namespace", "index", "address", "label", "told"), [
    (4, 2, A, "ethwe", Change(4)),
    (4, 2, A, "eth0", None),
    (None, 2, A, "ethwe", None),
    (4, 2, SIX, "", Change(4)),
    (4, 9, SIX, "", None),
    (4, 2, ip_interface("fe80::1/64"), "", None),
])
def test_addresses_that_ethwe_loses_are_told(namespace, index, address, label, told):
    """An address of IPv6 has no label: the interface is known by its index, if it was heard of."""
    changes = Changes()
    changes.of_link(4, ETHWE, gone=False)
    assert changes.of_address(namespace, index, address, label) == told
