from __future__ import annotations

import struct

import pytest

from weavemw.network import messages, vxlan_messages
from weavemw.network.messages import attribute
from weavemw.network.vxlan_messages import Entry, VxlanDevice

MAC, IP = bytes((2, 1, 1, 1, 1, 1)), bytes((10, 99, 0, 2))


@pytest.mark.parametrize("wanted", [VxlanDevice(6784, 6784, 4), VxlanDevice(1, 4789, 4, learning=True)])
def test_device_is_read_as_it_was_made(wanted):
    """What a device is made with can be read from what the kernel says of it; the family is in its alias."""
    made = vxlan_messages.device("wx", wanted, 1500).body
    assert vxlan_messages.read_device(made) == wanted
    six = VxlanDevice(wanted.vni, wanted.port, 6, wanted.learning)
    assert vxlan_messages.read_device(made + attribute(messages.IFLA_IFALIAS, vxlan_messages.alias(6))) == six


def test_other_kinds_of_interface_are_no_vxlan_device():
    """A bridge of that name is none."""
    assert vxlan_messages.read_device(messages.bridge("wx", mac=MAC).body) is None


def test_entry_is_read_as_it_was_made():
    """An entry of the device names its host; that of the bridge, which has a master, is one of the bridge."""
    made = vxlan_messages.replace_entry(7, MAC, 3).body
    assert vxlan_messages.read_entry(made, 7) == Entry(MAC, host=3)
    assert vxlan_messages.read_entry(made + attribute(9, 5), 7) == Entry(MAC, of_bridge=True)
    assert vxlan_messages.read_entry(made, 8) is None


def test_broadcast_has_an_entry_for_each_host():
    """The entry for all is that of the MAC address zero, with the host's address."""
    assert vxlan_messages.read_entry(vxlan_messages.flood(7, IP).body, 7) == Entry(vxlan_messages.ZEROS, IP)


def test_nexthops_of_others_are_left_alone():
    """Only nexthops with our numbers are ours; groups have no address."""
    one, group = vxlan_messages.nexthop(3, IP)
    assert vxlan_messages.read_gateway(one.body) == (3, IP)
    assert vxlan_messages.read_gateway(group.body) is None
    foreign = bytes(8) + attribute(1, 77) + attribute(6, IP)
    assert vxlan_messages.read_gateway(foreign) is None


@pytest.mark.parametrize("address", [IP, bytes(15) + b"\1"])
def test_neighbour_is_read_as_it_was_made(address):
    """Only permanent entries of the bridge are ours."""
    made = vxlan_messages.neighbour(5, address, MAC).body
    assert vxlan_messages.read_neighbour(made, 5) == (address, MAC)
    assert vxlan_messages.read_neighbour(made, 6) is None
    reachable = made[:8] + struct.pack("=H", 2) + made[10:]
    assert vxlan_messages.read_neighbour(reachable, 5) is None
