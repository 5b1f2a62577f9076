from __future__ import annotations

from ipaddress import ip_interface

import pytest

from weavemw.errors import NetworkError
from weavemw.network.bridge import add_address, delete_address, look, remove
from weavemw.network.netlink import ensure_bridge

pytestmark = pytest.mark.root

ADDRESSES = [ip_interface("10.2.1.132/24"), ip_interface("fd00:2::1/64")]


@pytest.mark.parametrize("address", ADDRESSES, ids=str)
def test_an_address_comes_and_goes(host, address):
    """Doing it twice changes nothing."""
    ensure_bridge("w")
    for _ in range(2):
        add_address("w", address)
    assert look("w").addresses == (address,)
    for _ in range(2):
        delete_address("w", address)
    assert look("w").addresses == ()


def test_ports_are_seen(host, ip):
    """Those of this bridge, and no other interface."""
    ensure_bridge("w")
    ip("link", "add", "port1", "type", "veth", "peer", "name", "other")
    ip("link", "set", "port1", "master", "w")
    assert look("w").ports == ("port1",)


def test_a_bridge_is_removed(host, ip):
    """What is no bridge is not looked at, what is not there can't be removed."""
    ensure_bridge("w")
    remove("w")
    ip("link", "add", "port1", "type", "veth", "peer", "name", "other")
    assert (look("w"), look("port1")) == (None, None)
    with pytest.raises(NetworkError, match="can't remove none"):
        remove("none")
